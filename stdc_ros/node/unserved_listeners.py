# SPDX-License-Identifier: Apache-2.0
"""Find listeners that receive nothing from the node, because of their type or quality of service."""

from __future__ import annotations

from collections.abc import Iterator

from rclpy.node import Node
from rclpy.qos import QoSCompatibility, qos_check_compatible
from rclpy.topic_endpoint_info import TopicEndpointInfo

from stdc_ros.node.topics import node_name_of


class UnservedListeners:
    """Names each listener that receives nothing from a publisher of the node, once.

    Args:
        node: Node whose publishers are checked.

    Example:
        >>> listeners = UnservedListeners(node)
        >>> node.create_timer(1.0, lambda: [node.get_logger().warning(text) for text in listeners.new()])
    """

    def __init__(self, node: Node):
        self._node = node
        self._known: set[str] = set()

    def new(self) -> list[str]:
        """Return a warning for each listener that cannot receive and was not named before."""
        warnings = list(dict.fromkeys(self._warnings()))
        new = [warning for warning in warnings if warning not in self._known]
        self._known = set(warnings)  # a listener that comes back is named again
        return new

    def _warnings(self) -> Iterator[str]:
        name = self._node.get_fully_qualified_name()
        for publisher in self._node.publishers:
            topic = publisher.topic_name
            # The counts are cheap; the details are needed only where a listener is left out.
            if self._node.count_subscribers(topic) <= publisher.get_subscription_count():
                continue
            # These know the whole quality of service. The profile of the publisher lacks what the middleware decides.
            ours = [one for one in self._node.get_publishers_info_by_topic(topic) if node_name_of(one) == name]
            for listener in self._node.get_subscriptions_info_by_topic(topic) if ours else []:
                reason = why_unserved(ours[0], listener)
                if reason:
                    yield f'{topic}: {node_name_of(listener)} receives nothing: {reason}'


def why_unserved(publisher: TopicEndpointInfo, listener: TopicEndpointInfo) -> str:
    """Return why a listener cannot receive from a publisher of its topic; empty if it can.

    Args:
        publisher: Publisher of the topic.
        listener: Subscription to the topic.
    """
    if listener.topic_type != publisher.topic_type:
        return f'it expects {listener.topic_type}, the topic is {publisher.topic_type}'
    compatibility, reason = qos_check_compatible(publisher.qos_profile, listener.qos_profile)
    if compatibility != QoSCompatibility.ERROR:
        return ''
    # rclpy writes 'ERROR: Volatile publisher and transient local subscription;'.
    return reason.replace('ERROR: ', '').strip(';').replace(';', ', ').lower()
