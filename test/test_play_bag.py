# SPDX-License-Identifier: Apache-2.0
"""Test play_bag: every image, at the recorded rate, with its header."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from bag_helpers import CAMERA, make_bag, picture, stamp
from rclpy.qos import QoSProfile
from ros_helpers import TIMEOUT, Client, NodeProcess
from scenes import pixels
from sensor_msgs.msg import Image
from test_compressed_video import BEGIN, FRAMES, encode, record

from stdc_core.inference import Segmenter
from stdc_ros.bags.message import Topic, make_header
from stdc_ros.bags.message_types import COMPRESSED_VIDEO
from stdc_ros.bags.reader import Bag
from stdc_ros.bags.topic_selection import without_twins
from stdc_ros.bags.writer import write_bag
from stdc_ros.messages.cdr import COMPRESSED_IMAGE, IMAGE, TYPES
from stdc_ros.messages.images import image_to_bgr


def start(*arguments: str) -> subprocess.Popen:
    path = os.pathsep.join([str(Path(__file__).parent.parent), os.environ.get('PYTHONPATH', '')])
    return subprocess.Popen(
        [sys.executable, '-m', 'stdc_ros.playback.play_bag', *arguments],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, 'PYTHONPATH': path},
    )


def nanoseconds(message: Image) -> int:
    return message.header.stamp.sec * 10**9 + message.header.stamp.nanosec


@pytest.mark.parametrize(
    ('kind', 'of', 'name'),
    [
        ('mcap', IMAGE, CAMERA),
        ('sqlite3', IMAGE, CAMERA),
        ('rosbag1', IMAGE, CAMERA),
        ('mcap', COMPRESSED_IMAGE, CAMERA + '/compressed'),
    ],
)
def test_bag_is_played(tmp_path, kind, of, name):
    bag = make_bag(tmp_path, kind, {name: of}, frames=15)
    received: list[tuple[float, Image]] = []
    with Client() as client:
        client.node.create_subscription(
            Image, CAMERA, lambda message: received.append((time.monotonic(), message)), QoSProfile(depth=20)
        )
        process = start(str(bag))
        try:
            client.spin_until(lambda: len(received) == 15, '15 images')
            _, error = process.communicate(timeout=TIMEOUT)
        finally:
            process.kill()
    assert process.returncode == 0, error
    for i, (_, message) in enumerate(received):
        assert nanoseconds(message) == stamp(i) and message.header.frame_id == 'front'
        np.testing.assert_array_equal(image_to_bgr(message), picture(i))
    # Never faster than recorded: 14 periods of 1/15 s. (A busy machine may be slower.)
    assert received[-1][0] - received[0][0] > 0.7


def test_compressed_twin_of_raw_images_is_not_played(tmp_path):
    topics = {CAMERA: IMAGE, f'{CAMERA}/compressed': COMPRESSED_IMAGE, '/rear/image/compressed': COMPRESSED_IMAGE}
    bag = make_bag(tmp_path, 'mcap', topics, frames=3)
    received: dict[str, list[Image]] = {CAMERA: [], '/rear/image': []}
    with Client() as client:
        for name, images in received.items():
            client.node.create_subscription(Image, name, images.append, QoSProfile(depth=20))
        process = start(str(bag))
        try:
            client.spin_until(lambda: process.poll() is not None, 'the end of play_bag')
            client.spin(0.5)
        finally:
            process.kill()
            process.communicate()
    assert process.returncode == 0
    for images in received.values():
        assert [nanoseconds(message) for message in images] == [stamp(index) for index in range(3)]


def test_compressed_images_beside_an_empty_raw_topic(tmp_path):
    topics = {CAMERA: IMAGE, f'{CAMERA}/compressed': COMPRESSED_IMAGE}
    with Bag(make_bag(tmp_path, 'mcap', topics)) as bag:
        assert without_twins(bag.topics, list(topics)) == [CAMERA]
        bag.topics[CAMERA] = Topic(IMAGE, 0)
        assert without_twins(bag.topics, list(topics)) == [f'{CAMERA}/compressed']


def test_loop_with_new_stamps_until_interrupted(tmp_path):
    bag = make_bag(tmp_path, 'mcap', frames=3)
    received: list[Image] = []
    with Client() as client:
        client.node.create_subscription(Image, CAMERA, received.append, QoSProfile(depth=20))
        process = start(str(bag), '--loop', '--stamp-now', '--rate', '4')
        try:
            client.spin_until(lambda: len(received) >= 8, '8 images')
            process.send_signal(signal.SIGINT)
            _, error = process.communicate(timeout=TIMEOUT)
        finally:
            process.kill()
    assert process.returncode == 130
    assert 'Traceback' not in error
    stamps = [nanoseconds(message) for message in received]
    assert abs(stamps[0] / 1e9 - time.time()) < 2 * TIMEOUT
    assert all(earlier < later for earlier, later in itertools.pairwise(stamps))
    np.testing.assert_array_equal(image_to_bgr(received[4]), picture(1))


def test_looping_bag_is_segmented_in_every_round(tmp_path):
    bag = make_bag(tmp_path, 'mcap', frames=3)
    with NodeProcess('-r', f'image:={CAMERA}', namespace='/left') as process, Client('/left', image=CAMERA) as client:
        process.wait_for_output(f'{CAMERA} -> /left/segmentation/mask')
        client.listen('mask')
        player = start(str(bag), '--loop')
        try:
            # Stamps go back in every round.
            client.spin_until(lambda: len(client.received['mask']) >= 12, '12 masks of 3 images')
            player.send_signal(signal.SIGINT)
            player.communicate(timeout=TIMEOUT)
        finally:
            player.kill()
        assert 'is left out' not in process.output
    stamps = [nanoseconds(mask) for mask in client.received['mask']]
    assert sum(later <= earlier for earlier, later in itertools.pairwise(stamps)) >= 3
    masks = {stamp(index): Segmenter.load()(picture(index)).mask for index in range(3)}
    for mask in client.received['mask']:
        np.testing.assert_array_equal(pixels(mask), masks[nanoseconds(mask)])


@pytest.mark.parametrize(
    ('arguments', 'status', 'message'),
    [
        (['no.mcap'], 1, 'no.mcap: no such bag'),
        (['{bag}', '--wait', '0.2'], 1, f'nobody subscribes to {CAMERA} within 0.2 s'),
        (['{bag}', '--topic', '/no'], 1, 'no topic /no; its image topics are'),
        (['--topic', '/no', '{bag}'], 1, 'no topic /no; its image topics are'),
        (['{bag}', '--rate', '0'], 2, '--rate is 0, expected more than 0'),
        (['{bag}', '--fast'], 2, 'unrecognized arguments: --fast'),
    ],
)
def test_user_errors(tmp_path, arguments, status, message):
    bag = str(make_bag(tmp_path, 'mcap'))
    process = start(*(argument.format(bag=bag) for argument in arguments))
    _, error = process.communicate(timeout=TIMEOUT)
    assert process.returncode == status
    assert message in error and 'Traceback' not in error


def test_video_topic_is_played_as_images(tmp_path):
    bag = record(tmp_path / 'video.mcap', encode('libx264'), COMPRESSED_VIDEO, 'h264')
    received: list[Image] = []
    with Client() as client:
        client.node.create_subscription(Image, CAMERA, received.append, QoSProfile(depth=FRAMES))
        process = start(str(bag))
        try:
            client.spin_until(lambda: len(received) == FRAMES, f'{FRAMES} images')
        finally:
            process.kill()
            process.wait()
    assert [nanoseconds(image) - BEGIN for image in received] == list(range(FRAMES))
    assert {(image.encoding, image.height, image.width, image.header.frame_id) for image in received} == {
        ('bgr8', 96, 128, 'front')
    }


@pytest.mark.parametrize('other', ['/rear/image', '/cam-2/image', '/front camera/image'])
def test_one_topic_with_a_listener_is_enough(tmp_path, other):
    bag = make_bag(tmp_path, 'mcap', {CAMERA: IMAGE, other: IMAGE}, frames=3)
    received: list[Image] = []
    with Client() as client:
        client.node.create_subscription(Image, CAMERA, received.append, QoSProfile(depth=20))
        process = start(str(bag))
        try:
            client.spin_until(lambda: len(received) == 3, '3 images')
            _, error = process.communicate(timeout=TIMEOUT)
        finally:
            process.kill()
    assert process.returncode == 0, error
    # A topic name that ROS 2 refuses gives a line and does not affect the other camera.
    assert (other in error) == (other != '/rear/image') and 'Traceback' not in error


def test_bag_without_decodable_images_is_an_error(tmp_path):
    with write_bag(tmp_path / 'drive.mcap') as bag:
        bag.add_topic(f'{CAMERA}/compressed', COMPRESSED_IMAGE)
        image = TYPES.types[COMPRESSED_IMAGE](make_header(1, 'front'), 'jpeg', np.zeros(9, np.uint8))
        bag.write(f'{CAMERA}/compressed', 1, image)
    process = start(str(tmp_path / 'drive.mcap'), '--wait', '0', '--loop')
    _, error = process.communicate(timeout=TIMEOUT)
    assert process.returncode == 1
    assert f'no image could be decoded; {CAMERA}/compressed: ' in error and 'Traceback' not in error


def test_second_signal_changes_nothing(tmp_path):
    bag = make_bag(tmp_path, 'mcap', frames=3)
    process = start(str(bag), '--wait', '0', '--loop')
    time.sleep(4)
    process.send_signal(signal.SIGINT)
    # During the whole shutdown of the interpreter.
    while process.poll() is None:
        process.send_signal(signal.SIGTERM)
        time.sleep(0.002)
    _, error = process.communicate(timeout=TIMEOUT)
    assert process.returncode == 130 and 'Traceback' not in error, error


def test_two_topics_with_the_same_published_name(tmp_path):
    twin = f'{CAMERA}/compressed'
    bag = make_bag(tmp_path, 'mcap', {CAMERA: IMAGE, twin: COMPRESSED_IMAGE})
    process = start(str(bag), '--wait', '0', '--topic', CAMERA, twin)
    _, error = process.communicate(timeout=TIMEOUT)
    assert process.returncode == 1
    assert error == f'play_bag: {bag}: {CAMERA} and {twin} would both be played on {CAMERA}, expected one of them\n'


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['-r', 'foo'], "ROS 2 does not start with --ros-args -r foo: failed to initialize rcl: Couldn't parse remap"),
        (['-r', '__node:=1x'], 'ROS 2 does not start with --ros-args -r __node:=1x: '),
        (['--foo'], "ROS 2 does not start with --ros-args --foo: ['--foo']"),
        (['-p', 'use_sim_time:=maybe'], 'ROS 2 does not start with --ros-args -p use_sim_time:=maybe: Trying to set'),
        (
            ['-r', f'{CAMERA}:=/{"a" * 300}'],
            f'drive.mcap: {CAMERA} cannot be published: failed to resolve name: topic length',
        ),
    ],
)
def test_invalid_ros_arguments(tmp_path, arguments, message):
    process = start(str(make_bag(tmp_path, 'mcap')), '--wait', '0', '--ros-args', *arguments)
    _, error = process.communicate(timeout=TIMEOUT)
    assert process.returncode == 1
    # rcl also logs a line.
    said = [line for line in error.splitlines() if '[rcl]' not in line]
    assert len(said) == 1 and said[0].startswith('play_bag: ') and message in said[0], error
