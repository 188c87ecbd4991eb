# SPDX-License-Identifier: Apache-2.0
"""Publish class names as ``vision_msgs/LabelInfo`` where vision_msgs is installed, which PyPI does not have."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy

from stdc_ros.node.qos import advertise

try:
    from vision_msgs.msg import LabelInfo, VisionClass
except ImportError:
    LabelInfo = VisionClass = None


def create_label_info(node: Node, topic: str) -> Any | None:
    """Return a latched publisher of ``vision_msgs/LabelInfo``, or None where vision_msgs is not installed."""
    if LabelInfo is None:
        return None
    latched = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    return advertise(node, LabelInfo, topic, latched)


def make_label_info(names: Sequence[str], threshold: float, stamp: Any) -> Any:
    """Return a ``vision_msgs/LabelInfo``.

    Args:
        names: Class names in the order of their ids.
        threshold: Minimum confidence of a pixel, 0 to 1.
        stamp: Time of the message, ``builtin_interfaces/Time``.
    """
    classes = [VisionClass(class_id=index, class_name=name) for index, name in enumerate(names)]
    message = LabelInfo(class_map=classes, threshold=threshold)
    message.header.stamp = stamp
    return message
