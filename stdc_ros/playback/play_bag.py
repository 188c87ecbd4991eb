# SPDX-License-Identifier: Apache-2.0
"""Publish the images of a bag at their recorded rate (``play_bag``), on machines without ``ros2 bag``."""

from __future__ import annotations

import argparse
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import rclpy
from rclpy.duration import Duration
from rclpy.exceptions import InvalidTopicNameException, NameValidationException, ParameterException
from rclpy.node import Node
from rclpy.publisher import Publisher
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.signals import SignalHandlerOptions
from rclpy.validate_topic_name import validate_topic_name
from sensor_msgs.msg import Image
from tqdm import tqdm

from stdc_core.io.arguments import expand_user, separate_lists
from stdc_core.io.signals import keep_signals
from stdc_core.io.text import one_line
from stdc_ros.bags.message import BagError, BagMessage, Topic, make_header
from stdc_ros.bags.reader import Bag, may_be_topic
from stdc_ros.bags.topic_selection import IMAGE_TYPES, playable_topics, published_name
from stdc_ros.messages.cdr import IMAGE, TYPES
from stdc_ros.messages.images import ImageError

#: Function that is called for each published image with the image of the bag, the published stamp in nanoseconds and
#: the CDR bytes.
OnPublish = Callable[[BagMessage, int, bytes], object]


class PlayError(RuntimeError):
    """ROS 2 cannot start; the message tells the user why."""


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


def main(args: list[str] | None = None) -> int:
    """Play a bag. Returns the exit status: 0, 1 if nothing could be played, 130 if it was interrupted."""
    parser = argparse.ArgumentParser(
        prog='play_bag',
        description='Publish the images of a bag (rosbag1, rosbag2 sqlite3, MCAP) at their recorded rate. Compressed '
        'images are decoded and published on the topic without /compressed.',
    )
    parser.add_argument('bag', help='.bag, .mcap or .db3 file, or folder of a rosbag2')
    parser.add_argument(
        '--topic',
        action='append',
        default=[],
        help='one or more image topics; default: all, but only the raw ones of a camera with raw and compressed images',
    )
    parser.add_argument('--rate', type=float, default=1.0, help='factor on the recorded rate')
    parser.add_argument('--loop', action='store_true', help='start again at the end')
    parser.add_argument('--stamp-now', action='store_true', help='stamp images with the time of publication')
    parser.add_argument('--wait', type=float, default=10.0, help='seconds to wait for a subscriber; 0: do not wait')
    arguments = separate_lists(sys.argv[1:] if args is None else args, {'--topic': may_be_topic})
    given, ros_arguments = parser.parse_known_args(arguments)
    if ros_arguments and ros_arguments[0] != '--ros-args':
        parser.error(f'unrecognized arguments: {" ".join(ros_arguments)}')
    if not given.rate > 0:
        parser.error(f'--rate is {given.rate:g}, expected more than 0')
    stop = _stop_on_signal()
    try:
        with Bag(expand_user(given.bag)) as bag:
            topics = playable_topics(bag.path, _named_for_ros(bag, given.topic), given.topic)
            with _ros_node(ros_arguments) as node:
                _play(Player(node, bag, topics), given, stop)
            for note in bag.notes:
                print(f'play_bag: {given.bag}: {note}', file=sys.stderr)
            if bag.damage:
                print(f'play_bag: {given.bag} is cut off or damaged ({bag.damage})', file=sys.stderr)
    except (BagError, PlayError, OSError) as error:
        print(f'play_bag: {error}', file=sys.stderr)
        return 1
    return 130 if stop.is_set() else 0


def _stop_on_signal() -> threading.Event:
    """Return an event that the first SIGINT or SIGTERM sets; later ones change nothing.

    rclpy's own handler would shut ROS 2 down while a message is being published.
    """
    signals, stop = keep_signals(), threading.Event()

    def forward() -> None:
        while not signals:
            time.sleep(0.02)
        # Not in the signal handler, which may interrupt a thread that holds the lock of the event.
        stop.set()

    threading.Thread(target=forward, daemon=True).start()
    return stop


def _named_for_ros(bag: Bag, wanted: Sequence[str]) -> dict[str, Topic]:
    """Return the topics that are wanted or have a valid ROS 2 name; all, if no image topic has one."""
    named, refused = {}, []
    for name, topic in bag.topics.items():
        try:
            validate_topic_name(name)
        except InvalidTopicNameException as error:
            if name not in wanted:
                if topic.type in IMAGE_TYPES:
                    reason = one_line(str(error).splitlines()[0].rstrip(':'))
                    refused.append(f'play_bag: {one_line(repr(name), 80)} is not played: {reason}')
                continue
        named[name] = topic
    if not any(topic.type in IMAGE_TYPES for topic in named.values()):
        return dict(bag.topics)
    for line in refused:
        print(line, file=sys.stderr)
    return named


@contextmanager
def _ros_node(ros_arguments: list[str]) -> Iterator[Node]:
    """Start the node that publishes.

    Args:
        ros_arguments: Arguments from ``--ros-args`` on; may be empty.

    Raises:
        PlayError: ROS 2 refuses the arguments or cannot start.
    """
    try:
        rclpy.init(args=ros_arguments, signal_handler_options=SignalHandlerOptions.NO)
        node = Node('play_bag')
    except (ParameterException, RuntimeError) as error:  # RuntimeError: rcl
        rclpy.try_shutdown()
        given = f' with {" ".join(ros_arguments)}' if ros_arguments else ''
        raise PlayError(one_line(f'ROS 2 does not start{given}: {error}', 400)) from error
    try:
        yield node
    finally:
        node.destroy_node()
        rclpy.try_shutdown()


def _play(player: Player, given: argparse.Namespace, stop: threading.Event) -> None:
    for problem in player.problems:
        print(f'play_bag: {problem}', file=sys.stderr)
    if given.wait:
        wait_for_subscribers(player, stop, given.wait)
    for _ in _rounds(given.loop and player.total > 0, stop):
        with tqdm(total=player.total, unit='image', desc='playing') as bar:
            player.play(stop, given.rate, given.stamp_now, lambda *_: bar.update())
        if not player.played:
            break  # another round would not play anything either
    player.finish()
    if player.undecodable and not player.played:
        raise BagError(f'{given.bag}: no image could be decoded; {player.last_error}')
    if player.undecodable:
        print(f'play_bag: {player.undecodable} images could not be decoded', file=sys.stderr)


def _rounds(loop: bool, stop: threading.Event) -> Iterator[None]:
    """Yield once or, with ``loop``, until ``stop`` is set."""
    yield
    while loop and not stop.is_set():
        yield


if __name__ == '__main__':
    sys.exit(main())
