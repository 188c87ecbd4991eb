# SPDX-License-Identifier: Apache-2.0
"""Define the centre line of the road."""

from __future__ import annotations

import numpy as np


class Road:
    """Centre line of the road: a sum of sines of the distance, so that any point of it is computed directly.

    Args:
        rng: Source of the random numbers.
    """

    def __init__(self, rng: np.random.Generator) -> None:
        self.wave = 2 * np.pi / rng.uniform([150, 260, 480], [210, 400, 900])
        self.height = rng.uniform([0.02, 0.03, 0.02], [0.05, 0.07, 0.05]) / self.wave
        self.phase = rng.uniform(0, 2 * np.pi, 3)

    def center(self, s: np.ndarray | float) -> np.ndarray:
        """Return the world x of the centre line, metres.

        Args:
            s: World z, metres; a number or an array.
        """
        angle = np.asarray(s, np.float64)[..., None] * self.wave + self.phase
        return (np.sin(angle) * self.height).sum(-1)

    def heading(self, s: float) -> float:
        """Return the direction of the road at world z ``s`` in metres, radians to the right."""
        return float(np.arctan((np.cos(s * self.wave + self.phase) * self.height * self.wave).sum()))

    def points(self, local: np.ndarray) -> np.ndarray:
        """Return world points.

        Args:
            local: Points ``[N, 3]``: metres to the right of the centre line, up, and along the road.
        """
        world = np.array(local, np.float64)
        world[:, 0] += self.center(world[:, 2])
        return world
