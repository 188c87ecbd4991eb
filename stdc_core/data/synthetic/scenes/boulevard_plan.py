# SPDX-License-Identifier: Apache-2.0
"""Draw the measures and the ground of a boulevard."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from stdc_core.data.synthetic.canvas import ROAD, SIDEWALK, TREE
from stdc_core.data.synthetic.section import STEEL, WHITE, YELLOW, Line, Section, Strip

LANE = 3.2  # width of a lane, metres
TRACK = 1.75  # distance of the middle of a tram track from the centre line, metres
CROSSING = 3  # every third chunk has a zebra crossing, and many of these a side road

_KERB = (176.0, 178.0, 178.0)


@dataclass(frozen=True)
class Plan:
    """Measures of a boulevard, metres.

    Args:
        median: ``'none'``, ``'tram'`` for a bed of tracks, ``'street tram'`` for tracks on the road, or ``'trees'``.
        middle: Half of the width of the median; 0 without one.
        lanes: Number of lanes in each direction.
        cycle: Width of the cycle lane; 0 for none.
        parking: Width of the strip for parked cars; 0 for none.
        walk: Width of the pavement.
    """

    median: str
    middle: float
    lanes: int
    cycle: float
    parking: float
    walk: float

    @property
    def half(self) -> float:
        """Half of the width of the road with its median."""
        return self.middle + self.lanes * LANE + self.cycle + self.parking

    def lane(self, number: int) -> float:
        """Return the distance of the middle of a lane from the centre line; lane 0 is the innermost one."""
        return self.middle + (number + 0.5) * LANE


def make_plan(rng: np.random.Generator) -> Plan:
    """Draw the measures of a boulevard."""
    median = str(rng.choice(['none', 'tram', 'tram', 'street tram', 'trees']))
    wide = {'none': 0.0, 'tram': 3.4, 'street tram': 0.0, 'trees': float(rng.uniform(1.2, 2.6))}[median]
    return Plan(
        median=median,
        middle=wide,
        lanes=2 if median == 'street tram' else int(rng.integers(1, 3)),
        cycle=float(rng.choice([0.0, 0.0, 1.7])),
        parking=float(rng.choice([0.0, 0.0, 2.3])),
        walk=float(rng.uniform(3.0, 7.0)),
    )


def make_section(rng: np.random.Generator, plan: Plan, verge: tuple[float, float, float]) -> Section:
    """Draw the ground of a boulevard, given its measures and the colour of its grass."""
    asphalt = np.array([1.03, 1.0, 0.98]) * rng.uniform(70, 130)
    road = tuple(asphalt.tolist())
    slabs = tuple((np.array([(150, 160, 166), (140, 152, 170), (128, 130, 132)][rng.integers(3)]) * 1.0).tolist())
    lawn = plan.median == 'trees' or rng.random() < 0.5
    bed = (TREE, verge, 'rough') if lawn else (ROAD, (118.0, 122.0, 124.0), 'slabs')
    cycle = (64.0, 70.0, 130.0) if rng.random() < 0.4 else road
    half, lane_edge = plan.half, plan.middle + plan.lanes * LANE
    cycle_edge = lane_edge + plan.cycle
    outward = [(plan.middle, *bed), (lane_edge, ROAD, road, 'asphalt'), (cycle_edge, ROAD, cycle, 'asphalt')]
    outward += [(half, ROAD, tuple((asphalt * 0.94).tolist()), 'asphalt')]
    right = [Strip(edge, label, color, surface) for edge, label, color, surface in outward]
    lefts = [Strip(-inner[0], *outer[1:]) for inner, outer in pairwise(outward)][::-1]
    strips = (Strip(-half, SIDEWALK, slabs, 'slabs'), *lefts, *right, Strip(np.inf, SIDEWALK, slabs, 'slabs'))
    lines: list[Line] = []
    painted = bool(rng.random() < 0.3)  # kerbs in two colours, as in Israel
    tint = [(40.0, 40.0, 190.0), (160.0, 90.0, 30.0)][rng.integers(2)]
    for side in (-1, 1):
        lines += [Line(side * (plan.middle + k * LANE), 0.12, dash=(2.0, 6.0)) for k in range(1, plan.lanes)]
        if plan.cycle:
            lines.append(Line(side * (lane_edge + 0.1), 0.12))
        if plan.parking:
            lines.append(Line(side * (half - plan.parking), 0.1, dash=(1.0, 2.0) if rng.random() < 0.5 else None))
        kerbs = [half + 0.1] + ([plan.middle - 0.1] if plan.middle else [])
        for x in kerbs:
            lines.append(Line(side * x, 0.2, _KERB, worn=False))
            if painted:
                lines.append(Line(side * x, 0.2, tint, (1.0, 2.0), worn=False))
        if 'tram' in plan.median:
            lines += [Line(side * TRACK + rail, 0.09, STEEL, worn=False) for rail in (-0.72, 0.72)]
    if not plan.middle:
        paint = YELLOW if rng.random() < 0.15 else WHITE
        lines.append(Line(0.0, 0.12, paint, (3.0, 6.0) if rng.random() < 0.5 else None))
    lanes = tuple(side * plan.lane(k) for side in (-1, 1) for k in range(plan.lanes))
    return Section(strips, tuple(lines), lanes, half, zebras=CROSSING, lamps=(24.0, half - 1.5))
