# SPDX-License-Identifier: Apache-2.0
"""Quality of service that a user can override by parameters, for every topic of the node."""

from __future__ import annotations

from enum import IntEnum
from typing import Literal

from rcl_interfaces.msg import ParameterDescriptor
from rclpy.node import Node
from rclpy.qos import QoSPolicyKind, QoSProfile
from rclpy.qos_overriding_options import QoSOverridingOptions

#: What can be overridden. A subscription to a latched topic needs the durability.
POLICIES = (QoSPolicyKind.HISTORY, QoSPolicyKind.DEPTH, QoSPolicyKind.RELIABILITY, QoSPolicyKind.DURABILITY)

#: Messages. Middlewares count them in 32 bits.
DEEPEST = 2**31 - 1


def overridable(
    node: Node, topic: str, quality: QoSProfile, kind: Literal['publisher', 'subscription']
) -> QoSOverridingOptions:
    """Options for ``create_publisher`` or ``create_subscription``, now or later. Their parameters are declared and
    checked now: rclpy would name a policy without its topic, and of some values rcl would say nothing but that.

    Args:
        node: whose topic it is.
        topic: its name as it is given to them.
        quality: without overrides.
        kind: of the two.

    Raises:
        ValueError: one of the parameters is none that its policy can have.
        rclpy.exceptions.ParameterException: one of them has the wrong type.
    """
    topic = node.resolve_topic_name(topic)
    for policy in (policy.name.lower() for policy in POLICIES):
        default = getattr(quality, policy)
        known = isinstance(default, IntEnum)
        name = f'qos_overrides.{topic}.{kind}.{policy}'
        if not node.has_parameter(name):  # another camera can have the same topic
            about = ParameterDescriptor(description=f'{policy} of the {kind} of {topic}', read_only=True)
            node.declare_parameter(name, default.name.lower() if known else default, about)
        value = node.get_parameter(name).value
        choices = [choice.name.lower() for choice in type(default) if choice.name != 'UNKNOWN'] if known else []
        if known and value.lower() not in choices:
            raise ValueError(f'{name} is {value!r}, expected one of {", ".join(choices)}')
        if not known and not 0 <= value <= DEEPEST:
            raise ValueError(f'{name} is {value}, expected 0 to {DEEPEST}')
    return QoSOverridingOptions(POLICIES)
