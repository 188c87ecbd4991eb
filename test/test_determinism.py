# SPDX-License-Identifier: Apache-2.0
"""Test that the same images give the same bytes: repeated, with other threads or workers, and from the live node."""

from __future__ import annotations

import threading

import cv2
import numpy as np
import pytest
from bag_helpers import CAMERA, make_bag, picture
from ros_helpers import Client, NodeProcess

from stdc_core.commands.main import main as stdc
from stdc_core.inference import Segmenter
from stdc_core.io.files import write_png
from stdc_core.io.video import VideoReader, webm_writer
from stdc_ros.bags.reader import Bag
from stdc_ros.offline.segment_bag import main as segment_bag
from stdc_ros.playback.player import Player

FRAMES = 12


def masks_of(path) -> list[tuple[int, bytes]]:
    """Return stamp in nanoseconds and bytes of every mask in a bag, in order."""
    with Bag(path) as bag:
        return [(image.stamp, image.message.data.tobytes()) for image in bag.messages(['/camera/segmentation/mask'])]


@pytest.mark.parametrize('size', [(40, 64), (97, 131), (360, 480)], ids=str)
def test_thread_count_does_not_change_the_masks(size):
    one, two = Segmenter.load(threads=1), Segmenter.load(threads=2)
    for index in range(3):
        image = cv2.resize(picture(index), size[::-1])
        expected, found, again = one(image, confidence=True), two(image, confidence=True), two(image, confidence=True)
        for name in ('mask', 'confidence'):
            np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))
            np.testing.assert_array_equal(getattr(again, name), getattr(expected, name))


def test_node_and_segment_bag_give_the_same_masks(tmp_path):
    source = make_bag(tmp_path, 'mcap', frames=FRAMES)
    for name, threads in (('one', '1'), ('two', '2')):
        options = ['--threads', threads, '--outputs', 'mask', 'confidence']
        assert segment_bag([str(source), str(tmp_path / f'{name}.mcap'), *options]) == 0
        many = ['--out-dir', str(tmp_path / name), '--workers', threads]
        assert segment_bag([str(source), *many, *options]) == 0
    expected = (tmp_path / 'one.mcap').read_bytes()
    for other in ('two.mcap', 'one/drive.mcap', 'two/drive.mcap'):
        assert (tmp_path / other).read_bytes() == expected, other
    # Reliable: every image must arrive, also where the node discovers the player late.
    arguments = ['-p', 'image_reliability:=reliable', '-r', f'image:={CAMERA}']
    with NodeProcess(*arguments) as process, Client(image=CAMERA) as client, Bag(source) as bag:
        client.listen('mask')
        player = Player(client.node, bag, [CAMERA])
        client.spin_until(lambda: not player.unheard(), 'the node listens to the player')
        received = client.received['mask']
        number = 0

        # Each image is published after the mask of the one before, so no frame is dropped at any speed.
        def wait_for_mask(*_: object) -> None:
            nonlocal number
            number += 1
            client.spin_until(lambda: len(received) >= number, f'mask {number}')

        player.play(threading.Event(), on_publish=wait_for_mask)
        assert process.process.poll() is None
    live = [(mask.header.stamp.sec * 10**9 + mask.header.stamp.nanosec, bytes(mask.data)) for mask in received]
    assert live == masks_of(tmp_path / 'one.mcap')
    assert len(live) == FRAMES and len({data for _, data in live}) > 1


def test_predicted_files_are_reproducible(tmp_path):
    write_png(tmp_path / 'a.png', picture(0))
    with webm_writer(tmp_path / 'drive.webm', (40, 64), 15) as write:
        for index in range(5):
            write(picture(index))
    found = []
    for name, threads in (('one', '1'), ('two', '2')):
        out = tmp_path / name
        command = ['predict', str(tmp_path / 'a.png'), str(tmp_path / 'drive.webm'), '--out', str(out)]
        assert stdc([*command, '--threads', threads]) == 0
        files = sorted(path for path in out.rglob('*') if path.is_file())
        # Every WebM file contains a random number, so its frames are compared.
        found.append(
            [
                (path.relative_to(out), [image.tobytes() for image in VideoReader(path)])
                if path.suffix == '.webm'
                else (path.relative_to(out), path.read_bytes())
                for path in files
            ]
        )
    assert found[0] == found[1] and len(found[0]) == 2 + 5 + 1
