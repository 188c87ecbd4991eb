# SPDX-License-Identifier: Apache-2.0
"""Publish the images of a bag at their recorded rate."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

from rclpy.duration import Duration
from rclpy.exceptions import NameValidationException
from rclpy.node import Node
from rclpy.publisher import Publisher
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import Image

from stdc_core.io.text import one_line
from stdc_ros.bags.message import BagError, BagMessage, make_header
from stdc_ros.bags.reader import Bag
from stdc_ros.bags.topic_selection import published_name
from stdc_ros.messages.cdr import IMAGE, TYPES
from stdc_ros.messages.images import ImageError

#: Function that is called for each published image with the image of the bag, the published stamp in nanoseconds and
#: the CDR bytes.
OnPublish = Callable[[BagMessage, int, bytes], object]


class Player:
    """Publishes the images of a bag as ``sensor_msgs/Image``, reliably.

    Compressed images are decoded and published on the topic without ``/compressed``. A topic whose name ROS 2 refuses
    is left out.

    Args:
        node: Node that publishes.
        bag: Open bag.
        topics: Image topics of the bag.

    Attributes:
        problems: Reason for each topic that is left out.
        played: Number of published images.
        undecodable: Number of images that could not be decoded.
        last_error: Error of the last image that could not be decoded.

    Raises:
        BagError: ROS 2 refuses the names of all topics, or two would be published on one topic.
    """

    def __init__(self, node: Node, bag: Bag, topics: Sequence[str]):
        self._node = node
        self._bag = bag
        sources: dict[str, str] = {}
        for topic in topics:
            name = published_name(bag.topics, topic)
            if (other := sources.setdefault(name, topic)) != topic:
                raise BagError(f'{bag.path}: {other} and {topic} would both be played on {name}, expected one of them')
        quality = QoSProfile(depth=10, reliability=ReliabilityPolicy.RELIABLE)
        self._publishers: dict[str, Publisher] = {}
        self.problems: list[str] = []
        for name, topic in sources.items():
            try:
                self._publishers[topic] = node.create_publisher(Image, name, quality)
            except (NameValidationException, RuntimeError) as error:  # RuntimeError: rcl, for a name that is too long
                self.problems.append(f'{one_line(topic, 80)} cannot be published: {one_line(error)}')
        if not self._publishers:
            raise BagError(f'{bag.path}: {"; ".join(self.problems)}')
        self._topics = list(self._publishers)
        self.played = 0
        self.undecodable = 0
        self.last_error = ''

    @property
    def total(self) -> int:
        """Number of images to play."""
        return sum(self._bag.topics[topic].message_count for topic in self._topics)

    def unheard(self) -> list[str]:
        """Return the published topics that nobody subscribes to."""
        return [p.topic_name for p in self._publishers.values() if not p.get_subscription_count()]

    def heard(self) -> bool:
        """Return whether somebody subscribes to one of the published topics."""
        return any(p.get_subscription_count() for p in self._publishers.values())

    def play(
        self, stop: threading.Event, rate: float = 1.0, stamp_now: bool = False, on_publish: OnPublish | None = None
    ) -> None:
        """Publish every image once. Return early when ``stop`` is set.

        Args:
            stop: Event that ends the playback.
            rate: Factor on the recorded rate.
            stamp_now: Whether to stamp images with the time of publication instead of the recorded stamp.
            on_publish: Function that is called for each published image.
        """
        begin = None
        for image in self._bag.messages(self._topics):
            try:
                message = image.to_image()
            except ImageError as error:
                self.undecodable += 1
                self.last_error = f'{image.topic}: {one_line(error)}'
                continue
            if begin is None:
                begin = time.monotonic() - image.time / 1e9 / rate
            pause = begin + image.time / 1e9 / rate - time.monotonic()
            if stop.wait(min(max(0.0, pause), threading.TIMEOUT_MAX)):
                return
            stamp = image.stamp
            if stamp_now:
                stamp = self._node.get_clock().now().nanoseconds
                message.header = make_header(stamp, message.header.frame_id)
            data = bytes(TYPES.serialize_cdr(message, IMAGE))
            self._publishers[image.topic].publish(data)
            self.played += 1
            if on_publish:
                on_publish(image, stamp, data)

    def finish(self, seconds: float = 5.0) -> None:
        """Wait until every subscriber has received the last image, at most ``seconds``."""
        for publisher in self._publishers.values():
            publisher.wait_for_all_acked(Duration(seconds=seconds))


def wait_for_subscribers(player: Player, stop: threading.Event, seconds: float) -> None:
    """Return when one topic has a subscriber, or ``stop`` is set. Not every topic needs one.

    Args:
        player: Player of the topics.
        stop: Event that ends the wait.
        seconds: Longest wait.

    Raises:
        BagError: No topic has a subscriber in time.
    """
    deadline = time.monotonic() + seconds
    while not player.heard() and not stop.wait(0.05):
        if time.monotonic() > deadline:
            raise BagError(
                f'nobody subscribes to {", ".join(player.unheard())} within {seconds:g} s '
                '(segmentation_node does only while somebody listens to its outputs); --wait 0 plays without waiting'
            )
