# SPDX-License-Identifier: Apache-2.0
"""Read and check the calibration in a ``sensor_msgs/CameraInfo``.

Width, height, K, R and P of a CameraInfo describe the whole sensor. An image may show a part of it (``roi``) with
merged pixels (``binning_x``, ``binning_y``). The matrix of such images is computed as in ``image_geometry``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import numpy as np

from stdc_core.io.text import NUMBERS, quoted

#: Names of the distortion models of cv2.projectPoints, which are told apart by the number of coefficients, of OpenCV's
#: fisheye model, which has four, and of lenses without distortion. The first two names of each are those of ROS; other
#: drivers and calibration tools write the others.
_PINHOLE = ('plumb_bob', 'rational_polynomial', 'radtan', 'brown_conrady')
_FISHEYE = ('equidistant', 'fisheye', 'kannala_brandt', 'kannala_brandt4')
_UNDISTORTED = ('', 'none', 'pinhole')

#: Numbers of coefficients in OpenCV: k1 k2 p1 p2, k3, k4 k5 k6, s1 s2 s3 s4 (thin prism), tauX tauY (tilted sensor).
_PINHOLE_COUNTS, _FISHEYE_COUNTS = (4, 5, 8, 12, 14), (4,)

#: Largest number of a calibration, and size below which a coefficient counts as 0. Real lenses are far from both.
#: Products of larger numbers overflow, and smaller coefficients move no pixel.
_MAX_NUMBER, _NO_COEFFICIENT = 1e6, 1e-12

#: Largest side of a camera in pixels. A larger value in a CameraInfo is damaged, and would overflow when it is scaled
#: up.
_MAX_SIDE = 65535


class CameraInfoError(ValueError):
    """A ``CameraInfo`` or a camera pose is invalid or not supported."""


@dataclass(frozen=True)
class Calibration:
    """Calibration of the images that a CameraInfo describes.

    Args:
        width: Width of the images, pixels.
        height: Height of the images, pixels.
        matrix: Camera matrix, float64 ``[3, 3]``: focal lengths, skew and principal point, pixels.
        distortion: Coefficients in OpenCV's order, without the zeros at the end.
        fisheye: Whether the coefficients belong to OpenCV's fisheye model.
    """

    width: int
    height: int
    matrix: np.ndarray
    distortion: tuple[float, ...]
    fisheye: bool


def read_camera_info(info: Any, rectified: bool = False) -> Calibration:
    """Return the calibration of the images that a CameraInfo describes.

    Args:
        info: ``sensor_msgs/CameraInfo`` of rclpy or of rosbags.
        rectified: Whether the images are rectified. Rectified images are described by P without distortion, and not by
            K and D, although both are in the CameraInfo.

    Raises:
        CameraInfoError: The camera is not calibrated, or a field has an invalid value.
    """
    check_calibrated(info)
    if info.width < 1 or info.height < 1:
        raise CameraInfoError(f'CameraInfo of {info.width} x {info.height} pixels, expected at least 1 x 1')
    left, top, width, height = _read_region(info)
    distortion: tuple[float, ...]
    if rectified:
        matrix, distortion, fisheye = _rectified_matrix(info), (), False
    else:
        if not np.any(info.k) and np.any(info.p):
            raise CameraInfoError(
                'CameraInfo: K is all 0 and P is not, as drivers of rectified images write it; '
                'if the images are rectified, set the parameter grid_rectified or points_rectified '
                '(segment_bag: --points-rectified)'
            )
        matrix = _checked_matrix('K', np.reshape(np.asarray(info.k, np.float64), (3, 3)))
        distortion, fisheye = _read_distortion(info)
    # First the region, then the binning, as in image_geometry.
    columns, rows = max(int(info.binning_x), 1), max(int(info.binning_y), 1)
    if columns > width or rows > height:
        raise CameraInfoError(
            f'CameraInfo: binning_x and binning_y are {columns} and {rows}, expected at most {width} and {height}'
        )
    matrix = matrix.copy()
    matrix[:2, 2] -= left, top
    matrix[:2] /= np.array([[columns], [rows]])
    return Calibration(width // columns, height // rows, matrix, distortion, fisheye)


def check_fit(info: Any, height: int, width: int) -> None:
    """Check that a ``CameraInfo`` describes images of a size, with its region of interest and its binning.

    Args:
        info: ``sensor_msgs/CameraInfo`` of rclpy or of rosbags.
        height: Height of the image, pixels.
        width: Width of the image, pixels.

    Raises:
        CameraInfoError: It describes images of another size, or the camera is not calibrated.
    """
    check_calibrated(info)
    roi = info.roi
    inside = roi.x_offset + roi.width <= info.width and roi.y_offset + roi.height <= info.height
    if max(info.width, info.height) > _MAX_SIDE or not inside:
        raise CameraInfoError(
            f'CameraInfo of {info.width} x {info.height} pixels with a region of interest of {roi.width} x '
            f'{roi.height} at ({roi.x_offset}, {roi.y_offset}), expected at most {_MAX_SIDE} a side, the region inside'
        )
    columns = (roi.width or info.width) / max(info.binning_x, 1)
    rows = (roi.height or info.height) / max(info.binning_y, 1)
    # Drivers round a side that the binning does not divide up or down.
    if abs(columns - width) >= 1 or abs(rows - height) >= 1:
        merged = max(info.binning_x, info.binning_y) > 1
        size = f'{columns:g} x {rows:g} pixels'
        if merged:
            size += f' (binning {info.binning_x} x {info.binning_y} of {info.width} x {info.height})'
        raise CameraInfoError(f'CameraInfo of images of {size}, expected {width} x {height}, as the images are')


def check_calibrated(info: Any) -> None:
    """Check that a CameraInfo has content. Drivers without a calibration file publish one of zeros.

    Raises:
        CameraInfoError: Width, height, K and P are 0.
    """
    if not (info.width or info.height or np.any(info.k) or np.any(info.p)):
        raise CameraInfoError(
            'CameraInfo: width, height, K and P are 0: the camera is not calibrated; '
            'calibrate it and name the file to its driver (mostly by camera_info_url)'
        )


def _read_region(info: Any) -> tuple[int, int, int, int]:
    """Return the region of the sensor that the images show, before binning: left, top, width, height."""
    roi = info.roi
    region = (int(roi.x_offset), int(roi.y_offset), int(roi.width), int(roi.height))
    if region == (0, 0, 0, 0):
        return 0, 0, int(info.width), int(info.height)
    left, top, width, height = region
    if width < 1 or height < 1 or left + width > info.width or top + height > info.height:
        raise CameraInfoError(
            f'CameraInfo: roi is a region of {width} x {height} pixels at ({left}, {top}), expected one inside the '
            f'image of {info.width} x {info.height}, or all 0 for the whole image'
        )
    return region


def _rectified_matrix(info: Any) -> np.ndarray:
    projection = np.reshape(np.asarray(info.p, np.float64), (3, 4))
    rotation = np.reshape(np.asarray(info.r, np.float64), (3, 3))
    # All 0 is the default of the message, which some drivers leave as it is.
    aligned = not rotation.any() or np.allclose(rotation, np.eye(3), atol=1e-3)
    if not aligned or not np.allclose(projection[:, 3], 0, atol=1e-6):
        raise CameraInfoError(
            f'CameraInfo of a stereo camera (R is {_shown(rotation)}, P {_shown(projection)}), expected one whose '
            'rectified frame is its optical frame: R the identity or all 0, P[3] and P[7] 0'
        )
    return _checked_matrix('P', projection[:, :3])


def _checked_matrix(name: str, matrix: np.ndarray) -> np.ndarray:
    """Check that a matrix is ``[[fx, skew, cx], [0, fy, cy], [0, 0, 1]]``.

    ``camera_calibration`` estimates a skew for fisheye lenses unless an option fixes it.
    """
    columns = 3 if name == 'K' else 4
    usable = bool(np.isfinite(matrix).all()) and np.abs(matrix).max() <= _MAX_NUMBER
    rest = np.array([matrix[1, 0], matrix[2, 0], matrix[2, 1], matrix[2, 2] - 1])
    focal, skew = np.diag(matrix)[:2], abs(matrix[0, 1])
    if not usable or focal.min() <= 0 or np.abs(rest).max() > 1e-9 or skew > focal[0]:
        unset = ': the camera is not calibrated' if not np.diag(matrix)[:2].any() else ''
        raise CameraInfoError(
            f'CameraInfo: {name} is {_shown(matrix)}{unset}; expected positive focal lengths in {name}[0] and '
            f'{name}[{columns + 1}], a skew of at most {name}[0] in {name}[1], 0 below the diagonal, 1 in the last '
            f'corner, and at most {_MAX_NUMBER:g}'
        )
    return matrix


def _read_distortion(info: Any) -> tuple[tuple[float, ...], bool]:
    """Return D without the zeros at its end, and whether the lens is a fisheye."""
    name = re.sub(r'[\s_-]+', '_', info.distortion_model.strip().lower())  # some drivers write 'Plumb Bob'
    if name not in _PINHOLE + _FISHEYE + _UNDISTORTED:
        known = ', '.join(map(repr, _PINHOLE + _FISHEYE + _UNDISTORTED))
        raise CameraInfoError(
            f'CameraInfo: distortion_model is {quoted(info.distortion_model)}, expected one of {known}'
        )
    given = np.asarray(info.d, np.float64)
    counts = _FISHEYE_COUNTS if name in _FISHEYE else _PINHOLE_COUNTS
    usable = bool(np.isfinite(given).all()) and bool(np.all(np.abs(given) <= _MAX_NUMBER))
    # Zeros at the end are harmless: some drivers fill D up to a fixed length. Without distortion, D may be [0].
    fits = len(given) in counts or not given[_last_count(len(given), counts) :].any()
    if not usable or not fits:
        expected = ', '.join(map(str, counts))
        raise CameraInfoError(
            f'CameraInfo: D is {_shown(given)} with the distortion model {name!r}, expected none or {expected} finite '
            f'numbers of at most {_MAX_NUMBER:g}'
        )
    if name in _UNDISTORTED and given.any():
        raise CameraInfoError(
            f'CameraInfo: D is {_shown(given)}, but distortion_model is {name!r}, expected the name of its model'
        )
    found = [float(value) if abs(value) >= _NO_COEFFICIENT else 0.0 for value in given[: counts[-1]]]
    while found and found[-1] == 0:
        found.pop()
    return tuple(found), name in _FISHEYE


def _last_count(length: int, counts: tuple[int, ...]) -> int:
    return max((count for count in counts if count <= length), default=0)


def _shown(matrix: np.ndarray) -> str:
    # One more than is shown, because a sequence may have millions of numbers.
    return quoted([float(f'{value:.6g}') for value in np.ravel(matrix)[: NUMBERS + 1]])
