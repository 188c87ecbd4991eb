# SPDX-License-Identifier: Apache-2.0
"""Find the topics of a camera: the names to subscribe to, and the topics that they are remapped to."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import NamedTuple

from rclpy.node import Node
from rclpy.topic_endpoint_info import TopicEndpointInfo

#: Suffix of the topic of compressed images.
COMPRESSED = '/compressed'


class Source(NamedTuple):
    """Topic to subscribe to.

    Attributes:
        name: Name that the user can remap, relative to the node's namespace.
        asked: Name for ``create_subscription``, which remaps it. A resolved name could be remapped a second time.
        topic: Resolved name.
    """

    name: str
    asked: str
    topic: str


def find_sources(node: Node, camera: str, transport: str) -> tuple[Source, Source]:
    """Return the topics of a camera's images and of its CameraInfo.

    Args:
        node: Node whose remapping rules hold.
        camera: Name of the camera; empty for a single camera.
        transport: Value of the parameter ``image_transport``. The user may remap compressed images with or without
            the ending ``/compressed``.

    Returns:
        Topic of the images, and topic of the CameraInfo: beside the images unless it is remapped itself.
    """
    inside = f'{camera}/' if camera else ''
    suffix = COMPRESSED if transport == 'compressed' else ''
    image = node.resolve_topic_name(f'{inside}image')
    images = _source(node, f'{inside}image{suffix}', image if image.endswith(suffix) else image + suffix)
    beside = PurePosixPath(images.topic.removesuffix(suffix)).parent / 'camera_info'
    return images, _source(node, f'{inside}camera_info', str(beside))


def find_cloud_source(node: Node) -> Source:
    """Return the topic of the point clouds."""
    return _source(node, 'points', node.resolve_topic_name('points'))


def output_namespace(node: Node, camera: str) -> str:
    """Return the namespace of the outputs of a camera, such as ``front/segmentation``."""
    return f'{camera}/{node.get_name()}' if camera else '~'


def _source(node: Node, name: str, derived: str) -> Source:
    resolved = node.resolve_topic_name(name)
    if resolved != node.resolve_topic_name(name, only_expand=True):
        return Source(name, name, resolved)
    return Source(name, derived, derived)


def node_name_of(endpoint: TopicEndpointInfo) -> str:
    """Return the full name of the node that owns a publisher or a subscription."""
    return f'{endpoint.node_namespace.rstrip("/")}/{endpoint.node_name}'
