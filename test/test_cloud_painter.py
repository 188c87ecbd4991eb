# SPDX-License-Identifier: Apache-2.0
"""Which masks paint a cloud: the nearest of each camera in time; and why none does. Without rclpy."""

from __future__ import annotations

import subprocess
import sys
import threading
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from point_clouds import cloud_of, field_of

from stdc_core.classes import CAMVID
from stdc_core.inference import Segmentation
from stdc_ros.bags.message import make_header
from stdc_ros.ground.camera_info import CameraInfoError
from stdc_ros.messages.cdr import encode
from stdc_ros.node import cloud_painter
from stdc_ros.node.cloud_painter import CloudPainter
from stdc_ros.node.parameters import Parameters
from stdc_ros.points.mask_history import KEPT, MaskHistory, StampedMask
from stdc_ros.points.point_cloud import PointsError

START = 1_700_000_000_000_000_000
MS = 1_000_000
INFO = SimpleNamespace(
    width=64, height=48, k=[50.0, 0, 31.5, 0, 50.0, 23.5, 0, 0, 1], p=np.zeros(12), r=np.zeros(9), d=[],
    distortion_model='plumb_bob', binning_x=0, binning_y=0,
    roi=SimpleNamespace(x_offset=0, y_offset=0, width=0, height=0),
)  # fmt: skip


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no cloud give up waiting because the machine is busy."""
    monkeypatch.setattr(cloud_painter, 'PATIENCE', 60.0)


class Listener:
    """Painter whose thread runs, and the clouds that it publishes."""

    def __init__(self, *cameras: str, find: Any = None, **settings: Any):
        self.published: list[Any] = []
        self.changed = threading.Condition()
        topics = {name: f'/{name}/image' for name in cameras or ('',)}
        find = find or (lambda camera, mask, header: np.eye(4))
        self.painter = CloudPainter(Parameters(points=True, **settings), CAMVID, topics, find)
        self.painter.start(self._publish)

    def __enter__(self) -> Listener:
        return self

    def __exit__(self, *_: object) -> None:
        assert self.painter.close(10.0)

    def _publish(self, message: Any) -> None:
        with self.changed:
            self.published.append(message)
            self.changed.notify()

    def add_mask(self, class_id: int, stamp_ms: int, camera: str = '', info: Any = INFO, confidence: int = 200) -> None:
        arrays = (np.full((48, 64), value, np.uint8) for value in (class_id, confidence))
        self.painter.add_mask(camera, make_header(START + stamp_ms * MS, 'lens'), Segmentation(*arrays), info)

    def put_cloud(self, stamp_ms: int, x: float = 0.0) -> None:
        cloud = cloud_of(np.array([[x, 0, 5], [0, 0, -5]]).T, stamp=START + stamp_ms * MS)
        self.painter.put(encode(cloud))

    def classes(self, count: int) -> list[list[int]]:
        """Return stamp in milliseconds and classes of the first clouds that were published, waited for."""
        with self.changed:
            assert self.changed.wait_for(lambda: len(self.published) >= count, 20.0)
        return [
            [
                (message.header.stamp.sec * 10**9 + message.header.stamp.nanosec - START) // MS,
                *field_of(message, 'class_id')[0].tolist(),
            ]
            for message in self.published
        ]

    def reason(self, kind: str) -> str:
        """Return the reason of the first trouble of a kind, waited for."""
        for _ in range(400):
            troubles = self.painter.statistics.new_troubles()
            if kind in troubles:
                return troubles[kind]
            threading.Event().wait(0.05)
        raise AssertionError(f'no cloud {kind}: {self.painter.statistics.counts}')


def test_it_needs_no_rclpy():
    code = 'import sys, stdc_ros.node.cloud_painter; sys.exit("rclpy" in sys.modules)'
    assert subprocess.run([sys.executable, '-c', code]).returncode == 0


def test_the_nearest_mask_paints_whether_it_is_older_or_newer():
    with Listener() as listener:
        for class_id, stamp in ((1, 0), (2, 30), (3, 60)):
            listener.add_mask(class_id, stamp)
        listener.put_cloud(14)
        listener.put_cloud(20)
        listener.put_cloud(60)
        assert listener.classes(3) == [[14, 1, 255], [20, 2, 255], [60, 3, 255]]


def test_a_cloud_waits_for_a_mask_as_new_as_itself():
    with Listener() as listener:
        listener.add_mask(1, 0)
        listener.put_cloud(40)  # the next mask may be nearer
        listener.put_cloud(0)  # this one needs no later mask
        assert listener.classes(1) == [[0, 1, 255]]
        listener.add_mask(2, 50)
        assert listener.classes(2) == [[0, 1, 255], [40, 2, 255]]


def test_every_camera_paints_and_a_silent_one_is_not_waited_for():
    ahead, behind = np.eye(4), np.diag([-1.0, 1.0, -1.0, 1.0])
    poses = {'front': ahead, 'rear': behind}
    with Listener('front', 'rear', find=lambda camera, mask, header: poses[camera]) as listener:
        listener.add_mask(3, 10, 'front')
        listener.put_cloud(5)
        assert listener.classes(1)[0] == [5, 3, 255]
        listener.add_mask(8, 0, 'rear')
        listener.put_cloud(6)
        listener.put_cloud(7)
        assert len(listener.published) == 1  # both wait for the rear
        listener.add_mask(9, 12, 'rear')
        assert listener.classes(3)[1:] == [[6, 3, 8], [7, 3, 9]]


def test_what_waits_when_the_last_listener_leaves_is_forgotten():
    with Listener() as listener:
        listener.add_mask(1, 0)
        listener.put_cloud(40)
        listener.put_cloud(0)
        assert listener.classes(1) == [[0, 1, 255]]
        listener.painter.forget()
        listener.add_mask(2, 50)
        listener.put_cloud(50)
        assert listener.classes(2) == [[0, 1, 255], [50, 2, 255]]
        assert not listener.painter.statistics.new_troubles()


def test_a_filtered_cloud_and_the_threshold():
    with Listener(points_only=('road', 'sidewalk'), confidence_threshold=0.5) as listener:
        listener.add_mask(3, 0)
        listener.put_cloud(0)
        listener.add_mask(3, 100, confidence=100)
        listener.put_cloud(100)
        assert listener.classes(2) == [[0, 3], [100]]


def test_a_mask_that_is_too_far_in_time_paints_nothing():
    with Listener(points_max_time_difference=0.02) as listener:
        listener.add_mask(1, 100)
        listener.put_cloud(50)
        reason = '/image: the nearest mask is 0.050 s newer, points_max_time_difference is 0.02 s'
        assert reason in listener.reason('without a mask')
        listener.put_cloud(90)
        assert listener.classes(1) == [[90, 1, 255]]


def test_a_camera_without_a_camera_info_is_told(monkeypatch):
    monkeypatch.setattr(cloud_painter, 'PATIENCE', 0.1)
    with Listener('front') as listener:
        listener.add_mask(1, 0, 'front', info=None)
        listener.put_cloud(0)
        assert '/front/image: no CameraInfo' in listener.reason('without a mask')
        listener.add_mask(1, 0, 'front', info=SimpleNamespace(**{**vars(INFO), 'k': np.zeros(9)}))
        listener.put_cloud(0)
        assert 'the camera is not calibrated' in listener.reason('without a mask')
        listener.add_mask(1, 0, 'front')
        listener.put_cloud(0)
        assert listener.classes(1) == [[0, 1, 255]]


def test_a_pose_that_is_not_known_is_told_and_other_cameras_go_on():
    def find(camera: str, mask: StampedMask, header: Any) -> np.ndarray:
        if camera == 'rear' or header.frame_id != 'lidar':
            raise CameraInfoError(f'no transform from {header.frame_id!r} to {mask.frame_id!r}')
        return np.eye(4)

    with Listener('front', 'rear', find=find) as listener:
        listener.add_mask(3, 0, 'front')
        listener.add_mask(3, 0, 'rear')
        listener.painter.put(encode(cloud_of(np.zeros((3, 2)), stamp=START, frame_id='roof')))
        assert "no transform from 'roof' to 'lens'" in listener.reason('without a pose')
        listener.put_cloud(0)
        assert listener.classes(1) == [[0, 3, 255]]


def test_damaged_clouds_cost_themselves_alone():
    with Listener() as listener:
        listener.add_mask(3, 0)
        listener.painter.put(b'\x00\x01\x00\x00abc')
        assert '7 bytes are not a sensor_msgs/msg/PointCloud2' in listener.reason('bad')
        cloud = cloud_of(np.zeros((3, 2)), stamp=START)
        cloud.fields = cloud.fields[:2]
        listener.painter.put(encode(cloud))
        assert "no field 'z'" in listener.reason('bad')
        listener.put_cloud(0)
        assert listener.classes(1) == [[0, 3, 255]]
        counts = listener.painter.statistics.counts
        assert (counts['received'], counts['painted'], counts['bad']) == (3, 1, 2)
        assert (counts['points'], counts['points with a class']) == (2, 1)


def test_a_class_that_the_model_does_not_have_is_an_error_at_the_start():
    with pytest.raises(PointsError, match="points_only: no class 'street'"):
        Listener(points_only=('street',))


def test_masks_of_a_bag_that_begins_anew_replace_those_of_its_end():
    history, camera = MaskHistory(), None
    for second in (10, 11, 12, 1):
        history.add(StampedMask(second * 10**9, 'lens', np.zeros(1), np.zeros(1), camera))
    assert len(history) == 1 and history.nearest(12 * 10**9).stamp == 10**9
    for stamp in range(20):
        history.add(StampedMask(10**9 + stamp, 'lens', np.zeros(1), np.zeros(1), camera))
    assert len(history) == KEPT
    assert history.reaches(10**9 + 19) and not history.reaches(10**9 + 20)
