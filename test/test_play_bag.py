"""play_bag: every image, at its pace, with its header."""

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

from stdc_core.inference import Segmenter
from stdc_ros.bags import COMPRESSED_IMAGE, IMAGE
from stdc_ros.images import image_to_bgr


def start(*arguments: str) -> subprocess.Popen:
    path = os.pathsep.join([str(Path(__file__).parent.parent), os.environ.get('PYTHONPATH', '')])
    return subprocess.Popen(
        [sys.executable, '-m', 'stdc_ros.play_bag', *arguments],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, 'PYTHONPATH': path},
    )


def nanoseconds(message: Image) -> int:
    return message.header.stamp.sec * 10**9 + message.header.stamp.nanosec


@pytest.mark.parametrize(
    'kind, of, name',
    [
        ('mcap', IMAGE, CAMERA),
        ('sqlite3', IMAGE, CAMERA),
        ('rosbag1', IMAGE, CAMERA),
        ('mcap', COMPRESSED_IMAGE, CAMERA + '/compressed'),
    ],
)
def test_a_bag_is_played(tmp_path, kind, of, name):
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
    # Never faster than recorded: 14 periods of 1/15 s. (Slower is up to the machine.)
    assert received[-1][0] - received[0][0] > 0.7


def test_loop_and_new_stamps_until_interrupted(tmp_path):
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


def test_a_looping_bag_is_segmented_round_after_round(tmp_path):
    bag = make_bag(tmp_path, 'mcap', frames=3)
    with NodeProcess('-r', f'image:={CAMERA}', namespace='/left') as process, Client('/left', image=CAMERA) as client:
        process.wait_for_output(f'{CAMERA} -> /left/segmentation/mask')
        client.listen('mask')
        player = start(str(bag), '--loop')
        try:
            # Stamps go back with every round.
            client.spin_until(lambda: len(client.received['mask']) >= 12, '12 masks of 3 images')
            player.send_signal(signal.SIGINT)
            player.communicate(timeout=TIMEOUT)
        finally:
            player.kill()
        assert 'image on' not in process.output
    stamps = [nanoseconds(mask) for mask in client.received['mask']]
    assert sum(later <= earlier for earlier, later in itertools.pairwise(stamps)) >= 3
    masks = {stamp(index): Segmenter.load()(picture(index)).mask for index in range(3)}
    for mask in client.received['mask']:
        np.testing.assert_array_equal(pixels(mask), masks[nanoseconds(mask)])


@pytest.mark.parametrize(
    'arguments, status, message',
    [
        (['no.mcap'], 1, 'no.mcap: no such bag'),
        (['{bag}', '--wait', '0.2'], 1, f'nobody subscribes to {CAMERA} within 0.2 s'),
        (['{bag}', '--topic', '/no'], 1, 'no topic /no; its image topics are'),
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
