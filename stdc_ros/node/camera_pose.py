# SPDX-License-Identifier: Apache-2.0
"""Where cameras are: from TF, where ``tf2_ros`` is installed (it is on every ROS 2 and not on PyPI), or as given."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from rclpy.duration import Duration
from rclpy.node import Node
from rclpy.time import Time

from stdc_core.io.text import one_line, quoted
from stdc_ros.ground.camera_info import CameraInfoError
from stdc_ros.ground.pose import pose_of_body, pose_of_transform

try:
    import tf2_ros
except ImportError:
    tf2_ros = None

#: Seconds to wait for a transform that is as new as the image.
PATIENCE = 0.05

#: Nanoseconds by which the stamps of a frame go back if time has begun anew, as in a bag that loops.
BACK = 10**9


class FixedPose:
    """A camera that is mounted at a known place.

    Args:
        numbers: x, y, z, roll, pitch, yaw of the camera's body in the ground frame; metres and radians.

    Raises:
        CameraInfoError: these are not six numbers.
    """

    def __init__(self, numbers: Sequence[float]):
        self._pose = pose_of_body(numbers)

    def __call__(self, header: Any) -> np.ndarray:
        """Pose of the optical frame in the ground frame, float64 ``[4, 4]``, for the header of an image."""
        return self._pose


class Transforms:
    """What TF tells a node, heard once for all of its cameras.

    The first transform after time has begun anew clears what was known before, which would have it taken for an old one
    and left out. It stands between ``tf2_ros.TransformListener`` and the buffer for that.

    Attributes:
        buffer: ``tf2_ros.Buffer``.
    """

    def __init__(self, node: Node):
        self.buffer = tf2_ros.Buffer()
        self._newest: dict[str, int] = {}
        self._listener = tf2_ros.TransformListener(self, node)

    def set_transform(self, transform: Any, authority: str) -> None:
        """Take a ``geometry_msgs/TransformStamped`` of /tf."""
        stamp, frame = _nanoseconds(transform.header.stamp), transform.child_frame_id
        newest = self._newest.get(frame, stamp)
        if stamp < newest - BACK:
            self.buffer.clear()
            self._newest.clear()
            newest = stamp
        self._newest[frame] = max(stamp, newest)
        self.buffer.set_transform(transform, authority)

    def set_transform_static(self, transform: Any, authority: str) -> None:
        """Take one of /tf_static, which no time makes old."""
        self.buffer.set_transform_static(transform, authority)


class TransformedPose:
    """A camera whose frame TF knows.

    Args:
        transforms: of the node.
        ground: name of the ground frame.
    """

    def __init__(self, transforms: Transforms, ground: str):
        self._ground = ground
        self._buffer = transforms.buffer

    def __call__(self, header: Any) -> np.ndarray:
        """Pose of the optical frame in the ground frame, float64 ``[4, 4]``, at the stamp of an image.

        Raises:
            CameraInfoError: TF does not know it.
        """
        stamp = _nanoseconds(header.stamp)
        if stamp < 0:  # of which rclpy makes no time
            raise CameraInfoError(f'an image stamped {stamp / 1e9:.9f} s, expected 0 or later for its transform')
        frames = self._ground, header.frame_id
        try:
            # Waiting makes a transform newer, but connects no frames: all cameras would wait for those of one.
            patience = PATIENCE if self._buffer.can_transform(*frames, Time()) else 0
            found = self._buffer.lookup_transform(*frames, Time(nanoseconds=stamp), Duration(seconds=patience))
        except tf2_ros.TransformException as error:
            asked = f'{quoted(header.frame_id)} to {self._ground!r}'
            raise CameraInfoError(f'no transform from {asked}: {one_line(error)}') from error
        move, turn = found.transform.translation, found.transform.rotation
        return pose_of_transform((move.x, move.y, move.z), (turn.x, turn.y, turn.z, turn.w))


def _nanoseconds(stamp: Any) -> int:
    return stamp.sec * 10**9 + stamp.nanosec


def listen(node: Node) -> Transforms | None:
    """Listen to TF; None where there is none."""
    return None if tf2_ros is None else Transforms(node)
