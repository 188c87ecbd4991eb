# SPDX-License-Identifier: Apache-2.0
"""Create publishers and subscriptions, and declare parameters that override the quality of service of a topic."""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum
from functools import wraps
from typing import Any, Literal

from rcl_interfaces.msg import ParameterDescriptor
from rclpy.node import Node
from rclpy.publisher import Publisher
from rclpy.qos import QoSPolicyKind, QoSProfile
from rclpy.qos_overriding_options import QoSOverridingOptions
from rclpy.subscription import Subscription

try:
    from rclpy.event_handler import PublisherEventCallbacks, SubscriptionEventCallbacks
except ImportError:  # Humble
    from rclpy.qos_event import PublisherEventCallbacks, SubscriptionEventCallbacks

#: Policies that can be overridden. Durability is for subscriptions to latched topics.
POLICIES = (QoSPolicyKind.HISTORY, QoSPolicyKind.DEPTH, QoSPolicyKind.RELIABILITY, QoSPolicyKind.DURABILITY)

#: Largest depth in messages; middlewares store it in 32 bits.
DEEPEST = 2**31 - 1

# Whether callbacks receive delivery information; the rclpy of Humble passes only the message.
_TELLS_DELIVERY = hasattr(Subscription, 'CallbackType')


def advertise(node: Node, message_class: type, topic: str, quality: QoSProfile) -> Publisher:
    """Return a publisher whose quality of service can be overridden by parameters.

    It has no event callbacks: the executor of rclpy looks at each of them whenever it wakes up, two for each publisher
    by default. :class:`stdc_ros.node.unserved_listeners.UnservedListeners` warns in their place.

    Args:
        node: Node that owns the topic.
        message_class: Class of the messages.
        topic: Name of the topic.
        quality: Profile without overrides.

    Raises:
        ValueError, rclpy.exceptions.ParameterException: See :func:`overridable`.
    """
    return node.create_publisher(
        message_class,
        topic,
        quality,
        qos_overriding_options=overridable(node, topic, quality, 'publisher'),
        event_callbacks=PublisherEventCallbacks(use_default_callbacks=False),
    )


def subscribe(
    node: Node,
    message_class: type,
    topic: str,
    callback: Callable[[bytes, dict[str, int | None]], None],
    quality: QoSProfile,
) -> Subscription:
    """Return a subscription to raw messages whose quality of service can be overridden by parameters.

    It has no event callbacks, see :func:`advertise`; ``stdc_ros.node.diagnostics.explain_silence`` names publishers
    that it cannot receive from.

    Args:
        node: Node that owns the subscription.
        message_class: Class of the messages.
        topic: Name of the topic.
        callback: Function that is called with the CDR bytes of a message and with its delivery information, such as
            ``publication_sequence_number``. The information is empty on Humble.
        quality: Profile without overrides.

    Raises:
        ValueError, rclpy.exceptions.ParameterException: See :func:`overridable`.
    """
    return node.create_subscription(
        message_class,
        topic,
        _with_delivery(callback) if _TELLS_DELIVERY else lambda data: callback(data, {}),
        quality,
        qos_overriding_options=overridable(node, topic, quality, 'subscription'),
        event_callbacks=SubscriptionEventCallbacks(use_default_callbacks=False),
        raw=True,
    )


def _with_delivery(callback: Callable[..., None]) -> Callable[..., None]:
    """Return a callback of two arguments for every executor. The events executor passes both as one tuple."""

    # rclpy counts the parameters of the wrapped function to find out whether it wants the information.
    @wraps(callback)
    def receive(*received: Any) -> None:
        callback(*(received[0] if len(received) == 1 else received))

    return receive


def overridable(
    node: Node, topic: str, quality: QoSProfile, kind: Literal['publisher', 'subscription']
) -> QoSOverridingOptions:
    """Declare and check the override parameters of a topic, and return the options to create it with.

    rclpy would also declare them when the topic is created. But its errors do not name the topic, and it passes some
    bad values on to rcl, which does not report them.

    Args:
        node: Node that owns the topic.
        topic: Name of the topic for ``create_publisher`` or ``create_subscription``.
        quality: Profile without overrides.
        kind: End of the topic that is created.

    Raises:
        ValueError: A parameter has a value that its policy does not allow.
        rclpy.exceptions.ParameterException: A parameter has the wrong type.
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
