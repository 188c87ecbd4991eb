# SPDX-License-Identifier: Apache-2.0
"""Draw what stands beside motorways: guard rails, noise walls, banks, gantries, bridges and marker posts."""

from __future__ import annotations

import numpy as np

from stdc_core.data.synthetic.canvas import BUILDING, FENCE, POLE, SIGN, TREE, Canvas
from stdc_core.data.synthetic.item import Item
from stdc_core.data.synthetic.place import Place
from stdc_core.data.synthetic.street import rectangle, road_points
from stdc_core.data.synthetic.world import World

_STEEL, _CONCRETE = np.array([168.0, 166, 160]), np.array([158.0, 166, 170])
_WHITE = (232.0, 235, 235)
_SOLID = {1: 3, 2: 4}  # variants of massive barriers, and their textures in the fences of the style
_BOARDS = ((150.0, 82, 20), (74.0, 98, 18))  # BGR of blue and of green signs


def draw_guard_rail(canvas: Canvas, world: World, item: Item) -> None:
    """Draw a piece of guard rail, whose variant is 0 for a steel beam on posts, 1 for concrete and 2 for stripes."""
    x, near, far, light = item.x, item.s, item.s + item.length, canvas.light
    face = light.gain((np.sign(canvas.camera.position[0] - x) or 1.0, 0.1, -0.2))
    if item.variant in _SOLID:
        quad = [(x, 0, near), (x, 0, far), (x, item.size, far), (x, item.size, near)]
        canvas.texture(road_points(canvas, world, quad), world.style.fences[_SOLID[item.variant]], FENCE, face)
        top = [(x, item.size, near), (x, item.size, far), (x + 0.2, item.size, far), (x + 0.2, item.size, near)]
        canvas.polygon(road_points(canvas, world, top), _CONCRETE * 1.1, FENCE, light.gain((0, 1, 0)))
        return
    if near - canvas.camera.position[2] < 60:
        for s in np.arange(near, far, 3.0):
            canvas.stroke(road_points(canvas, world, [(x, 0, s), (x, 0.6, s)]), 0.1, _STEEL * 0.55, FENCE, face)
    for low, high, tone in ((0.42, 0.54, 0.8), (0.54, 0.6, 0.6), (0.6, 0.74, 1.0)):
        quad = [(x, low, near), (x, low, far), (x, high, far), (x, high, near)]
        canvas.polygon(road_points(canvas, world, quad), _STEEL * tone, FENCE, face)


def draw_wall(canvas: Canvas, world: World, item: Item) -> None:
    """Draw a piece of a wall along the road: a noise barrier, a retaining wall or the wall of a yard."""
    x, near, far, side = item.x, item.s, item.s + item.length, np.sign(item.x)
    wall, face = world.style.gables[item.variant], canvas.light.gain((-side, 0, 0))
    end = [(x, 0, near), (x + side * 0.3, 0, near), (x + side * 0.3, item.size, near), (x, item.size, near)]
    canvas.polygon(
        road_points(canvas, world, end), wall[-1].reshape(-1, 3).mean(0), BUILDING, canvas.light.gain((0, 0, -1))
    )
    quad = [(x, 0, near), (x, 0, far), (x, item.size, far), (x, item.size, near)]
    canvas.texture(road_points(canvas, world, quad), wall, BUILDING, face)


def draw_bank(canvas: Canvas, world: World, item: Item) -> None:
    """Draw a piece of a grassy slope that rises away from the road; ``extra`` holds its width in metres."""
    side, near, far = np.sign(item.x), item.s, item.s + item.length
    back, high = item.x + side * item.extra[0], item.size
    slope = np.array([-side * high, item.extra[0], 0]) / np.hypot(high, item.extra[0])
    quad = [(item.x, 0, near), (item.x, 0, far), (back, high, far), (back, high, near)]
    canvas.texture(road_points(canvas, world, quad), world.style.fences[4], TREE, canvas.light.gain(slope))


def _board(canvas: Canvas, place: Place, x0: float, y0: float, x1: float, y1: float, variant: int) -> None:
    """Draw a direction sign with a rim, two lines of lettering and an arrow, between two corners in local axes."""
    gain, ink = canvas.light.gain((0, 0, -1)), _WHITE

    def plate(local: np.ndarray, color: tuple[float, ...]) -> None:
        canvas.polygon(place.view(local), color, SIGN, gain)

    plate(rectangle(x0, y0, x1, y1), ink)
    plate(rectangle(x0 + 0.08, y0 + 0.08, x1 - 0.08, y1 - 0.08), _BOARDS[variant % 2])
    if place.view(np.zeros((1, 3)))[0, 2] > 90:
        return
    look = np.random.default_rng(variant)
    tall = (y1 - y0) * 0.13
    for share in (0.7, 0.42):
        x, end = x0 + 0.12 * (x1 - x0), x0 + look.uniform(0.5, 0.75) * (x1 - x0)
        y = y0 + share * (y1 - y0)
        while x < end:
            wide = look.uniform(0.5, 0.9) * tall
            plate(rectangle(x, y, min(x + wide, end), y + tall), ink)
            x += wide + tall * (0.25 if look.random() < 0.8 else 0.8)
    x, y, r = x0 + 0.85 * (x1 - x0), y0 + 0.3 * (y1 - y0), 0.16 * (y1 - y0)
    plate(rectangle(x - r * 0.3, y - r, x + r * 0.3, y + r), ink)
    plate(np.array([[x - r, y + r, 0], [x + r, y + r, 0], [x, y + 2.2 * r, 0]]), ink)


def draw_gantry(canvas: Canvas, place: Place, item: Item, time: float = 0.0) -> None:
    """Draw a sign gantry across a carriageway; ``size`` is its width in metres, ``variant`` its boards."""
    gain, half = canvas.light.gain((0, 0, -1)), item.size / 2
    for x in (-half, half):
        canvas.stroke(place.view(np.array([[x, 0, 0.2], [x, 7.4, 0.2]])), 0.35, _STEEL * 0.75, POLE, gain)
    for y in (6.6, 7.4):
        canvas.stroke(place.view(np.array([[-half, y, 0.2], [half, y, 0.2]])), 0.18, _STEEL * 0.8, POLE, gain)
    braces = np.arange(-half, half - 1.0, 1.6)
    for x in braces if place.view(np.zeros((1, 3)))[0, 2] < 90 else ():
        canvas.stroke(place.view(np.array([[x, 6.6, 0.2], [x + 0.8, 7.4, 0.2]])), 0.08, _STEEL * 0.7, POLE, gain)
    look = np.random.default_rng(item.variant)
    count = int(look.integers(1, 4))
    step = item.size / count
    for k in range(count):
        wide = look.uniform(0.6, 0.85) * min(step, 5.5)
        middle = -half + (k + 0.5) * step
        _board(
            canvas, place, middle - wide / 2, 5.6, middle + wide / 2, 5.6 + look.uniform(1.9, 2.8), item.variant + k * 2
        )


def draw_board(canvas: Canvas, place: Place, item: Item, time: float = 0.0) -> None:
    """Draw a large direction sign on two posts beside the road."""
    gain, half = canvas.light.gain((0, 0, -1)), item.size / 2
    for x in (-half * 0.7, half * 0.7):
        canvas.stroke(place.view(np.array([[x, 0, 0.1], [x, 2.6, 0.1]])), 0.16, _STEEL * 0.7, POLE, gain)
    _board(canvas, place, -half, 2.0, half, 2.0 + item.size * 0.7, item.variant)


def draw_hoarding(canvas: Canvas, place: Place, item: Item, time: float = 0.0) -> None:
    """Draw an advertisement that faces the camera; ``extra`` holds its foot above the ground in metres."""
    look = np.random.default_rng(item.variant)
    gain, half, low = canvas.light.gain((0, 0, -1)), item.size / 2, item.extra[0]
    high = low + item.size * look.uniform(0.4, 1.2)
    for x in (-half * 0.8, half * 0.8) if low > 0.5 else ():
        canvas.stroke(place.view(np.array([[x, 0, 0.05], [x, high, 0.05]])), 0.12, _STEEL * 0.5, POLE, gain)
    ground, ink = look.uniform(30, 235, 3), look.uniform(20, 240, 3)
    canvas.polygon(place.view(rectangle(-half, low, half, high)), ground, SIGN, gain)
    for _ in range(5 if place.view(np.zeros((1, 3)))[0, 2] < 70 else 0):
        x, y = look.uniform(-half, half * 0.6), look.uniform(low, high - 0.2 * (high - low))
        wide, tall = look.uniform(0.1, 0.5) * item.size, look.uniform(0.08, 0.3) * (high - low)
        mark = rectangle(x, y, min(x + wide, half), min(y + tall, high))
        canvas.polygon(place.view(mark), ink * look.uniform(0.7, 1.1), SIGN, gain)


def draw_marker(canvas: Canvas, place: Place, item: Item, time: float = 0.0) -> None:
    """Draw a marker post at the edge of the road."""
    gain = canvas.light.gain((0, 0, -1))
    canvas.stroke(place.view(np.array([[0, 0, 0], [0, 1.0, 0]])), 0.12, _WHITE, POLE, gain)
    canvas.stroke(place.view(np.array([[0, 0.7, 0], [0, 0.85, 0]])), 0.12, (30, 30, 30), POLE, gain)


def draw_mast(canvas: Canvas, place: Place, item: Item, time: float = 0.0) -> None:
    """Draw a tall lamp post with two arms."""
    gain, h = canvas.light.gain((0, 0, -1)), item.size
    canvas.stroke(place.view(np.array([[0, 0, 0], [0, h, 0]])), 0.2, _STEEL * 0.7, POLE, gain)
    lit = canvas.light.kind in ('dusk', 'night')
    for side in (-1, 1):
        arm = np.array([[0, h, 0], [side * 1.6, h + 0.4, 0]])
        canvas.stroke(place.view(arm), 0.12, _STEEL * 0.7, POLE, gain)
        head = np.array([[side * 1.5, h + 0.4, 0], [side * 2.3, h + 0.45, 0]])
        color, bright = ((150, 215, 255), np.ones(3)) if lit else ((150, 150, 150), gain)
        canvas.stroke(place.view(head), 0.2, color, POLE, bright)


def draw_bridge(canvas: Canvas, world: World, item: Item) -> None:
    """Draw a bridge over the road, with a pier in the median and slopes on both sides; ``size`` is half its span."""
    near, far, half, light = item.s, item.s + item.length, item.size, canvas.light
    low, high = 5.3, 6.7
    front, below = light.gain((0, 0, -1)), light.gain((0, -1, 0)) * 0.55
    tone = _CONCRETE * (0.8 + 0.05 * (item.variant % 6))

    def fill(points: list[tuple[float, float, float]], color: np.ndarray, label: int, gain: np.ndarray) -> None:
        view = canvas.camera.view(np.array(points, np.float64) + (float(world.road.center(near)), 0, 0))
        canvas.polygon(view, color, label, gain)

    for side in (-1, 1):  # the slopes below the ends of the bridge, and the banks that carry the road beyond
        foot, top = side * (half - 4), side * half
        fill([(foot, 0, far), (foot, 0, near), (top, low, near), (top, low, far)], tone * 0.8, BUILDING, below * 1.4)
        grass = world.style.fences[4][-1].reshape(-1, 3).mean(0)
        bank = [(foot, 0, near), (side * 90, 0, near - 12), (side * 90, high - 0.3, near), (top, low, near)]
        fill(bank, grass, TREE, light.gain((0, 0.6, -0.8)))
    fill([(-half, low, far), (half, low, far), (half, low, near), (-half, low, near)], tone, BUILDING, below)
    for x in (-0.5, 0.5) if item.variant % 2 else ():
        column = [(x - 0.4, 0, near + 2), (x + 0.4, 0, near + 2), (x + 0.4, low, near + 2), (x - 0.4, low, near + 2)]
        fill(column, tone * 0.95, BUILDING, front)
    fill([(-90, low, near), (90, low, near), (90, high, near), (-90, high, near)], tone, BUILDING, front)
    fill([(-90, high, near), (90, high, near), (90, high + 0.12, near), (-90, high + 0.12, near)], _STEEL, FENCE, front)
    for y in (0.55, 1.0):
        fill(
            [(-90, high + y, near), (90, high + y, near), (90, high + y + 0.08, near), (-90, high + y + 0.08, near)],
            _STEEL * 0.7,
            FENCE,
            front,
        )
