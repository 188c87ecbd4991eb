# SPDX-License-Identifier: Apache-2.0
"""Test that a real drive gives the same masks live and offline (acceptance test)."""

from __future__ import annotations

import itertools
import threading
from pathlib import Path

import cv2
import numpy as np
import pytest
from ros_helpers import Client, NodeProcess

from stdc_core.evaluation.metrics import ConfusionMatrix
from stdc_core.inference import Segmenter
from stdc_ros.bags.message import make_header
from stdc_ros.bags.reader import Bag
from stdc_ros.bags.writer import write_bag
from stdc_ros.messages.cdr import IMAGE, TYPES
from stdc_ros.messages.images import make_image
from stdc_ros.offline.segment_bag import main as segment_bag
from stdc_ros.playback.player import Player

#: Input scale. A small one suffices to compare the masks of 303 frames.
SCALE = 0.5
RATE = 15
FRAMES = 101
BEGIN = 1_136_214_245_000_000_000
TOPIC = '/image'


def stamp(index: int) -> int:
    return BEGIN + index * 10**9 // RATE


@pytest.fixture(scope='module')
def drive(camvid, tmp_path_factory) -> tuple[Path, list[np.ndarray], list[np.ndarray]]:
    """Return a bag of the val sequence in the order of names, its images (uint8 BGR) and its labels (uint8 ids)."""
    names = sorted((camvid / 'val' / 'images').iterdir())
    images = [cv2.imread(str(path)) for path in names]
    labels = [cv2.imread(str(camvid / 'val' / 'labels' / f'{path.stem}.png'), cv2.IMREAD_UNCHANGED) for path in names]
    assert len(images) == FRAMES
    path = tmp_path_factory.mktemp('camvid') / 'drive.mcap'
    with write_bag(path) as bag:
        bag.add_topic(TOPIC, IMAGE)
        for i, image in enumerate(images):
            message = make_image(TYPES.types[IMAGE], make_header(stamp(i), 'camera'), image, 'bgr8')
            bag.write(TOPIC, stamp(i), message)
    return path, images, labels


@pytest.fixture(scope='module')
def offline(drive) -> list[np.ndarray]:
    """Return the segmenter's masks of the images."""
    segmenter = Segmenter.load(input_scale=SCALE)
    return [segmenter(image).mask for image in drive[1]]


def miou(masks: list[np.ndarray], labels: list[np.ndarray]) -> float:
    matrix = ConfusionMatrix(11)
    for mask, label in zip(masks, labels, strict=True):
        matrix.update(mask, label)
    return matrix.miou()


def mask_of(message) -> np.ndarray:
    assert message.encoding == 'mono8' and message.step == message.width
    return np.frombuffer(message.data, np.uint8).reshape(message.height, message.width)


def nanoseconds(message) -> int:
    return message.header.stamp.sec * 10**9 + message.header.stamp.nanosec


def check(messages: list, drive, offline: list[np.ndarray]) -> None:
    """Check that all masks arrived in order with their headers, equal to the segmenter's, and so their mIoU."""
    assert [nanoseconds(message) for message in messages] == [stamp(i) for i in range(FRAMES)]
    assert {message.header.frame_id for message in messages} == {'camera'}
    masks = [mask_of(message) for message in messages]
    for mask, expected in zip(masks, offline, strict=True):
        np.testing.assert_array_equal(mask, expected)
    assert miou(masks, drive[2]) == miou(offline, drive[2])


def test_node_publishes_every_mask_of_the_drive(drive, offline):
    arguments = ['-p', 'image_reliability:=reliable', '-p', f'input_scale:={SCALE}']
    with NodeProcess(*arguments) as node, Client() as client, Bag(drive[0]) as bag:
        client.listen('mask')
        player = Player(client.node, bag, [TOPIC])
        client.spin_until(lambda: not player.unheard(), 'the node listens to the player')
        received = client.received['mask']
        sent = itertools.count(1)

        # Each image is published after the mask of the one before, at most at the recorded rate.
        def wait_for_mask(*_: object) -> None:
            number = next(sent)
            client.spin_until(lambda: len(received) >= number, f'mask {number}')

        player.play(threading.Event(), on_publish=wait_for_mask)
        assert node.process.poll() is None
    check(received, drive, offline)


def test_segment_bag_writes_every_mask_of_the_drive(drive, offline, tmp_path):
    out = tmp_path / 'masks.mcap'
    assert segment_bag([str(drive[0]), str(out), '--outputs', 'mask', '--input-scale', str(SCALE)]) == 0
    with Bag(out) as bag:
        check([message.message for message in bag.messages(['/segmentation/mask'])], drive, offline)
