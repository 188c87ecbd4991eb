# SPDX-License-Identifier: Apache-2.0
"""Test the node with tf2_ros and vision_msgs, which are part of every ROS 2 but not on PyPI."""

from __future__ import annotations

import math

import numpy as np
import pytest
from builtin_interfaces.msg import Time
from geometry_msgs.msg import Quaternion, TransformStamped, Vector3
from rclpy.qos import DurabilityPolicy, QoSProfile
from ros_helpers import Client, NodeProcess
from scenes import message_of, pinhole_info, pixels
from sensor_msgs.msg import CameraInfo
from std_msgs.msg import Header

from stdc_core.data.synthetic import SyntheticDrive
from stdc_core.inference import Segmenter
from stdc_ros.ground.camera_info import CameraInfoError
from stdc_ros.ground.camera_model import CameraModel
from stdc_ros.ground.drivable_grid import DrivableGrid, GridSettings
from stdc_ros.ground.pose import pose_of_body
from stdc_ros.node.camera_pose import TransformedPose, listen

LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)


def transform(parent: str, child: str, move: tuple[float, ...], turn: tuple[float, ...]) -> TransformStamped:
    """Return the pose of ``child`` in ``parent``: x, y, z in metres, and a quaternion x, y, z, w."""
    stamped = TransformStamped(child_frame_id=child)
    stamped.header.frame_id = parent
    stamped.transform.translation = Vector3(**dict(zip('xyz', move, strict=True)))
    stamped.transform.rotation = Quaternion(**dict(zip('xyzw', turn, strict=True)))
    return stamped


@pytest.mark.parametrize('options', [[], ['--lifecycle']], ids=['plain', 'managed'])
def test_camera_pose_from_tf(options):
    messages = pytest.importorskip('tf2_msgs.msg')
    pytest.importorskip('tf2_ros')
    parameters = ['-p', 'drivable_grid:=true', '-p', 'grid_resolution:=0.5', '-p', 'grid_min_confidence:=0.0']
    with NodeProcess(*parameters, namespace='/right', options=options) as process, Client('/right') as client:
        if options:
            client.activate()
        process.wait_for_output('/right/segmentation/mask')
        client.listen('mask', 'drivable_grid')
        camera = client.node.create_publisher(CameraInfo, '/right/camera_info', 1)
        client.spin_until(lambda: camera.get_subscription_count() == 1, 'the node subscribes to the camera_info')
        image = SyntheticDrive(frames=1)[0].image
        message = message_of(image)
        info = pinhole_info(image)
        unknown = "no drivable_grid of /right/image: no transform from 'camera' to 'base_link'"
        client.spin_until(
            lambda: unknown in process.output or camera.publish(info) or client.send(message),
            'a warning of a missing transform',
        )
        pitch = (0.0, math.sin(0.05), 0.0, math.cos(0.05))
        ahead = (-0.5, 0.5, -0.5, 0.5)  # rotation from the body (x forward) to the optical frame (z forward)
        known = [
            transform('base_link', 'camera_body', (0.5, 0.0, 1.4), pitch),
            transform('camera_body', 'camera', (0.0, 0.0, 0.0), ahead),
        ]
        client.node.create_publisher(messages.TFMessage, '/tf_static', LATCHED).publish(
            messages.TFMessage(transforms=known)
        )
        client.spin_until(lambda: bool(client.received['drivable_grid']) or client.send(message), 'a drivable_grid')
        grid = client.received['drivable_grid'][0]
        mask = pixels(client.wait_for('mask', message.header.stamp))
    offline = DrivableGrid(GridSettings(resolution=0.5, min_confidence=0.0), Segmenter.load().info.classes)
    expected = offline(
        mask, np.full_like(mask, 255), CameraModel.from_info(info), pose_of_body([0.5, 0, 1.4, 0, 0.1, 0])
    )
    assert {-1, 0, 100} == set(np.unique(expected))
    np.testing.assert_array_equal(np.reshape(grid.data, (40, 80)), expected)


def test_transforms_of_a_looping_bag():
    pytest.importorskip('tf2_ros')

    def send(seconds: float, x: float) -> None:
        for parent, child in (('base_link', 'mast'), ('mast', 'camera')):
            stamped = transform(parent, child, (x, 0.0, 0.0), (0.0, 0.0, 0.0, 1.0))
            stamped.header.stamp = Time(sec=int(seconds), nanosec=round(seconds % 1 * 1e9))
            transforms.set_transform(stamped, 'test')

    def where(seconds: int) -> float:
        return pose(Header(frame_id='camera', stamp=Time(sec=seconds)))[0, 3]

    with Client() as client:
        transforms = listen(client.node)
        pose = TransformedPose(transforms, 'base_link')
        for second in range(20, 35):
            send(second, 1.0)
        send(33.5, 1.0)  # a late transform must not clear the buffer
        assert where(25) == pytest.approx(2.0)
        send(20, 2.0)
        with pytest.raises(CameraInfoError, match='no transform'):
            where(25)
        send(21, 2.0)
        assert where(21) == pytest.approx(4.0)


def test_late_listeners_receive_class_names():
    messages = pytest.importorskip('vision_msgs.msg')
    with NodeProcess('-p', 'cameras:=[front, rear]', namespace='/right') as process, Client('/right') as client:
        process.wait_for_output('/right/rear/segmentation/mask')
        received: list = []
        topic = '/right/rear/segmentation/label_info'
        client.node.create_subscription(messages.LabelInfo, topic, received.append, LATCHED)
        client.spin_until(lambda: bool(received), 'a label_info')
    names = {entry.class_id: entry.class_name for entry in received[0].class_map}
    assert names == dict(enumerate(Segmenter.load().info.classes.names))
