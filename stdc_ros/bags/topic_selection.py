# SPDX-License-Identifier: Apache-2.0
"""Choose the image topics of a bag to work on."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import PurePosixPath

from stdc_core.io.text import one_line
from stdc_core.io.video_pyav import why_no_pyav
from stdc_ros.bags.message import BagError, Topic
from stdc_ros.bags.message_types import COMPRESSED_IMAGE, COMPRESSED_VIDEO, FFMPEG_PACKET, IMAGE

#: Names of the image outputs of segmentation_node and segment_bag, the last part of topics such as /segmentation/mask.
SEGMENTATION_OUTPUTS = ('mask', 'confidence', 'color_mask', 'overlay')

#: Types of the topics that hold H.264 or H.265 video.
VIDEO_TYPES = (COMPRESSED_VIDEO, FFMPEG_PACKET)

#: Types of the topics that hold images or video.
IMAGE_TYPES = (IMAGE, COMPRESSED_IMAGE, *VIDEO_TYPES)

#: Last parts of video topic names that name the transport and not the camera.
VIDEO_TRANSPORTS = ('ffmpeg', 'foxglove', 'compressed_video', 'video', 'h264', 'h265', 'hevc')

_COMPRESSED = '/compressed'

# Number of topics that an error lists.
_LISTED = 20


def is_segmentation_output(topic: str) -> bool:
    """Return whether a topic has the name of a segmentation result, such as /front/segmentation/overlay/compressed."""
    return PurePosixPath(topic.removesuffix(_COMPRESSED)).name in SEGMENTATION_OUTPUTS


def select_topics(
    path: object, topics: Mapping[str, Topic], wanted: Collection[str] = (), all_topics: bool = False
) -> list[str]:
    """Return the image topics to work on.

    Topics that hold segmentation results are left out unless they are in ``wanted``.

    Args:
        path: Bag, for error messages.
        topics: Topics of the bag by name.
        wanted: Names of topics. If empty, the bag must have one camera topic.
        all_topics: Whether to return every camera topic instead.

    Raises:
        BagError: A topic is missing or does not hold images, the bag has no camera topic, or it has several and none
            is in ``wanted``.
    """
    images = {name: topic for name, topic in topics.items() if topic.type in IMAGE_TYPES}
    listed = _listed(
        f'{one_line(name, 80)} ({topic.type.split("/")[-1]}, {topic.message_count})' for name, topic in images.items()
    )
    if not images:
        found = _listed(f'{one_line(name, 80)} ({one_line(topic.type, 80)})' for name, topic in topics.items())
        raise BagError(f'{path}: no topic with images; the bag holds {found or "nothing"}')
    for name in wanted:
        if name not in topics:
            raise BagError(f'{path}: no topic {name}; its image topics are {listed}')
        if name not in images:
            found = one_line(topics[name].type, 80)
            raise BagError(f'{path}: {name} holds {found}, expected images; its image topics are {listed}')
    cameras = [name for name in images if not is_segmentation_output(name)]
    if not wanted and not cameras:
        raise BagError(f'{path}: no camera topic, only results of a segmentation: {listed}; name one with --topic')
    if not wanted and len(cameras) > 1 and not all_topics:
        raise BagError(f'{path}: several image topics, name one with --topic or take all with --all: {listed}')
    chosen = list(dict.fromkeys(wanted)) or cameras
    for name in chosen:
        if not re.fullmatch(r'[\w/~.-]+', name):
            raise BagError(f'{path}: the topic name {one_line(repr(name), 80)} is not a ROS name')
    videos = [name for name in chosen if topics[name].type in VIDEO_TYPES]
    if videos and (problem := why_no_pyav()):
        raise BagError(f'{path}: {videos[0]} holds {topics[videos[0]].type}, which {problem}')
    return chosen


def playable_topics(path: object, topics: Mapping[str, Topic], wanted: Collection[str] = ()) -> list[str]:
    """Return the image topics to play: ``wanted``, or one topic of each camera.

    Args:
        path: Bag, for error messages.
        topics: Topics of the bag by name.
        wanted: Names of topics.

    Raises:
        BagError: See :func:`select_topics`.
    """
    chosen = select_topics(path, topics, wanted, all_topics=True)
    return chosen if wanted else without_twins(topics, chosen)


def published_name(topics: Mapping[str, Topic], topic: str) -> str:
    """Return the topic to publish decoded images on: the name of their topic without the transport."""
    kind = topics[topic].type
    if kind in VIDEO_TYPES:
        parent, _, transport = topic.rpartition('/')
        return parent if transport in VIDEO_TRANSPORTS and parent.strip('/') else topic
    return topic.removesuffix(_COMPRESSED) if kind == COMPRESSED_IMAGE else topic


def without_twins(topics: Mapping[str, Topic], names: Sequence[str]) -> list[str]:
    """Return the topics without those that hold the images of another one in the list.

    Raw images are preferred to compressed ones, and these to video. Topics without messages come last.
    """
    best: dict[str, str] = {}
    for name in sorted(names, key=lambda name: (not topics[name].message_count, IMAGE_TYPES.index(topics[name].type))):
        best.setdefault(published_name(topics, name), name)
    return [name for name in names if name in best.values()]


def _listed(entries: Iterable[str]) -> str:
    texts = list(entries)
    more = f' and {len(texts) - _LISTED} more' if len(texts) > _LISTED else ''
    return ', '.join(texts[:_LISTED]) + more
