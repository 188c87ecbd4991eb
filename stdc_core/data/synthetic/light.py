# SPDX-License-Identifier: Apache-2.0
"""Define the light of a drive, and draw its weather and time of day."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

#: Names of the weathers.
WEATHER = ('sunny', 'overcast', 'dusk', 'low sun', 'rain', 'fog', 'night')

#: Weathers of the town, each as often as it is drawn.
TOWN_WEATHER = ('sunny', 'sunny', 'overcast', 'overcast', 'dusk', 'low sun')

#: Weathers of the other scenes, each as often as it is drawn.
ALL_WEATHER = ('sunny', 'sunny', 'sunny', 'overcast', 'overcast', 'low sun', 'low sun', 'dusk', 'rain', 'night', 'fog')

REACH = 26.0  # distance at which the head lights of the camera's own car have lost 63 % of their brightness, metres


@dataclass(frozen=True)
class Light:
    """Light and air of a drive.

    Args:
        kind: Name of the weather, such as ``sunny``.
        sun: Unit vector towards the sun in world axes.
        strength: Brightness of the sun; 0 casts no shadow.
        sun_color: BGR factors of sunlight.
        ambient: BGR factors of the light of the sky.
        fog: BGR colour of far things, 0 ... 255.
        haze: Distance at which an object has lost 63 % of its contrast, metres.
        beam: Brightness of the head lights of the camera's own car; 0 where they do not matter.
        wet: Share of the light that a wet road mirrors at a grazing angle; 0 for a dry road.
    """

    kind: str
    sun: np.ndarray
    strength: float
    sun_color: np.ndarray
    ambient: np.ndarray
    fog: np.ndarray
    haze: float
    beam: float = 0.0
    wet: float = 0.0

    def gain(self, normal: Sequence[float] | np.ndarray) -> np.ndarray:
        """Return the BGR factors of a surface with this unit normal."""
        facing = max(0.0, float(np.dot(normal, self.sun)))
        sky = 0.85 + 0.15 * normal[1]
        return self.ambient * sky + self.sun_color * (self.strength * facing)

    def under_roof(self) -> Light:
        """Return the light inside a tunnel, where lamps shine by day and by night."""
        return replace(self, strength=0.0, ambient=self.ambient * 0.4 + (0.11, 0.15, 0.18))

    def lit(self, gain: np.ndarray | float, depth: float) -> np.ndarray | float:
        """Add the head lights of the camera's own car to the light factors of a surface.

        Args:
            gain: BGR light factors, from ``gain``.
            depth: Distance from the camera, metres.
        """
        if not self.beam:
            return gain
        return gain + self.beam * math.exp(-max(depth, 0.0) / REACH)


def make_light(rng: np.random.Generator, weather: str | None = None, choice: Sequence[str] = TOWN_WEATHER) -> Light:
    """Draw the weather and the time of day of a drive.

    Args:
        rng: Source of the random numbers.
        weather: Name of the weather, one of ``WEATHER``; None draws it.
        choice: Names to draw from; a name that is listed twice is twice as likely.
    """
    drawn = str(rng.choice(choice))
    kind = weather or drawn
    up, strength, ambient, sun, fog, haze = {
        'sunny': (rng.uniform(0.5, 0.85), 0.9, (0.74, 0.69, 0.66), (0.9, 0.97, 1.0), (244, 234, 224), 340),
        'overcast': (0.95, 0.0, (0.95, 0.93, 0.92), (1, 1, 1), (236, 232, 228), 230),
        'dusk': (0.3, 0.0, (0.54, 0.49, 0.47), (1, 1, 1), (150, 140, 142), 260),
        'low sun': (rng.uniform(0.28, 0.36), 1.05, (0.70, 0.67, 0.66), (0.72, 0.90, 1.0), (196, 212, 226), 280),
        'rain': (0.95, 0.0, (0.66, 0.63, 0.62), (1, 1, 1), (192, 188, 184), 120),
        'fog': (0.95, 0.0, (0.80, 0.79, 0.78), (1, 1, 1), (206, 204, 202), 42),
        'night': (0.3, 0.0, (0.24, 0.25, 0.28), (1, 1, 1), (44, 36, 34), 160),
    }[kind]
    azimuth = rng.choice([-1, 1]) * rng.uniform(0.5, 2.4)
    flat = np.sqrt(1 - up * up)
    return Light(
        kind,
        np.array([np.sin(azimuth) * flat, up, np.cos(azimuth) * flat]),
        strength,
        np.array(sun),
        np.array(ambient) * rng.uniform(0.9, 1.08) * rng.uniform(0.97, 1.03, 3),
        np.array(fog, np.float64) * rng.uniform(0.95, 1.03),
        haze * rng.uniform(0.8, 1.3),
        beam=0.7 if kind == 'night' else 0.0,
        wet=0.55 if kind == 'rain' else 0.0,
    )
