# SPDX-License-Identifier: Apache-2.0
"""Draw the colours of cars and clothes."""

from __future__ import annotations

import numpy as np

CARS = np.array(
    [  # BGR of car paints
        (40, 40, 42),
        (170, 172, 172),
        (120, 122, 124),
        (60, 40, 30),
        (120, 60, 25),
        (40, 30, 140),
        (210, 212, 212),
        (70, 90, 40),
        (60, 90, 130),
        (24, 24, 26),
        (150, 130, 100),
        (90, 50, 70),
    ],
    np.float64,
)


def car_paint(rng: np.random.Generator) -> tuple[float, float, float]:
    """Draw the colour of a car, BGR."""
    return tuple((CARS[rng.integers(len(CARS))] * rng.uniform(0.85, 1.15)).tolist())


def cloth(rng: np.random.Generator) -> tuple[float, float, float]:
    """Draw the colour of clothes, BGR."""
    return tuple((rng.uniform(20, 150) * rng.uniform(0.5, 1.2, 3)).tolist())


def bright_cloth(rng: np.random.Generator) -> tuple[float, float, float]:
    """Draw the colour of clothes in hot countries, BGR: bright, often white."""
    if rng.random() < 0.3:
        return tuple((np.array([214.0, 220, 222]) * rng.uniform(0.75, 1.05)).tolist())
    low, high = rng.uniform(15, 80), rng.uniform(130, 230)
    return tuple((low + (high - low) * rng.random(3) ** 1.5).tolist())
