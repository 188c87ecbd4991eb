# SPDX-License-Identifier: Apache-2.0
"""Draw each thing with the routine of its kind."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from stdc_core.data.synthetic import heavy_vehicles, people, riders, roadside, street, tunnel, vehicles, wires
from stdc_core.data.synthetic.canvas import Canvas
from stdc_core.data.synthetic.item import Item
from stdc_core.data.synthetic.place import Place
from stdc_core.data.synthetic.scenery import place_of
from stdc_core.data.synthetic.world import CHUNK, World

#: Routines for things that follow the road, such as a row of houses.
ALONG: dict[str, Callable[[Canvas, World, Item], None]] = {
    'house': street.draw_house,
    'park': street.draw_park,
    'tree': street.draw_tree,
    'rail': street.draw_rail,
    'guard rail': roadside.draw_guard_rail,
    'wall': roadside.draw_wall,
    'bank': roadside.draw_bank,
    'bridge': roadside.draw_bridge,
    'wires': wires.draw_wires,
    'tunnel': tunnel.draw_tunnel,
    'portal': tunnel.draw_portal,
}

#: Routines for things at one place.
AT_PLACE: dict[str, Callable[[Canvas, Place, Item, float], None]] = {
    'car': vehicles.draw_car,
    'bus': vehicles.draw_car,
    'person': people.draw_person,
    'cyclist': people.draw_cyclist,
    'motorcycle': riders.draw_motorcycle,
    'cow': riders.draw_cow,
    'lamp': street.draw_lamp,
    'sign': street.draw_sign,
    'signal': street.draw_signal,
    'bollard': street.draw_bollard,
    'gantry': roadside.draw_gantry,
    'board': roadside.draw_board,
    'marker': roadside.draw_marker,
    'mast': roadside.draw_mast,
    'hoarding': roadside.draw_hoarding,
    'wire pole': wires.draw_pole,
    **dict.fromkeys(heavy_vehicles.KINDS, heavy_vehicles.draw_heavy),
}

#: Kinds of long vehicles.
VEHICLES = (*vehicles.KINDS, *heavy_vehicles.KINDS)


def draw(canvas: Canvas, world: World, item: Item, heading: float, time: float) -> None:
    """Draw an item.

    Args:
        canvas: Canvas to draw on.
        world: Scene.
        item: Item at its present place.
        heading: Direction, radians to the right of world z.
        time: Time since the start, seconds.
    """
    light = canvas.light
    if world.roofed(int(item.s // CHUNK)):
        canvas.light = light.under_roof()
    if item.kind in ALONG:
        ALONG[item.kind](canvas, world, item)
    else:
        place = place_of(world, canvas.camera, item, heading)
        # A long vehicle is visible while its middle is already behind the camera.
        if place.view(np.zeros((1, 3)))[0, 2] >= (-6.0 if item.kind in VEHICLES else 0.5):
            AT_PLACE[item.kind](canvas, place, item, time)
    canvas.light = light
