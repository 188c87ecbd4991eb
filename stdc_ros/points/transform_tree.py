# SPDX-License-Identifier: Apache-2.0
"""Look up transforms in recorded TF messages, as tf2 does, without ROS.

Each frame has one parent. A static frame does not move. Other frames move linearly from sample to sample and rotate at
a constant rate (slerp). As in tf2, there is no extrapolation before the first or after the last sample.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from typing import Any

import numpy as np

from stdc_core.io.text import quoted
from stdc_ros.ground.camera_info import CameraInfoError
from stdc_ros.ground.pose import pose_of_transform

#: Sine of the angle between two quaternions below which they are interpolated linearly, because slerp divides by it.
_SAME_TURN = 1e-6


class TransformTree:
    """Tree of the transforms of ``/tf`` and ``/tf_static``.

    Example:
        >>> tree = TransformTree()
        >>> tree.add(message, static=True)
        >>> matrix = tree.look_up('camera', image_stamp, 'lidar', cloud_stamp, fixed='odom')
    """

    def __init__(self) -> None:
        self._parents: dict[str, str] = {}
        self._static: dict[str, np.ndarray] = {}
        # By frame: samples (stamp in nanoseconds, x, y, z, and quaternion x, y, z, w) in the order of the stamps.
        self._samples: dict[str, list[tuple[float, ...]]] = {}

    def add(self, message: Any, static: bool) -> None:
        """Add the transforms of a ``tf2_msgs/TFMessage``.

        Args:
            message: Message of rosbags or of rclpy.
            static: Whether it comes from ``/tf_static``.
        """
        for entry in message.transforms:
            parent, child = entry.header.frame_id.lstrip('/'), entry.child_frame_id.lstrip('/')
            move, turn = entry.transform.translation, entry.transform.rotation
            numbers = (move.x, move.y, move.z, turn.x, turn.y, turn.z, turn.w)
            self._parents[child] = parent
            if static:
                self._static[child] = pose_of_transform(numbers[:3], numbers[3:])
            else:
                stamp = entry.header.stamp.sec * 10**9 + entry.header.stamp.nanosec
                insort(self._samples.setdefault(child, []), (stamp, *numbers))

    def look_up(self, target: str, target_stamp: int, source: str, stamp: int, fixed: str = '') -> np.ndarray:
        """Return the matrix ``[4, 4]`` that maps points of a frame to another one.

        Args:
            target: Frame to map to.
            target_stamp: Time of the target frame, nanoseconds.
            source: Frame of the points.
            stamp: Time of the points, nanoseconds.
            fixed: Frame that does not move between the two times; empty to use ``target_stamp`` for both.

        Raises:
            CameraInfoError: The frames are not connected at these times.
        """
        target, source, fixed = (name.lstrip('/') for name in (target, source, fixed))
        if not fixed:
            return self._between(target, source, target_stamp)
        return self._between(target, fixed, target_stamp) @ self._between(fixed, source, stamp)

    def _between(self, target: str, source: str, stamp: int) -> np.ndarray:
        """Return the matrix from source to target at one time."""
        up, down = self._ancestors(source), self._ancestors(target)
        common = next((frame for frame in up if frame in down), None)
        if common is None:
            known = ', '.join(sorted({*self._parents, *self._parents.values()})[:20]) or 'none'
            raise CameraInfoError(
                f'no transform from {quoted(source)} to {quoted(target)} in TF; its frames are {known}'
            )
        return np.linalg.inv(self._chain(down, common, stamp)) @ self._chain(up, common, stamp)

    def _ancestors(self, frame: str) -> list[str]:
        """Return a frame and its ancestors up to the root."""
        found = [frame]
        while (parent := self._parents.get(found[-1])) is not None and parent not in found:
            found.append(parent)
        return found

    def _chain(self, frames: list[str], end: str, stamp: int) -> np.ndarray:
        matrix = np.eye(4)
        for frame in frames[: frames.index(end)]:
            matrix = self._pose(frame, stamp) @ matrix
        return matrix

    def _pose(self, frame: str, stamp: int) -> np.ndarray:
        """Return the pose of a frame in its parent, ``[4, 4]``."""
        samples = self._samples.get(frame)
        if not samples:
            return self._static[frame]
        if not samples[0][0] <= stamp <= samples[-1][0]:
            raise CameraInfoError(
                f'TF knows {quoted(frame)} from {samples[0][0] / 1e9:.3f} to {samples[-1][0] / 1e9:.3f} s, '
                f'asked for {stamp / 1e9:.3f} s'
            )
        after = samples[bisect_left(samples, (stamp,))]
        before = samples[max(0, bisect_left(samples, (stamp,)) - 1)]
        span = after[0] - before[0]
        share = (stamp - before[0]) / span if span else 1.0
        start, end = (np.array(sample[1:]) for sample in (before, after))
        position = start[:3] + (end[:3] - start[:3]) * share
        return pose_of_transform(position.tolist(), _slerp(start[3:], end[3:], share).tolist())


def _slerp(start: np.ndarray, end: np.ndarray, share: float) -> np.ndarray:
    """Return the quaternion between two (Shoemake, "Animating rotation with quaternion curves")."""
    start, end = start / np.linalg.norm(start), end / np.linalg.norm(end)
    cosine = float(start @ end)
    if cosine < 0:  # the same rotation, on the shorter way
        end, cosine = -end, -cosine
    angle = np.arccos(min(cosine, 1.0))
    if np.sin(angle) < _SAME_TURN:
        return start + (end - start) * share
    return (np.sin((1 - share) * angle) * start + np.sin(share * angle) * end) / np.sin(angle)
