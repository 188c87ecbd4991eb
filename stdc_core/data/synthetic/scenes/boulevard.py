# SPDX-License-Identifier: Apache-2.0
"""Generate the street of a large city: tall pale fronts, rows of trees, trams, a cycle lane, traffic on the right."""

from __future__ import annotations

import numpy as np

from stdc_core.data.synthetic import fronts, scene_textures, textures
from stdc_core.data.synthetic.item import Item
from stdc_core.data.synthetic.light import ALL_WEATHER, make_light
from stdc_core.data.synthetic.paints import car_paint, cloth
from stdc_core.data.synthetic.road import Road
from stdc_core.data.synthetic.scenes.boulevard_plan import CROSSING, LANE, TRACK, Plan, make_plan, make_section
from stdc_core.data.synthetic.scenes.route import Route
from stdc_core.data.synthetic.style import Style
from stdc_core.data.synthetic.traffic import Stream
from stdc_core.data.synthetic.world import CHUNK, Mount

_PLASTER = np.array(  # BGR of walls
    [
        (206, 216, 222),
        (180, 204, 218),
        (150, 190, 214),
        (190, 196, 198),
        (168, 176, 196),
        (170, 188, 180),
        (140, 160, 186),
        (214, 210, 204),
    ],
    np.float64,
)


def _style(rng: np.random.Generator, weather: str | None) -> Style:
    """Draw the look of a boulevard and paint its textures."""
    light = make_light(rng, weather, ALL_WEATHER)
    style = Style(light=light, speed=float(rng.uniform(8, 13)), half_road=8.0)
    leaf = np.array([rng.uniform(38, 58), rng.uniform(92, 128), rng.uniform(66, 104)])
    style.verge = tuple((leaf * (1.15, 1.0, 1.1)).tolist())
    flora = str(rng.choice(['summer', 'winter', 'south']))
    for k in range(6):
        if flora == 'south' and k < 3:
            picture = scene_textures.palm(rng, leaf * rng.uniform(0.9, 1.2), k < 2)
        elif flora == 'winter' and k < 4:
            picture = textures.bare_tree(rng, np.array([60.0, 70, 80]))
        else:
            picture = textures.crown(rng, leaf * rng.uniform(0.75, 1.15), False)
        style.trees.append(textures.pyramid(picture))
    tall = int(rng.integers(3))
    for _ in range(8):
        color = _PLASTER[rng.integers(len(_PLASTER))] * rng.uniform(0.82, 1.08)
        kind = str(rng.choice(['balconies', 'balconies', 'shutters', 'glass'], p=[0.35, 0.3, 0.25, 0.1]))
        floors = tall + int(rng.integers(3, 6))
        front = fronts.tall_front(rng, float(rng.uniform(9, 15)), floors, color, kind)
        style.facades.append((textures.pyramid(front, 7), floors))
        style.gables.append(textures.pyramid(scene_textures.long_wall(rng, color * 0.95, 'plaster')))
    for tiles in ((60.0, 76, 128), (74.0, 72, 72), (70.0, 90, 130)):
        style.roofs.append(textures.pyramid(textures.roof(rng, np.array(tiles) * rng.uniform(0.85, 1.15))))
    for picture in (
        textures.planks(rng, np.array([110.0, 120, 124])),
        textures.railing(np.array([70.0, 72, 70])),
        textures.hedge(rng, leaf * 0.8),
    ):
        style.fences.append(textures.pyramid(picture))
    return style


def _streams(rng: np.random.Generator, plan: Plan, own: int, speed: float) -> list[Stream]:
    """Draw the traffic of a boulevard, given the lane and the speed of the camera."""
    kinds = ('car',) * 9 + ('truck', 'coach', 'motorcycle')
    streams = []
    for k in range(plan.lanes):
        rails = plan.median == 'street tram' and k == 0
        share, clear = rng.uniform(0.35, 0.8, 2).tolist(), float(rng.uniform(8, 22)) if k == own else 0.0
        pace = 1.0 if k == own else 0.85
        streams.append(Stream(plan.lane(k), speed * pace, 21.0, kinds, share[0], clear))
        streams.append(Stream(-plan.lane(k), -speed * 0.9, 24.0, kinds, 0.0 if rails else share[1]))
    if 'tram' in plan.median:
        streams.append(Stream(-TRACK, -speed * 0.8, 96.0, ('tram',), 0.8, wander=0.0, train=3))
    if plan.median == 'tram':
        streams.append(Stream(TRACK, speed * 0.75, 96.0, ('tram',), 0.8, wander=0.0, train=3))
    edge = plan.middle + plan.lanes * LANE
    x = edge + (0.85 if plan.cycle else -0.4)
    streams.append(Stream(x, speed * 0.5, 16.0, ('cyclist',), 0.55, wander=0.2))
    streams.append(Stream(-x, -speed * 0.45, 19.0, ('cyclist', 'cyclist', 'motorcycle'), 0.55, wander=0.2))
    return streams


class Boulevard(Route):
    """Street of a large city on the continent or in Israel, with traffic on the right.

    Args:
        seed: Seed of the drive, 0 or more.
        weather: Name of the weather; None draws it.
    """

    def __init__(self, seed: int, weather: str | None = None) -> None:
        rng = np.random.default_rng([seed, 1, 3])
        road, style = Road(rng), _style(rng, weather)
        self.plan = plan = make_plan(rng)
        style.half_road = plan.half
        self.gaps = float(rng.uniform(0.0, 0.35))  # share of the lots without a building
        self.rows = float(rng.uniform(0.3, 1.0))  # share of the places for street trees that are planted
        own = plan.lanes - 1 if plan.median == 'street tram' or rng.random() < 0.6 else 0
        mount = Mount(
            plan.lane(own),
            focal=float(rng.uniform(0.7, 1.15)),
            height=float(rng.uniform(1.2, 1.7)),
            pitch=float(rng.uniform(-0.06, 0.02)),
        )
        section = make_section(rng, plan, style.verge)
        super().__init__(seed, road, style, mount, section, _streams(rng, plan, own, style.speed))

    def junction(self, chunk: int) -> tuple[float, float, int] | None:
        """Return the side road of a chunk, if it has one: of two in three chunks with a zebra crossing."""
        rng = np.random.default_rng([self.seed, 2, chunk & 0xFFFFFFFF])
        if chunk % CROSSING or rng.random() < 0.33:
            return None
        return chunk * CHUNK + 8.5, float(rng.uniform(5.5, 8.0)), int(rng.integers(-1, 2))

    def furnish(self, chunk: int, rng: np.random.Generator) -> list[Item]:
        """Draw all things of a chunk."""
        plan, start, half = self.plan, chunk * CHUNK, self.plan.half
        crossing = self.junction(chunk)
        items: list[Item] = []
        for side in (-1, 1):
            clear = crossing is not None and crossing[2] in (0, side)
            first = start + (15.0 if clear else 0.0)
            items += self._lots(rng, side, first, start + CHUNK)
            beside = max(first, start + 5.0) if chunk % CROSSING == 0 else first  # no one parks on the zebra crossing
            items += self._kerbside(rng, side, beside, start + CHUNK)
            items += self._walkers(rng, side, start)
            if chunk % CROSSING == 0:
                items.append(Item('signal', start - 0.4, side * (half + 0.4), variant=int(rng.integers(3))))
        if plan.median == 'trees':
            for s in np.arange(start + 6, start + CHUNK - 2, 8.0):
                items.append(Item('tree', float(s), 0.0, size=rng.uniform(5, 8), variant=int(rng.integers(6))))
        if plan.median == 'tram':
            items += [Item('mast', start + 12, 0.0, size=6.4), Item('mast', start + 36, 0.0, size=6.4)]
        for side, s in ((-1, 12), (-1, 36), (1, 12), (1, 36)) if 'tram' in plan.median else ():
            items.append(Item('wires', start + s, side * TRACK, length=24.0, size=6.0, variant=1))
        if chunk % CROSSING == 0:
            for _ in range(int(rng.integers(1, 4))):  # people on the zebra crossing
                items.append(self._person(rng, start + rng.uniform(0.6, 3.0), 0.0, 0.0, (rng.choice([-1, 1]), 1.5)))
        return items

    def _person(
        self, rng: np.random.Generator, s: float, x: float, speed: float, extra: tuple[float, ...] = ()
    ) -> Item:
        """Draw a pedestrian at a place; ``extra`` holds direction and speed of one who crosses the road."""
        look, tint = int(rng.integers(1 << 16)), cloth(rng)
        return Item('person', s, x, speed, size=rng.uniform(1.5, 1.9), variant=look, tint=tint, extra=extra)

    def _walkers(self, rng: np.random.Generator, side: int, start: float) -> list[Item]:
        """Draw the pedestrians on one pavement."""
        half, items = self.plan.half, []
        for _ in range(int(rng.integers(3, 8))):
            speed = float(rng.choice([-1, 1, 1, 0]) * rng.uniform(1.0, 1.6))
            x = side * (half + rng.uniform(0.8, self.plan.walk - 0.3))
            items.append(self._person(rng, start + rng.uniform(0, CHUNK), x, speed))
        return items

    def _kerbside(self, rng: np.random.Generator, side: int, start: float, end: float) -> list[Item]:
        """Draw trees, lamps, signs, bollards and parked cars along the kerb of one side."""
        plan, half = self.plan, self.plan.half
        items: list[Item] = []
        for s in np.arange(start + 3, end - 1, 8.0):
            if rng.random() < self.rows:
                x, size, variant = side * (half + 1.1), rng.uniform(6, 10), int(rng.integers(6))
                items.append(Item('tree', float(s), x, size=size, variant=variant))
        for k in range(2):
            s = np.floor(end / CHUNK - 0.5) * CHUNK + 12.0 + 24 * k
            if s > start:
                items.append(Item('lamp', float(s), side * (half + 0.5), size=8.0, variant=side))
        for _ in range(2):
            if rng.random() < 0.7:
                s, variant = rng.uniform(start, end), int(rng.integers(7))
                x, size = side * (half + rng.uniform(0.4, 0.8)), rng.uniform(2.1, 2.6)
                items.append(Item('sign', s, x, size=size, variant=variant, extra=(float(side),)))
        if rng.random() < 0.25:
            items.append(Item('rail', start + 1.0, side * (half + 0.25), length=rng.uniform(8, end - start - 2)))
        if rng.random() < 0.4:
            items += [Item('bollard', start + 2 + 1.6 * k, side * (half + 0.4)) for k in range(6)]
        at = start + rng.uniform(1, 4)
        while plan.parking and at < end - 4:
            if rng.random() < 0.75:
                kind = 'motorcycle' if rng.random() < 0.12 else 'car'
                variant, tint = int(rng.integers(1 << 16)), car_paint(rng)
                items.append(Item(kind, at, side * (half - 1.05), variant=variant, tint=tint, extra=(float(-side),)))
            at += rng.uniform(5.4, 6.6)
        return items

    def _lots(self, rng: np.random.Generator, side: int, at: float, end: float) -> list[Item]:
        """Draw the buildings of one side, and gardens behind hedges or railings between them."""
        items: list[Item] = []
        edge = side * (self.plan.half + self.plan.walk)
        while at < end - 0.5:
            length = float(rng.uniform(9, 18))
            if end - at - length < 7:
                length = end - at
            variant, number = int(rng.integers(8)), float(rng.integers(1 << 16))
            if rng.random() < self.gaps:
                looks = (float(rng.choice([1, 2])), float(rng.uniform(0.9, 1.5)), number)
                items.append(Item('park', at, edge, length=length, variant=0, size=float(side), extra=looks))
            else:
                back = float(rng.uniform(2, 4)) if rng.random() < self.gaps else 0.0
                fence = float(rng.choice([1, 2]))
                front = (float(rng.integers(3)), float(rng.uniform(0.95, 1.05)), number, back, fence)
                x = edge + side * back
                items.append(Item('house', at, x, length=length, variant=variant, size=float(side), extra=front))
            at += length
        return items
