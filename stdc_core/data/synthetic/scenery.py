# SPDX-License-Identifier: Apache-2.0
"""Find the things that a camera sees, each at its place at this time."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from stdc_core.data.synthetic.canvas import Camera
from stdc_core.data.synthetic.item import Item
from stdc_core.data.synthetic.place import Place
from stdc_core.data.synthetic.world import CHUNK, START, VIEW, World

#: Kinds that park beside the road; ``extra`` tells on which side.
PARKED = ('car', 'rickshaw', 'carrier', 'motorcycle', 'truck')

Thing = tuple[float, Item, float]


def place_of(world: World, camera: Camera, item: Item, heading: float) -> Place:
    """Return ground point and direction of an item.

    Args:
        world: Scene.
        camera: Camera that sees the item.
        item: Item at its present place.
        heading: Direction, radians to the right of world z.
    """
    return Place(camera, (float(world.road.center(item.s)) + item.x, 0.0, item.s), heading)


def things_in_view(world: World, time: float, camera: Camera, phase: float) -> list[Thing]:
    """Return the things in view, from far to near.

    Args:
        world: Scene.
        time: Time since the start, seconds.
        camera: Camera at this time.
        phase: Number that varies the motion of the traffic, radians.

    Returns:
        Sorting key, item at its present place, and its heading in radians to the right.
    """
    here = camera.position[2]
    reach = min(VIEW, 3 * world.style.light.haze)  # further away, 5 % of the contrast are left
    chunk = int(here // CHUNK)
    found = []
    for item, turn in world.traffic(time, here, phase):
        if item.s < here + reach:
            found.append((item.s, item, world.road.heading(item.s) + turn))
    for k in range(chunk - 2, chunk + 9):
        for item in world.items(k):
            item, turn = _move(world, item, time)
            far = item.s + item.length
            if far < here - 6 or item.s > here + reach:
                continue
            # Long things are sorted by their far end, so that they are painted before everything in front of them.
            key = far + 1.0 if item.length else item.s
            found.append((key, item, world.road.heading(item.s) + turn))
    found.sort(key=lambda thing: (-thing[0], -abs(thing[1].x), thing[1].kind))
    return found


def _move(world: World, item: Item, time: float) -> tuple[Item, float]:
    """Return an item of a chunk at its present place, and its turn from the road in radians."""
    s, x, turn = item.s, item.x, 0.0
    met = time - (s - START) / world.style.speed  # 0 when the camera passes the starting point of the item
    if item.kind == 'person' and len(item.extra) == 2:
        way, pace = item.extra
        span = world.style.half_road + 1.2
        walked = np.clip((met + 34 / world.style.speed) * pace + 2 * span, 0, 2 * span)
        x, turn = way * (walked - span), way * np.pi / 2
        if 0 < walked < 2 * span:
            item = replace(item, speed=way * pace)
    elif item.speed:
        s += item.speed * met
        turn = np.pi if item.speed < 0 else 0.0
    elif item.kind == 'person':
        turn = np.pi if item.variant % 2 else -np.sign(x) * np.pi / 2
    elif item.kind in PARKED and item.extra:
        turn = np.pi if item.extra[0] > 0 else 0.0
    return item if (s, x) == (item.s, item.x) else replace(item, s=s, x=x), turn
