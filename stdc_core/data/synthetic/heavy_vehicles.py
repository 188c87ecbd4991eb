# SPDX-License-Identifier: Apache-2.0
"""Draw lorries, buses, trams and auto-rickshaws as solids one behind the other."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from stdc_core.data.synthetic.canvas import CAR, NEAR, Canvas
from stdc_core.data.synthetic.item import Item
from stdc_core.data.synthetic.place import Place
from stdc_core.data.synthetic.vehicles import draw_ends, draw_solid, draw_tyres, draw_wheels, rings_of

Outline = list[tuple[float, float]]


class Solid(NamedTuple):
    """Part of a vehicle: a convex outline from the side, drawn out to a width.

    Args:
        outline: Outline, (forward, up) in metres, rear first.
        half: Half of its width, metres.
        color: BGR colour; None for the paint of the vehicle.
        glass: Whether its faces have windows.
    """

    outline: Outline
    half: float
    color: tuple[float, float, float] | None = None
    glass: bool = False


class Model(NamedTuple):
    """Shape of a vehicle.

    Args:
        rear: Parts of the rear, from the bottom to the top.
        front: Parts of the cab, from the bottom to the top.
        length: Length, metres.
        half: Half of its width, metres.
        height: Height, metres.
        axles: Places of its axles, metres ahead of its middle.
        wheel: Radius of a wheel, metres.
    """

    rear: list[Solid]
    front: list[Solid]
    length: float
    half: float
    height: float
    axles: tuple[float, ...]
    wheel: float


def _slab(rear: float, front: float, low: float, high: float, slope: float = 0.0) -> Outline:
    """Return the outline of a box whose upper front corner is ``slope`` metres further back."""
    return [(rear, low), (rear, high), (front - slope, high), (front, low)]


def _lorry(length: float, height: float, cab: tuple[float, float, float] | None) -> Model:
    """Return a lorry with a box, given its length and height in metres and the colour of its cab."""
    rear, front = -length / 2, length / 2
    axles = (rear + 1.2, rear + 2.5, front - 1.3) if length > 9 else (rear + 1.5, front - 1.2)
    box = [
        Solid(_slab(rear + 0.1, front - 0.6, 0.55, 1.05), 0.95, (38.0, 37, 36)),
        Solid(_slab(rear, front - 2.2, 1.05, height), 1.24),
    ]
    front_parts = [
        Solid(_slab(front - 2.0, front, 0.5, 1.75), 1.2, cab),
        Solid(_slab(front - 2.0, front, 1.72, min(height - 0.2, 3.1), 0.25), 1.18, cab, True),
    ]
    return Model(box, front_parts, length, 1.25, height, axles, 0.5)


def _carrier(cab: tuple[float, float, float]) -> Model:
    """Return a lorry with an open body of boards, as it is common in India, given the colour of its cab."""
    body = [
        Solid(_slab(-3.6, 3.4, 0.6, 1.1), 0.9, (36.0, 40, 44)),
        Solid(_slab(-3.7, 1.5, 1.05, 2.5), 1.2),
        Solid(_slab(-3.6, 1.4, 2.5, 2.9), 1.1, (86.0, 112, 132)),
    ]
    front = [
        Solid(_slab(1.6, 3.7, 0.5, 1.7), 1.15, cab),
        Solid(_slab(1.6, 3.6, 1.7, 2.55, 0.12), 1.12, cab, True),
        Solid(_slab(1.5, 3.5, 2.5, 3.0, 0.1), 1.15, (40.0, 170, 235)),
    ]
    return Model(body, front, 7.4, 1.22, 3.0, (-2.3, 2.5), 0.48)


def _rickshaw(body: tuple[float, float, float], hood: tuple[float, float, float]) -> Model:
    """Return an auto-rickshaw, given the colours of body and hood."""
    solids = [
        Solid([(-1.25, 0.32), (-1.3, 0.85), (0.5, 0.82), (1.0, 0.8), (1.3, 0.5), (1.2, 0.3)], 0.62, body),
        Solid([(-1.28, 0.82), (-1.2, 1.42), (0.62, 1.42), (1.0, 0.8)], 0.6, hood, True),
        Solid([(-1.2, 1.40), (-1.1, 1.68), (0.4, 1.72), (0.7, 1.42)], 0.62, hood),
    ]
    return Model(solids, [], 2.6, 0.65, 1.72, (-0.75, 0.85), 0.22)


def _tram() -> Model:
    """Return one section of a tram."""
    solids = [
        Solid(_slab(-4.7, 4.7, 0.25, 1.35), 1.2),
        Solid(_slab(-4.7, 4.7, 1.3, 2.75), 1.18, None, True),
        Solid(_slab(-4.7, 4.7, 2.75, 3.3), 1.15, (205.0, 208, 208)),
    ]
    return Model(solids, [], 9.4, 1.2, 3.4, (-2.5, 2.5), 0.3)


def _coach() -> Model:
    """Return a bus with one deck."""
    solids = [
        Solid([(-5.4, 0.4), (-5.45, 1.5), (5.4, 1.5), (5.45, 0.9), (5.4, 0.4)], 1.25),
        Solid(_slab(-5.4, 5.4, 1.45, 2.75, 0.25), 1.23, None, True),
        Solid(_slab(-5.3, 5.1, 2.75, 3.15, 0.2), 1.2),
    ]
    return Model(solids, [], 10.9, 1.25, 3.15, (-2.6, 3.2), 0.48)


_MODELS = {
    'truck': [
        _lorry(7.2, 3.2, (220.0, 222, 222)),
        _lorry(8.4, 3.5, None),
        _lorry(12.5, 3.9, (45.0, 40, 160)),
        _lorry(13.5, 3.9, (120.0, 70, 30)),
    ],
    'carrier': [_carrier((30.0, 110, 225)), _carrier((40.0, 190, 230)), _carrier((70.0, 120, 60))],
    'rickshaw': [
        _rickshaw((60.0, 120, 40), (40.0, 195, 235)),
        _rickshaw((30.0, 34, 30), (30.0, 180, 228)),
        _rickshaw((40.0, 180, 225), (34.0, 36, 40)),
    ],
    'tram': [_tram()],
    'coach': [_coach()],
}
_BOXES = np.array(
    [(215, 218, 220), (176, 180, 184), (160, 84, 30), (40, 44, 170), (60, 150, 60), (60, 170, 225)], float
)
_TRAMS = np.array([(40, 40, 200), (60, 190, 235), (70, 140, 60), (150, 90, 40), (214, 216, 216)], np.float64)

#: Kinds of items that this module draws.
KINDS = tuple(_MODELS)


def _model(item: Item) -> Model:
    """Return the shape of a vehicle."""
    models = _MODELS[item.kind]
    return models[item.variant % len(models)]


def footprint(item: Item) -> tuple[float, float, float]:
    """Return half width, half length and height of a vehicle, metres."""
    model = _model(item)
    return model.half, model.length / 2, model.height


def draw_heavy(canvas: Canvas, place: Place, item: Item, time: float = 0.0) -> None:
    """Draw a vehicle.

    Args:
        canvas: Canvas to draw on.
        place: Ground point of its middle, and direction.
        item: Vehicle.
        time: Time since the start, seconds; it does not matter.
    """
    model = _model(item)
    half, reach = model.half, model.length / 2
    depth = float(place.view(np.array([[0, 0.6, 0]]))[0, 2])
    if depth < -reach:
        return
    detail = depth < 55
    table = {'truck': _BOXES, 'carrier': _BOXES, 'coach': _BOXES, 'tram': _TRAMS}.get(item.kind)
    look = item.variant // 8
    paint = (
        np.array(item.tint) if table is None or (look % 4 == 0 and item.kind == 'truck') else table[look % len(table)]
    )
    base = np.array([[-half, 0, -reach], [half, 0, -reach], [half, 0, reach], [-half, 0, reach]])
    canvas.darken(place.view(base * (1.1, 1, 1.03)), 0.4)
    draw_tyres(canvas, place, half, model.axles, depth)
    ahead = place.local_camera(canvas.camera)[2]
    # The part that is further away is drawn first.
    for solid in model.front + model.rear if ahead < 0 else model.rear + model.front:
        color = paint if solid.color is None else np.array(solid.color)
        draw_solid(canvas, place, rings_of(solid.outline, solid.half, solid.half), color, solid.glass, False)
    if item.kind in ('coach', 'tram') and depth < 80:
        _posts(canvas, place, model, paint)
    draw_wheels(canvas, place, half, model.axles, model.wheel, depth)
    if item.kind == 'truck' and detail and ahead < -reach:
        _doors(canvas, place, reach, model.height, paint)
    draw_ends(canvas, place, 'van', half, reach, detail)


def _posts(canvas: Canvas, place: Place, model: Model, paint: np.ndarray) -> None:
    """Draw the posts between the windows of a bus or tram, on the side that the camera sees."""
    side = np.sign(place.local_camera(canvas.camera)[0])
    if abs(place.local_camera(canvas.camera)[0]) <= model.half:
        return
    gain = canvas.light.gain(place.direction((side, 0, 0)))
    for z in np.linspace(-model.length / 2 + 0.3, model.length / 2 - 0.3, 8):
        post = place.view(np.array([[side * model.half, 1.4, z], [side * model.half, 2.7, z]]))
        if post[:, 2].min() > NEAR:
            canvas.stroke(post, 0.1, paint * 0.85, CAR, gain)


def _doors(canvas: Canvas, place: Place, reach: float, height: float, paint: np.ndarray) -> None:
    """Draw the frame and the seam of the doors at the rear of a lorry."""
    gain = canvas.light.gain(place.direction((0, 0, -1)))
    z = -reach - 0.01
    frame = np.array([(-1.2, 1.1), (1.2, 1.1), (1.2, height - 0.05), (-1.2, height - 0.05), (-1.2, 1.1)])
    for line, width in ((frame, 0.07), (np.array([(0, 1.1), (0, height - 0.05)]), 0.05)):
        points = place.view(np.array([(x, y, z) for x, y in line]))
        if points[:, 2].min() > NEAR:
            canvas.stroke(points, width, paint * 0.6, CAR, gain)
