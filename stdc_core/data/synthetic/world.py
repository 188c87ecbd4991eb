# SPDX-License-Identifier: Apache-2.0
"""Define what a scene consists of: its road, its look, its camera, and the things on and beside the road."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from stdc_core.data.synthetic.item import Item
from stdc_core.data.synthetic.road import Road
from stdc_core.data.synthetic.style import Style

CHUNK = 48.0  # metres of road; the things on each chunk are drawn with a random generator of its own
VIEW = 170.0  # metres ahead of the camera that are rendered
START = 12.0  # distance of the camera along the road at time 0, metres


@dataclass(frozen=True)
class Mount:
    """Camera of a car, and the lane that the car drives on.

    Args:
        lane: Distance of the camera to the right of the centre line, metres.
        focal: Focal length as a share of the image width.
        height: Height above the road, metres.
        pitch: Turn down, radians.
    """

    lane: float
    focal: float = 0.92  # a horizontal field of view of 57 degrees
    height: float = 1.35
    pitch: float = -0.035  # the camera looks up a little, so that the horizon is below the middle, as in CamVid


class World:
    """Road of one seed with the things on and beside it. Each scene is a subclass.

    The things of a chunk depend only on the seed and the chunk. Recent chunks are cached.

    Args:
        seed: Seed of the drive, 0 or more.
        road: Centre line.
        style: Look.
        mount: Camera.
    """

    def __init__(self, seed: int, road: Road, style: Style, mount: Mount) -> None:
        self.seed, self.road, self.style, self.mount = seed, road, style, mount
        self._chunks: dict[int, tuple[Item, ...]] = {}

    def junction(self, chunk: int) -> tuple[float, float, int] | None:
        """Return the side road of a chunk, if it has one.

        Args:
            chunk: Number of the chunk.

        Returns:
            Middle and width in metres, and side: -1 for left, 1 for right, 0 for both.
        """
        return None

    def roofed(self, chunk: int) -> bool:
        """Return whether the road leads through a tunnel along a chunk, given its number."""
        return False

    def items(self, chunk: int) -> tuple[Item, ...]:
        """Return all things of a chunk, given its number."""
        if chunk not in self._chunks:
            if len(self._chunks) > 64:
                self._chunks.clear()
            rng = np.random.default_rng([self.seed, 3, chunk & 0xFFFFFFFF])
            self._chunks[chunk] = tuple(self.furnish(chunk, rng))
        return self._chunks[chunk]

    def furnish(self, chunk: int, rng: np.random.Generator) -> list[Item]:
        """Draw all things of a chunk.

        Args:
            chunk: Number of the chunk.
            rng: Source of the random numbers.
        """
        raise NotImplementedError

    def traffic(self, time: float, here: float, phase: float) -> list[tuple[Item, float]]:
        """Return the vehicles that do not belong to a chunk, with their turn from the road in radians.

        Args:
            time: Time since the start, seconds.
            here: Distance of the camera along the road, metres.
            phase: Number that varies their motion, radians.
        """
        return []
