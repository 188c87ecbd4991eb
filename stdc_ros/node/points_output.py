# SPDX-License-Identifier: Apache-2.0
"""Handle the topics of the painted clouds, which are subscribed to only while somebody listens to ``~/points``."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from rclpy.node import Node
from rclpy.publisher import Publisher
from rclpy.qos import HistoryPolicy, QoSProfile, ReliabilityPolicy
from rclpy.subscription import Subscription
from sensor_msgs.msg import PointCloud2

from stdc_core.classes import ClassTable
from stdc_ros.ground.camera_info import CameraInfoError
from stdc_ros.ground.pose import pose_of_body
from stdc_ros.messages.cdr import POINT_CLOUD, encode
from stdc_ros.node.camera_pose import Transforms, listen, look_up, tf_frame
from stdc_ros.node.cloud_painter import OUTCOMES, CloudPainter
from stdc_ros.node.diagnostics import explain_silence
from stdc_ros.node.frame_statistics import TroubleCounter
from stdc_ros.node.grid_output import POSE_NUMBERS
from stdc_ros.node.parameters import Parameters
from stdc_ros.node.qos import advertise, overridable, subscribe
from stdc_ros.node.topics import find_cloud_source, find_sources
from stdc_ros.points.mask_history import StampedMask

#: Topic of the painted clouds.
OUTPUT = '~/points'


class CloudTransforms:
    """Finds the transform from a cloud to a camera: from parameters, or from TF.

    Args:
        node: Node that listens to TF.
        settings: Values of the parameters.
        shared: TF listener of the grids, or None.

    Raises:
        CameraInfoError: The poses are not six numbers for each camera, or are given beside a fixed frame.
    """

    def __init__(self, node: Node, settings: Parameters, shared: Transforms | None):
        names, poses = settings.cameras or ('',), settings.points_camera_pose
        if poses and len(poses) != POSE_NUMBERS * len(names):
            raise CameraInfoError(
                f'points_camera_pose has {len(poses)} numbers, expected {POSE_NUMBERS} for each of {len(names)} cameras'
            )
        if poses and settings.points_fixed_frame:
            raise CameraInfoError(
                f'points_fixed_frame is {settings.points_fixed_frame!r} beside points_camera_pose, expected one of them'
                ', since the motion is in TF; leave out points_camera_pose to take all poses from TF, or '
                'points_fixed_frame to ignore the motion'
            )
        self._fixed = {
            name: np.linalg.inv(pose_of_body(poses[POSE_NUMBERS * index : POSE_NUMBERS * (index + 1)]))
            for index, name in enumerate(names if poses else ())
        }
        self._node = node
        self._fixed_frame = tf_frame(settings.points_fixed_frame)
        self._shared = shared
        self._own: Transforms | None = None

    def open(self) -> None:
        """Listen to TF, unless the poses are parameters or the grids already listen."""
        if not self._fixed and self._shared is None and self._own is None:
            self._own = listen(self._node)

    def close(self) -> None:
        """Stop listening to TF."""
        if self._own is not None:
            self._own.close()
            self._own = None

    def __call__(self, camera: str, mask: StampedMask, header: Any) -> np.ndarray:
        """Return the matrix ``[4, 4]`` that maps points of a cloud to the optical frame of a camera.

        Args:
            camera: Name of the camera.
            mask: Mask of the camera.
            header: Header of the cloud.

        Raises:
            CameraInfoError: TF does not know the transform.
        """
        if self._fixed:
            return self._fixed[camera]
        source, target = tf_frame(header.frame_id), tf_frame(mask.frame_id)
        stamp = header.stamp.sec * 10**9 + header.stamp.nanosec
        if source == target and (not self._fixed_frame or stamp == mask.stamp):
            return np.eye(4)  # a depth camera that is registered to the image needs no TF
        transforms = self._shared or self._own
        if transforms is None:
            raise CameraInfoError('points needs points_camera_pose here: tf2_ros is not installed')
        if self._fixed_frame:
            return look_up(transforms.buffer, target, source, stamp, mask.stamp, self._fixed_frame)
        return look_up(transforms.buffer, target, source, mask.stamp)


class PointsOutput:
    """Painted clouds of a node. Call ``open_topics`` and ``load`` in either order, then ``start`` and ``close``.

    Args:
        node: Node that owns the topics.
        settings: Current values of the parameters.

    Attributes:
        statistics: Number of clouds by outcome.
    """

    def __init__(self, node: Node, settings: Parameters):
        self.statistics = TroubleCounter('clouds')
        self._node = node
        self._settings = settings
        self._source = find_cloud_source(node)
        self._publisher: Publisher | None = None
        self._clouds: Subscription | None = None
        self._last_sign = 0.0  # time of the last cloud or, before it, of the subscription
        self._transforms: CloudTransforms | None = None
        self._painter: CloudPainter | None = None

    @property
    def topic(self) -> str:
        """Resolved topic of the clouds to paint."""
        return self._source.topic

    def open_topics(self) -> None:
        """Advertise the painted clouds.

        Raises:
            ValueError, rclpy.exceptions.ParameterException: A quality of service is overridden by an invalid value.
        """
        quality = QoSProfile(history=HistoryPolicy.KEEP_LAST, depth=5, reliability=ReliabilityPolicy.RELIABLE)
        self._publisher = advertise(self._node, PointCloud2, OUTPUT, quality)
        # Declared now, so that a bad value is reported at the start and not when somebody subscribes.
        overridable(self._node, self._source.asked, _quality(), 'subscription')

    def load(self, classes: ClassTable, shared: Transforms | None) -> CloudPainter:
        """Make the painter.

        Args:
            classes: Class table of the model.
            shared: TF listener of the grids, or None.

        Raises:
            CameraInfoError: ``points_camera_pose`` does not have six numbers for each camera, or is given beside
                ``points_fixed_frame``.
            PointsError: ``points_only`` names a class that the model lacks.
        """
        transport = self._settings.image_transport
        topics = {name: find_sources(self._node, name, transport)[0].topic for name in self._settings.cameras or ('',)}
        self._transforms = CloudTransforms(self._node, self._settings, shared)
        self._painter = CloudPainter(self._settings, classes, topics, self._transforms)
        self.statistics = self._painter.statistics
        return self._painter

    def start(self) -> None:
        """Start to paint. The topics must be open and the painter loaded."""
        publisher = self._publisher
        assert self._painter is not None and publisher is not None
        self._painter.start(lambda message: publisher.publish(encode(message)))

    def close(self, timeout: float) -> bool:
        """Stop painting and close the topics.

        Args:
            timeout: Seconds to wait for the current cloud.

        Returns:
            Whether painting has ended. If not, the topics stay open.
        """
        if self._painter is not None and not self._painter.close(timeout):
            return False
        self._leave()
        if self._publisher is not None:
            self._node.destroy_publisher(self._publisher)
            self._publisher = None
        return True

    def wanted(self) -> bool:
        """Return whether somebody listens to the painted clouds, and the node is switched on."""
        return self._settings.enabled and self._publisher is not None and bool(self._publisher.get_subscription_count())

    def follow_listeners(self) -> None:
        """Subscribe to the clouds and to TF while somebody listens, else unsubscribe."""
        wanted = self.wanted()
        if wanted and self._clouds is None:
            assert self._transforms is not None
            self._transforms.open()
            self._clouds = subscribe(self._node, PointCloud2, self._source.asked, self._take, _quality())
            self._last_sign = time.monotonic()
        elif not wanted:
            self._leave()

    def _leave(self) -> None:
        if self._clouds is None:
            return
        self._node.destroy_subscription(self._clouds)
        self._clouds = None
        assert self._transforms is not None and self._painter is not None
        self._transforms.close()
        self._painter.forget()

    def _take(self, data: bytes, delivery: dict[str, int | None]) -> None:
        # The events executor also delivers to a subscription that was destroyed after the message had arrived.
        if self._clouds is None:
            return
        self._last_sign = time.monotonic()
        if self._painter is not None:
            self._painter.put(data)

    def complaint(self) -> str:
        """Return why no cloud arrives; empty if clouds arrive."""
        silent = time.monotonic() - self._last_sign
        if self._clouds is None or silent <= self._settings.stale_after:
            return ''
        reason = explain_silence(self._node, self._source, POINT_CLOUD, self._clouds.qos_profile)
        return f'no cloud on {self.topic} for {silent:.0f} s: {reason}'

    def rows(self) -> dict[str, str]:
        """Return the counts as the rows of a ``DiagnosticStatus``."""
        counts = self.statistics.counts
        rows = {f'clouds {outcome}': str(counts[outcome]) for outcome in ('received', *OUTCOMES)}
        rows['points of the last cloud'] = str(counts['points'])
        rows['points with a class'] = str(counts['points with a class'])
        return rows


def _quality() -> QoSProfile:
    """Return a QoS profile that receives from every driver. A second cloud may arrive while the first one waits."""
    return QoSProfile(history=HistoryPolicy.KEEP_LAST, depth=2, reliability=ReliabilityPolicy.BEST_EFFORT)
