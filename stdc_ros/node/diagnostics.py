# SPDX-License-Identifier: Apache-2.0
"""Report the health of a camera's segmentation, and find out why no image arrives."""

from __future__ import annotations

from typing import NamedTuple

from diagnostic_msgs.msg import DiagnosticStatus, KeyValue
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy

from stdc_ros.messages.cdr import CAMERA_INFO, COMPRESSED_IMAGE, IMAGE, POINT_CLOUD
from stdc_ros.node.topics import COMPRESSED, Source, node_name_of

#: Value of the parameter ``image_transport`` by message type.
TRANSPORT_OF = {IMAGE: 'raw', COMPRESSED_IMAGE: 'compressed'}

#: Typical topic of a camera driver by message type.
EXAMPLES = {
    IMAGE: '/camera/image_raw',
    COMPRESSED_IMAGE: f'/camera/image_raw{COMPRESSED}',
    CAMERA_INFO: '/camera/camera_info',
    POINT_CLOUD: '/lidar/points',
}

#: Kinds of trouble that the node causes and not the camera.
ERRORS = ('failed',)


class Health(NamedTuple):
    """Level and message of a ``DiagnosticStatus``."""

    level: bytes
    message: str


def assess(
    topic: str, complaint: str, troubles: dict[str, str], failure: str, enabled: bool, wanted: bool, state: str = ''
) -> Health:
    """Return level and message for one camera.

    A silent camera is WARN and not STALE, because the diagnostic aggregator reports a group with a STALE member as
    ERROR. STALE is for publishers of diagnostics that are silent themselves.

    Args:
        topic: Resolved image topic.
        complaint: Reason why no image arrives or why the images are useless; empty for none.
        troubles: Result of ``FrameStatistics.new_troubles``.
        failure: Error of the backend or of a lifecycle transition; empty for none.
        enabled: Value of the parameter ``enabled``.
        wanted: Whether anybody listens to an output.
        state: State of a managed node that is not active, such as ``inactive``; empty for a node that works.
    """
    told = [failure] if failure else []
    told += [complaint] if complaint else []
    if troubles:
        told.append(f'{topic}: since the last report {", ".join(troubles.values())}')
    message = '; '.join(told)
    if state:
        return Health(
            DiagnosticStatus.ERROR if failure else DiagnosticStatus.OK, ': '.join(filter(None, (state, message)))
        )
    if failure or any(kind in ERRORS for kind in troubles):
        return Health(DiagnosticStatus.ERROR, message)
    if message:
        return Health(DiagnosticStatus.WARN, message)
    if not enabled:
        return Health(DiagnosticStatus.OK, 'switched off')
    return Health(DiagnosticStatus.OK, 'ok' if wanted else 'idle: nobody listens to an output')


def make_status(name: str, topic: str, health: Health, rows: dict[str, str]) -> DiagnosticStatus:
    """Return the status of one camera.

    Args:
        name: Name of node and camera.
        topic: Resolved image topic, used as hardware id.
        health: Level and message.
        rows: Values by key.
    """
    values = [KeyValue(key=key, value=value) for key, value in rows.items()]
    return DiagnosticStatus(level=health.level, name=name, message=health.message, hardware_id=topic, values=values)


def explain_silence(node: Node, source: Source, topic_type: str, quality: QoSProfile) -> str:
    """Return why nothing arrives on a topic: its publishers, and which of them cannot reach the subscription.

    Args:
        node: Node that subscribes to the topic.
        source: Topic from which nothing arrives.
        topic_type: Type of the subscription, such as ``sensor_msgs/msg/Image``.
        quality: Quality of service of the subscription.
    """
    publishers = node.get_publishers_info_by_topic(source.asked)
    if not publishers:
        return f'nobody publishes it{_where_else(node, source, topic_type)}'
    told = []
    for publisher in publishers:
        name = node_name_of(publisher)
        offered = publisher.qos_profile
        if publisher.topic_type != topic_type:
            transport = TRANSPORT_OF.get(publisher.topic_type)
            remedy = f' (set image_transport to {transport})' if transport and topic_type in TRANSPORT_OF else ''
            told.append(f'{name} publishes {publisher.topic_type}, expected {topic_type}{remedy}')
        elif quality.reliability == ReliabilityPolicy.RELIABLE and offered.reliability == ReliabilityPolicy.BEST_EFFORT:
            told.append(f'{name} is best_effort, which a reliable subscription cannot receive')
        elif quality.durability == DurabilityPolicy.TRANSIENT_LOCAL and offered.durability == DurabilityPolicy.VOLATILE:
            told.append(f'{name} is volatile, which a transient_local subscription cannot receive')
        else:
            told.append(f'{name} is there but silent')
    return f'{len(publishers)} publisher{"s" if len(publishers) > 1 else ""}: ' + '; '.join(told)


def _where_else(node: Node, source: Source, topic_type: str) -> str:
    """Return a remedy, in brackets, for a topic that nobody publishes; empty if the node knows none."""
    if topic_type in TRANSPORT_OF:
        bare = source.topic.removesuffix(COMPRESSED)
        other, transport = (bare + COMPRESSED, 'compressed') if topic_type == IMAGE else (bare, 'raw')
        if other != source.topic and node.count_publishers(other):
            return f', but {other} is there (set image_transport to {transport})'
    # Without a rule of its own, the CameraInfo is expected beside the image, which may be remapped.
    topic = node.resolve_topic_name(source.name) if topic_type == CAMERA_INFO else source.topic
    if topic != node.resolve_topic_name(source.name, only_expand=True):  # it is remapped already
        return ''
    device = 'LiDAR or depth camera' if topic_type == POINT_CLOUD else 'camera'
    return f' (remap {source.name} to your {device}: --ros-args -r {source.name}:={EXAMPLES[topic_type]})'
