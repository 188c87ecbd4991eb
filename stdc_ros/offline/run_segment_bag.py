# SPDX-License-Identifier: Apache-2.0
"""Parse the command line of ``segment_bag`` and segment one or many bags.

``segment_bag in.mcap out.mcap`` segments one bag (:mod:`stdc_ros.offline.one_bag`); ``segment_bag --out-dir`` several
at a time (:mod:`stdc_ros.offline.many_bags`).
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence

from tqdm import tqdm

from stdc_core.inference import BACKENDS, DEFAULT_MODEL, PRECISIONS, BackendError, ModelError, Segmenter
from stdc_core.inference.backend import MAX_THREADS
from stdc_core.inference.int8_file import fastest_precision
from stdc_core.io.arguments import expand_user, separate_lists
from stdc_core.io.signals import interrupted_status
from stdc_core.io.terminal import print_result
from stdc_ros.bags.message import BagError
from stdc_ros.bags.reader import may_be_topic
from stdc_ros.offline.bag_points import MAX_TIME_DIFFERENCE, PointOptions
from stdc_ros.offline.camera_poses import read_camera_poses
from stdc_ros.offline.many_bags import segment_many
from stdc_ros.offline.one_bag import OUTPUTS, segment_bag

#: Largest --max-time-difference, seconds.
MAX_SECONDS = 3600.0


def run(args: Sequence[str]) -> int:
    """Run the command.

    Args:
        args: Command line without the program's name.

    Returns:
        Exit status: 0, 1 if it failed, or that of ``interrupted_status``.
    """
    given = _parse(list(args))
    return _segment_one(given) if given.out_dir is None else segment_many(given)


def _segment_one(given: argparse.Namespace) -> int:
    source, target = given.bags
    try:
        precision = fastest_precision(given.model, given.backend, given.precision)
        segmenter = Segmenter.load(given.model, given.threads, given.input_scale, given.backend, precision)
        # The delay lets an unusable bag fail before the bar appears, so that the error is the only line.
        with tqdm(unit='image', desc='segmenting', delay=0.1) as bar:

            def progress(done: int, total: int) -> None:
                bar.total = total
                bar.update(done - bar.n)

            warnings = segment_bag(
                source,
                target,
                segmenter,
                topics=given.topic,
                all_topics=given.all,
                outputs=given.outputs,
                with_input=given.with_input,
                points=given.point_options,
                overwrite=given.overwrite,
                progress=progress,
            )
    except (BagError, ModelError, BackendError, OSError) as error:
        print(f'segment_bag: {error}', file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f'segment_bag: interrupted; {target} is not written', file=sys.stderr)
        return interrupted_status()
    for warning in warnings:
        print(f'segment_bag: {warning}', file=sys.stderr)
    print_result(lambda: print(target))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog='segment_bag',
        usage='segment_bag [options] IN OUT\n       segment_bag [options] --out-dir FOLDER IN [IN ...]',
        description='Segment every image of bags (rosbag1, rosbag2 sqlite3, MCAP), at the original times.',
        epilog="""The images of /camera/image_raw are segmented to /camera/segmentation/mask and so on.

One bag: OUT is one MCAP file if it ends in .mcap, else the folder of a rosbag2.

Many bags: drives/north/a.bag, found in the folder drives, is segmented to FOLDER/north/a.mcap; a bag that is named
itself to FOLDER/a.mcap. Beside it, a.mcap.json records its input, model and options. Finished bags are skipped: after
an interruption, the same command continues with the rest. Outputs that were made with other options, or whose input has
changed since, are replaced only with --overwrite. A bag that cannot be segmented does not stop the others.""",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        'bags',
        type=expand_user,
        nargs='+',
        metavar='IN',
        help='.bag, .mcap or .db3 file, or folder of a rosbag2; with --out-dir also folders that contain bags',
    )
    parser.add_argument(
        '--topic',
        action='append',
        default=[],
        metavar='TOPIC [TOPIC ...]',
        help='image topics; needed if a bag has several cameras, or for topics that are outputs of a segmentation',
    )
    parser.add_argument('--all', action='store_true', help='segment all camera topics')
    parser.add_argument(
        '--outputs',
        action='append',
        choices=OUTPUTS,
        metavar='OUTPUT [OUTPUT ...]',
        help=f'outputs to write: {", ".join(OUTPUTS)}; default: mask overlay',
    )
    parser.add_argument('--with-input', action='store_true', help='also copy the images and their camera_info')
    parser.add_argument('--model', type=expand_user, default=DEFAULT_MODEL, help='a model.onnx from `stdc export`')
    parser.add_argument(
        '--input-scale', type=float, metavar='S', help="input scale; default: the model's, smaller for large images"
    )
    parser.add_argument(
        '--backend', choices=BACKENDS, default='auto', help='library that runs the network; default: auto'
    )
    parser.add_argument(
        '--precision',
        choices=PRECISIONS,
        default='auto',
        help='fp32 is exact, int8 takes model.int8.onnx beside the model; default: auto, what is fast on this machine',
    )
    parser.add_argument('--threads', type=int, default=0, help='CPU threads of each worker; 0: divide all cores')
    parser.add_argument('--overwrite', action='store_true', help='replace existing bags')
    points = parser.add_argument_group('point clouds')
    points.add_argument(
        '--points',
        action='append',
        default=[],
        metavar='TOPIC [TOPIC ...]',
        help='paint these clouds (sensor_msgs/PointCloud2) with the classes; /lidar/points is painted to '
        '/lidar/segmentation/points',
    )
    points.add_argument(
        '--points-only',
        type=_names,
        default=(),
        metavar='CLASS[,CLASS...]',
        help='keep only the points of these classes',
    )
    points.add_argument(
        '--points-rectified',
        action='store_true',
        help='the images are rectified: use P of their CameraInfo, and not K and the distortion',
    )
    points.add_argument(
        '--camera-pose',
        type=expand_user,
        metavar='FILE',
        help='YAML file with the pose of each camera in the frame of the clouds; default: from the TF of the bag',
    )
    points.add_argument(
        '--fixed-frame', default='', metavar='FRAME', help='frame of TF that does not move, to correct for the motion'
    )
    points.add_argument(
        '--max-time-difference',
        type=float,
        default=MAX_TIME_DIFFERENCE,
        metavar='S',
        help='largest difference between the stamps of a cloud and of its mask; default: %(default)s s',
    )
    many = parser.add_argument_group('many bags')
    many.add_argument('--out-dir', type=expand_user, metavar='FOLDER', help='segment every IN into this folder')
    many.add_argument(
        '--workers', type=int, metavar='N', help='number of processes; default: one per GPU, else one per core'
    )
    many.add_argument(
        '--ray',
        type=_ray_address,
        nargs='?',
        const='auto',
        metavar='ADDRESS',
        help='run on a Ray cluster: HOST:PORT; without a value the cluster of this machine; local: start one here',
    )
    return parser


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = _parser()
    lists = {
        '--topic': may_be_topic,
        '--outputs': lambda text: text in OUTPUTS,
        '--points': may_be_topic,
    }
    given = parser.parse_intermixed_args(separate_lists(arguments, lists))
    if given.out_dir is None and len(given.bags) < 2:
        # `in --topic /a /out`: the last value may be the bag to write.
        alone = dict.fromkeys(('--topic', '--points'), lambda text: False)
        given = parser.parse_intermixed_args(separate_lists(arguments, lists | alone))
    given.outputs = list(dict.fromkeys(given.outputs or ['mask', 'overlay']))
    if not 0 <= given.threads <= MAX_THREADS:
        parser.error(f'--threads: expected 0 to {MAX_THREADS}, found {given.threads}')
    if given.workers is not None and given.workers < 1:
        parser.error(f'--workers: expected 1 or more, found {given.workers}')
    given.point_options = _point_options(parser, given)
    if given.out_dir is not None:
        if given.ray and given.workers is not None:
            parser.error('--workers: counts processes of this machine; with --ray, the cluster decides')
        return given
    for name in ('workers', 'ray'):
        if getattr(given, name) is not None:
            parser.error(f'--{name}: works on many bags, expected --out-dir as well')
    if len(given.bags) != 2:
        parser.error(f'expected IN and OUT, or --out-dir for many bags, found {" ".join(map(str, given.bags))}')
    return given


def _point_options(parser: argparse.ArgumentParser, given: argparse.Namespace) -> PointOptions:
    # Not a number is not at most 3600, either.
    if not 0 <= given.max_time_difference <= MAX_SECONDS:
        parser.error(f'--max-time-difference: expected 0 to {MAX_SECONDS:g} s, found {given.max_time_difference}')
    for name in ('points_only', 'camera_pose', 'fixed_frame', 'points_rectified'):
        if getattr(given, name) and not given.points:
            parser.error(f'--{name.replace("_", "-")}: is about clouds, expected --points as well')
    try:
        poses = read_camera_poses(given.camera_pose) if given.camera_pose else {}
    except BagError as error:
        parser.error(f'--camera-pose: {error}')
    topics = tuple(dict.fromkeys(given.points))
    options = PointOptions(
        topics,
        given.points_only,
        tuple(poses.items()),
        given.fixed_frame,
        given.max_time_difference,
        given.points_rectified,
    )
    if options.contradiction:
        parser.error(options.contradiction)
    return options


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(',') if name.strip())


def _ray_address(text: str) -> str:
    # Otherwise `--ray drives` would take the folder of bags as an address.
    if text not in ('auto', 'local') and not re.fullmatch(r'(ray://)?[^/]+:\d+', text):
        raise argparse.ArgumentTypeError(f'expected HOST:PORT, auto or local, found {text!r}; put --ray last')
    return text
