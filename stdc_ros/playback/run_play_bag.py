# SPDX-License-Identifier: Apache-2.0
"""Parse the command line of ``play_bag`` and play the bag."""

from __future__ import annotations

import argparse
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import rclpy
from rclpy.exceptions import InvalidTopicNameException, ParameterException
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions
from rclpy.validate_topic_name import validate_topic_name
from tqdm import tqdm

from stdc_core.io.arguments import expand_user, separate_lists
from stdc_core.io.text import one_line
from stdc_ros.bags.message import BagError, Topic
from stdc_ros.bags.reader import Bag, may_be_topic
from stdc_ros.bags.topic_selection import IMAGE_TYPES, playable_topics
from stdc_ros.playback.player import Player, wait_for_subscribers


class PlayError(RuntimeError):
    """ROS 2 cannot start; the message tells the user why."""


def run(signals: list[int], args: Sequence[str]) -> int:
    """Play a bag until its end or until a signal is in the list.

    Args:
        signals: List of received signals, see ``stdc_core.io.signals.keep_signals``.
        args: Command line without the program's name.

    Returns:
        Exit status: 0, or 1 if nothing could be played.
    """
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
        help='one or more image topics; default: one of each camera, raw images if there are any',
    )
    parser.add_argument('--rate', type=float, default=1.0, help='factor on the recorded rate')
    parser.add_argument('--loop', action='store_true', help='start again at the end')
    parser.add_argument('--stamp-now', action='store_true', help='stamp images with the time of publication')
    parser.add_argument('--wait', type=float, default=10.0, help='seconds to wait for a subscriber; 0: do not wait')
    arguments = separate_lists(args, {'--topic': may_be_topic})
    given, ros_arguments = parser.parse_known_args(arguments)
    if ros_arguments and ros_arguments[0] != '--ros-args':
        parser.error(f'unrecognized arguments: {" ".join(ros_arguments)}')
    if not given.rate > 0:
        parser.error(f'--rate is {given.rate:g}, expected more than 0')
    stop = _stop_on_signal(signals)
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
    finally:
        stop.set()
    return 0


def _stop_on_signal(signals: list[int]) -> threading.Event:
    """Return an event that is set when a signal is in the list. A thread waits for it until the event is set."""
    stop = threading.Event()

    def forward() -> None:
        while not signals and not stop.wait(0.02):
            pass
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
