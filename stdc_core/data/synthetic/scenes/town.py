# SPDX-License-Identifier: Apache-2.0
"""Generate an English town: brick and plaster houses, parks, pavements, traffic on the left."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from stdc_core.data.synthetic.item import Item
from stdc_core.data.synthetic.paints import car_paint, cloth
from stdc_core.data.synthetic.road import Road
from stdc_core.data.synthetic.style import TownStyle, make_style
from stdc_core.data.synthetic.world import CHUNK, Mount, World

LANE = -1.6  # distance of the camera to the right of the centre line, metres: traffic drives on the left


class Town(World):
    """Street of an English town.

    Args:
        seed: Seed of the drive, 0 or more.
        weather: Name of the weather; None draws it.
    """

    style: TownStyle

    def __init__(self, seed: int, weather: str | None = None) -> None:
        rng = np.random.default_rng([seed, 1])
        super().__init__(seed, Road(rng), make_style(rng, weather), Mount(LANE))
        self.lead = bool(rng.random() < 0.75)
        self.lead_gap = float(rng.uniform(10, 22))
        self.lead_item = Item('car', 0, 0, 1.0, variant=int(rng.integers(4)), tint=car_paint(rng))

    def traffic(self, time: float, here: float, phase: float) -> list[tuple[Item, float]]:
        """Return the car ahead, if there is one."""
        if not self.lead:
            return []
        gap = self.lead_gap + 3.5 * np.sin(0.23 * time + phase)
        return [(replace(self.lead_item, s=here + gap, x=LANE + 0.1 * np.sin(0.4 * time)), 0.0)]

    def junction(self, chunk: int) -> tuple[float, float, int] | None:
        """Return the side road of a chunk, if it has one: about every fifth chunk."""
        rng = np.random.default_rng([self.seed, 2, chunk & 0xFFFFFFFF])
        if rng.random() > 0.4 or chunk % 2:
            return None
        return chunk * CHUNK + 6.0, float(rng.uniform(5.5, 7.5)), int(rng.integers(-1, 2))

    def furnish(self, chunk: int, rng: np.random.Generator) -> list[Item]:
        """Draw all things of a chunk. The order of the draws is fixed, or the drives of a seed would change."""
        start, half = chunk * CHUNK, self.style.half_road
        crossing = self.junction(chunk)
        items: list[Item] = []
        for side in (-1, 1):
            items += self._roadside(rng, chunk, side, crossing)
        if chunk % 2 == 0:
            items.append(Item('rail', start + 10.5, (-1, 1)[chunk // 2 % 2] * (half + 0.25), length=rng.uniform(6, 10)))
        if crossing or rng.random() < 0.12:
            for side in (-1, 1):
                items.append(Item('signal', start + 1.2, side * (half + 0.4), variant=int(rng.integers(3))))
        if rng.random() < 0.6:  # a pedestrian who crosses the road
            items.append(
                Item(
                    'person',
                    start + rng.uniform(8, 40),
                    0,
                    size=rng.uniform(1.6, 1.85),
                    variant=int(rng.integers(1 << 16)),
                    tint=cloth(rng),
                    extra=(float(rng.choice([-1, 1])), float(rng.uniform(1.4, 1.8))),
                )
            )
        return items + self._traffic(rng, start)

    def _roadside(
        self, rng: np.random.Generator, chunk: int, side: int, crossing: tuple[float, float, int] | None
    ) -> list[Item]:
        """Draw lots, lamps, signs, trees, bollards, parked cars and pedestrians of one side of the road.

        Args:
            rng: Source of the random numbers.
            chunk: Number of the chunk.
            side: -1 for the left side, 1 for the right one.
            crossing: Side road of the chunk, from ``junction``.
        """
        style, start = self.style, chunk * CHUNK
        half, walk = style.half_road, style.sidewalk
        items: list[Item] = []
        edge = side * (half + walk)
        at = start
        if crossing and crossing[2] in (0, side):
            at = crossing[0] + crossing[1] / 2 + 2.0
        items += self._lots(rng, side, edge, at, start + CHUNK, (chunk + (side > 0)) % 2 == 0)
        kerb = side * (half + 0.45)
        for s in (start + 14, start + 38):
            if (chunk + (side > 0) + (s > start + 20)) % 2 == 0:
                items.append(Item('lamp', s + rng.uniform(-2, 2), kerb, size=rng.uniform(6, 8.5), variant=side))
        for s in (start + rng.uniform(18, 25), start + rng.uniform(28, 44)):
            if rng.random() < 0.8:
                items.append(
                    Item(
                        'sign',
                        s,
                        kerb + side * rng.uniform(0, 0.3),
                        size=rng.uniform(2.0, 2.7),
                        variant=int(rng.integers(7)),
                        extra=(float(side),),
                    )
                )
        if style.street_trees:
            for s in (start + 20, start + 33, start + 45):
                if rng.random() < 0.6:
                    items.append(
                        Item(
                            'tree',
                            s + rng.uniform(-2, 2),
                            side * (half + min(walk - 0.3, 1.1)),
                            size=rng.uniform(5, 8),
                            variant=int(rng.integers(1, 6)),
                        )
                    )
        if rng.random() < 0.35:
            for k in range(4):
                items.append(Item('bollard', start + 15 + 1.9 * k, side * (half + 0.35)))
        if style.park_left if side < 0 else style.park_right:
            at = start + 14 + rng.uniform(0, 3)
            while at < start + CHUNK - 4:
                if rng.random() < 0.68:
                    items.append(
                        Item(
                            'car',
                            at,
                            side * (half - 1.0),
                            variant=int(rng.integers(4)),
                            tint=car_paint(rng),
                            extra=(float(side),),
                        )
                    )
                at += rng.uniform(5.6, 7.5)
        for _ in range(int(rng.integers(2, 5))):
            speed = float(rng.choice([-1, 1, 1, 0]) * rng.uniform(1.0, 1.6))
            items.append(
                Item(
                    'person',
                    start + rng.uniform(0, CHUNK),
                    side * (half + rng.uniform(0.7, walk - 0.3)),
                    speed,
                    size=rng.uniform(1.55, 1.88),
                    variant=int(rng.integers(1 << 16)),
                    tint=cloth(rng),
                )
            )
        return items

    def _traffic(self, rng: np.random.Generator, start: float) -> list[Item]:
        """Draw oncoming cars, and cyclists of both directions.

        Args:
            rng: Source of the random numbers.
            start: Start of the chunk, metres along the road.
        """
        style, half = self.style, self.style.half_road
        items: list[Item] = []
        # All oncoming cars have one speed, so that they never collide.
        for s in (start + 4, start + 28):
            if rng.random() < 0.65:
                kind = 'bus' if rng.random() < 0.15 else 'car'
                items.append(
                    Item(
                        kind,
                        s + rng.uniform(0, 8),
                        min(half - 1.4, 1.75),
                        -style.speed * 1.1,
                        variant=int(rng.integers(4)),
                        tint=car_paint(rng),
                    )
                )
        gutter = 2.3 if style.park_left else 0.65
        items.append(
            Item(
                'cyclist',
                start + rng.uniform(10, 40),
                -half + gutter,
                style.speed * 0.5,
                size=rng.uniform(0.95, 1.05),
                variant=int(rng.integers(1 << 16)),
                tint=cloth(rng),
            )
        )
        gutter = 2.4 if style.park_right else 0.7
        if rng.random() < 0.6:
            items.append(
                Item(
                    'cyclist',
                    start + rng.uniform(0, 40),
                    half - gutter,
                    -5.0,
                    size=rng.uniform(0.95, 1.05),
                    variant=int(rng.integers(1 << 16)),
                    tint=cloth(rng),
                )
            )
        return items

    def _lots(
        self, rng: np.random.Generator, side: int, edge: float, at: float, end: float, fenced: bool
    ) -> list[Item]:
        """Draw the houses and parks of one side of the road.

        Args:
            rng: Source of the random numbers.
            side: -1 for the left side, 1 for the right one.
            edge: Distance of the lots to the right of the centre line, metres.
            at: Start of the first lot, metres along the road.
            end: End of the last lot, metres along the road.
            fenced: Whether the first lot is a park with a fence.
        """
        style = self.style
        lots: list[Item] = []
        while at < end - 0.5:
            length = float(rng.uniform(7.5, 13))
            if end - at - length < 6:
                length = end - at
            draw = rng.random()
            variant = int(rng.integers(len(style.facades)))
            detail = (float(rng.integers(3)), float(rng.uniform(0.9, 1.08)), float(rng.integers(1 << 16)))
            if (fenced and not lots) or draw < style.green:
                barrier = float(rng.choice([0, 1, 2])) if not (fenced and not lots) else float(rng.choice([0, 1]))
                lots.append(
                    Item(
                        'park',
                        at,
                        edge,
                        length=length,
                        variant=variant,
                        size=float(side),
                        extra=(barrier, float(rng.uniform(1.1, 1.9)), detail[2]),
                    )
                )
            else:
                setback = float(rng.uniform(2.5, 5)) if draw > 0.8 else 0.0
                lots.append(
                    Item(
                        'house',
                        at,
                        edge + side * setback,
                        length=length,
                        variant=variant,
                        size=float(side),
                        extra=(*detail, setback, float(rng.choice([0, 1, 2]))),
                    )
                )
            at += length
        return lots
