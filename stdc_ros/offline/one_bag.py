# SPDX-License-Identifier: Apache-2.0
"""Segment every image of one bag into another bag."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from stdc_core.classes import ClassTable
from stdc_core.inference import Segmentation, Segmenter
from stdc_core.pictures.overlay import colorize, overlay
from stdc_ros.bags.message import BagError, BagMessage, make_header
from stdc_ros.bags.message_types import BAG_TYPES, CAMERA_INFO, IMAGE, LABEL_INFO
from stdc_ros.bags.reader import Bag
from stdc_ros.bags.topic_selection import VIDEO_TRANSPORTS
from stdc_ros.bags.writer import BagWriter, write_bag
from stdc_ros.messages.cdr import POINT_CLOUD
from stdc_ros.messages.images import ImageError, make_image
from stdc_ros.offline.bag_points import BagPoints, PointOptions

#: Encoding of each output by its name, and the function that makes it from the image and its segmentation.
Make = Callable[[np.ndarray, Segmentation, Segmenter], np.ndarray | None]
OUTPUTS: dict[str, tuple[str, Make]] = {
    'mask': ('mono8', lambda image, result, segmenter: result.mask),
    'confidence': ('mono8', lambda image, result, segmenter: result.confidence),
    'color_mask': ('bgr8', lambda image, result, segmenter: colorize(result.mask, segmenter.info.classes)),
    'overlay': ('bgr8', lambda image, result, segmenter: overlay(image, result.mask, segmenter.info.classes)),
}

#: Last parts of topic names that name the transport and not the camera.
_TRANSPORTS = ('compressed', 'image_raw_compressed', *VIDEO_TRANSPORTS)


def output_prefixes(topics: Sequence[str]) -> dict[str, str]:
    """Return the prefix of the output topics by image topic. No two cameras share a prefix.

    ``/front/image_raw`` is segmented to ``/front/segmentation/...``, as by a node in the namespace ``/front``, and
    ``/image`` to ``/segmentation/...``. Topics that would share a prefix keep their whole name, as in
    ``/front/image_raw/segmentation/...``.

    Args:
        topics: Names of image topics.

    Raises:
        BagError: Two topic names differ only in their slashes.
    """
    names = {topic: PurePosixPath('/', topic.lstrip('/')) for topic in topics}
    places: dict[PurePosixPath, str] = {}
    bases: dict[str, PurePosixPath] = {}
    for topic, path in names.items():
        if (other := places.setdefault(path, topic)) != topic:
            raise BagError(f'{other} and {topic} would both be segmented to {path}/segmentation, expected one of them')
        path = path.parent if path.name in _TRANSPORTS else path
        bases[topic] = path.parent
    while len(counts := Counter(bases.values())) < len(bases):
        # A whole name may be the prefix of another topic, which then keeps its whole name, too.
        bases |= {topic: names[topic] for topic, base in bases.items() if counts[base] > 1}
    return {topic: str(base / 'segmentation') for topic, base in bases.items()}


def segment_message(
    segmenter: Segmenter, image: BagMessage, outputs: Sequence[str], clouds: BagPoints | None = None
) -> Iterator[tuple[str, Any]]:
    """Segment one image of a bag. Yield name and ``sensor_msgs/Image`` of each output, with the header of the image.

    Args:
        segmenter: Segmenter.
        image: Image.
        outputs: Names of :data:`OUTPUTS`.
        clouds: Painter of clouds, which gets the mask; or None.

    Raises:
        ImageError: The image cannot be decoded, or is too small or too large for the network.
    """
    picture = image.bgr()
    try:
        result = segmenter(picture, confidence='confidence' in outputs or clouds is not None)
    except ValueError as error:
        raise ImageError(str(error)) from error
    if clouds is not None:
        clouds.add_mask(image, result)
    header = image.header()
    for name in outputs:
        encoding, make = OUTPUTS[name]
        pixels = make(picture, result, segmenter)
        assert pixels is not None, 'the segmenter computes the confidence if it is an output'
        yield name, make_image(BAG_TYPES.types[IMAGE], header, pixels, encoding)


def segment_bag(
    source: Path,
    target: Path,
    segmenter: Segmenter,
    *,
    topics: Sequence[str] = (),
    all_topics: bool = False,
    outputs: Sequence[str] = ('mask', 'overlay'),
    with_input: bool = False,
    overwrite: bool = False,
    points: PointOptions = PointOptions(),  # noqa: B008 (it cannot change)
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[str]:
    """Segment the images of a bag into another bag.

    Beside the outputs of each camera, a latched ``label_info`` holds the class names. The class table is in the
    metadata of the bag.

    Args:
        source: Bag to read.
        target: Bag to write: an MCAP file if the name ends in ``.mcap``, else the folder of a rosbag2.
        segmenter: Segmenter for the images.
        topics: Image topics; if empty, the only camera topic of the bag or, with ``all_topics``, all of them.
        all_topics: Whether to segment every camera topic.
        outputs: Names of :data:`OUTPUTS`.
        with_input: Whether to copy the images and their ``camera_info`` as well; with ``points``, clouds and TF, too.
        overwrite: Whether to replace an existing bag.
        points: Clouds to paint.
        progress: Function that is called with the number of done images and the number of all images: first when the
            bag is open, then after each image.

    Returns:
        Warnings for the user, such as about images that are left out or a truncated bag.

    Raises:
        BagError: The bag cannot be read or written, or the topics are missing or ambiguous.
    """
    if target.resolve() in (source.resolve(), *source.resolve().parents):
        raise BagError(f'{target}: is or holds the bag that is read, {source}, expected another name')
    written, failed, problem = 0, 0, ''
    with Bag(source) as bag:
        chosen = bag.select_topics(topics, all_topics)
        try:
            prefixes = output_prefixes(chosen)
        except BagError as error:
            raise BagError(f'{source}: {error}') from None
        total = sum(bag.topics[topic].message_count for topic in chosen)
        with write_bag(target, overwrite) as writer:
            progress(0, total)
            writer.set_classes(segmenter.info.classes, segmenter.info.summary)
            copied = _add_topics(writer, bag, prefixes, outputs, with_input)
            clouds = None
            if points.topics:
                infos = {topic: _info_topic(topic) for topic in chosen}
                clouds = BagPoints(bag, infos, segmenter.info.classes, points)
                copied |= _add_cloud_topics(writer, bag, clouds, points, with_input)
            painted_topics = {topic: f'{prefix}/points' for topic, prefix in output_prefixes(points.topics).items()}

            def write_clouds(found: Iterator[tuple[str, int, Any]]) -> None:
                for topic, time, message in found:
                    writer.write(painted_topics[topic], time, message)

            unnamed = set(chosen)  # topics whose label_info is not written yet
            for image in bag.messages({*chosen, *copied, *(clouds.topics if clouds else ())}):
                if image.topic in copied and image.message is not None:
                    writer.write_cdr(image.topic, image.time, image.data)
                if clouds is not None:
                    write_clouds(clouds.take(image))
                if image.topic not in prefixes:
                    continue
                try:
                    if image.topic in unnamed:
                        message = make_label_info(segmenter.info.classes, image.stamp)
                        writer.write(f'{prefixes[image.topic]}/label_info', image.time, message)
                        unnamed.remove(image.topic)
                    for name, message in segment_message(segmenter, image, outputs, clouds):
                        writer.write(f'{prefixes[image.topic]}/{name}', image.time, message)
                    written += 1
                except ImageError as error:
                    failed += 1
                    problem = problem or f'{image.topic} at {image.time} ns: {error}'
                progress(written + failed, total)
            if not written:
                reason = (
                    '; '.join(bag.without_key_frames.values())
                    or problem
                    or bag.damage
                    or f'{", ".join(chosen)} without any message'
                )
                raise BagError(f'{source}: no image to segment: {reason}')
            if clouds is not None:
                write_clouds(clouds.finish())
                if not clouds.painted:
                    raise BagError(f'{source}: no cloud to paint: {clouds.problem or "the topics have no message"}')
        warnings = _warnings(bag, written, failed, total, problem)
        if clouds is not None and clouds.failed:
            warnings.append(
                f'{source}: {clouds.failed} of {clouds.painted + clouds.failed} clouds could not be painted and are '
                f'left out; the first: {clouds.problem}'
            )
        return warnings


def _add_topics(
    writer: BagWriter, bag: Bag, prefixes: dict[str, str], outputs: Sequence[str], with_input: bool
) -> set[str]:
    """Add the topics of the outputs. Return the input topics to copy."""
    copied = {}
    for topic, prefix in prefixes.items():
        if with_input:
            copied[topic] = bag.topics[topic].type
            info = _info_topic(topic)
            if info in bag.topics and bag.topics[info].type == CAMERA_INFO:
                copied[info] = CAMERA_INFO
        for name in outputs:
            writer.add_topic(f'{prefix}/{name}', IMAGE)
        writer.add_topic(f'{prefix}/label_info', LABEL_INFO, latched=True)
    for topic, type_name in copied.items():
        writer.add_topic(topic, type_name)
    return set(copied)


def _info_topic(topic: str) -> str:
    """Return the topic of the CameraInfo beside an image topic."""
    camera = PurePosixPath(topic)
    camera = camera.parent if camera.name in _TRANSPORTS else camera
    return str(camera.parent / 'camera_info')


def _add_cloud_topics(
    writer: BagWriter, bag: Bag, clouds: BagPoints, points: PointOptions, with_input: bool
) -> set[str]:
    """Add the topics of painted clouds; return the topics of clouds and TF that are copied."""
    for prefix in output_prefixes(points.topics).values():
        writer.add_topic(f'{prefix}/points', POINT_CLOUD)
    copied = [*points.topics, *clouds.tf_topics] if with_input else []
    for topic in copied:
        writer.add_topic(topic, bag.topics[topic].type, latched=topic.endswith('tf_static'))
    return set(copied)


def make_label_info(classes: ClassTable, stamp: int) -> Any:
    """Make a ``vision_msgs/LabelInfo`` with the class names in the order of their ids.

    Args:
        classes: Class table.
        stamp: Stamp in nanoseconds.
    """
    vision_class, label_info = BAG_TYPES.types['vision_msgs/msg/VisionClass'], BAG_TYPES.types[LABEL_INFO]
    class_map = [vision_class(class_id=index, class_name=name) for index, name in enumerate(classes.names)]
    return label_info(header=make_header(stamp, ''), class_map=class_map, threshold=0.0)


def _warnings(bag: Bag, written: int, failed: int, total: int, problem: str) -> list[str]:
    """Return warnings about a segmented bag.

    Args:
        bag: Bag that was read.
        written: Number of segmented images.
        failed: Number of images that were left out.
        total: Number of images in the index of the bag.
        problem: Reason why the first image was left out.
    """
    warnings = [f'{bag.path}: {note}' for note in (*bag.notes, *bag.without_key_frames.values())]
    if failed:
        warnings.append(
            f'{bag.path}: {failed} of {written + failed} images could not be segmented and are left out; '
            f'the first: {problem}'
        )
    if bag.damage and written + failed >= total:
        warnings.append(f'{bag.path} is cut off ({bag.damage}): the {written} images up to there are segmented')
    elif bag.damage:
        warnings.append(f'{bag.path} is damaged ({bag.damage}): {written} of its {total} images are segmented')
    elif written + failed < total:
        warnings.append(f'{bag.path}: its index lists {total} images, but {written + failed} are in it')
    return warnings
