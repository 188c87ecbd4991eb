# SPDX-License-Identifier: Apache-2.0
"""Look up the pose of a camera: from a parameter, or from TF where ``tf2_ros`` is installed.

``tf2_ros`` is part of every ROS 2 installation, but not on PyPI.
"""

from __future__ import annotations

import logging
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

#: Seconds to wait for a transform as new as the image.
PATIENCE = 0.05

#: Step back of a stamp, in nanoseconds, from which time counts as restarted, as in a bag that loops.
BACK = 10**9

#: Largest number of frames whose leading slash is logged.
LOGGED_FRAMES = 16

_LOG = logging.getLogger(__name__)
_stripped: set[str] = set()


def tf_frame(name: str) -> str:
    """Return the name of a frame without the leading slash of ROS 1, which tf2 refuses. The slash is logged once.

    Args:
        name: ``frame_id`` of a message, or a parameter.
    """
    bare = name.lstrip('/')
    if bare != name and name not in _stripped and len(_stripped) < LOGGED_FRAMES:
        _stripped.add(name)
        _LOG.warning('frame_id %s begins with a slash, which tf2 refuses: using %s', quoted(name), quoted(bare))
    return bare


class FixedPose:
    """Pose of a camera that is mounted at a known place.

    Args:
        numbers: Pose of the camera's body in the ground frame: x, y, z, roll, pitch, yaw; metres and radians.

    Raises:
        CameraInfoError: The sequence does not have six finite numbers.
    """

    def __init__(self, numbers: Sequence[float]):
        self._pose = pose_of_body(numbers)

    def __call__(self, header: Any) -> np.ndarray:
        """Return the pose of the optical frame in the ground frame, float64 ``[4, 4]``."""
        return self._pose


class Transforms:
    """TF listener that all cameras of a node share.

    It clears the buffer when time restarts, as in a bag that loops; otherwise the buffer would drop the new transforms
    as old ones. To do so, it passes transforms from ``tf2_ros.TransformListener`` to the buffer.

    Attributes:
        buffer: Buffer of transforms, ``tf2_ros.Buffer``.
    """

    def __init__(self, node: Node):
        self.buffer = tf2_ros.Buffer()
        self._newest: dict[str, int] = {}
        self._listener = tf2_ros.TransformListener(self, node)

    def close(self) -> None:
        """Unsubscribe from /tf and /tf_static."""
        self._listener.unregister()

    def set_transform(self, transform: Any, authority: str) -> None:
        """Add a ``geometry_msgs/TransformStamped`` of /tf."""
        stamp, frame = _nanoseconds(transform.header.stamp), transform.child_frame_id
        newest = self._newest.get(frame, stamp)
        if stamp < newest - BACK:
            self.buffer.clear()
            self._newest.clear()
            newest = stamp
        self._newest[frame] = max(stamp, newest)
        self.buffer.set_transform(transform, authority)

    def set_transform_static(self, transform: Any, authority: str) -> None:
        """Add a ``geometry_msgs/TransformStamped`` of /tf_static, which never expires."""
        self.buffer.set_transform_static(transform, authority)


class TransformedPose:
    """Pose of a camera from TF.

    Args:
        transforms: TF listener of the node.
        ground: Name of the ground frame.
    """

    def __init__(self, transforms: Transforms, ground: str):
        self._ground = tf_frame(ground)
        self._buffer = transforms.buffer

    def __call__(self, header: Any) -> np.ndarray:
        """Return the pose of the optical frame in the ground frame, float64 ``[4, 4]``, at the stamp of an image.

        Raises:
            CameraInfoError: TF does not know the pose.
        """
        return look_up(self._buffer, self._ground, tf_frame(header.frame_id), _nanoseconds(header.stamp))


def look_up(
    buffer: Any, target: str, source: str, stamp: int, target_stamp: int | None = None, fixed: str = ''
) -> np.ndarray:
    """Return the matrix ``[4, 4]`` that maps points of a frame to another one.

    Args:
        buffer: ``tf2_ros.Buffer``.
        target: Frame to map to.
        source: Frame of the points.
        stamp: Time of the points, nanoseconds.
        target_stamp: Time of the target frame, nanoseconds; None for ``stamp``.
        fixed: Frame that does not move between the two times.

    Raises:
        CameraInfoError: TF does not know the transform.
    """
    stamps = (stamp,) if target_stamp is None else (stamp, target_stamp)
    if min(stamps) < 0:  # rclpy has no negative times
        raise CameraInfoError(f'a message stamped {min(stamps) / 1e9:.9f} s, expected 0 or later for its transform')
    times = [Time(nanoseconds=each) for each in stamps]
    try:
        # Waiting helps if the newest transform is older than the message. It does not if the frames are unconnected,
        # and would then delay all cameras.
        patience = Duration(seconds=PATIENCE if buffer.can_transform(target, source, Time()) else 0)
        if target_stamp is None:
            found = buffer.lookup_transform(target, source, times[0], patience)
        else:
            found = buffer.lookup_transform_full(target, times[1], source, times[0], fixed, patience)
    except tf2_ros.TransformException as error:
        raise CameraInfoError(f'no transform from {quoted(source)} to {target!r}: {one_line(error)}') from error
    move, turn = found.transform.translation, found.transform.rotation
    return pose_of_transform((move.x, move.y, move.z), (turn.x, turn.y, turn.z, turn.w))


def _nanoseconds(stamp: Any) -> int:
    return stamp.sec * 10**9 + stamp.nanosec


def listen(node: Node) -> Transforms | None:
    """Return a TF listener, or None where tf2_ros is not installed."""
    return None if tf2_ros is None else Transforms(node)
