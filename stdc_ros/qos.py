"""Quality of service that a user can override by parameters, for every topic of the node."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum

from rcl_interfaces.msg import ParameterDescriptor
from rclpy.node import Node
from rclpy.qos import QoSProfile
from rclpy.qos_overriding_options import QoSOverridingOptions


@contextmanager
def overridable(node: Node, topic: str) -> Iterator[QoSOverridingOptions]:
    """Options for the ``create_publisher`` or ``create_subscription`` within the block.

    Args:
        node: whose topic it is.
        topic: its name as it is given to them.

    Raises:
        ValueError: a parameter ``qos_overrides.`` of the topic is none that its policy can have.
    """
    try:
        yield QoSOverridingOptions.with_default_policies()
    except RuntimeError as error:
        if type(error) is not RuntimeError:  # those of rcl are of other things
            raise
        # rclpy names the policy alone.
        raise ValueError(f'qos_overrides.{node.resolve_topic_name(topic)}: {error}') from error


def declare_overrides(node: Node, topic: str, quality: QoSProfile) -> None:
    """Declare the parameters of a subscription that is created later, as that would.

    Args:
        node: whose subscription it will be.
        topic: resolved name.
        quality: without overrides.

    Raises:
        ValueError: one of them is none that its policy can have.
        rclpy.exceptions.ParameterException: one of them has the wrong type.
    """
    for kind in QoSOverridingOptions.with_default_policies().policy_kinds:
        policy = kind.name.lower()
        default = getattr(quality, policy)
        choices = [choice.name.lower() for choice in type(default)] if isinstance(default, IntEnum) else []
        name = f'qos_overrides.{topic}.subscription.{policy}'
        if not node.has_parameter(name):  # another camera can have the same topic
            about = ParameterDescriptor(description=f'{policy} of the subscription to {topic}', read_only=True)
            node.declare_parameter(name, default.name.lower() if choices else default, about)
        value = node.get_parameter(name).value
        if choices and value.lower() not in choices:
            raise ValueError(f'{name} is {value!r}, expected one of {", ".join(choices)}')
