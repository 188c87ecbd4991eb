# SPDX-License-Identifier: Apache-2.0
"""Generate a dusty street, as in India or Africa: no kerb, shops, palms, wires, motorcycles, auto-rickshaws, people."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from stdc_core.data.synthetic import fronts, scene_textures, textures
from stdc_core.data.synthetic.canvas import ROAD, SIDEWALK, TREE
from stdc_core.data.synthetic.item import Item
from stdc_core.data.synthetic.light import ALL_WEATHER, make_light
from stdc_core.data.synthetic.paints import bright_cloth, car_paint
from stdc_core.data.synthetic.road import Road
from stdc_core.data.synthetic.scenes.route import Route
from stdc_core.data.synthetic.section import WHITE, YELLOW, Line, Section, Strip
from stdc_core.data.synthetic.style import Style
from stdc_core.data.synthetic.traffic import Stream
from stdc_core.data.synthetic.world import CHUNK, Mount

PIECE = 6.0  # length of a piece of wall or barrier, metres
POLES = 24.0  # distance of the poles, metres

_PLASTER = np.array(  # BGR of walls
    [
        (150, 190, 216),
        (176, 168, 206),
        (190, 176, 128),
        (120, 196, 214),
        (200, 210, 214),
        (140, 150, 156),
        (130, 160, 190),
        (150, 190, 160),
        (110, 124, 176),
    ],
    np.float64,
)


def _style(rng: np.random.Generator, weather: str | None) -> Style:
    """Draw the look of a dusty street and paint its textures."""
    light = make_light(rng, weather, ALL_WEATHER)
    if light.kind != 'night':  # dust in the air
        light = replace(light, fog=light.fog * (0.93, 0.97, 1.0), haze=light.haze * 0.7)
    style = Style(light=light, speed=float(rng.uniform(5.5, 9)), half_road=float(rng.uniform(3.0, 4.8)))
    leaf = np.array([rng.uniform(40, 56), rng.uniform(86, 112), rng.uniform(66, 96)])
    style.verge = tuple((leaf * (1.1, 1.15, 1.3)).tolist())
    style.trees = [textures.pyramid(scene_textures.palm(rng, leaf * rng.uniform(0.9, 1.2), k == 2)) for k in range(3)]
    style.trees += [textures.pyramid(textures.crown(rng, leaf * rng.uniform(0.65, 1.1), False)) for _ in range(3)]
    for k in range(9):
        color = _PLASTER[rng.integers(len(_PLASTER))] * rng.uniform(0.75, 1.1)
        floors = int(rng.choice([1, 1, 2, 2, 3]))
        style.facades.append(
            (textures.pyramid(fronts.low_front(rng, float(rng.uniform(5, 11)), floors, color)), floors)
        )
        bare = _PLASTER[5] if rng.random() < 0.5 else color
        side = scene_textures.long_wall(rng, bare * 0.95, 'brick' if k % 4 == 0 else 'plaster')
        style.gables.append(textures.pyramid(side))
    light_stripe = np.array([(60.0, 190, 220), (214.0, 214, 214)][rng.integers(2)])
    for picture in (
        textures.planks(rng, np.array([(150.0, 110, 60), (120, 130, 136), (80, 110, 140)])[rng.integers(3)]),
        textures.railing(np.array([110.0, 120, 90])),
        textures.hedge(rng, leaf * 0.9),
        scene_textures.concrete(rng, np.array([150.0, 160, 166])),
        scene_textures.striped(rng, (np.array([46.0, 46, 46]), light_stripe)),
    ):
        style.fences.append(textures.pyramid(picture))
    return style


def _streams(rng: np.random.Generator, hand: int, half: float, speed: float) -> list[Stream]:
    """Draw the traffic of a dusty street.

    Args:
        rng: Source of the random numbers.
        hand: 1 where traffic drives on the right, -1 where it drives on the left.
        half: Half of the width of the road, metres.
        speed: Speed of the camera, m/s.
    """
    mixed = ('car', 'car', 'car', 'rickshaw', 'rickshaw', 'carrier', 'coach', 'motorcycle', 'truck')
    two = ('motorcycle', 'motorcycle', 'motorcycle', 'cyclist')
    clear, share = float(rng.uniform(8, 16)), rng.uniform(0.4, 0.8, 2).tolist()
    return [
        Stream(hand * half * 0.48, speed, 19.0, mixed, share[0], clear, 0.4),
        Stream(hand * half * 0.14, speed * 1.35, 15.0, ('motorcycle',), 0.5, 0.0, 0.2),
        Stream(hand * (half - 0.5), speed * 0.7, 13.0, (*two, 'rickshaw'), 0.6, 0.0, 0.25),
        Stream(-hand * half * 0.5, -speed * 0.95, 20.0, mixed, share[1], 0.0, 0.3),
        Stream(-hand * (half - 0.5), -speed * 0.6, 13.0, two, 0.6, 0.0, 0.3),
    ]


class DustyStreet(Route):
    """Street whose edges fade into dust, in India (traffic on the left) or in Africa (on the left or on the right).

    Args:
        seed: Seed of the drive, 0 or more.
        weather: Name of the weather; None draws it.
    """

    def __init__(self, seed: int, weather: str | None = None) -> None:
        rng = np.random.default_rng([seed, 1, 2])
        road, style = Road(rng), _style(rng, weather)
        self.hand = hand = -1 if rng.random() < 0.7 else 1
        half = style.half_road
        self.divided = bool(rng.random() < 0.35)  # whether a striped barrier stands on the centre line
        self.walk = float(rng.uniform(2.0, 5.0))  # width of the dust between road and lots
        self.green = float(rng.uniform(0.15, 0.5))  # share of the lots without a building
        if self.divided:
            half += 1.2
            style.half_road = half
        dust = tuple((np.array([(126, 156, 178), (110, 144, 176), (128, 146, 158)][rng.integers(3)]) * 0.95).tolist())
        asphalt = tuple((np.array([1.0, 1.02, 1.04]) * rng.uniform(78, 122)).tolist())
        edge = half + self.walk
        beyond = (TREE, style.verge) if rng.random() < 0.4 else (SIDEWALK, dust)
        strips = (
            Strip(-edge - 1, *beyond, 'rough'),
            Strip(-half, SIDEWALK, dust, 'rough'),
            Strip(half, ROAD, asphalt),
            Strip(edge + 1, SIDEWALK, dust, 'rough'),
            Strip(np.inf, *beyond, 'rough'),
        )
        lines = []
        if not self.divided and rng.random() < 0.6:
            lines.append(Line(0.0, 0.12, dash=(3.0, 8.0)))
        if rng.random() < 0.3:
            paint = YELLOW if rng.random() < 0.5 else WHITE
            lines += [Line(side * (half - 0.4), 0.12, paint) for side in (-1, 1)]
        lanes = (-half / 2, half / 2)
        section = Section(strips, tuple(lines), lanes, half, fray=0.35, dust=float(rng.uniform(0.3, 0.85)))
        mount = Mount(
            hand * half * 0.48,
            focal=float(rng.uniform(0.7, 1.1)),
            height=float(rng.uniform(1.2, 1.7)),
            pitch=float(rng.uniform(-0.05, 0.02)),
        )
        super().__init__(seed, road, style, mount, section, _streams(rng, hand, half, style.speed))
        self.poles = int(rng.choice([-1, 1]))  # side of the poles
        self.pole_height = float(rng.uniform(7, 9))

    def furnish(self, chunk: int, rng: np.random.Generator) -> list[Item]:
        """Draw all things of a chunk."""
        start, half, edge = chunk * CHUNK, self.style.half_road, self.style.half_road + self.walk
        items: list[Item] = []
        for side in (-1, 1):
            items += self._lots(rng, side, edge, start)
            items += self._wayside(rng, side, start)
        if self.divided:
            for s in np.arange(start, start + CHUNK - (8 if chunk % 3 == 0 else 0), PIECE):
                items.append(Item('guard rail', float(s), 0.0, length=PIECE, size=0.6, variant=2))
        for k in range(2):
            s, x = start + POLES * k, self.poles * (half + min(self.walk - 0.5, 1.6))
            items.append(
                Item('wire pole', s, x, size=self.pole_height, variant=int(rng.integers(30)) * 2 + self.seed % 2)
            )
            items.append(Item('wires', s, x, length=POLES, size=self.pole_height))
        for _ in range(int(rng.integers(1, 4))):  # people who cross, or walk on the road
            crosses = rng.random() < 0.5
            items.append(
                Item(
                    'person',
                    start + rng.uniform(0, CHUNK),
                    0.0 if crosses else float(rng.choice([-1, 1]) * (half - rng.uniform(0.1, 0.8))),
                    0.0 if crosses else float(rng.choice([-1.3, 1.2])),
                    size=rng.uniform(1.5, 1.8),
                    variant=int(rng.integers(1 << 16)),
                    tint=bright_cloth(rng),
                    extra=(float(rng.choice([-1, 1])), float(rng.uniform(1.0, 1.5))) if crosses else (),
                )
            )
        return items

    def _wayside(self, rng: np.random.Generator, side: int, start: float) -> list[Item]:
        """Draw what stands and walks on the dust of one side: people, parked vehicles, boards, trees, cows."""
        half, walk = self.style.half_road, self.walk
        items: list[Item] = []
        for _ in range(int(rng.integers(4, 10))):
            speed = float(rng.choice([-1, 1, 0, 0]) * rng.uniform(0.8, 1.5))
            items.append(
                Item(
                    'person',
                    start + rng.uniform(0, CHUNK),
                    side * (half + rng.uniform(0.2, walk)),
                    speed,
                    size=rng.uniform(1.2, 1.8),
                    variant=int(rng.integers(1 << 16)),
                    tint=bright_cloth(rng),
                )
            )
        for kind, chance in (
            ('motorcycle', 0.75),
            ('motorcycle', 0.6),
            ('motorcycle', 0.5),
            ('rickshaw', 0.5),
            ('car', 0.4),
            ('carrier', 0.2),
        ):
            if rng.random() < chance:
                x = side * (half + min(rng.uniform(0.5, 1.3), walk - 0.6))
                variant, tint = int(rng.integers(1 << 16)), car_paint(rng)
                where = start + rng.uniform(0, CHUNK)
                items.append(Item(kind, where, x, variant=variant, tint=tint, extra=(float(-side * self.hand),)))
        for _ in range(2):
            if rng.random() < 0.5:
                low, size = (2.8, rng.uniform(0.8, 1.8)) if rng.random() < 0.6 else (5.0, rng.uniform(2.5, 4.5))
                x, variant = side * (half + walk - 0.3), int(rng.integers(1 << 16))
                items.append(
                    Item('hoarding', start + rng.uniform(0, CHUNK), x, size=size, variant=variant, extra=(low,))
                )
        for _ in range(int(rng.integers(0, 4))):
            x, variant = side * (half + rng.uniform(0.8, walk)), int(rng.integers(6))
            items.append(Item('tree', start + rng.uniform(0, CHUNK), x, size=rng.uniform(4, 9), variant=variant))
        if rng.random() < 0.25:
            x, variant = side * (half + rng.uniform(-0.6, walk)), int(rng.integers(1 << 16))
            items.append(
                Item('cow', start + rng.uniform(0, CHUNK), x, speed=float(rng.choice([0, 0.5])), variant=variant)
            )
        return items

    def _lots(self, rng: np.random.Generator, side: int, edge: float, start: float) -> list[Item]:
        """Draw the lots of one side: buildings, walls of yards, fences, and trees behind them."""
        items: list[Item] = []
        at, end = start, start + CHUNK
        while at < end - 0.5:
            length = float(rng.uniform(4.5, 11))
            if end - at - length < 4:
                length = end - at
            x = side * (edge + rng.uniform(0.0, 1.5))
            if rng.random() > self.green:
                looks = (2.0, float(rng.uniform(0.9, 1.1)), float(rng.integers(1 << 16)), 0.0, 0.0)
                variant = int(rng.integers(len(self.style.facades)))
                items.append(Item('house', at, x, length=length, variant=variant, size=float(side), extra=looks))
            else:
                draw = rng.random()
                high, variant = float(rng.uniform(1.5, 2.3)), int(rng.integers(len(self.style.gables)))
                for s in np.arange(at, at + length - 0.1, PIECE) if draw < 0.5 else ():
                    piece = min(PIECE, at + length - s)
                    items.append(Item('wall', float(s), x, length=piece, size=high, variant=variant))
                if 0.5 < draw < 0.7:
                    items.append(Item('rail', at, x, length=length, variant=int(rng.integers(2))))
                for _ in range(int(length / 2)):
                    away, kind = side * (edge + rng.uniform(2.0, 12)), int(rng.integers(6))
                    items.append(Item('tree', at + rng.uniform(0, length), away, size=rng.uniform(3, 11), variant=kind))
            at += length
        return items
