# SPDX-License-Identifier: Apache-2.0
"""The node paints clouds: real topics, real TF where it is installed."""

from __future__ import annotations

import copy

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticArray
from point_clouds import cloud_of, field_of
from rclpy.qos import QoSProfile
from ros_helpers import Client, NodeProcess
from scenes import message_of, pinhole_info, scene
from sensor_msgs.msg import CameraInfo, PointCloud2
from test_node_ros_packages import LATCHED, transform

from stdc_core.classes import IGNORE
from stdc_core.inference import Segmenter
from stdc_ros.ground.camera_info import CameraInfoError
from stdc_ros.ground.camera_model import CameraModel
from stdc_ros.ground.pose import pose_of_body
from stdc_ros.messages.cdr import encode
from stdc_ros.node.parameters import Parameters
from stdc_ros.node.points_output import PointsOutput
from stdc_ros.points.painting import View, paint

#: Pose of the camera's body in the frame of the LiDAR: ahead of it and below, looking down.
POSE = [0.3, 0.1, -0.4, 0.0, 0.1, 0.0]


def lidar_points() -> np.ndarray:
    """Points around a LiDAR, ``[3, N]``, on a sphere."""
    turn, up = (axis.reshape(-1) for axis in np.meshgrid(np.radians(np.arange(0, 360, 3.0)), np.radians([-9.0, -4, 1])))
    return 10 * np.stack([np.cos(turn) * np.cos(up), np.sin(turn) * np.cos(up), np.sin(up)])


class Rig(Client):
    """Camera and LiDAR beside a node in the namespace ``/right``."""

    def __init__(self) -> None:
        super().__init__('/right')
        self.image = message_of(scene())
        self.info = pinhole_info(scene())
        self.info.k = [100.0, 0.0, 63.5, 0.0, 100.0, 47.5, 0.0, 0.0, 1.0]
        self.info.header = self.image.header
        self.infos = self.node.create_publisher(CameraInfo, '/right/camera_info', 1)
        self.lidar = self.node.create_publisher(PointCloud2, '/right/points', QoSProfile(depth=5))
        self.clouds: list[PointCloud2] = []

    def listen_to_points(self) -> None:
        self._listening.append(self.node.create_subscription(PointCloud2, '/right/segmentation/points', self.keep, 5))
        self.spin_until(
            lambda: all(each.get_subscription_count() for each in (self._camera, self.infos, self.lidar)),
            'the node subscribes to image, camera_info and points',
        )
        self.infos.publish(self.info)

    def keep(self, cloud: PointCloud2) -> None:
        self.clouds.append(cloud)

    def send_both(self, points: np.ndarray, cloud_delay_ms: int = 0) -> None:
        self.infos.publish(self.info)  # the node takes the newest; it may miss one
        self.send(self.image)
        stamp = self.image.header.stamp
        nanoseconds = stamp.sec * 10**9 + stamp.nanosec + cloud_delay_ms * 10**6
        self.lidar.publish(encode(cloud_of(points, stamp=nanoseconds)))
        self.spin(0.1)

    def painted(self, points: np.ndarray, cloud_delay_ms: int = 0) -> PointCloud2:
        self.clouds.clear()
        self.spin_until(lambda: bool(self.clouds) or self.send_both(points, cloud_delay_ms), 'a painted cloud')
        return self.clouds[0]

    def expected(self, points: np.ndarray, to_camera: np.ndarray) -> np.ndarray:
        mask, confidence = Segmenter.load()(scene(), confidence=True)
        view = View(mask, confidence, CameraModel.from_info(self.info), to_camera)
        found = paint(points.astype(np.float32), [view])
        assert len(np.unique(found.class_id)) > 2 and (found.class_id == IGNORE).any()
        return np.stack(found)


def labels(cloud: PointCloud2) -> np.ndarray:
    return np.concatenate([field_of(cloud, 'class_id'), field_of(cloud, 'confidence')])


def test_clouds_are_painted_while_somebody_listens_and_cost_nothing_else():
    arguments = ['-p', 'points:=true', '-p', f'points_camera_pose:={POSE}']
    points = lidar_points()
    with NodeProcess(*arguments, namespace='/right') as process, Rig() as rig:
        process.wait_for_output('/right/segmentation/mask')
        rig.listen('mask')
        assert rig.lidar.get_subscription_count() == rig.infos.get_subscription_count() == 0
        rig.listen()
        rig.listen_to_points()
        cloud = rig.painted(points)
        np.testing.assert_array_equal(labels(cloud), rig.expected(points, np.linalg.inv(pose_of_body(POSE))))
        assert (cloud.header.stamp, cloud.header.frame_id) == (rig.image.header.stamp, 'lidar')
        rig.wait_for_diagnostics('outputs', 'points')
        reports: list = []
        rig.node.create_subscription(DiagnosticArray, '/diagnostics', reports.append, 5)

        def status():
            found = [status for report in reports for status in report.status if status.name.endswith(': points')]
            return found[-1] if found else None

        told = 'the nearest mask is 0.400 s newer, points_max_time_difference is 0.1 s'
        rig.spin_until(
            # Sent again until it is told: best effort may lose a message.
            lambda: (status() is not None and told in status().message) or rig.send_both(points, cloud_delay_ms=-400),
            'the reason on /diagnostics',
        )
        assert status().hardware_id == '/right/points'
        assert int({row.key: row.value for row in status().values}['clouds painted']) >= 1
        rig.listen()
        rig.spin_until(lambda: rig.lidar.get_subscription_count() == 0, 'the node leaves the clouds')


def test_topics_close_and_open_again_as_a_managed_node_does():
    with Client('/left') as client:
        output = PointsOutput(client.node, Parameters(points=True))
        output.load(Segmenter.load().info.classes, None)
        listener = client.node.create_subscription(PointCloud2, '/client/points', lambda cloud: None, 1)
        lidar = client.node.create_publisher(PointCloud2, '/points', 1)
        for _ in range(2):
            output.open_topics()
            output.start()
            client.spin_until(output.wanted, 'the output knows of its listener')
            output.follow_listeners()
            client.spin_until(lambda: lidar.get_subscription_count() == 1, 'a subscription to the clouds')
            assert output.complaint() == ''
            (clouds,) = [each for each in client.node.subscriptions if each.topic_name == '/points']
            assert output.close(10.0)
            clouds.callback((b'a cloud', {}))  # as the events executor may do after the end of a subscription
            assert output.statistics.counts['received'] == 0
            assert not output.wanted()
            client.spin_until(lambda: lidar.get_subscription_count() == 0, 'no subscription to the clouds')
        client.node.destroy_subscription(listener)


def test_a_pose_that_cannot_be_is_an_error_at_the_start():
    with NodeProcess('-p', 'points:=true', '-p', 'points_camera_pose:=[1.0, 2.0]', namespace='/right') as process:
        assert process.wait() == 1
        (fatal,) = [line for line in process.output.splitlines() if '[FATAL]' in line]
        assert 'points_camera_pose has 2 numbers, expected 6 for each of 1 cameras' in fatal


def test_a_fixed_frame_beside_poses_is_an_error():
    settings = Parameters(points=True, points_camera_pose=tuple(POSE), points_fixed_frame='odom')
    with Client('/left') as client, pytest.raises(CameraInfoError) as raised:
        PointsOutput(client.node, settings).load(Segmenter.load().info.classes, None)
    assert str(raised.value).startswith("points_fixed_frame is 'odom' beside points_camera_pose, expected one of them")


def test_tf_brings_the_cloud_to_the_camera_at_both_stamps():
    """The vehicle moves 2 m between cloud and image."""
    messages = pytest.importorskip('tf2_msgs.msg')
    pytest.importorskip('tf2_ros')
    arguments = ['-p', 'points:=true', '-p', 'points_fixed_frame:=odom']
    points = lidar_points()
    with NodeProcess(*arguments, namespace='/right') as process, Rig() as rig:
        process.wait_for_output('/right/segmentation/mask')
        rig.listen_to_points()
        rig.spin_until(
            lambda: "no transform from 'lidar' to 'camera'" in process.output or rig.send_both(points, -50),
            'a warning of a missing transform',
        )
        half = np.sin(0.05), np.cos(0.05)
        known = [
            transform('base_link', 'lidar', (1.0, 0.0, 1.9), (0.0, 0.0, 0.0, 1.0)),
            transform('lidar', 'body', tuple(POSE[:3]), (0.0, half[0], 0.0, half[1])),
            transform('body', 'camera', (0.0, 0.0, 0.0), (-0.5, 0.5, -0.5, 0.5)),
        ]
        static = rig.node.create_publisher(messages.TFMessage, '/tf_static', LATCHED)
        static.publish(messages.TFMessage(transforms=known))
        moving = rig.node.create_publisher(messages.TFMessage, '/tf', 10)
        rig.spin_until(lambda: moving.get_subscription_count() == 1, 'the node listens to TF')

        def send() -> None:
            for seconds in (-1, 0, 1):  # 40 m/s
                moved = transform('odom', 'base_link', (40.0 * seconds, 0.0, 0.0), (0.0, 0.0, 0.0, 1.0))
                moved.header.stamp = copy.copy(rig.image.header.stamp)
                moved.header.stamp.sec += seconds
                moving.publish(messages.TFMessage(transforms=[moved]))
            rig.send_both(points, -50)

        rig.clouds.clear()
        rig.spin_until(lambda: bool(rig.clouds) or send(), 'a painted cloud')
        shift = np.eye(4)
        shift[0, 3] = -2.0  # what was 10 m ahead is 8 m ahead when the image is taken
        expected = rig.expected(points, np.linalg.inv(pose_of_body(POSE)) @ shift)
        found = labels(rig.clouds[0])
        rig.listen()
        rig.spin_until(lambda: moving.get_subscription_count() == 0, 'the node leaves TF')
    # tf2 rounds otherwise: a point on the edge of a pixel may fall on the next one.
    assert (found != expected).any(0).mean() < 0.02
    assert (found != rig.expected(points, np.linalg.inv(pose_of_body(POSE)))).any(0).mean() > 0.05
