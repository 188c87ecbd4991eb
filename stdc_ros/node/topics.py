# SPDX-License-Identifier: Apache-2.0
"""The topics that a camera is heard on: by what name they are asked for, and where they are."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import NamedTuple

from rclpy.node import Node

#: What is added to the topic of an image for that of its compressed form.
COMPRESSED = '/compressed'


class Source(NamedTuple):
    """A topic to subscribe to.

    ``asked`` is the name for rclpy, which remaps what it is given: a name that is resolved already could be remapped
    again. ``topic`` is where that leads, and ``name`` what the user can remap, relative to the node's namespace.
    """

    name: str
    asked: str
    topic: str


def find_sources(node: Node, inside: str, suffix: str) -> tuple[Source, Source]:
    """Images and CameraInfo of a camera, wherever the user has remapped them to.

    Args:
        node: whose remapping holds.
        inside: of the camera, with a slash; empty: the node's only one.
        suffix: of the image transport, which the name of the images may have or not.

    Returns:
        Of the images, and of the CameraInfo, which is beside them if it is not remapped itself.
    """
    image = node.resolve_topic_name(f'{inside}image')
    images = _source(node, f'{inside}image{suffix}', image if image.endswith(suffix) else image + suffix)
    beside = PurePosixPath(images.topic.removesuffix(suffix)).parent / 'camera_info'
    return images, _source(node, f'{inside}camera_info', str(beside))


def _source(node: Node, name: str, derived: str) -> Source:
    resolved = node.resolve_topic_name(name)
    if resolved != node.resolve_topic_name(name, only_expand=True):
        return Source(name, name, resolved)
    return Source(name, derived, derived)
