# SPDX-License-Identifier: Apache-2.0
"""Where a camera sees a point: its lens, as ``sensor_msgs/CameraInfo`` describes it, and its pose. Needs no ROS.

Optical frames are those of REP 103: x right, y down, z forward. All other frames: x forward, y left, z up. Poses are
float64 ``[4, 4]`` and take points of the optical frame to the other one, as TF's transforms do. Units are metres,
radians and pixels; the centre of an image's first pixel is (0, 0).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.polynomial import Polynomial

from stdc_core.io.text import NUMBERS, quoted

#: By ``distortion_model``: how many coefficients there are at least, where there are any, and how many are used.
#: OpenCV's models have more, for thin prisms and tilted sensors, which no calibration of ROS makes.
_PINHOLE = {'': (4, 5), 'none': (4, 5), 'plumb_bob': (4, 5), 'rational_polynomial': (8, 8)}
_FISHEYE = {'equidistant': (4, 4), 'fisheye': (4, 4)}

#: Numbers of lenses, pixels or none, are far from both: products of those beyond overflow, and coefficients below move
#: no pixel.
_MAX_NUMBER, _NO_COEFFICIENT = 1e6, 1e-12

#: The axes of an optical frame, as columns, in that of the camera's body (REP 103).
_OPTICAL_AXES = np.array([[0.0, 0.0, 1.0], [-1.0, 0.0, 0.0], [0.0, -1.0, 0.0]])


class CameraInfoError(ValueError):
    """A ``CameraInfo`` or a camera's pose that is none, or that nobody here can use."""


@dataclass(frozen=True)
class CameraModel:
    """The lens of a camera and the size of its images.

    Args:
        width, height: pixels.
        focal: fx and fy, pixels.
        center: cx and cy, pixels.
        distortion: OpenCV's k1, k2, p1, p2, k3, k4, k5, k6; of a fisheye k1 to k4. Those left out are 0.
        fisheye: whether the lens is OpenCV's fisheye (``equidistant``): it sees by angle, not by its tangent.
    """

    width: int
    height: int
    focal: tuple[float, float]
    center: tuple[float, float]
    distortion: tuple[float, ...] = ()
    fisheye: bool = False

    @classmethod
    def from_info(cls, info: Any, rectified: bool = False) -> CameraModel:
        """Read a ``sensor_msgs/CameraInfo``, of rclpy or of rosbags.

        Args:
            info: the message.
            rectified: the images are rectified. Their CameraInfo is often that of the raw ones; then K and D do not
                hold, and P, without distortion, does.

        Raises:
            CameraInfoError: the camera is not calibrated, or in a way that is not known here.
        """
        if info.width < 1 or info.height < 1:
            raise CameraInfoError(f'CameraInfo of {info.width} x {info.height} pixels, expected at least 1 x 1')
        _check_whole_image(info)
        if rectified:
            matrix, distortion, fisheye = _rectified_matrix(info), (), False
        else:
            matrix = _checked_matrix('K', np.reshape(info.k, (3, 3)))
            distortion, fisheye = _read_distortion(info)
        focal, center = (matrix[0, 0], matrix[1, 1]), (matrix[0, 2], matrix[1, 2])
        return cls(int(info.width), int(info.height), _floats(focal), _floats(center), distortion, fisheye)

    def scaled(self, width: int, height: int) -> CameraModel:
        """The model of the same images after they were resized to ``width`` x ``height``, each axis by its own factor.

        Pixel areas are scaled, as OpenCV's and most other resizing does: the corners stay, not the corner pixels'
        centres.
        """
        x, y = width / self.width, height / self.height
        return replace(
            self,
            width=width,
            height=height,
            focal=(self.focal[0] * x, self.focal[1] * y),
            center=((self.center[0] + 0.5) * x - 0.5, (self.center[1] + 0.5) * y - 0.5),
        )

    def project(self, x: np.ndarray, y: np.ndarray, z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Pixels (x, y) of points of the optical frame; arrays of one shape and of float32 or float64.

        NaN where the model says nothing: behind a camera that is no fisheye, and beyond the angle at which the
        distortion turns back, where a second part of the world would fall on the same pixels. Pixels may lie outside
        the image.
        """
        bend = self._bend_fisheye if self.fisheye else self._bend_pinhole
        with np.errstate(divide='ignore', invalid='ignore', over='ignore'):
            bent_x, bent_y, valid = bend(x, y, z)
        return tuple(
            np.where(valid, bent * focal + center, np.nan)
            for bent, focal, center in zip((bent_x, bent_y), self.focal, self.center, strict=True)
        )

    def _bend_pinhole(self, x: np.ndarray, y: np.ndarray, z: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Distorted x and y at z = 1, and where they hold (OpenCV, camera calibration, "Detailed Description")."""
        x, y = x / z, y / z
        if not self.distortion:
            return x, y, z > 0
        _, _, p1, p2 = (*self.distortion, 0.0, 0.0, 0.0, 0.0)[:4]
        square = x * x + y * y
        numerator, denominator = self._radial
        radial = _evaluate(numerator, square) / _evaluate(denominator, square)
        bent_x = x * radial + 2 * p1 * x * y + p2 * (square + 2 * x * x)
        bent_y = y * radial + p1 * (square + 2 * y * y) + 2 * p2 * x * y
        return bent_x, bent_y, (z > 0) & (square < self._limit)

    def _bend_fisheye(self, x: np.ndarray, y: np.ndarray, z: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The same for a fisheye (OpenCV, fisheye camera model)."""
        off_axis = np.hypot(x, y)
        angle = np.arctan2(off_axis, z)
        square = angle * angle
        factor = np.where(off_axis > 0, angle * _evaluate(self._radial[0], square) / off_axis, 0.0)
        return x * factor, y * factor, square < self._limit

    @cached_property
    def _radial(self) -> tuple[list[float], list[float]]:
        """Numerator and denominator of the radial factor, over the square of the tangent, or of a fisheye's angle."""
        if self.fisheye:
            return [1.0, *self.distortion], [1.0]
        k1, k2, _, _, k3, k4, k5, k6 = (*self.distortion, *[0.0] * 8)[:8]
        return [1.0, k1, k2, k3], [1.0, k4, k5, k6] if k4 or k5 or k6 else [1.0]

    @cached_property
    def _limit(self) -> float:
        """The square of the tangent, or of a fisheye's angle, up to which the distorted radius grows with the true one.

        That is the first root of the derivative of r N(r^2) / D(r^2), or of D; the tangential part is left out, which
        is small in any lens that is sold.
        """
        numerator, denominator = (Polynomial(coefficients) for coefficients in self._radial)
        square = Polynomial([0.0, 1.0])
        slope = numerator * denominator + 2 * square * (
            numerator.deriv() * denominator - numerator * denominator.deriv()
        )
        roots = np.concatenate([slope.trim().roots(), denominator.trim().roots()])
        real = roots.real[(np.abs(roots.imag) < 1e-6 * np.abs(roots)) & (roots.real > 0)]
        return float(min([*real, math.pi**2 if self.fisheye else math.inf]))


def _evaluate(coefficients: list[float], at: np.ndarray) -> np.ndarray | float:
    """A polynomial, lowest power first. numpy's own makes float64 of float32."""
    value = coefficients[-1]
    for coefficient in reversed(coefficients[:-1]):
        value = value * at + coefficient
    return value


def pose_of_transform(translation: Sequence[float], rotation: Sequence[float]) -> np.ndarray:
    """Pose of a TF transform whose child is the optical frame: x, y, z in metres, and a quaternion x, y, z, w.

    Raises:
        CameraInfoError: these are no numbers, or the quaternion has no length.
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
    """Pose of the optical frame of a camera that is mounted at x, y, z, roll, pitch, yaw.

    Roll, pitch and yaw are URDF's: turns about the fixed x, y and z axes, in this order. All 0 looks straight ahead;
    a positive pitch looks down, a positive yaw to the left.

    Args:
        numbers: of the camera's body (x forward, y left, z up), as in a URDF's camera joint; metres and radians.
        optical: they are those of the optical frame itself, of which looking straight ahead is -pi/2, 0, -pi/2.

    Raises:
        CameraInfoError: these are not six numbers.
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
    values = _floats(numbers)
    if len(values) != count or not all(map(math.isfinite, values)):
        raise CameraInfoError(f'{what} is {list(values)}, expected {count} finite numbers')
    return list(values)


def _floats(values: Sequence[float]) -> tuple[float, ...]:
    return tuple(float(value) for value in values)


def _check_whole_image(info: Any) -> None:
    if info.binning_x > 1 or info.binning_y > 1:
        raise CameraInfoError(f'CameraInfo with binning {info.binning_x} x {info.binning_y}, expected none (0 or 1)')
    roi = info.roi
    region = roi.x_offset, roi.y_offset, roi.width, roi.height
    if region not in ((0, 0, 0, 0), (0, 0, info.width, info.height)):
        raise CameraInfoError(
            f'CameraInfo with a region of interest of {roi.width} x {roi.height} pixels at ({roi.x_offset}, '
            f'{roi.y_offset}), expected the whole image of {info.width} x {info.height} (all 0)'
        )


def _rectified_matrix(info: Any) -> np.ndarray:
    projection = np.reshape(info.p, (3, 4))
    rotation = np.reshape(info.r, (3, 3))
    if not np.allclose(rotation, np.eye(3), atol=1e-3) or not np.allclose(projection[:, 3], 0, atol=1e-6):
        raise CameraInfoError(
            f'CameraInfo of a stereo camera (R is {_shown(rotation)}, P {_shown(projection)}), expected one whose '
            'rectified frame is its optical frame: R the identity, P[3] and P[7] 0'
        )
    return _checked_matrix('P', projection[:, :3])


def _checked_matrix(name: str, matrix: np.ndarray) -> np.ndarray:
    columns = 3 if name == 'K' else 4
    shape = np.array([[0, 0, 1], [0, 0, 1], [0, 0, 0]], bool)
    rest = matrix - np.eye(3)
    np.fill_diagonal(rest[:2, :2], 0)
    usable = np.isfinite(matrix).all() and np.abs(matrix).max() <= _MAX_NUMBER
    if not usable or matrix[0, 0] <= 0 or matrix[1, 1] <= 0 or np.abs(rest[~shape]).max() > 1e-9:
        unset = ': the camera is not calibrated' if not matrix.any() else ''
        raise CameraInfoError(
            f'CameraInfo: {name} is {_shown(matrix)}{unset}; expected positive focal lengths in {name}[0] and '
            f'{name}[{columns + 1}], 1 in the last corner, no skew, and at most {_MAX_NUMBER:g}'
        )
    return matrix


def _shown(matrix: np.ndarray) -> str:
    # One more than is shown: of a sequence of millions, no more are looked at.
    return quoted([float(f'{value:.6g}') for value in np.ravel(matrix)[: NUMBERS + 1]])


def _read_distortion(info: Any) -> tuple[tuple[float, ...], bool]:
    """Coefficients without the zeros at their end, and whether they are those of a fisheye."""
    name = info.distortion_model
    models = _PINHOLE | _FISHEYE
    if name not in models:
        known = ', '.join(repr(model) for model in models)
        raise CameraInfoError(f'CameraInfo with the distortion model {quoted(name)}, expected one of {known}')
    least, used = models[name]
    given = np.asarray(info.d, np.float64)
    usable = np.isfinite(given).all() and np.all(np.abs(given) <= _MAX_NUMBER)
    if not usable or 0 < len(given) < least or given[used:].any():
        raise CameraInfoError(
            f'CameraInfo: D is {_shown(given)} with the distortion model {name!r}, expected none or {used} finite '
            f'numbers of at most {_MAX_NUMBER:g}'
        )
    if name in ('', 'none') and given.any():
        raise CameraInfoError(f'CameraInfo: D is {_shown(given)}, but the distortion model is {name!r}')
    found = tuple(value if abs(value) >= _NO_COEFFICIENT else 0.0 for value in _floats(given[:used]))
    while found and found[-1] == 0:
        found = found[:-1]
    return found, name in _FISHEYE
