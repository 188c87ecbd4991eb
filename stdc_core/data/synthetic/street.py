# SPDX-License-Identifier: Apache-2.0
"""Draw things that do not move: houses, gardens, trees, lamp posts, signs, traffic lights and railings."""

from __future__ import annotations

import numpy as np

from stdc_core.data.synthetic.canvas import BUILDING, FENCE, POLE, SIGN, TREE, Canvas
from stdc_core.data.synthetic.item import Item
from stdc_core.data.synthetic.place import Place
from stdc_core.data.synthetic.world import World

DEPTH = 9.0  # depth of a house, metres
_IRON = np.array([62.0, 62, 60])
_RED, _WHITE, _BLUE, _BLACK = (45.0, 38, 205), (232.0, 235, 235), (170.0, 85, 25), (30.0, 30, 30)


def house_height(world: World, item: Item) -> float:
    """Return the height of the eaves of a house, metres."""
    return (world.style.facades[item.variant][1] * 3.0 + 0.6) * item.extra[1]


def road_points(canvas: Canvas, world: World, local: list[tuple[float, float, float]]) -> np.ndarray:
    """Return the view points of points given right of the centre line, up and along the road, metres."""
    return canvas.camera.view(world.road.points(np.array(local)))


def draw_house(canvas: Canvas, world: World, item: Item) -> None:
    """Draw a house along the road: front, near end wall, roof, chimney, and the barrier of its front garden."""
    style, light = world.style, canvas.light
    side, near, far = item.size, item.s, item.s + item.length
    x0, back = item.x, item.x + side * DEPTH
    top = house_height(world, item)
    front, _ = style.facades[item.variant]
    flat = item.extra[0] == 2 or top > 12.5
    face, end = light.gain((-side, 0, 0)), light.gain((0, 0, -1))
    ridge, mid = top + (0.0 if flat else 2.8), (x0 + back) / 2
    if not flat:
        tiles = style.roofs[int(item.extra[2]) % 3]
        slope = light.gain((-side * 0.53, 0.85, 0))
        corners = [(x0 - side * 0.3, top - 0.1, near), (x0 - side * 0.3, top - 0.1, far), (mid, ridge, far)]
        canvas.texture(road_points(canvas, world, [*corners, (mid, ridge, near)]), tiles, BUILDING, slope)
    wall = style.gables[item.variant]
    gable = road_points(canvas, world, [(x0, 0, near), (back, 0, near), (back, top, near), (x0, top, near)])
    canvas.texture(gable, wall, BUILDING, end)
    if not flat:
        tone = wall[-1].reshape(-1, 3).mean(0)
        canvas.polygon(
            road_points(canvas, world, [(x0, top, near), (back, top, near), (mid, ridge, near)]),
            tone * 0.97,
            BUILDING,
            end,
        )
    canvas.texture(
        road_points(canvas, world, [(x0, 0, near), (x0, 0, far), (x0, top, far), (x0, top, near)]),
        front,
        BUILDING,
        face,
    )
    if not flat and near - canvas.camera.position[2] < 90:
        _chimney(canvas, world, item, mid, ridge, near + 0.6)
    if item.extra[3] > 0:
        edge = x0 - side * item.extra[3]
        barrier(canvas, world, edge, near, far, item.extra[4], 1.1)


def _chimney(canvas: Canvas, world: World, item: Item, x: float, ridge: float, s: float) -> None:
    """Draw a chimney with two pots on the ridge of a roof."""
    side, low, high = item.size, ridge - 0.8, ridge + 1.1
    brick = np.array([66.0, 80, 116])
    a, b = x - side * 0.45, x + side * 0.45
    for quad, normal in (
        ([(a, low, s), (a, low, s + 1.3), (a, high, s + 1.3), (a, high, s)], (-side, 0, 0)),
        ([(a, low, s), (b, low, s), (b, high, s), (a, high, s)], (0, 0, -1)),
    ):
        canvas.polygon(road_points(canvas, world, quad), brick, BUILDING, canvas.light.gain(normal))
    for k in (0.3, 0.9):
        pot = road_points(canvas, world, [(x, high, s + k), (x, high + 0.45, s + k)])
        canvas.stroke(pot, 0.24, (70, 96, 140), BUILDING, canvas.light.gain((0, 0, -1)))


def barrier(canvas: Canvas, world: World, x: float, near: float, far: float, kind: float, height: float) -> None:
    """Draw a barrier along the road.

    Args:
        canvas: Canvas to draw on.
        world: Town.
        x: Distance to the right of the centre line, metres.
        near: Start along the road, metres.
        far: End along the road, metres.
        kind: 0 for boards, 1 for a railing, 2 for a hedge.
        height: Height, metres.
    """
    k = int(kind)
    gain = canvas.light.gain((-np.sign(x), 0, 0))
    pieces = max(1, round((far - near) / 6))
    cuts = np.linspace(near, far, pieces + 1)
    for a, b in zip(cuts[-2::-1], cuts[:0:-1], strict=True):
        quad = road_points(canvas, world, [(x, 0, a), (x, 0, b), (x, height, b), (x, height, a)])
        canvas.texture(quad, world.style.fences[k], TREE if k == 2 else FENCE, gain, 0.72 if k == 1 else 1.0)
    if k == 2:
        back = x + np.sign(x) * 0.8
        top = road_points(
            canvas, world, [(x, height, near), (x, height, far), (back, height, far), (back, height, near)]
        )
        canvas.polygon(top, world.style.fences[2][-1].reshape(-1, 3).mean(0), TREE, canvas.light.gain((0, 1, 0)))
        end = road_points(canvas, world, [(x, 0, near), (back, 0, near), (back, height, near), (x, height, near)])
        canvas.texture(end, world.style.fences[2], TREE, canvas.light.gain((0, 0, -1)))


def draw_park(canvas: Canvas, world: World, item: Item) -> None:
    """Draw a lot of trees behind a fence or a hedge."""
    rng = np.random.default_rng([world.seed, 6, int(item.extra[2])])
    trees = []
    for k in range(int(item.length / 2.1)):
        s = item.s + rng.uniform(0.5, item.length - 0.5)
        trees.append((s, item.x + item.size * rng.uniform(2.2, 11), rng.uniform(6, 12.5), int(rng.integers(6)), k))
    gain = 0.5 * (canvas.light.gain((-item.size, 0, 0)) + canvas.light.gain((0, 0, -1)))
    for s, x, height, variant, _ in sorted(trees, reverse=True):
        base = road_points(canvas, world, [(x, 0, s)])[0]
        canvas.sprite(base, (height * 0.78, height), world.style.trees[variant], gain)
    barrier(canvas, world, item.x, item.s, item.s + item.length, item.extra[0], item.extra[1])


def draw_rail(canvas: Canvas, world: World, item: Item) -> None:
    """Draw a fence along the road: a railing, or boards where the variant is 1."""
    barrier(canvas, world, item.x, item.s, item.s + item.length, 1 - item.variant, 1.05 + 0.7 * item.variant)


def draw_tree(canvas: Canvas, world: World, item: Item) -> None:
    """Draw a tree on the pavement."""
    gain = 0.5 * (canvas.light.gain((-np.sign(item.x), 0, 0)) + canvas.light.gain((0, 0, -1)))
    base = road_points(canvas, world, [(item.x, 0, item.s)])[0]
    canvas.sprite(base, (item.size * 0.75, item.size), world.style.trees[item.variant], gain)


def draw_lamp(canvas: Canvas, place: Place, item: Item, time: float = 0.0) -> None:
    """Draw a lamp post whose arm reaches over the road."""
    gain, h, side = canvas.light.gain((0, 0, -1)), item.size, item.variant
    canvas.stroke(place.view(np.array([[0, 0, 0], [0, 1.2, 0]])), 0.22, _IRON, POLE, gain)
    canvas.stroke(place.view(np.array([[0, 1.0, 0], [0, h, 0]])), 0.14, _IRON * 1.2, POLE, gain)
    arm = np.array([[0, h, 0], [-0.5 * side, h + 0.25, 0], [-1.3 * side, h + 0.35, 0]])
    canvas.stroke(place.view(arm), 0.10, _IRON * 1.2, POLE, gain)
    glow = canvas.light.kind in ('dusk', 'night')
    canvas.stroke(
        place.view(np.array([[-1.2 * side, h + 0.33, 0], [-1.9 * side, h + 0.35, 0]])),
        0.18,
        (150, 215, 255) if glow else (150, 150, 150),
        POLE,
        np.ones(3) if glow else gain,
    )


def draw_bollard(canvas: Canvas, place: Place, item: Item, time: float = 0.0) -> None:
    """Draw a bollard at the kerb."""
    gain = canvas.light.gain((0, 0, -1))
    canvas.stroke(place.view(np.array([[0, 0.0, 0], [0, 0.95, 0]])), 0.15, _IRON * 0.7, POLE, gain)
    if place.view(np.zeros((1, 3)))[0, 2] < 60:
        canvas.stroke(place.view(np.array([[0, 0.72, 0], [0, 0.80, 0]])), 0.15, (200, 205, 205), POLE, gain)


def _disc(x: float, y: float, radius: float, count: int = 20, start: float = 0.0) -> np.ndarray:
    """Return the corners of a regular polygon, ``[count, 3]`` in local axes; ``start`` is the angle of the first."""
    turn = start + np.arange(count) * (2 * np.pi / count)
    return np.stack([x + radius * np.cos(turn), y + radius * np.sin(turn), np.zeros(count)], 1)


def rectangle(x0: float, y0: float, x1: float, y1: float) -> np.ndarray:
    """Return the corners of an upright rectangle, ``[4, 3]`` in local axes."""
    return np.array([[x0, y0, 0], [x1, y0, 0], [x1, y1, 0], [x0, y1, 0]], np.float64)


def draw_sign(canvas: Canvas, place: Place, item: Item, time: float = 0.0) -> None:
    """Draw a traffic sign that faces the camera."""
    gain = canvas.light.gain((0, 0, -1))
    top, kind = item.size + 0.35, item.variant
    out = item.extra[0]
    wide = kind in (4, 6)
    for x in (-0.5, 0.5) if wide else (0,):
        canvas.stroke(place.view(np.array([[x, 0, 0.03], [x, top, 0.03]])), 0.09, _IRON * 1.7, POLE, gain)
    y, r = item.size, 0.42

    def plate(local: np.ndarray, color: tuple[float, ...]) -> None:
        canvas.polygon(place.view(local), color, SIGN, gain)

    far = place.view(np.zeros((1, 3)))[0, 2] > 60  # metres; lettering is not visible from there
    if kind in (0, 1, 2, 3):
        third = np.pi / 2
        shape = (lambda s: _disc(0, y - 0.06, s * 1.25, 3, third)) if kind == 1 else (lambda s: _disc(0, y, s))
        outer, inner = {0: (_RED, _WHITE), 1: (_RED, _WHITE), 2: (_WHITE, _BLUE), 3: (_WHITE, _RED)}[kind]
        plate(shape(r), outer)
        plate(shape(r * (0.72 if kind < 2 else 0.92)), inner)
        marks = {
            0: [rectangle(-0.19, y - 0.14, -0.03, y + 0.14), rectangle(0.04, y - 0.14, 0.19, y + 0.14)],
            1: [rectangle(-0.04, y - 0.08, 0.04, y + 0.16), rectangle(-0.04, y - 0.19, 0.04, y - 0.12)],
            2: [rectangle(-0.05, y - 0.25, 0.05, y + 0.05), _disc(0, y + 0.12, 0.19, 3, third)],
            3: [rectangle(-0.28, y - 0.07, 0.28, y + 0.07)],
        }[kind]
        for mark in () if far else marks:
            plate(mark, _BLACK if kind < 2 else _WHITE)
        if kind == 0 and not far:
            plate(rectangle(0.09, y - 0.08, 0.14, y + 0.08), _WHITE)
            plate(rectangle(-0.19, y - 0.06, -0.09, y - 0.01), _WHITE)
    elif kind == 5:
        plate(rectangle(-0.4, y - 0.5, 0.4, y + 0.35), _WHITE)
        plate(rectangle(-0.37, y - 0.47, 0.37, y + 0.32), _BLUE)
        plate(rectangle(-0.17, y - 0.35, -0.06, y + 0.22), _WHITE)
        plate(_disc(0.02, y + 0.06, 0.17, 12), _WHITE)
        plate(_disc(0.02, y + 0.06, 0.07, 12), _BLUE)
    else:
        color = (66.0, 92, 24) if kind == 4 else _WHITE
        ink = _WHITE if kind == 4 else _BLACK
        plate(rectangle(-0.85, y - 0.45, 0.85, y + 0.45), ink)
        plate(rectangle(-0.81, y - 0.41, 0.81, y + 0.41), color)
        for row, wide_text in () if far else ((0.12, 0.5), (-0.22, 0.35)):
            for x in np.arange(-0.7, wide_text, 0.13):
                plate(rectangle(x, y + row, x + 0.09, y + row + 0.13), ink)
        plate(_disc(-0.62 * out + 0.1, y - 0.12, 0.14, 3, np.pi * (out > 0)), ink)


def draw_signal(canvas: Canvas, place: Place, item: Item, time: float) -> None:
    """Draw traffic lights on a post."""
    gain = canvas.light.gain((0, 0, -1))
    canvas.stroke(place.view(np.array([[0, 0, 0.1], [0, 3.5, 0.1]])), 0.13, _IRON * 0.9, POLE, gain)
    canvas.polygon(place.view(rectangle(-0.28, 2.2, 0.28, 3.55)), (205, 208, 208), SIGN, gain)
    canvas.polygon(place.view(rectangle(-0.25, 2.23, 0.25, 3.52)), (28, 28, 28), SIGN, gain)
    state = int(time / 4 + item.variant) % 3
    lamps = ((3.27, (50, 45, 255), state == 0), (2.87, (60, 190, 255), False), (2.47, (120, 255, 60), state != 0))
    for y, color, on in lamps:
        tone = np.array(color, np.float64) * (1.0 if on else 0.22)
        canvas.polygon(place.view(_disc(0, y, 0.15, 12)), tone, SIGN, np.ones(3) if on else gain)
