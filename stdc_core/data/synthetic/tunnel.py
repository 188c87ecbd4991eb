# SPDX-License-Identifier: Apache-2.0
"""Draw the tunnels of motorways: two tubes with a wall between, and the hill with the portal."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from stdc_core.data.synthetic.canvas import BUILDING, TREE, Canvas
from stdc_core.data.synthetic.item import Item
from stdc_core.data.synthetic.street import road_points
from stdc_core.data.synthetic.world import World

HEIGHT = 5.4  # height of the ceiling, metres
HILL = 12.0  # height of the hill, metres

_TILES, _CONCRETE = np.array([186.0, 190, 190]), np.array([140.0, 148, 152])
_LAMP = (205.0, 238.0, 250.0)


def draw_tunnel(canvas: Canvas, world: World, item: Item) -> None:
    """Draw a piece of a tunnel, from its outer walls to the wall between the tubes; ``size`` is half its width."""
    near, far, half, light = item.s, item.s + item.length, item.size, canvas.light

    def strip(x0: float, y0: float, x1: float, y1: float, color: np.ndarray, gain: np.ndarray) -> None:
        quad = [(x0, y0, near), (x0, y0, far), (x1, y1, far), (x1, y1, near)]
        canvas.polygon(road_points(canvas, world, quad), color, BUILDING, gain)

    for side in (-1, 1):
        ceiling = light.gain((0, -1, 0)) * 0.8
        strip(0, HEIGHT, side * half, HEIGHT, _CONCRETE, ceiling)
        for x, out in ((side * half, -side), (side * 0.15, side)):
            face = light.gain((out, 0, 0))
            strip(x, 0, x, 3.0, _TILES, face)
            strip(x, 3.0, x, HEIGHT, _CONCRETE * 0.75, face)
        lamp = side * half / 2
        quad = [
            (lamp - 0.15, HEIGHT - 0.05, near + 1),
            (lamp + 0.15, HEIGHT - 0.05, near + 1),
            (lamp + 0.15, HEIGHT - 0.05, near + 3),
            (lamp - 0.15, HEIGHT - 0.05, near + 3),
        ]
        canvas.polygon(road_points(canvas, world, quad), _LAMP, BUILDING, np.ones(3))


def draw_portal(canvas: Canvas, world: World, item: Item) -> None:
    """Draw the front of a tunnel in the slope of a hill; ``size`` is half the width of the tunnel."""
    s, half, front = item.s, item.size, canvas.light.gain((0, 0, -1))
    top = HEIGHT + 1.6
    grass = world.style.fences[4][-1].reshape(-1, 3).mean(0)
    slope = canvas.light.gain((0, 0.6, -0.8))

    def fill(points: Sequence[tuple[float, float, float]], color: np.ndarray, label: int, gain: np.ndarray) -> None:
        view = canvas.camera.view(np.array(points, np.float64) + (float(world.road.center(s)), 0, 0))
        canvas.polygon(view, color, label, gain)

    ridge = [(-60, top, s), (60, top, s), (40, HILL, s + 14), (-40, HILL, s + 14)]
    fill(ridge, grass, TREE, slope)
    for side in (-1, 1):
        foot, wing = side * half, side * (half + 5)
        fill([(wing, 0, s), (side * 110, 0, s - 10), (side * 60, top, s), (wing, top, s)], grass, TREE, slope)
        fill([(foot, 0, s), (wing, 0, s), (wing, top, s), (foot, top, s)], _CONCRETE, BUILDING, front)
    fill([(-half, HEIGHT, s), (half, HEIGHT, s), (half, top, s), (-half, top, s)], _CONCRETE, BUILDING, front)
    fill([(-0.15, 0, s), (0.15, 0, s), (0.15, HEIGHT, s), (-0.15, HEIGHT, s)], _CONCRETE, BUILDING, front)
