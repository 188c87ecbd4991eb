# SPDX-License-Identifier: Apache-2.0
"""``ros2 run stdc_ros segment_bag``: segments every image of a bag, or of many, without DDS and without loss.

``segment_bag in.mcap out.mcap`` is here; ``segment_bag --out-dir`` is in :mod:`stdc_ros.offline.many_bags`.
"""

from __future__ import annotations

import argparse
import os
import re
import signal
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from tqdm import tqdm

from stdc_core.inference import BACKENDS, DEFAULT_MODEL, BackendError, ModelError, Segmentation, Segmenter
from stdc_core.inference.backend import MAX_THREADS
from stdc_core.pictures.overlay import colorize, overlay
from stdc_ros.bags.bag import IMAGE, TYPES, Bag, BagError, BagMessage, write_bag
from stdc_ros.messages.images import ImageError, make_image

#: Name of each output: encoding, and how it is made of the image and its segmentation.
Make = Callable[[np.ndarray, Segmentation, Segmenter], np.ndarray]
OUTPUTS: dict[str, tuple[str, Make]] = {
    'mask': ('mono8', lambda image, result, segmenter: result.mask),
    'confidence': ('mono8', lambda image, result, segmenter: result.confidence),
    'color_mask': ('bgr8', lambda image, result, segmenter: colorize(result.mask, segmenter.info.classes)),
    'overlay': ('bgr8', lambda image, result, segmenter: overlay(image, result.mask, segmenter.info.classes)),
}


def output_prefixes(topics: list[str]) -> dict[str, str]:
    """Where the outputs of each image topic go, so that no two cameras share a topic.

    ``/front/image_raw`` is segmented to ``/front/segmentation/...``, as by a node in the namespace ``/front``;
    ``/image`` to ``/segmentation/...``. Topics that would share a place keep their whole name:
    ``/front/image_raw/segmentation/...``.

    Raises:
        BagError: two have the same name but for their slashes.
    """
    whole = {topic: PurePosixPath('/', topic.lstrip('/')) for topic in topics}
    places, bases = {}, {}
    for topic, path in whole.items():
        if (other := places.setdefault(path, topic)) != topic:
            raise BagError(f'{other} and {topic} would both be segmented to {path}/segmentation, expected one of them')
        path = path.parent if path.name in ('compressed', 'image_raw_compressed') else path
        bases[topic] = path.parent
    while len(counts := Counter(bases.values())) < len(bases):
        # A whole name may be the place of another topic, which then keeps its own.
        bases |= {topic: whole[topic] for topic, base in bases.items() if counts[base] > 1}
    return {topic: str(base / 'segmentation') for topic, base in bases.items()}


def segment(segmenter: Segmenter, image: BagMessage, outputs: Sequence[str]) -> Iterator[tuple[str, Any]]:
    """Segment one image of a bag: name and ``sensor_msgs/Image`` of each output, with the header of the image.

    Raises:
        ImageError: the image cannot be decoded, or is too small or too large for the network.
    """
    picture = image.bgr()
    try:
        result = segmenter(picture, confidence='confidence' in outputs)
    except ValueError as error:
        raise ImageError(str(error)) from error
    header = image.header()
    for name in outputs:
        encoding, make = OUTPUTS[name]
        yield name, make_image(TYPES.types[IMAGE], header, make(picture, result, segmenter), encoding)


def segment_bag(
    source: Path,
    target: Path,
    segmenter: Segmenter,
    *,
    topics: Sequence[str] = (),
    every: bool = False,
    outputs: Sequence[str] = ('mask', 'overlay'),
    overwrite: bool = False,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[str]:
    """Segment the images of a bag into another one.

    Args:
        topics: image topics; none: the only one, or with ``every`` all.
        outputs: names of :data:`OUTPUTS`.
        progress: told how many images are done, of how many: first when the bag is open, then after each image.

    Returns:
        what the user should be told: images left out, a bag that was cut off.

    Raises:
        BagError: the bag cannot be read or written, or it is not clear which topics are meant.
    """
    if target.resolve() in (source.resolve(), *source.resolve().parents):
        raise BagError(f'{target}: is or holds the bag that is read, {source}, expected another name')
    warnings, written, bad, problem = [], 0, 0, ''
    with Bag(source) as bag:
        chosen = bag.choose(topics, every)
        try:
            prefixes = output_prefixes(chosen)
        except BagError as error:
            raise BagError(f'{source}: {error}') from None
        total = sum(bag.topics[topic].count for topic in chosen)
        with write_bag(target, overwrite) as writer:
            progress(0, total)
            for topic in chosen:
                for name in outputs:
                    writer.add_topic(f'{prefixes[topic]}/{name}', IMAGE)
            for image in bag.messages(chosen):
                try:
                    for name, message in segment(segmenter, image, outputs):
                        writer.write(f'{prefixes[image.topic]}/{name}', image.time, message)
                    written += 1
                except ImageError as error:
                    bad += 1
                    problem = problem or f'{image.topic} at {image.time} ns: {error}'
                progress(written + bad, total)
            if not written:
                reason = problem or bag.cut or f'{", ".join(chosen)} without any message'
                raise BagError(f'{source}: no image to segment: {reason}')
        if bad:
            warnings.append(
                f'{source}: {bad} of {written + bad} images could not be segmented and are left out; '
                f'the first: {problem}'
            )
        if bag.cut and written + bad >= total:
            warnings.append(f'{source} is cut off ({bag.cut}): the {written} images up to there are segmented')
        elif bag.cut:
            warnings.append(f'{source} is damaged ({bag.cut}): {written} of its {total} images are segmented')
        elif written + bad < total:
            warnings.append(f'{source} tells of {total} images, and {written + bad} are in it')
    return warnings


def _one(given: argparse.Namespace) -> int:
    """``segment_bag IN OUT``: returns the exit status."""
    source, target = given.bags
    try:
        segmenter = Segmenter.load(given.model, given.threads, given.input_scale, given.backend)
        # After the delay, by which a bag that cannot be used is found out: an error is one line.
        with tqdm(unit='image', desc='segmenting', delay=0.1) as bar:

            def progress(done: int, total: int) -> None:
                bar.total = total
                bar.update(done - bar.n)

            warnings = segment_bag(
                source,
                target,
                segmenter,
                topics=given.topic,
                every=given.all,
                outputs=given.outputs,
                overwrite=given.overwrite,
                progress=progress,
            )
    except (BagError, ModelError, BackendError, OSError) as error:
        print(f'segment_bag: {error}', file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f'segment_bag: interrupted; {target} is not written', file=sys.stderr)
        return 130
    for warning in warnings:
        print(f'segment_bag: {warning}', file=sys.stderr)
    say(lambda: print(target))
    return 0


def say(to_stdout: Callable[[], object]) -> None:
    """Say something where maybe nobody listens any more, as in ``segment_bag ... | head``: the work goes on."""
    try:
        to_stdout()
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog='segment_bag',
        usage='segment_bag [options] IN OUT\n       segment_bag [options] --out-dir FOLDER IN [IN ...]',
        description='Segment every image of bags (rosbag1, rosbag2 sqlite3, MCAP), at the original times.',
        epilog="""The images of /camera/image_raw are segmented to /camera/segmentation/mask and so on.

One bag: OUT is one MCAP file if it ends in .mcap, else the folder of a rosbag2.

Many bags: drives/north/a.bag, found in the folder drives, makes FOLDER/north/a.mcap; a bag that is named itself makes
FOLDER/a.mcap. Beside it, a.mcap.json records what it was made from and how. A bag that is done is not done again: after
an interruption, the same command goes on with the rest. Bags made with other options, or of an input that has changed
since, are replaced only with --overwrite. A bag that cannot be segmented does not stop the others.""",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        'bags',
        type=Path,
        nargs='+',
        metavar='IN',
        help='.bag, .mcap or .db3 file, or folder of a rosbag2; with --out-dir also folders to search for bags',
    )
    parser.add_argument('--topic', nargs='+', default=[], help='image topics; needed if a bag has several')
    parser.add_argument('--all', action='store_true', help='all image topics')
    parser.add_argument('--outputs', nargs='+', choices=OUTPUTS, default=['mask', 'overlay'])
    parser.add_argument('--model', type=Path, default=DEFAULT_MODEL, help='a model.onnx from `stdc export`')
    parser.add_argument('--input-scale', type=float, metavar='S', help="default: the model's, less for large images")
    parser.add_argument('--backend', choices=BACKENDS, default='auto', help='what computes; default: auto')
    parser.add_argument('--threads', type=int, default=0, help='CPU threads, of each worker; 0: every core, shared out')
    parser.add_argument('--overwrite', action='store_true', help='replace a bag that is there already')
    many = parser.add_argument_group('many bags')
    many.add_argument('--out-dir', type=Path, metavar='FOLDER', help='segment every IN into this folder')
    many.add_argument(
        '--workers', type=int, metavar='N', help='bags at a time, each in its process; default: one per GPU, else core'
    )
    many.add_argument(
        '--ray',
        type=_ray_address,
        nargs='?',
        const='auto',
        metavar='ADDRESS',
        help='on a Ray cluster: HOST:PORT; none: the one that this machine is part of; local: start one here',
    )
    return parser


def _ray_address(text: str) -> str:
    # `--ray drives` would take the bags for an address.
    if text not in ('auto', 'local') and not re.fullmatch(r'(ray://)?[^/]+:\d+', text):
        raise argparse.ArgumentTypeError(f'expected HOST:PORT, auto or local, found {text!r}; put --ray last')
    return text


def main(args: list[str] | None = None) -> int:
    """The command. Returns the exit status: 0, 1 if it could not be done, 130 if it was interrupted."""
    parser = _parser()
    given = parser.parse_intermixed_args(args)
    given.outputs = list(dict.fromkeys(given.outputs))
    if not 0 <= given.threads <= MAX_THREADS:
        parser.error(f'--threads: expected 0 to {MAX_THREADS}, found {given.threads}')
    if given.workers is not None and given.workers < 1:
        parser.error(f'--workers: expected 1 or more, found {given.workers}')
    # As Ctrl-C: the unfinished bag is removed.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if signal.getsignal(signal.SIGHUP) is signal.SIG_DFL:  # nohup ignores it
        signal.signal(signal.SIGHUP, signal.default_int_handler)
    if given.out_dir is not None:
        if given.ray and given.workers is not None:
            parser.error('--workers: is of this machine; with --ray, the cluster decides')
        from stdc_ros.offline.many_bags import segment_many  # which needs this module

        return segment_many(given)
    for name in ('workers', 'ray'):
        if getattr(given, name) is not None:
            parser.error(f'--{name}: works on many bags, expected --out-dir as well')
    if len(given.bags) != 2:
        parser.error(f'expected IN and OUT, or --out-dir for many bags, found {" ".join(map(str, given.bags))}')
    return _one(given)


if __name__ == '__main__':
    sys.exit(main())
