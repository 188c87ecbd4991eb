# SPDX-License-Identifier: Apache-2.0
"""Generate a motorway: two carriageways with a barrier between, guard rails, verges, trees and noise walls."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from stdc_core.data.synthetic import scene_textures, textures
from stdc_core.data.synthetic.canvas import ROAD, SIDEWALK, TREE
from stdc_core.data.synthetic.item import Item
from stdc_core.data.synthetic.light import ALL_WEATHER, make_light
from stdc_core.data.synthetic.road import Road
from stdc_core.data.synthetic.scenes.route import Route
from stdc_core.data.synthetic.section import WHITE, YELLOW, Line, Section, Strip, mirrored
from stdc_core.data.synthetic.style import Style
from stdc_core.data.synthetic.traffic import Stream
from stdc_core.data.synthetic.world import CHUNK, Mount

LANE = 3.6  # width of a lane, metres
PIECE = 6.0  # length of a piece of barrier, metres: short, so that pieces and vehicles hide each other correctly


@dataclass(frozen=True)
class Plan:
    """Measures of a motorway, metres.

    Args:
        hand: 1 where traffic drives on the right, -1 where it drives on the left.
        lanes: Number of lanes of each carriageway.
        median: Half of the width of the median.
        inner: Width of the strip between the median and the first lane.
        shoulder: Width of the hard shoulder.
        verge: Width of the verge up to trees or walls.
        concrete: Whether the barrier of the median is of concrete.
        fast: Share of the speed of the camera by which each lane further in is faster.
    """

    hand: int
    lanes: int
    median: float
    inner: float
    shoulder: float
    verge: float
    concrete: bool
    fast: float

    def lane(self, number: int) -> float:
        """Return the distance of the middle of a lane from the centre line; lane 0 is the one beside the median."""
        return self.median + self.inner + (number + 0.5) * LANE

    @property
    def edge(self) -> float:
        """Distance of the outer edge of the paved ground from the centre line."""
        return self.median + self.inner + self.lanes * LANE + self.shoulder


def _plan(rng: np.random.Generator) -> Plan:
    """Draw the measures of a motorway."""
    return Plan(
        hand=1 if rng.random() < 0.7 else -1,
        lanes=int(rng.integers(2, 5)),
        median=float(rng.choice([0.3, 1.2, 3.0])),
        inner=float(rng.uniform(0.5, 1.2)),
        shoulder=float(rng.uniform(1.2, 3.0)),
        verge=float(rng.uniform(3, 9)),
        concrete=bool(rng.random() < 0.5),
        fast=float(rng.uniform(0.08, 0.16)),
    )


def _section(rng: np.random.Generator, plan: Plan, verge: tuple[float, float, float]) -> Section:
    """Draw the ground of a motorway, given its measures and the colour of its grass."""
    asphalt = tuple((np.array([1.03, 1.0, 0.98]) * rng.uniform(70, 150)).tolist())
    grassy = plan.median > 1
    middle = Strip(plan.median, TREE, verge, 'rough') if grassy else Strip(plan.median, ROAD, asphalt)
    soil = rng.random() < 0.3
    label, border = (SIDEWALK, (118.0, 150.0, 172.0)) if soil else (TREE, verge)
    edge = plan.edge
    strips = (
        Strip(-edge - 1.2, TREE, verge, 'rough'),
        Strip(-edge, label, border, 'rough'),
        Strip(-plan.median, ROAD, asphalt),
        middle,
        Strip(edge, ROAD, asphalt),
        Strip(edge + 1.2, label, border, 'rough'),
        Strip(np.inf, TREE, verge, 'rough'),
    )
    inner_color = YELLOW if rng.random() < 0.4 else WHITE
    dash = ((3.0, 12.0), (6.0, 16.0), (4.0, 12.0))[rng.integers(3)]
    lines = []
    for side in (-1, 1):
        lines.append(Line(side * (plan.median + plan.inner), 0.18, inner_color))
        lines.append(Line(side * (edge - plan.shoulder), 0.2))
        lines += [Line(side * (plan.lane(k) + LANE / 2), 0.15, dash=dash) for k in range(plan.lanes - 1)]
    lanes = tuple(side * plan.lane(k) for side in (-1, 1) for k in range(plan.lanes))
    return Section(strips, tuple(lines), lanes, edge)


def _style(rng: np.random.Generator, weather: str | None) -> Style:
    """Draw the look of a motorway and paint its textures."""
    light = make_light(rng, weather, ALL_WEATHER)
    style = Style(light=light, speed=float(rng.uniform(22, 33)), half_road=12.0)
    dry = rng.random() < 0.4
    leaf = np.array([rng.uniform(36, 60), rng.uniform(84, 118), rng.uniform(66, 100)])
    style.verge = (76.0, 132.0, 148.0) if dry else tuple((leaf * (1.1, 1.05, 1.1)).tolist())
    for k in range(6):
        color = leaf * rng.uniform(0.7, 1.1, 3)
        style.trees.append(textures.pyramid(textures.crown(rng, color, k in (0, 3))))
    for kind, tone in (('panels', (128, 150, 150)), ('panels', (92, 120, 96)), ('plaster', (168, 190, 202))):
        tint = np.array(tone) * rng.uniform(0.85, 1.1)
        style.gables.append(textures.pyramid(scene_textures.long_wall(rng, tint, kind)))
    for picture in (
        textures.planks(rng, np.array([84.0, 96, 100])),
        textures.railing(np.array([130.0, 132, 130])),
        textures.hedge(rng, leaf * 0.8),
        scene_textures.concrete(rng, np.array([156.0, 164, 168]) * rng.uniform(0.75, 1.1)),
        scene_textures.grass(rng, np.array(style.verge)),
    ):
        style.fences.append(textures.pyramid(picture))
    return style


class Motorway(Route):
    """Motorway with two to four lanes in each direction; traffic on the right or on the left.

    Args:
        seed: Seed of the drive, 0 or more.
        weather: Name of the weather; None draws it.
    """

    def __init__(self, seed: int, weather: str | None = None) -> None:
        rng = np.random.default_rng([seed, 1, 1])
        road = Road(rng)
        road.height = road.height * (0.0, 0.15, 0.5)  # long bends alone
        style = _style(rng, weather)
        self.plan = plan = _plan(rng)
        style.half_road = plan.edge
        section = _section(rng, plan, style.verge)
        own = int(rng.integers(plan.lanes))
        streams = []
        for k in range(plan.lanes):
            cars = 3 if k == plan.lanes - 1 else 14
            kinds = ('car',) * cars + ('truck', 'truck', 'coach')
            speed = style.speed * (1 + plan.fast * (own - k))
            clear = float(rng.uniform(9, 30)) if k == own else 0.0
            share = float(rng.uniform(0.25, 0.75))
            streams.append(Stream(plan.hand * plan.lane(k), speed, 26.0, kinds, share, clear))
            streams.append(Stream(-plan.hand * plan.lane(k), -speed, 34.0, kinds, share * 0.8))
        mount = Mount(
            plan.hand * plan.lane(own),
            focal=float(rng.uniform(0.75, 1.25)),
            height=float(rng.uniform(1.2, 1.8)),
            pitch=float(rng.uniform(-0.06, 0.03)),
        )
        super().__init__(seed, road, style, mount, section if plan.hand > 0 else mirrored(section), streams)

    def roofed(self, chunk: int) -> bool:
        """Return whether the road leads through a tunnel along a chunk: on every fourth drive, now and then."""
        return self.seed % 4 == 1 and (chunk + self.seed) % 14 in (5, 6, 7)

    def furnish(self, chunk: int, rng: np.random.Generator) -> list[Item]:
        """Draw all things of a chunk."""
        plan, start = self.plan, chunk * CHUNK
        if self.roofed(chunk):
            half = plan.edge + 0.6
            starts = np.arange(start, start + CHUNK, PIECE)
            portal = [] if self.roofed(chunk - 1) else [Item('portal', start - 0.1, 0.0, size=half)]
            return [Item('tunnel', float(s), 0.0, length=PIECE, size=half) for s in starts] + portal
        items = self._barriers(chunk)
        for side in (-1, 1):
            items += self._beyond(rng, chunk, side)
        for k in range(2):
            items += [Item('marker', start + 24 * k + 3, side * (plan.edge + 0.35)) for side in (-1, 1)]
        own = plan.hand
        variant = int(rng.integers(1 << 12)) * 2 + self.seed % 2  # signs of one drive are all blue, or all green
        if chunk % 5 == 2:
            wide = plan.edge - plan.median + 1.5
            items.append(Item('gantry', start + 20, own * (plan.median + plan.edge) / 2, size=wide, variant=variant))
        elif rng.random() < 0.3:
            x = own * (plan.edge + 2.5)
            items.append(Item('board', start + 30, x, size=rng.uniform(2.2, 4.2), variant=variant))
        if rng.random() < 0.3:
            x = own * (plan.edge + 1.0)
            items.append(Item('sign', start + 12, x, size=2.4, variant=int(rng.choice([0, 2])), extra=(own,)))
        if self.seed % 3 == 0:
            items.append(Item('mast', start + 8, 0.0, size=11.0))
        elif self.seed % 3 == 1:
            side = own if chunk % 2 else -own
            items.append(Item('lamp', start + 8, side * (plan.edge + 0.9), size=10.0, variant=side))
        if (chunk + self.seed) % 9 == 4 and not self.roofed(chunk + 1):
            items.append(
                Item('bridge', start + 36, 0.0, length=9.0, size=plan.edge + 6, variant=int(rng.integers(1 << 8)))
            )
        return items

    def _barriers(self, chunk: int) -> list[Item]:
        """Return the barriers of the median and of the outer edges."""
        plan = self.plan
        wide = plan.median > 1
        rails = [(x, int(plan.concrete)) for x in ((-plan.median + 0.2, plan.median - 0.2) if wide else (0.0,))]
        for side in (-1, 1):
            # Most edges have a guard rail; it starts and ends with whole chunks.
            if np.random.default_rng([self.seed, 11, side + 1, (chunk // 3) & 0xFFFFFFFF]).random() < 0.7:
                rails.append((side * (plan.edge + 0.5), 0))
        starts = chunk * CHUNK + np.arange(0, CHUNK, PIECE)
        return [
            Item('guard rail', float(s), x, length=PIECE, size=0.95 if kind else 0.75, variant=kind)
            for x, kind in rails
            for s in starts
        ]

    def _beyond(self, rng: np.random.Generator, chunk: int, side: int) -> list[Item]:
        """Draw what stands beyond the verge on one side: trees, a noise wall, a bank, or open land."""
        plan, start = self.plan, chunk * CHUNK
        # A stretch of several chunks has one look.
        stretch = np.random.default_rng([self.seed, 10, side + 1, (chunk // 4) & 0xFFFFFFFF])
        kind = str(stretch.choice(['trees', 'trees', 'wall', 'bank', 'open']))
        edge, items = side * (plan.edge + plan.verge), []
        if kind == 'wall':
            variant, high = int(stretch.integers(3)), float(stretch.uniform(2.5, 5))
            x = side * (plan.edge + 2.2)
            for s in np.arange(start, start + CHUNK, PIECE):
                items.append(Item('wall', float(s), x, length=PIECE, size=high, variant=variant))
        elif kind == 'bank':
            high, wide = float(stretch.uniform(2.5, 6)), float(stretch.uniform(8, 14))
            for s in np.arange(start, start + CHUNK, PIECE):
                items.append(Item('bank', float(s), edge, length=PIECE, size=high, extra=(wide,)))
        depth = {'trees': 14, 'wall': 8, 'bank': 0, 'open': 60}[kind]
        count = {'trees': 22, 'wall': 6, 'bank': 0, 'open': 9}[kind]
        for _ in range(count):
            x = edge + side * rng.uniform(1.5, 2 + depth)
            high = rng.uniform(2.0, 4.5) if rng.random() < 0.3 else rng.uniform(5, 12)
            items.append(Item('tree', start + rng.uniform(0, CHUNK), x, size=float(high), variant=int(rng.integers(6))))
        return items
