# SPDX-License-Identifier: Apache-2.0
"""Project points to pixels with OpenCV's pinhole and fisheye models, as CameraInfo describes them.

Points are in the optical frame (REP 103): x right, y down, z forward. Units are metres, radians and pixels; the centre
of the first pixel is (0, 0).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.polynomial import Polynomial

from stdc_ros.ground.camera_info import read_camera_info


@dataclass(frozen=True)
class CameraModel:
    """Lens of a camera and size of its images.

    Args:
        width: Width of the images, pixels.
        height: Height of the images, pixels.
        focal: Focal lengths fx and fy, pixels.
        center: Principal point cx and cy, pixels.
        distortion: Coefficients k1, k2, p1, p2, k3, k4, k5, k6, s1, s2, s3, s4, tauX, tauY of OpenCV; k1 to k4 of a
            fisheye. Those left out are 0.
        fisheye: Whether the lens follows OpenCV's fisheye model (``equidistant``), which maps angles and not tangents.
        skew: Pixels in x for each unit of distorted y, K[1] of a CameraInfo.

    Example:
        >>> camera = CameraModel(640, 480, focal=(500.0, 500.0), center=(320.0, 240.0))
        >>> x, y = camera.project(np.array([1.0]), np.array([0.0]), np.array([10.0]))
        >>> float(x[0]), float(y[0])
        (370.0, 240.0)
    """

    width: int
    height: int
    focal: tuple[float, float]
    center: tuple[float, float]
    distortion: tuple[float, ...] = ()
    fisheye: bool = False
    skew: float = 0.0

    @classmethod
    def from_info(cls, info: Any, rectified: bool = False) -> CameraModel:
        """Return the model of the images that a ``sensor_msgs/CameraInfo`` describes.

        Args:
            info: Message of rclpy or of rosbags.
            rectified: Whether the images are rectified, so that P is used and not K and D.

        Raises:
            CameraInfoError: The camera is not calibrated, or its calibration is invalid or not supported.
        """
        found = read_camera_info(info, rectified)
        (fx, skew, cx), (_, fy, cy), _ = found.matrix.tolist()
        return cls(found.width, found.height, (fx, fy), (cx, cy), found.distortion, found.fisheye, skew)

    def scaled(self, width: int, height: int) -> CameraModel:
        """Return the model for resized images. Each axis may have its own factor.

        As in OpenCV, resizing keeps the corners of the image and not the centres of its corner pixels.

        Args:
            width: New width, pixels.
            height: New height, pixels.
        """
        x, y = width / self.width, height / self.height
        return replace(
            self,
            width=width,
            height=height,
            focal=(self.focal[0] * x, self.focal[1] * y),
            center=((self.center[0] + 0.5) * x - 0.5, (self.center[1] + 0.5) * y - 0.5),
            skew=self.skew * x,
        )

    def project(self, x: np.ndarray, y: np.ndarray, z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the pixels of points in the optical frame; they may lie outside the image.

        Args:
            x: float32 or float64 of any shape, metres to the right.
            y: The same shape and type, metres down.
            z: The same shape and type, metres ahead.

        Returns:
            Column and row of each point, of the shape and type of the points. NaN where the model is not valid: behind
            a pinhole camera, and beyond the angle at which the distorted radius begins to shrink, where other points
            would fall on the same pixels.
        """
        bend = self._bend_fisheye if self.fisheye else self._bend_pinhole
        with np.errstate(divide='ignore', invalid='ignore', over='ignore'):
            bent_x, bent_y, valid = bend(x, y, z)
            column = bent_x * self.focal[0] + self.center[0]
            if self.skew:
                column = column + bent_y * self.skew
            row = bent_y * self.focal[1] + self.center[1]
        return np.where(valid, column, np.nan), np.where(valid, row, np.nan)

    def _bend_pinhole(self, x: np.ndarray, y: np.ndarray, z: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return distorted x and y at z = 1, and where they are valid (OpenCV, calib3d, "Detailed Description")."""
        x, y = x / z, y / z
        if not self.distortion:
            return x, y, z > 0
        _, _, p1, p2, *_ = coefficients = self._coefficients
        square = x * x + y * y
        numerator, denominator = self._radial
        radial = _evaluate(numerator, square) / _evaluate(denominator, square)
        bent_x = x * radial + 2 * p1 * x * y + p2 * (square + 2 * x * x)
        bent_y = y * radial + p1 * (square + 2 * y * y) + 2 * p2 * x * y
        if len(self.distortion) > 8:
            s1, s2, s3, s4 = coefficients[8:12]
            bent_x, bent_y = bent_x + square * (s1 + s2 * square), bent_y + square * (s3 + s4 * square)
        if len(self.distortion) > 12:
            bent_x, bent_y = _tilt(bent_x, bent_y, *coefficients[12:])
        return bent_x, bent_y, (z > 0) & (square < self._limit)

    def _bend_fisheye(self, x: np.ndarray, y: np.ndarray, z: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the same for a fisheye lens (OpenCV, "Fisheye camera model")."""
        off_axis = np.hypot(x, y)
        angle = np.arctan2(off_axis, z)
        square = angle * angle
        factor = np.where(off_axis > 0, angle * _evaluate(self._radial[0], square) / off_axis, 0.0)
        return x * factor, y * factor, square < self._limit

    @property
    def _coefficients(self) -> tuple[float, ...]:
        """All 14 coefficients of OpenCV's pinhole model."""
        return (*self.distortion, *[0.0] * 14)[:14]

    @cached_property
    def _radial(self) -> tuple[list[float], list[float]]:
        """Numerator and denominator of the radial factor: polynomials of the squared tangent (fisheye: angle)."""
        if self.fisheye:
            return [1.0, *self.distortion], [1.0]
        k1, k2, _, _, k3, k4, k5, k6, *_ = self._coefficients
        return [1.0, k1, k2, k3], [1.0, k4, k5, k6] if k4 or k5 or k6 else [1.0]

    @cached_property
    def _limit(self) -> float:
        """Squared tangent or, for a fisheye, angle up to which the distorted radius grows with the true one.

        This is the first root of the derivative of r N(r^2) / D(r^2), or of D. The tangential and thin prism parts are
        left out, because they are small in real lenses.
        """
        numerator, denominator = (Polynomial(coefficients) for coefficients in self._radial)
        square = Polynomial([0.0, 1.0])
        slope = numerator * denominator + 2 * square * (
            numerator.deriv() * denominator - numerator * denominator.deriv()
        )
        roots = np.concatenate([slope.trim().roots(), denominator.trim().roots()])
        real = roots.real[(np.abs(roots.imag) < 1e-6 * np.abs(roots)) & (roots.real > 0)]
        return float(min([*real, math.pi**2 if self.fisheye else math.inf]))


def _tilt(x: np.ndarray, y: np.ndarray, tau_x: float, tau_y: float) -> tuple[np.ndarray, np.ndarray]:
    """Move points to a sensor that is tilted about x by ``tau_x`` and about y by ``tau_y``, radians (OpenCV, calib3d).

    Args:
        x: Distorted x at z = 1.
        y: Distorted y at z = 1.
        tau_x: First angle.
        tau_y: Second angle.
    """
    (sx, cx), (sy, cy) = ((math.sin(angle), math.cos(angle)) for angle in (tau_x, tau_y))
    turn = np.array([[cy, 0, -sy], [0, 1, 0], [sy, 0, cy]]) @ np.array([[1, 0, 0], [0, cx, sx], [0, -sx, cx]])
    onto = np.array([[turn[2, 2], 0, -turn[0, 2]], [0, turn[2, 2], -turn[1, 2]], [0, 0, 1]]) @ turn
    across, down, depth = (float(a) * x + float(b) * y + float(c) for a, b, c in onto)
    return across / depth, down / depth


def _evaluate(coefficients: list[float], at: np.ndarray) -> np.ndarray | float:
    """Evaluate a polynomial, lowest power first. numpy's own function converts float32 to float64."""
    value: np.ndarray | float = coefficients[-1]
    for coefficient in reversed(coefficients[:-1]):
        value = value * at + coefficient
    return value
