# SPDX-License-Identifier: Apache-2.0
"""Find the points of a cloud that nearer points hide from the camera.

A LiDAR sits above the lens and sees what the car in front hides. Such points fall on pixels that show the car. A depth
image of the cloud finds them, at the resolution of a LiDAR and not of the camera: its cells are ``CELL`` wide.

A point is hidden in one of two cases:

- A nearer point lies above it and another one below it, both in its column and within ``WINDOW``. Beams of a LiDAR
  leave gaps between them, through which the background would show. Ground is never hidden by ground: nearer ground lies
  below it, but not above.
- A point of its own cell is much nearer. Ground that is seen at a flat angle fills a cell over a range of distances,
  which is why this needs a larger difference.

Background that is seen through a narrow gap, as between the roof of a car and the sign above it, is taken for hidden.
That costs a label; the other error would give a wrong one.
"""

from __future__ import annotations

import math

import cv2
import numpy as np

#: Side of a cell, radians. It is about the spacing of the points of LiDARs with 32 beams or more.
CELL = math.radians(0.4)

#: Angle above and below a point in which nearer points hide it, radians: the spacing of the beams of a LiDAR with 16.
WINDOW = math.radians(2.0)

#: Share of its own range, and metres, by which a point must be farther than both points that bracket it.
BRACKET = (0.03, 0.4)

#: The same for a nearer point in the same cell.
SAME_CELL = (0.5, 0.5)


def find_hidden(
    column: np.ndarray, row: np.ndarray, distance: np.ndarray, size: tuple[int, int], focal: float
) -> np.ndarray:
    """Return which points of an image are hidden by nearer ones.

    Args:
        column: Column of each point in the image, float32 ``[N]``, from -0.5 to the width minus 0.5.
        row: Row of each point, likewise.
        distance: Distance of each point from the camera, float32 ``[N]``, metres.
        size: Height and width of the image, pixels.
        focal: Focal length, pixels; of a fisheye, pixels for each radian.

    Returns:
        bool ``[N]``.
    """
    side = max(1.0, CELL * focal)
    height, width = (math.ceil(length / side) for length in size)
    scale = np.float32(1 / side)
    cell = ((row + np.float32(0.5)) * scale).astype(np.int32) * np.int32(width)
    cell += ((column + np.float32(0.5)) * scale).astype(np.int32)
    nearest = np.full(height * width, np.inf, np.float32)
    np.minimum.at(nearest, cell, distance)
    image = nearest.reshape(height, width)
    reach = max(1, round(WINDOW * focal / side))
    kernel = np.ones((2 * reach + 1, 1), np.uint8)
    kernel[reach:] = 0
    above, below = (
        cv2.erode(image, each, borderType=cv2.BORDER_CONSTANT, borderValue=(math.inf,))
        for each in (kernel, kernel[::-1].copy())
    )
    # The farther of the two nearest: a point behind it is behind both.
    share, metres = BRACKET
    limit = np.maximum(above, below) * np.float32(1 + share) + np.float32(metres)
    share, metres = SAME_CELL
    limit = np.minimum(limit, image * np.float32(1 + share) + np.float32(metres))
    return distance > limit.reshape(-1)[cell]
