# SPDX-License-Identifier: Apache-2.0
"""Give the points of a cloud the classes of the pixels that show them."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from stdc_core.classes import IGNORE
from stdc_ros.ground.camera_model import CameraModel
from stdc_ros.points.occlusion import find_hidden

#: Least distance in metres. Nearer points lie on the camera or its mount. They are not painted and hide nothing.
NEAREST = 0.2


class View(NamedTuple):
    """Mask of one camera, and the position of the cloud in front of it.

    Attributes:
        mask: Class ids, uint8 ``[H, W]``, of the camera's whole image at any scale.
        confidence: Confidence, uint8 ``[H, W]``, 0 to 255.
        camera: Model of the camera.
        transform: Matrix ``[4, 4]`` that takes points of the cloud to the optical frame (x right, y down, z forward),
            with the motion of the vehicle between the stamps of cloud and image.
    """

    mask: np.ndarray
    confidence: np.ndarray
    camera: CameraModel
    transform: np.ndarray


class Painting(NamedTuple):
    """Classes of the points of a cloud.

    Attributes:
        class_id: uint8 ``[N]``; 255 for a point that no camera sees, or whose pixel has no class.
        confidence: uint8 ``[N]``, 0 to 255 for 0 to 1; 0 for a point that no camera sees.
    """

    class_id: np.ndarray
    confidence: np.ndarray


def paint(xyz: np.ndarray, views: Iterable[View], threshold: float = 0.0) -> Painting:
    """Return the class of every point.

    If several cameras see a point, the class with the highest confidence wins; if they are equal, the first camera
    wins. A pixel without a class never wins against a class.

    Args:
        xyz: Points, float32 or float64 ``[3, N]``, metres. NaN and infinite points are not seen.
        views: Mask of each camera.
        threshold: Minimum confidence of a pixel, 0 to 1. Points of pixels with less become 255.
    """
    count = xyz.shape[1]
    class_id, confidence = np.full(count, IGNORE, np.uint8), np.zeros(count, np.uint8)
    least = math.ceil(threshold * 255)
    for number, view in enumerate(views):
        index, pixel = find_visible(xyz, view.camera.scaled(view.mask.shape[1], view.mask.shape[0]), view.transform)
        found, sure = view.mask.reshape(-1)[pixel], view.confidence.reshape(-1)[pixel]
        if least:
            found[sure < least] = IGNORE
        if number:  # another camera may have seen the point
            better = _is_better(found, sure, class_id[index], confidence[index])
            index, found, sure = index[better], found[better], sure[better]
        class_id[index], confidence[index] = found, sure
    return Painting(class_id, confidence)


def _is_better(found: np.ndarray, sure: np.ndarray, before: np.ndarray, sure_before: np.ndarray) -> np.ndarray:
    """Return where a class and its confidence replace those of the previous cameras, bool ``[M]``."""
    return np.where((found == IGNORE) == (before == IGNORE), sure > sure_before, before == IGNORE)


def find_visible(xyz: np.ndarray, camera: CameraModel, transform: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the points that a camera sees, and the pixels that show them.

    Args:
        xyz: Points, float32 or float64 ``[3, N]``.
        camera: Model of the camera.
        transform: Matrix ``[4, 4]`` that takes points to the optical frame.

    Returns:
        Indices of the points, and for each the index of its pixel in the flattened image; both integers ``[M]``.
    """
    with np.errstate(invalid='ignore', over='ignore'):
        # Map coordinates may need float64; coordinates in the frame of a camera do not.
        moved = transform[:3, :3].astype(xyz.dtype) @ xyz
        moved += transform[:3, 3:].astype(xyz.dtype)
        x, y, z = moved.astype(np.float32, copy=False)
        index = np.arange(len(z)) if camera.fisheye else np.flatnonzero(z > 0)
        if len(index) < len(z):
            x, y, z = x[index], y[index], z[index]
        column, row = camera.project(x, y, z)
        edge = np.float32(0.5)
        inside = (column > -edge) & (column < camera.width - edge) & (row > -edge) & (row < camera.height - edge)
        chosen = np.flatnonzero(inside)
        column, row, index = column[chosen], row[chosen], index[chosen]
        distance = np.sqrt(x[chosen] ** 2 + y[chosen] ** 2 + z[chosen] ** 2)
        far = (distance > NEAREST) & (distance < np.inf)
        if not far.all():
            column, row, distance, index = column[far], row[far], distance[far], index[far]
    hidden = find_hidden(column, row, distance, (camera.height, camera.width), camera.focal[1])
    seen = np.flatnonzero(~hidden)
    pixel = np.rint(row[seen]).astype(np.intp) * camera.width + np.rint(column[seen]).astype(np.intp)
    return index[seen], pixel
