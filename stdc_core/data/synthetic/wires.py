# SPDX-License-Identifier: Apache-2.0
"""Draw poles and the wires between them."""

from __future__ import annotations

import cv2
import numpy as np

from stdc_core.data.synthetic.canvas import NEAR, POLE, SHIFT, SIGN, Canvas
from stdc_core.data.synthetic.item import Item
from stdc_core.data.synthetic.place import Place
from stdc_core.data.synthetic.street import road_points
from stdc_core.data.synthetic.world import World

ARM = 0.9  # half of the length of a cross-arm, metres

# Wires of power lines and of a tram track: height above the top of the pole and distance to its right, metres.
_WIRES = (
    ((-0.15, -ARM), (-0.15, ARM), (-0.15, 0.2), (-0.85, -ARM * 0.7), (-0.85, ARM * 0.8)),
    ((0.0, 0.0), (-0.7, 0.0)),
)


def draw_pole(canvas: Canvas, place: Place, item: Item, time: float = 0.0) -> None:
    """Draw a pole with a cross-arm, some with a transformer; ``size`` is its height in metres."""
    gain, h = canvas.light.gain((0, 0, -1)), item.size
    tone = np.array([(132.0, 140, 146), (70, 84, 98)][item.variant % 2])
    canvas.stroke(place.view(np.array([[0, 0, 0], [0, h, 0]])), 0.24, tone, POLE, gain)
    for y in (h - 0.2, h - 0.9):
        canvas.stroke(place.view(np.array([[-ARM, y, 0], [ARM, y, 0]])), 0.09, tone * 0.7, POLE, gain)
    if item.variant % 5 == 0:
        canvas.stroke(
            place.view(np.array([[0.35, h - 3.0, -0.1], [0.35, h - 2.0, -0.1]])), 0.55, tone * 0.6, POLE, gain
        )
    if item.variant % 3 == 0:  # a poster at eye level
        corners = np.array([[-0.3, 1.6, -0.14], [0.3, 1.6, -0.14], [0.3, 2.4, -0.14], [-0.3, 2.4, -0.14]])
        canvas.polygon(place.view(corners), np.random.default_rng(item.variant).uniform(40, 235, 3), SIGN, gain)


def draw_wires(canvas: Canvas, world: World, item: Item) -> None:
    """Draw the wires from one pole to the next.

    The size of the item is the height of the poles, its length their distance, and its variant 0 for a power line or 1
    for a tram track. Wires are thinner than a pixel. As in the labels of real drives, their pixels keep the class of
    what is behind them.
    """
    along = np.linspace(0, item.length, 7)
    sag = 0.6 * (1 - (along / item.length * 2 - 1) ** 2)
    for y, x in _WIRES[item.variant]:
        points = [(item.x + x, item.size + y - drop, item.s + s) for s, drop in zip(along, sag, strict=True)]
        view = road_points(canvas, world, points)
        view = view[view[:, 2] > NEAR]
        if len(view) < 2:
            continue
        pixels = np.rint(canvas.camera.project(view) * (1 << SHIFT)).astype(np.int32)
        color = canvas.shade((46.0, 44, 42), float(view[:, 2].mean()), canvas.light.gain((0, 0, -1)))
        cv2.polylines(canvas.image, [pixels], False, color, max(1, canvas.camera.width // 640), cv2.LINE_AA, SHIFT)
