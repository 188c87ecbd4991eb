# SPDX-License-Identifier: Apache-2.0
"""Draw pedestrians and cyclists as jointed figures."""

from __future__ import annotations

import numpy as np

from stdc_core.data.synthetic.canvas import BICYCLIST, NEAR, PEDESTRIAN, Canvas
from stdc_core.data.synthetic.item import Item
from stdc_core.data.synthetic.place import Place

FAR = 38.0  # distance in metres from which joints, hands and spokes are smaller than a pixel
SKINS = np.array([(150, 175, 215), (120, 150, 195), (80, 110, 160), (50, 70, 105)], np.float64)
TROUSERS = np.array([(70, 50, 40), (40, 40, 42), (96, 74, 58), (60, 78, 92), (30, 28, 28)], np.float64)
HAIR = np.array([(24, 26, 30), (40, 56, 80), (80, 120, 150), (130, 130, 132)], np.float64)


def torso(
    canvas: Canvas,
    place: Place,
    hips: np.ndarray,
    shoulders: np.ndarray,
    widths: tuple[float, float],
    color: np.ndarray,
    label: int,
    gain: np.ndarray,
) -> None:
    """Draw the upper body as a slab between two local points, at least as wide as a body from the side."""
    view = place.view(np.stack([hips, shoulders]))
    if view[:, 2].min() < NEAR:
        return
    across = abs(float(canvas.camera.rotation[0] @ place.direction((1, 0, 0))))
    low, high = (w * (0.62 + 0.38 * across) for w in widths)
    offsets = np.array(
        [[-low, 0, 0], [low, 0, 0], [high, 0, 0], [high * 0.6, -0.06, 0], [-high * 0.6, -0.06, 0], [-high, 0, 0]]
    )
    canvas.polygon(view[[0, 0, 1, 1, 1, 1]] + offsets, color, label, gain)


def draw_person(canvas: Canvas, place: Place, item: Item, time: float) -> None:
    """Draw a pedestrian.

    Args:
        canvas: Canvas to draw on.
        place: Ground point, and direction of the look.
        item: Pedestrian, whose speed is 0 while he or she stands.
        time: Time since the start, seconds.
    """
    h, pace = item.size / 1.75, item.speed
    look = np.random.default_rng(item.variant)
    skin, legs, hair = SKINS[look.integers(4)], TROUSERS[look.integers(5)], HAIR[look.integers(4)]
    coat = np.array(item.tint)
    skirt, bag = look.random() < 0.25, look.random() < 0.3
    phase = look.uniform(0, 6.28) + time * abs(pace) * 4.2
    swing = 0.34 * np.sin(phase) * min(1.0, abs(pace))
    gain = canvas.light.gain((0, 0.2, -0.98))
    center = place.view(np.array([[0, 0, 0]]))[0]
    if center[2] < 0.8:
        return
    if center[2] < FAR:
        canvas.darken(place.view(np.array([[-0.3, 0, -0.25], [0.3, 0, -0.25], [0.3, 0, 0.25], [-0.3, 0, 0.25]])), 0.6)
    hips, shoulders = np.array([0, 0.82, 0]) * h, np.array([0, 1.45, 0]) * h
    if center[2] > FAR:
        for sign in (-1, 1):
            straight = np.array([[0.08 * sign, 0.88, 0], [0.08 * sign, 0.04, swing * sign]]) * h
            canvas.stroke(place.view(straight), 0.15 * h, legs, PEDESTRIAN, gain)
        torso(canvas, place, hips, shoulders, (0.2 * h, 0.24 * h), coat, PEDESTRIAN, gain)
        canvas.disc(place.view(np.array([[0, 1.62, 0]]) * h)[0], 0.12 * h, hair, PEDESTRIAN, gain)
        return
    limbs = []
    for sign in (-1, 1):
        step = swing * sign
        lift = 0.08 * max(0.0, np.cos(phase) * sign) * min(1.0, abs(pace))
        upper = [[sign * 0.09, 0.88, 0], [sign * 0.09, 0.48, step * 0.62 + 0.05], [sign * 0.09, 0.07 + lift, step]]
        foot = [[sign * 0.09, 0.05 + lift, step - 0.04], [sign * 0.09, 0.04 + lift, step + 0.18]]
        hand = [[sign * 0.22, 1.38, 0], [sign * 0.26, 1.12, -step * 0.5], [sign * 0.25, 0.90, -step * 0.9 + 0.06]]
        limbs.append((np.array(upper) * h, np.array(foot) * h, np.array(hand) * h))
    # The far side is drawn first.
    if place.local_camera(canvas.camera)[0] < 0:
        limbs.reverse()
    for k, (leg, shoe, arm) in enumerate(limbs):
        canvas.stroke(place.view(leg), 0.15 * h, legs * (0.8 if k == 0 else 1), PEDESTRIAN, gain)
        canvas.stroke(place.view(shoe), 0.10 * h, (25, 25, 28), PEDESTRIAN, gain)
        if k == 0:
            canvas.stroke(place.view(arm), 0.11 * h, coat * 0.75, PEDESTRIAN, gain)
    if skirt:
        torso(
            canvas,
            place,
            np.array([0, 0.55, 0]) * h,
            np.array([0, 0.95, 0]) * h,
            (0.24 * h, 0.17 * h),
            coat * 0.7,
            PEDESTRIAN,
            gain,
        )
    torso(canvas, place, hips, shoulders, (0.18 * h, 0.22 * h), coat, PEDESTRIAN, gain)
    canvas.stroke(place.view(limbs[1][2]), 0.11 * h, coat * 0.88, PEDESTRIAN, gain)
    hand = place.view(limbs[1][2][2:])[0]
    canvas.disc(hand, 0.05 * h, skin, PEDESTRIAN, gain)
    if bag:
        canvas.disc(hand + (0, 0.22 * h, 0), 0.14 * h, hair * 0.8 + 20, PEDESTRIAN, gain)
    head = place.view(np.array([[0, 1.47, 0.01], [0, 1.62, 0.02], [0, 1.66, -0.02]]) * h)
    canvas.stroke(head[:2], 0.11 * h, skin * 0.9, PEDESTRIAN, gain)
    canvas.disc(head[2], 0.125 * h, hair, PEDESTRIAN, gain)
    if place.local_camera(canvas.camera)[2] > 0:  # the face is visible
        canvas.disc(head[1] + (0, 0.03 * h, -0.02), 0.10 * h, skin, PEDESTRIAN, gain)


def draw_cyclist(canvas: Canvas, place: Place, item: Item, time: float) -> None:
    """Draw a cyclist.

    Args:
        canvas: Canvas to draw on.
        place: Ground point, and direction of the ride.
        item: Cyclist.
        time: Time since the start, seconds.
    """
    look = np.random.default_rng(item.variant)
    skin, legs = SKINS[look.integers(4)], TROUSERS[look.integers(5)]
    coat = np.array(item.tint) if look.random() < 0.6 else np.array([40.0, 225, 205])
    frame = look.uniform(20, 170, 3)
    helmet = look.uniform(40, 230, 3)
    center = place.view(np.array([[0, 0, 0]]))[0]
    if center[2] < 1.4:
        return
    gain = canvas.light.gain((0, 0.2, -0.98))
    if center[2] < FAR:
        canvas.darken(place.view(np.array([[-0.25, 0, -0.9], [0.25, 0, -0.9], [0.25, 0, 0.9], [-0.25, 0, 0.9]])), 0.6)
    turn = np.linspace(0, 2 * np.pi, 17)
    rear = place.local_camera(canvas.camera)[2] < 0

    def bar(points: list[tuple[float, float, float]], width: float, color: np.ndarray | tuple) -> None:
        canvas.stroke(place.view(np.array(points)), width, color, BICYCLIST, gain)

    def wheel(z: float) -> None:
        rim = np.stack([np.zeros(17), 0.35 + 0.33 * np.sin(turn), z + 0.33 * np.cos(turn)], 1)
        canvas.stroke(place.view(rim), 0.06, (28, 28, 28), BICYCLIST, gain)
        for k in (0, 2, 4, 6) if center[2] < 15 else ():
            canvas.stroke(place.view(rim[[k, k + 8]]), 0.012, (110, 110, 110), BICYCLIST, gain)

    if center[2] > FAR:
        bar([(0, 0.35, -0.87), (0, 0.35, 0.87)], 0.2, (40, 40, 40))
        bar([(0, 0.05, 0), (0, 0.9, -0.1)], 0.26, legs)
        torso(canvas, place, np.array([0, 0.92, -0.16]), np.array([0, 1.48, 0.10]), (0.18, 0.24), coat, BICYCLIST, gain)
        canvas.disc(place.view(np.array([[0, 1.65, 0.17]]))[0], 0.13, helmet, BICYCLIST, gain)
        return
    wheel(0.54 if rear else -0.54)
    bar([(0, 0.35, -0.54), (0, 0.30, 0), (0, 0.85, 0.40), (0, 0.35, 0.54)], 0.05, frame)
    bar([(0, 0.30, 0), (0, 0.92, -0.18), (0, 0.82, 0.38)], 0.05, frame)
    bar([(-0.27, 1.03, 0.42), (0.27, 1.03, 0.42)], 0.045, (40, 40, 40))
    wheel(-0.54 if rear else 0.54)
    phase = time * 7 + item.variant
    parts = []
    for sign in (-1, 1):
        pedal = np.array([0.11 * sign, 0.30 + 0.17 * np.sin(phase) * sign, 0.02 + 0.17 * np.cos(phase) * sign])
        hip = np.array([0.10 * sign, 0.97, -0.15])
        knee = (pedal + hip) / 2 + (0.02 * sign, 0.06, 0.24)
        arm = [(0.20 * sign, 1.42, 0.10), (0.27 * sign, 1.2, 0.22), (0.25 * sign, 1.05, 0.40)]
        parts.append(((hip, knee, pedal), arm))
    for leg, arm in parts:
        bar([tuple(p) for p in leg], 0.15, legs)
        bar([tuple(leg[2] + (0, 0, -0.05)), tuple(leg[2] + (0, 0, 0.15))], 0.09, (30, 30, 34))
        if rear:
            bar(arm, 0.10, coat * 0.85)
    torso(canvas, place, np.array([0, 0.92, -0.16]), np.array([0, 1.48, 0.10]), (0.18, 0.22), coat, BICYCLIST, gain)
    if not rear:
        for _, arm in parts:
            bar(arm, 0.10, coat * 0.85)
    head = place.view(np.array([[0, 1.62, 0.18], [0, 1.67, 0.16]]))
    canvas.disc(head[0], 0.11, skin, BICYCLIST, gain)
    canvas.disc(head[1], 0.125, helmet if rear else helmet * 0.9, BICYCLIST, gain)
    if not rear:
        canvas.disc(head[0] + (0, 0.03, -0.02), 0.095, skin, BICYCLIST, gain)
    else:
        canvas.disc(place.view(np.array([[0, 0.72, -0.22]]))[0], 0.04, (40, 30, 230), BICYCLIST, np.maximum(gain, 0.8))
