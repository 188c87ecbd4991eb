# SPDX-License-Identifier: Apache-2.0
"""Find the points of a cloud that nearer points hide from the camera.

A LiDAR sits above the lens and sees what the car in front hides. Such points fall on pixels that show the car. A depth
image of the cloud finds them, at the resolution of a LiDAR and not of the camera: its cells are ``CELL`` wide.

A point is hidden in one of two cases:

- The next cell above it that is not empty and the next one below it, both in its column and within ``WINDOW``, have
  nearer points. Beams of a LiDAR leave gaps between them, through which the background would show. Ground is never
  hidden by ground: nearer ground lies below it, but not above.
- A point of its own cell is much nearer. Ground that is seen at a flat angle fills a cell over a range of distances,
  which is why this needs a larger difference.

Background that is seen through a narrow gap, as between the roof of a car and the sign above it, is taken for hidden.
That costs a label; a hidden point that is taken for seen gets a wrong one. ``benchmarks/points.py`` measures the shares
of both on rendered drives.
"""

from __future__ import annotations

import math

import numpy as np

#: Side of a cell, radians. It is about the spacing of the points of LiDARs with 32 beams or more.
CELL = math.radians(0.4)

#: Angle above and below a point in which the next cells are looked for, radians: the spacing of a LiDAR with 16 beams.
WINDOW = math.radians(2.0)

#: Share of its own range, and metres, by which a point must be farther than both cells that bracket it.
BRACKET = (0.05, 0.5)

#: The same for a nearer point in the same cell.
SAME_CELL = (0.3, 0.5)


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
    above, below = _next_above(image, reach), _next_above(image[::-1], reach)[::-1]
    # The farther of the two: a point behind it is behind both.
    share, metres = BRACKET
    limit = np.maximum(above, below) * np.float32(1 + share) + np.float32(metres)
    share, metres = SAME_CELL
    limit = np.minimum(limit, image * np.float32(1 + share) + np.float32(metres))
    return distance > limit.reshape(-1)[cell]


def _next_above(image: np.ndarray, reach: int) -> np.ndarray:
    """Return the distance in the next cell above each cell that is not empty, at most ``reach`` cells away."""
    found = np.full_like(image, np.inf)
    for step in range(1, min(reach, len(image) - 1) + 1):
        np.copyto(found[step:], image[:-step], where=np.isinf(found[step:]))
    return found
