# SPDX-License-Identifier: Apache-2.0
"""Draw motorcycles and scooters with their riders, and cows."""

from __future__ import annotations

import numpy as np

from stdc_core.data.synthetic.canvas import BICYCLIST, PEDESTRIAN, Canvas
from stdc_core.data.synthetic.item import Item
from stdc_core.data.synthetic.paints import bright_cloth
from stdc_core.data.synthetic.people import HAIR, SKINS, TROUSERS, torso
from stdc_core.data.synthetic.place import Place

Points = list[tuple[float, float, float]]


def draw_motorcycle(canvas: Canvas, place: Place, item: Item, time: float = 0.0) -> None:
    """Draw a motorcycle or a scooter. A parked one has no rider; one in three that ride carries a passenger.

    Args:
        canvas: Canvas to draw on.
        place: Ground point, and direction of the ride.
        item: Motorcycle, whose speed is 0 where it is parked.
        time: Time since the start, seconds; it does not matter.
    """
    depth = place.view(np.zeros((1, 3)))[0, 2]
    if depth < 1.4:
        return
    look = np.random.default_rng(item.variant)
    gain = canvas.light.gain((0, 0.2, -0.98))
    paint = np.array([(40, 36, 34), (40, 40, 160), (140, 70, 30), (200, 205, 205), (60, 150, 190)][look.integers(5)])
    rear = place.local_camera(canvas.camera)[2] < 0
    scooter = look.random() < 0.4
    canvas.darken(place.view(np.array([[-0.3, 0, -0.9], [0.3, 0, -0.9], [0.3, 0, 0.9], [-0.3, 0, 0.9]])), 0.5)

    def bar(points: Points, width: float, color: np.ndarray | tuple[float, ...]) -> None:
        canvas.stroke(place.view(np.array(points)), width, color, BICYCLIST, gain)

    def wheel(z: float) -> None:
        turn = np.linspace(0, 2 * np.pi, 13)
        rim = np.stack([np.zeros(13), 0.3 + 0.24 * np.sin(turn), z + 0.24 * np.cos(turn)], 1)
        canvas.stroke(place.view(rim), 0.12, (26, 26, 26), BICYCLIST, gain)
        bar([(0, 0.3, z), (0, 0.31, z)], 0.16, (120, 120, 118))

    def front() -> None:
        wheel(0.62)
        bar([(0, 0.35, 0.62), (0, 0.95, 0.40)], 0.16 if not scooter else 0.34, paint)
        bar([(-0.34, 1.02, 0.38), (0.34, 1.02, 0.38)], 0.05, (40, 40, 40))
        lamp = place.view(np.array([[0, 0.86, 0.55]]))[0]
        if not rear:
            canvas.disc(lamp, 0.1, (235, 240, 240), BICYCLIST, np.maximum(gain, 0.9))

    def back() -> None:
        wheel(-0.58)
        bar([(0, 0.62, -0.72), (0, 0.72, -0.2), (0, 0.74, 0.15)], 0.26, paint)
        bar([(0, 0.80, -0.7), (0, 0.80, 0.05)], 0.2, (30, 30, 32))
        bar([(0, 0.34, -0.5), (0, 0.42, 0.25)], 0.2, (60, 60, 60))
        if rear:
            bar([(-0.1, 0.62, -0.8), (0.1, 0.62, -0.8)], 0.1, (30, 30, 200))
            bar([(-0.12, 0.45, -0.8), (0.12, 0.45, -0.8)], 0.14, (210, 215, 215))

    def person(z: float, coat: np.ndarray, hands: float) -> None:
        skin, legs = SKINS[look.integers(2, 4)], TROUSERS[look.integers(5)]
        helmet = look.random() < 0.5
        cap = look.uniform(30, 220, 3) if helmet else HAIR[0]
        for sign in (-1, 1):
            bar([(0.1 * sign, 0.86, z), (0.24 * sign, 0.68, z + 0.38), (0.2 * sign, 0.32, z + 0.15)], 0.15, legs)
        for sign in (-1, 1) if rear else ():
            bar([(0.2 * sign, 1.34, z + 0.08), (0.32 * sign, 1.12, z + 0.2), (0.3 * sign, 1.04, z + hands)], 0.1, coat)
        torso(canvas, place, np.array([0, 0.84, z]), np.array([0, 1.42, z + 0.1]), (0.19, 0.24), coat, BICYCLIST, gain)
        for sign in (-1, 1) if not rear else ():
            bar([(0.2 * sign, 1.34, z + 0.08), (0.32 * sign, 1.12, z + 0.2), (0.3 * sign, 1.04, z + hands)], 0.1, coat)
        head = place.view(np.array([[0, 1.56, z + 0.14], [0, 1.61, z + 0.12]]))
        canvas.disc(head[0], 0.11, skin, BICYCLIST, gain)
        canvas.disc(head[1], 0.135 if helmet else 0.12, cap, BICYCLIST, gain)
        if not rear:
            canvas.disc(head[0] + (0, 0.03, -0.02), 0.09, skin, BICYCLIST, gain)

    coat, other = np.array(item.tint), np.array(bright_cloth(look))
    riding, passenger = item.speed != 0, look.random() < 0.35
    parts = [front, *([lambda: person(-0.05, coat, 0.42)] if riding else []), back]
    if riding and passenger:
        parts.insert(2, lambda: person(-0.45, other, 0.25))
    if riding:  # seen from behind, the rear wheel hides less than the rider does
        parts = [front, back, *parts[1:-1]] if rear else [back, *parts[1:-1][::-1], front]
    elif not rear:
        parts.reverse()
    for part in parts:
        part()


def draw_cow(canvas: Canvas, place: Place, item: Item, time: float = 0.0) -> None:
    """Draw a cow, which CamVid's eleven classes count among the pedestrians.

    Args:
        canvas: Canvas to draw on.
        place: Ground point, and direction of the look.
        item: Cow.
        time: Time since the start, seconds.
    """
    if place.view(np.zeros((1, 3)))[0, 2] < 1.6:
        return
    look = np.random.default_rng(item.variant)
    gain = canvas.light.gain((0, 0.3, -0.95))
    hide = np.array([(200, 208, 212), (60, 84, 120), (48, 46, 46), (120, 150, 176)][look.integers(4)], np.float64)
    canvas.darken(place.view(np.array([[-0.5, 0, -0.9], [0.5, 0, -0.9], [0.5, 0, 0.9], [-0.5, 0, 0.9]])), 0.55)

    def bar(points: Points, width: float, color: np.ndarray) -> None:
        canvas.stroke(place.view(np.array(points)), width, color, PEDESTRIAN, gain)

    step = 0.12 * np.sin(time * 2 + item.variant) * (item.speed != 0)
    for z, way in ((0.55, 1), (-0.6, -1)):
        for x in (-0.18, 0.18):
            bar([(x, 0.85, z), (x, 0.0, z + step * way * np.sign(x))], 0.14, hide * 0.85)
    bar([(0, 1.02, -0.62), (0, 1.0, 0.5)], 0.62, hide)
    bar([(0, 1.15, 0.62), (0, 1.35, 0.95)], 0.3, hide * 0.95)
    bar([(0, 1.34, 1.0), (0, 1.12, 1.22)], 0.24, hide * 0.9)
    for x in (-1, 1):
        bar([(0.08 * x, 1.45, 1.0), (0.26 * x, 1.66, 1.02)], 0.05, np.array([120.0, 130, 140]))
    bar([(0, 1.1, -0.92), (0, 0.5, -1.0)], 0.05, hide * 0.7)
