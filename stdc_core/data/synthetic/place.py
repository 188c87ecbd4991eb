# SPDX-License-Identifier: Apache-2.0
"""Where an object stands: its own axes (right, up, forward) on the road."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from stdc_core.data.synthetic.canvas import Camera


class Place:
    """A ground point and a direction to look.

    Args:
        camera: what the points are seen by.
        origin: world position, metres.
        heading: radians to the right of world z.
    """

    def __init__(self, camera: Camera, origin: Sequence[float], heading: float) -> None:
        self.camera = camera
        self.origin = np.asarray(origin, np.float64)
        sin, cos = np.sin(heading), np.cos(heading)
        self.axes = np.array([[cos, 0, -sin], [0, 1, 0], [sin, 0, cos]])

    def world(self, local: np.ndarray) -> np.ndarray:
        """World points of local points ``[N, 3]``."""
        return np.asarray(local, np.float64) @ self.axes + self.origin

    def view(self, local: np.ndarray) -> np.ndarray:
        """View points of local points ``[N, 3]``."""
        return self.camera.view(self.world(local))

    def direction(self, local: Sequence[float]) -> np.ndarray:
        """A local direction in world axes."""
        return np.asarray(local, np.float64) @ self.axes

    def local_camera(self, camera: Camera) -> np.ndarray:
        """The camera's position in local axes."""
        return self.axes @ (camera.position - self.origin)
