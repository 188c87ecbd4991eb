# SPDX-License-Identifier: Apache-2.0
"""Compute the pose of a camera from a TF transform or from six numbers.

In an optical frame (REP 103), x points right, y down and z forward; in all other frames, x points forward, y left and z
up. A pose is float64 ``[4, 4]`` and maps points of the optical frame to the other frame, as TF's transforms do. Units
are metres and radians.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from stdc_ros.ground.camera_info import CameraInfoError

#: Axes of an optical frame, as columns, in the frame of the camera's body (REP 103).
_OPTICAL_AXES = np.array([[0.0, 0.0, 1.0], [-1.0, 0.0, 0.0], [0.0, -1.0, 0.0]])


def pose_of_transform(translation: Sequence[float], rotation: Sequence[float]) -> np.ndarray:
    """Return the pose of a TF transform whose child is the optical frame.

    Args:
        translation: Position x, y, z, metres.
        rotation: Quaternion x, y, z, w of any length except 0.

    Returns:
        float64 ``[4, 4]``.

    Raises:
        CameraInfoError: A number is missing or not finite, or the quaternion is 0.

    Example:
        >>> pose_of_transform([0.0, 0.0, 1.2], [-0.5, 0.5, -0.5, 0.5])[2]
        array([ 0. , -1. ,  0. ,  1.2])
    """
    x, y, z, w = _finite('the rotation of a transform', rotation, 4)
    length = math.sqrt(x * x + y * y + z * z + w * w)
    if length < 1e-6:
        raise CameraInfoError(f'the rotation of a transform is {[x, y, z, w]}, expected a quaternion of length 1')
    x, y, z, w = x / length, y / length, z / length, w / length
    axes = np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    )
    return _pose(axes, _finite('the translation of a transform', translation, 3))


def pose_of_body(numbers: Sequence[float], optical: bool = False) -> np.ndarray:
    """Return the pose of a camera that is mounted at x, y, z, roll, pitch, yaw.

    Roll, pitch and yaw are rotations about the fixed x, y and z axes, in this order, as in URDF. With all 0, the camera
    looks straight ahead. A positive pitch looks down, a positive yaw to the left.

    Args:
        numbers: Pose of the camera's body (x forward, y left, z up), as in a URDF's camera joint; metres and radians.
        optical: Whether the numbers describe the optical frame instead. A camera that looks straight ahead then has
            -pi/2, 0, -pi/2.

    Returns:
        float64 ``[4, 4]`` of the optical frame.

    Raises:
        CameraInfoError: The sequence does not have six finite numbers.

    Example:
        >>> pose_of_body([0.0, 0.0, 1.2, 0.0, 0.0, 0.0])[:3, 2]  # the optical axis points forward
        array([1., 0., 0.])
    """
    *position, roll, pitch, yaw = _finite('a camera pose (x, y, z, roll, pitch, yaw)', numbers, 6)
    (sr, cr), (sp, cp), (sy, cy) = ((math.sin(angle), math.cos(angle)) for angle in (roll, pitch, yaw))
    axes = (
        np.array([[cy, -sy, 0], [sy, cy, 0], [0, 0, 1]])
        @ np.array([[cp, 0, sp], [0, 1, 0], [-sp, 0, cp]])
        @ np.array([[1, 0, 0], [0, cr, -sr], [0, sr, cr]])
    )
    return _pose(axes if optical else axes @ _OPTICAL_AXES, position)


def _pose(axes: np.ndarray, position: Sequence[float]) -> np.ndarray:
    pose = np.eye(4)
    pose[:3, :3], pose[:3, 3] = axes, position
    return pose


def _finite(what: str, numbers: Sequence[float], count: int) -> list[float]:
    values = [float(value) for value in numbers]
    if len(values) != count or not all(map(math.isfinite, values)):
        raise CameraInfoError(f'{what} is {values}, expected {count} finite numbers')
    return values
