"""``ros2 run stdc_ros segment_bag in.mcap out.mcap``: segments every image of a bag, without DDS and without loss."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from tqdm import tqdm

from stdc_core.inference import DEFAULT_MODEL, ModelError, Segmentation, Segmenter
from stdc_core.visualization import colorize, overlay
from stdc_ros.bags import IMAGE, TYPES, Bag, BagError, BagMessage, write_bag
from stdc_ros.images import ImageError, make_image

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
    ``/image`` to ``/segmentation/...``. Topics of one namespace keep their whole name:
    ``/front/image_raw/segmentation/...``.
    """
    bases = {}
    for topic in topics:
        path = PurePosixPath('/', topic.lstrip('/'))
        path = path.parent if path.name in ('compressed', 'image_raw_compressed') else path
        bases[topic] = path.parent
    shared = [base for base in bases.values() if list(bases.values()).count(base) > 1]
    return {
        topic: str((PurePosixPath('/', topic.lstrip('/')) if base in shared else base) / 'segmentation')
        for topic, base in bases.items()
    }


def segment(segmenter: Segmenter, image: BagMessage, outputs: Sequence[str]) -> Iterator[tuple[str, Any]]:
    """Segment one image of a bag: name and ``sensor_msgs/Image`` of each output, with the header of the image.

    Raises:
        ImageError: the image cannot be decoded.
    """
    picture = image.bgr()
    result = segmenter(picture, confidence='confidence' in outputs)
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
) -> list[str]:
    """Segment the images of a bag into another one.

    Args:
        topics: image topics; none: the only one, or with ``every`` all.
        outputs: names of :data:`OUTPUTS`.

    Returns:
        what the user should be told: images left out, a bag that was cut off.

    Raises:
        BagError: the bag cannot be read or written, or it is not clear which topics are meant.
    """
    if target.resolve() == source.resolve():
        raise BagError(f'{target}: is the bag that is read, expected another name')
    warnings, written, bad = [], 0, 0
    with Bag(source) as bag:
        chosen = bag.choose(topics, every)
        prefixes = output_prefixes(chosen)
        total = sum(bag.topics[topic].count for topic in chosen)
        with write_bag(target, overwrite) as writer, tqdm(total=total, unit='image', desc='segmenting') as bar:
            for topic in chosen:
                for name in outputs:
                    writer.add_topic(f'{prefixes[topic]}/{name}', IMAGE)
            for image in bag.messages(chosen):
                try:
                    for name, message in segment(segmenter, image, outputs):
                        writer.write(f'{prefixes[image.topic]}/{name}', image.time, message)
                    written += 1
                except ImageError as error:
                    if not bad:
                        warnings.append(f'{image.topic} at {image.time} ns: {error}')
                    bad += 1
                bar.update()
            if not written:
                reason = warnings[0] if bad else bag.cut or f'{", ".join(chosen)} without any message'
                raise BagError(f'{source}: no image to segment: {reason}')
        if bad:
            warnings.append(f'{bad} of {written + bad} images could not be decoded and are missing in {target}')
        if bag.cut:
            warnings.append(f'{source} is cut off ({bag.cut}): the {written} images up to there are segmented')
    return warnings


def main(args: list[str] | None = None) -> int:
    """The command. Returns the exit status: 0, 1 if it could not be done, 130 if it was interrupted."""
    parser = argparse.ArgumentParser(
        prog='segment_bag',
        description='Segment every image of a bag (rosbag1, rosbag2 sqlite3, MCAP), at the original times.',
        epilog='The images of /camera/image_raw are segmented to /camera/segmentation/mask and so on.',
    )
    parser.add_argument('input', type=Path, help='.bag, .mcap or .db3 file, or folder of a rosbag2')
    parser.add_argument('output', type=Path, help='one MCAP file if it ends in .mcap, else the folder of a rosbag2')
    parser.add_argument('--topic', nargs='+', default=[], help='image topics; needed if the bag has several')
    parser.add_argument('--all', action='store_true', help='all image topics')
    parser.add_argument('--outputs', nargs='+', choices=OUTPUTS, default=['mask', 'overlay'])
    parser.add_argument('--model', type=Path, default=DEFAULT_MODEL, help='a model.onnx from `stdc export`')
    parser.add_argument('--input-scale', type=float, metavar='S', help="scale of the network's input; the model's own")
    parser.add_argument('--threads', type=int, default=0, help='CPU threads; 0: every core')
    parser.add_argument('--overwrite', action='store_true', help='replace a bag that is there already')
    given = parser.parse_args(args)
    # As Ctrl-C: the unfinished bag is removed.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        segmenter = Segmenter.load(given.model, given.threads, given.input_scale)
        warnings = segment_bag(
            given.input,
            given.output,
            segmenter,
            topics=given.topic,
            every=given.all,
            outputs=list(dict.fromkeys(given.outputs)),
            overwrite=given.overwrite,
        )
    except (BagError, ModelError, OSError) as error:
        print(f'segment_bag: {error}', file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f'segment_bag: interrupted; {given.output} is not written', file=sys.stderr)
        return 130
    for warning in warnings:
        print(f'segment_bag: {warning}', file=sys.stderr)
    print(given.output)
    return 0


if __name__ == '__main__':
    sys.exit(main())
