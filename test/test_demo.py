# SPDX-License-Identifier: Apache-2.0
"""Test the demo from start to end: a short drive, the real node, the result files and the printed summary."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from bag_helpers import CAMERA, make_bag, picture

from stdc_core.data.synthetic import SCENES, SyntheticDrive
from stdc_core.inference import DEFAULT_MODEL, Segmenter
from stdc_core.inference.model_file import read_model
from stdc_ros.bags.message import make_header
from stdc_ros.bags.reader import Bag
from stdc_ros.bags.writer import write_bag
from stdc_ros.messages.cdr import CAMERA_INFO, COMPRESSED_IMAGE, IMAGE, TYPES
from stdc_ros.messages.images import make_image
from stdc_ros.playback.isolation import profile_variable
from stdc_ros.playback.rendered_drive import PARTS, pinhole_info, render_drive
from stdc_ros.playback.run_demo import camera_infos, fast_scale

TIMEOUT = 120.0


def start(*arguments: str | Path) -> subprocess.Popen:
    path = os.pathsep.join([str(Path(__file__).parent.parent), os.environ.get('PYTHONPATH', '')])
    return subprocess.Popen(
        [sys.executable, '-m', 'stdc_ros.playback.demo', *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, 'PYTHONPATH': path},
    )


def run(*arguments: str | Path) -> tuple[int, str, str]:
    process = start(*arguments)
    try:
        out, error = process.communicate(timeout=TIMEOUT)
    finally:
        process.kill()
    return process.returncode, out, error


def node_of(demo: subprocess.Popen) -> int:
    """Wait until the demo has started the node, and return its process id."""
    deadline = time.monotonic() + TIMEOUT
    while time.monotonic() < deadline:
        assert demo.poll() is None, demo.communicate()
        for child in Path(f'/proc/{demo.pid}/task/{demo.pid}/children').read_text().split():
            if b'stdc_ros.node.main' in Path(f'/proc/{child}/cmdline').read_bytes():
                return int(child)
        time.sleep(0.05)
    raise AssertionError('the demo has not started a node')


def test_demo_with_a_rendered_drive(tmp_path):
    (tmp_path / 'notes.txt').write_text('a file of the user')
    status, out, error = run('--frames', '21', '--output', tmp_path)
    assert status == 0, error
    sent, masks, dropped = map(int, re.search(r'(\d+) in, (\d+) out, (\d+) dropped', out).groups())
    assert sent == 21 and masks > 0 and masks + dropped == sent
    assert re.search(r'p50 \d+ ms, p95 \d+ ms, p99 \d+ ms', out)
    assert re.search(r'mIoU +\d+\.\d %', out) and 'road' in out
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        'contact_sheet.png',
        'drive.mcap',
        'drive.webm',
        'notes.txt',
    ]
    assert cv2.imread(str(tmp_path / 'contact_sheet.png')).shape[1] > 1000
    check_video(tmp_path / 'drive.webm', masks, (360, 960))
    check_bag(tmp_path / 'drive.mcap', '/camera/image_raw', sent, masks, information=True)


def check_video(path: Path, most: int, size: tuple[int, int]) -> None:
    video, frames = cv2.VideoCapture(str(path)), 0
    while (frame := video.read()[1]) is not None:
        assert frame.shape == (*size, 3) and frame.std() > 5
        frames += 1
    assert 0 < frames <= most


def check_bag(path: Path, camera: str, sent: int, masks: int, information: bool) -> None:
    """Check that images, masks and overlays match by stamp, and that the masks equal the segmenter's."""
    segmenter = Segmenter.load(input_scale=1.0)
    with Bag(path) as bag:
        assert bag.classes() == segmenter.info.classes
        assert bag.topics[camera].message_count == sent
        assert bag.topics['/segmentation/mask'].message_count == masks
        assert ('/camera/camera_info' in bag.topics) == information
        by_stamp: dict[str, dict] = {name: {} for name in bag.topics}
        for message in bag.messages(list(bag.topics)):
            stamp = message.message.header.stamp
            by_stamp[message.topic][stamp.sec, stamp.nanosec] = message
    images = by_stamp[camera]
    assert len(images) == sent
    for stamp, mask in by_stamp['/segmentation/mask'].items():
        expected = segmenter(images[stamp].bgr()).mask
        np.testing.assert_array_equal(mask.message.data, expected.reshape(-1))
    assert set(by_stamp['/segmentation/overlay']) <= set(images)
    if information:
        assert set(by_stamp['/camera/camera_info']) == set(images)
        matrices = [by_stamp['/camera/camera_info'][stamp].message.k for stamp in images]
        assert all(matrix[8] == 1 for matrix in matrices)
        focal = [SyntheticDrive(seed, scene=scene).camera_matrix[0, 0] for scene, _, seed in PARTS]
        assert [matrix[0] for matrix in matrices] == [f for f in focal for _ in range(sent // len(PARTS))]


@pytest.mark.parametrize('frames', [1, 3])
def test_rendered_drive_shows_each_kind_of_street(frames, tmp_path):
    labels = render_drive(tmp_path / 'drive.mcap', frames)
    assert len(labels) == frames
    with Bag(tmp_path / 'drive.mcap') as bag:
        images = [message.bgr() for message in bag.messages(['/camera/image_raw'])]
    for image, label, (scene, weather, seed) in zip(images, labels, PARTS[:frames], strict=True):
        frame = SyntheticDrive(seed, frames=1, scene=scene, weather=weather)[0]
        np.testing.assert_array_equal(image, frame.image)
        np.testing.assert_array_equal(label, frame.label)
    scenes = [scene for scene, _, _ in PARTS]
    assert len(set(scenes)) == len(scenes) > 1 and set(scenes) <= set(SCENES)


@pytest.mark.parametrize(('count', 'kept'), [(3, [1, 2, 3]), (2, [1]), (0, [])])
def test_each_image_keeps_its_camera_info(count, kept, tmp_path):
    """Cameras with a zoom change their matrix. If the numbers differ, one message counts for all images."""
    with write_bag(tmp_path / 'drive.mcap') as bag:
        bag.add_topic(CAMERA, IMAGE)
        topic = CAMERA.rpartition('/')[0] + '/camera_info'
        bag.add_topic(topic, CAMERA_INFO)
        for stamp in (1, 2, 3):
            header = make_header(stamp, 'camera')
            bag.write(CAMERA, stamp, make_image(TYPES.types[IMAGE], header, picture(0), 'bgr8'))
            if stamp <= count:
                bag.write(topic, stamp, pinhole_info(header, (96, 128), np.diag([float(stamp), 1, 1])))
    with Bag(tmp_path / 'drive.mcap') as bag:
        assert [info.k[0] for info in camera_infos(bag, CAMERA)] == kept


@pytest.mark.parametrize(('of', 'name'), [(IMAGE, CAMERA), (COMPRESSED_IMAGE, CAMERA + '/compressed')])
def test_demo_with_a_bag(tmp_path, of, name):
    bag = make_bag(tmp_path, 'mcap', {name: of, '/rear/image': IMAGE}, frames=15)
    before = bag.read_bytes()
    status, out, error = run('--bag', bag, '--topic', name, '--output', tmp_path / 'demo')
    assert status == 0, error
    masks = int(re.search(r'15 in, (\d+) out', out).group(1))
    assert 'mIoU' not in out
    check_bag(tmp_path / 'demo' / 'drive.mcap', CAMERA, 15, masks, information=False)
    with Bag(tmp_path / 'demo' / 'drive.mcap') as made:
        np.testing.assert_array_equal(next(made.messages([CAMERA])).bgr(), picture(0))
    assert bag.read_bytes() == before


@pytest.mark.parametrize(('size', 'scale'), [((96, 128), 1.0), ((720, 960), 0.5)])
def test_large_images_get_a_smaller_input_scale(size, scale, tmp_path):
    with write_bag(tmp_path / 'drive.mcap') as bag:
        bag.add_topic(CAMERA, IMAGE)
        message = make_image(TYPES.types[IMAGE], make_header(1, 'camera'), np.zeros((*size, 3), np.uint8), 'bgr8')
        bag.write(CAMERA, 1, message)
        bag.add_topic('/rear', IMAGE)
        message.data = message.data[:100]
        bag.write('/rear', 1, message)
    info = read_model(DEFAULT_MODEL)[1]
    with Bag(tmp_path / 'drive.mcap') as bag:
        assert fast_scale(bag, CAMERA, info) == scale
        assert fast_scale(bag, CAMERA, info.at(0.75)) == 0.75  # not raised to 1
        assert fast_scale(bag, '/rear', info) == 1.0  # its image cannot be decoded


def test_user_errors_are_one_line(tmp_path):
    bag = make_bag(tmp_path, 'mcap', {'/left': IMAGE, '/right': IMAGE})
    for arguments, message in [
        (['--bag', bag], 'several image topics'),
        (['--bag', tmp_path / 'no.mcap'], 'no such bag'),
        (['--model', bag], 'not an ONNX model'),
    ]:
        status, _, error = run(*arguments, '--output', tmp_path / 'demo')
        # Kilted warns about the environment variable for the profile of older releases, which is set for them.
        said = [line for line in error.splitlines() if '[rmw_fastrtps_shared_cpp]' not in line]
        assert status == 1 and len(said) == 1 and message in said[0], error
    assert not list((tmp_path / 'demo').iterdir())


@pytest.mark.parametrize('frames', ['0', '-3'])
def test_drive_without_frames_is_refused(tmp_path, frames):
    status, _, error = run('--frames', frames, '--output', tmp_path / 'demo')
    assert status == 2 and f'--frames is {frames}, expected 1 or more' in error and 'Traceback' not in error
    assert not (tmp_path / 'demo').exists()


@pytest.mark.parametrize('death', [False, True])
def test_interrupt_and_death_of_the_node(tmp_path, death):
    bag = make_bag(tmp_path, 'mcap', frames=3000)
    process = start('--bag', bag, '--output', tmp_path / 'demo')
    try:
        node = node_of(process)
        time.sleep(1)
        if death:
            os.kill(node, signal.SIGKILL)
        else:
            process.send_signal(signal.SIGINT)
            time.sleep(0.05)
            while process.poll() is None:  # also while the node is ended
                process.send_signal(signal.SIGTERM)
                time.sleep(0.05)
        _, error = process.communicate(timeout=TIMEOUT)
    finally:
        process.kill()
    if death:
        assert process.returncode == 1 and 'the segmentation node ended with status -9' in error
    else:
        assert process.returncode == 130 and 'interrupted' in error
    assert 'Traceback' not in error
    assert not Path(f'/proc/{node}').exists()
    assert not list((tmp_path / 'demo').iterdir())


def test_profile_variable_follows_the_fast_dds_version(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, 'prefix', str(tmp_path / 'nowhere'))
    monkeypatch.setenv('AMENT_PREFIX_PATH', f'{tmp_path}/other:{tmp_path}/ros')
    assert profile_variable() == 'FASTRTPS_DEFAULT_PROFILES_FILE'
    (tmp_path / 'ros' / 'share' / 'fastdds').mkdir(parents=True)
    assert profile_variable() == 'FASTDDS_DEFAULT_PROFILES_FILE'
