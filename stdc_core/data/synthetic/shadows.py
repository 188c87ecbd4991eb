# SPDX-License-Identifier: Apache-2.0
"""Cast the shadows of things on the ground."""

from __future__ import annotations

import cv2
import numpy as np

from stdc_core.data.synthetic import heavy_vehicles, street, vehicles
from stdc_core.data.synthetic.canvas import Canvas
from stdc_core.data.synthetic.scenery import Thing, place_of
from stdc_core.data.synthetic.world import World

SLIM = ('lamp', 'sign', 'signal', 'bollard', 'mast', 'marker', 'wire pole')


def cast_shadows(canvas: Canvas, world: World, things: list[Thing]) -> list[np.ndarray]:
    """Return the cast shadows on the ground, as convex polygons in view axes.

    Args:
        canvas: Canvas that the things are drawn on.
        world: Scene.
        things: Things in view.
    """
    light, camera = canvas.light, canvas.camera
    if not light.strength:
        return []
    shift = -light.sun[[0, 2]] / max(light.sun[1], 0.2)
    polygons = []

    def cast(base: np.ndarray, height: float, lift: float = 0.0) -> None:
        """Add the shadow of an upright prism.

        Args:
            base: Corners of its base, world x and z, ``[N, 2]``.
            height: Height of its top, metres.
            lift: Height of its bottom, metres.
        """
        swept = np.concatenate([base + shift * lift, base + shift * height]).astype(np.float32)
        hull = cv2.convexHull(swept)[:, 0].astype(np.float64)
        polygons.append(camera.view(np.stack([hull[:, 0], np.zeros(len(hull)), hull[:, 1]], 1)))

    for _, item, heading in things:
        if item.s - camera.position[2] > 110:
            continue
        x, z = float(world.road.center(item.s)) + item.x, item.s
        box = np.array([[-1.0, -1], [1, -1], [1, 1], [-1, 1]])
        if item.kind == 'house':
            deep, end = item.size * street.DEPTH, item.s + item.length
            far = float(world.road.center(end)) + item.x
            cast(np.array([[x, z], [far, end], [far + deep, end], [x + deep, z]]), street.house_height(world, item))
        elif item.kind in vehicles.KINDS or item.kind in heavy_vehicles.KINDS:
            shape = vehicles if item.kind in vehicles.KINDS else heavy_vehicles
            half, reach, height = shape.footprint(item)
            place = place_of(world, camera, item, heading)
            corners = np.array([[half * a, 0, reach * b] for a, b in box])
            cast(place.world(corners)[:, [0, 2]], height)
        elif item.kind == 'tree':
            ring = np.arange(10) * (2 * np.pi / 10)
            crown = np.stack([np.cos(ring), np.sin(ring)], 1) * item.size * 0.3 + (x, z)
            cast(crown, item.size * 0.9, item.size * 0.45)
            cast(box * 0.1 + (x, z), item.size * 0.5)
        elif item.kind in ('person', 'cyclist', 'motorcycle'):
            cast(box * 0.2 + (x, z), item.size if item.kind == 'person' else 1.6)
        elif item.kind == 'cow':
            cast(box * (0.3, 0.9) + (x, z), 1.4)
        elif item.kind == 'wall':
            far, end = float(world.road.center(item.s + item.length)) + item.x, item.s + item.length
            cast(np.array([[x, z], [far, end], [far + 0.3, end], [x + 0.3, z]]), item.size)
        elif item.kind == 'bridge':
            deck = np.array([[x - 90, z], [x + 90, z], [x + 90, z + item.length], [x - 90, z + item.length]])
            cast(deck, 6.7, 5.3)
        elif item.kind in SLIM:
            cast(box * 0.08 + (x, z), item.size if item.kind in ('lamp', 'sign', 'mast', 'wire pole') else 1.0)
    return polygons
