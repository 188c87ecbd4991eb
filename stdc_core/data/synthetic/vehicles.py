# SPDX-License-Identifier: Apache-2.0
"""Draw cars, vans and buses from two tapered boxes, four wheels, glass, lights and a plate."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from stdc_core.data.synthetic.canvas import CAR, NEAR, Canvas
from stdc_core.data.synthetic.item import Item
from stdc_core.data.synthetic.place import Place

# Outlines of the body and of the cabin from the side as (forward, up) in metres, rear first; then length and width in
# metres, and the width of the roof as a share of the width.
_SHAPES = {
    'hatch': (
        [(-1.9, 0.28), (-1.95, 0.62), (-1.85, 0.95), (0.75, 0.98), (1.75, 0.78), (1.93, 0.55), (1.9, 0.28)],
        [(-1.8, 0.93), (-1.45, 1.40), (-0.2, 1.47), (0.35, 1.40), (1.05, 0.93)],
        3.9,
        1.70,
        0.80,
    ),
    'saloon': (
        [(-2.2, 0.28), (-2.25, 0.65), (-2.1, 0.95), (0.8, 0.97), (2.05, 0.76), (2.22, 0.52), (2.18, 0.28)],
        [(-1.75, 0.93), (-1.05, 1.37), (-0.1, 1.43), (0.35, 1.37), (1.15, 0.93)],
        4.5,
        1.76,
        0.78,
    ),
    'van': (
        [(-2.4, 0.30), (-2.42, 0.75), (-2.4, 1.12), (1.3, 1.14), (2.2, 0.92), (2.38, 0.60), (2.35, 0.30)],
        [(-2.4, 1.10), (-2.32, 1.98), (0.6, 2.04), (0.9, 1.98), (1.6, 1.10)],
        4.9,
        1.92,
        0.88,
    ),
    'suv': (
        [(-2.2, 0.36), (-2.24, 0.75), (-2.15, 1.08), (0.95, 1.10), (2.05, 0.92), (2.22, 0.62), (2.18, 0.36)],
        [(-2.1, 1.06), (-1.85, 1.64), (-0.2, 1.70), (0.3, 1.63), (1.15, 1.06)],
        4.5,
        1.84,
        0.80,
    ),
    'bus': (
        [(-5.0, 0.35), (-5.05, 0.8), (-5.0, 1.30), (4.95, 1.30), (5.05, 0.8), (5.03, 0.6), (5.0, 0.35)],
        [(-5.0, 1.28), (-4.98, 4.15), (0.0, 4.2), (4.85, 4.15), (5.0, 1.28)],
        10.1,
        2.5,
        0.97,
    ),
}
#: Kinds of items that are vehicles.
KINDS = ('car', 'bus')

GLASS = np.array([62.0, 56, 50])
_RUBBER = np.array([26.0, 25, 24])


def _shape(item: Item) -> str:
    """Return the name of the shape of a vehicle."""
    return 'bus' if item.kind == 'bus' else ('hatch', 'saloon', 'van', 'suv')[item.variant % 4]


def footprint(item: Item) -> tuple[float, float, float]:
    """Return half width, half length and height of a vehicle, metres."""
    _, cabin, length, width, _ = _SHAPES[_shape(item)]
    return width / 2, length / 2, max(y for _, y in cabin)


def rings_of(outline: list[tuple[float, float]], low: float, high: float) -> np.ndarray:
    """Return the left and the right outline of a body in local axes, ``[2, N, 3]``.

    Args:
        outline: Outline from the side, (forward, up) in metres.
        low: Half width at the lowest point, metres.
        high: Half width at the highest point, metres.
    """
    line = np.array(outline)
    rise = (line[:, 1] - line[:, 1].min()) / np.ptp(line[:, 1])
    half = low + (high - low) * rise
    return np.stack([np.stack([sign * half, line[:, 1], line[:, 0]], 1) for sign in (-1, 1)])


def inset(face: np.ndarray, share: float) -> np.ndarray:
    """Return a polygon shrunk towards its middle to a share of its size."""
    middle = face.mean(0)
    return middle + (face - middle) * share


def draw_solid(canvas: Canvas, place: Place, rings: np.ndarray, paint: np.ndarray, glass: bool, detail: bool) -> None:
    """Draw the visible faces of the solid between two outlines. It is convex, so that their order does not matter.

    Args:
        canvas: Canvas to draw on.
        place: Ground point and direction of the vehicle.
        rings: Outlines, ``[2, N, 3]`` in local axes.
        paint: BGR colour.
        glass: Whether the faces have windows.
        detail: Whether the vehicle is near enough for details.
    """
    view = place.view(rings.reshape(-1, 3)).reshape(rings.shape)
    count = rings.shape[1]
    after = (np.arange(count) + 1) % count
    quads = np.stack([view[0], view[1], view[1][after], view[0][after]], 1)
    middle = view.reshape(-1, 3).mean(0)
    normal = np.cross(quads[:, 1] - quads[:, 0], quads[:, 3] - quads[:, 0])
    center = quads.mean(1)
    normal *= np.sign(((center - middle) * normal).sum(1, keepdims=True))
    seen = (center * normal).sum(1) < 0
    world = normal @ canvas.camera.rotation
    world /= np.linalg.norm(world, axis=1, keepdims=True) + 1e-9
    for k in np.flatnonzero(seen):
        gain = canvas.light.gain(world[k])
        canvas.polygon(quads[k], paint, CAR, gain)
        if glass and world[k][1] < 0.93 and k not in (count - 1,):
            # Sloping glass mirrors the sky and is brighter.
            canvas.polygon(inset(quads[k], 0.86), GLASS * (1.15 + 1.1 * max(world[k][1], 0)), CAR, gain)
    for ring, sign in ((0, -1.0), (1, 1.0)):
        out = place.direction((sign, 0, 0))
        if (view[ring].mean(0) * (canvas.camera.rotation @ out)).sum() < 0:
            gain = canvas.light.gain(out)
            canvas.polygon(view[ring], paint * 0.96, CAR, gain)
            if not glass:
                if detail:
                    canvas.polygon(inset(view[ring], 0.97)[[0, 1, -2, -1]], paint * 0.78, CAR, gain)
                continue
            pane = inset(view[ring], 0.84)
            canvas.polygon(pane, GLASS, CAR, gain)
            if np.ptp(rings[0, :, 1]) > 2:  # a bus has a band between its decks, and posts between its windows
                low, high = (
                    [pane[i] + (pane[j] - pane[i]) * share for i, j in ((0, 1), (-1, -2))] for share in (0.42, 0.58)
                )
                canvas.polygon(np.stack([*low, *high[::-1]]), paint * 0.96, CAR, gain)
                for share in (0.2, 0.4, 0.6, 0.8):
                    post = pane[[0, 1]] + (pane[[-1, -2]] - pane[[0, 1]]) * share
                    canvas.stroke(post, 0.12, paint * 0.8, CAR, gain)
            elif detail:  # the pillar between front and rear doors
                mid = (pane[0] + pane[-1]) / 2
                canvas.stroke(np.stack([mid, (pane[1] + pane[-2]) / 2]), 0.07, paint * 0.9, CAR, gain)


def draw_car(canvas: Canvas, place: Place, item: Item, time: float = 0.0) -> None:
    """Draw a vehicle.

    Args:
        canvas: Canvas to draw on.
        place: Ground point of its middle, and direction.
        item: Vehicle.
        time: Time since the start, seconds; it does not matter.
    """
    name = _shape(item)
    body, cabin, length, width, taper = _SHAPES[name]
    half, reach = width / 2, length / 2
    paint = np.array((36.0, 30, 150) if name == 'bus' else item.tint)
    near = place.view(np.array([[0, 0.6, 0]]))[0]
    if near[2] < -reach:
        return
    detail = near[2] < 55
    base = np.array([[-half, 0, -reach], [half, 0, -reach], [half, 0, reach], [-half, 0, reach]])
    canvas.darken(place.view(base * (1.12, 1, 1.04)), 0.38)
    axles = (-length * 0.31, length * 0.32)
    draw_tyres(canvas, place, half, axles, near[2])
    draw_solid(canvas, place, rings_of(body, half * 0.96, half), paint, False, detail)
    draw_solid(canvas, place, rings_of(cabin, half * 0.95, half * taper), paint, True, detail)
    draw_wheels(canvas, place, half, axles, 0.48 if name == 'bus' else 0.32, near[2])
    draw_ends(canvas, place, name, half, reach, detail)


def draw_tyres(canvas: Canvas, place: Place, half: float, axles: Sequence[float], depth: float) -> None:
    """Draw the tyres below the bumpers.

    Args:
        canvas: Canvas to draw on.
        place: Ground point and direction of the vehicle.
        half: Half of its width, metres.
        axles: Places of its axles, metres ahead of its middle.
        depth: Distance from the camera, metres.
    """
    gain = canvas.light.gain((0, 0.3, -0.95))
    for axle in () if depth > 80 else sorted(axles, key=lambda z: -place.view(np.array([[0, 0, z]]))[0, 2]):
        for sign in (-1, 1):
            x = sign * (half - 0.12)
            strip = np.array([[x - 0.1, 0, axle], [x + 0.1, 0, axle], [x + 0.1, 0.45, axle], [x - 0.1, 0.45, axle]])
            canvas.polygon(place.view(strip), _RUBBER, CAR, gain)


def draw_wheels(canvas: Canvas, place: Place, half: float, axles: Sequence[float], size: float, depth: float) -> None:
    """Draw the wheels of the side that the camera sees.

    Args:
        canvas: Canvas to draw on.
        place: Ground point and direction of the vehicle.
        half: Half of its width, metres.
        axles: Places of its axles, metres ahead of its middle.
        size: Radius of a wheel, metres.
        depth: Distance from the camera, metres.
    """
    gain = canvas.light.gain((0, 0.3, -0.95))
    turn = np.linspace(0, 2 * np.pi, 15)[:-1]
    side = np.sign(place.local_camera(canvas.camera)[0])
    if abs(place.local_camera(canvas.camera)[0]) <= half or depth >= 65:
        return
    for axle in axles:
        for radius, tone in ((size * 1.15, _RUBBER * 0.6), (size, _RUBBER), (size * 0.6, np.array([128.0, 128, 126]))):
            up, along = size + radius * np.sin(turn), axle + radius * np.cos(turn)
            canvas.polygon(place.view(np.stack([np.full(14, side * half * 1.005), up, along], 1)), tone, CAR, gain)


def draw_ends(canvas: Canvas, place: Place, name: str, half: float, reach: float, detail: bool) -> None:
    """Draw bumper, lights and number plate at the visible end of a vehicle.

    Args:
        canvas: Canvas to draw on.
        place: Ground point and direction of the vehicle.
        name: Name of its shape.
        half: Half of its width, metres.
        reach: Half of its length, metres.
        detail: Whether it is near enough for details.
    """
    ahead = place.local_camera(canvas.camera)[2]
    if abs(ahead) < reach:
        return
    front = ahead > 0
    z = (reach + 0.01) * np.sign(ahead)

    def plate(x0: float, x1: float, y0: float, y1: float, color: tuple[float, float, float], glow: float = 0.0) -> None:
        view = place.view(np.array([[x0, y0, z], [x1, y0, z], [x1, y1, z], [x0, y1, z]]))
        if view[:, 2].min() > NEAR:
            gain = canvas.light.gain(place.direction((0, 0, np.sign(ahead))))
            canvas.polygon(view, color, CAR, np.maximum(gain, glow))

    low, high = (0.55, 0.74) if name != 'van' else (0.65, 0.9)
    dim = canvas.light.kind not in ('sunny', 'low sun')
    plate(-half * 0.97, half * 0.97, 0.30, 0.48, (38, 37, 36))
    for sign in (-1, 1):
        x0, x1 = sorted((sign * half * 0.92, sign * half * 0.62))
        if front:
            plate(x0, x1, low, high, (235, 240, 240), 1.0 if dim else 0.75)
        else:
            plate(x0, x1, low, high + 0.1, (38, 30, 190), 0.95 if dim else 0.6)
    if detail:
        if front:
            plate(-half * 0.5, half * 0.5, low - 0.02, high - 0.03, (34, 33, 32))
        plate(-0.26, 0.26, 0.40, 0.52, (235, 238, 238) if front else (60, 205, 230))
        plate(-0.2, 0.2, 0.44, 0.48, (50, 50, 50))
