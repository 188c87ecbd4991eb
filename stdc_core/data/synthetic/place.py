# SPDX-License-Identifier: Apache-2.0
"""Define the axes of an object on the road: right, up, forward."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from stdc_core.data.synthetic.canvas import Camera


class Place:
    """Ground point and direction of an object.

    Args:
        camera: Camera that sees the object.
        origin: World position, metres.
        heading: Direction, radians to the right of world z.
    """

    def __init__(self, camera: Camera, origin: Sequence[float], heading: float) -> None:
        self.camera = camera
        self.origin = np.asarray(origin, np.float64)
        sin, cos = np.sin(heading), np.cos(heading)
        self.axes = np.array([[cos, 0, -sin], [0, 1, 0], [sin, 0, cos]])

    def world(self, local: np.ndarray) -> np.ndarray:
        """Return the world points of local points ``[N, 3]``."""
        return np.asarray(local, np.float64) @ self.axes + self.origin

    def view(self, local: np.ndarray) -> np.ndarray:
        """Return the view points of local points ``[N, 3]``."""
        return self.camera.view(self.world(local))

    def direction(self, local: Sequence[float]) -> np.ndarray:
        """Return a local direction in world axes."""
        return np.asarray(local, np.float64) @ self.axes

    def local_camera(self, camera: Camera) -> np.ndarray:
        """Return the position of the camera in local axes."""
        return self.axes @ (camera.position - self.origin)
