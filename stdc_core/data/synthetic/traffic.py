# SPDX-License-Identifier: Apache-2.0
"""Drive vehicles in streams: one behind the other, all at one speed, so that they never collide."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from stdc_core.data.synthetic.item import Item
from stdc_core.data.synthetic.paints import bright_cloth, car_paint
from stdc_core.data.synthetic.world import VIEW

#: Kinds that people ride, whose tint is that of clothes.
RIDDEN = ('cyclist', 'motorcycle')

COUPLED = 9.6  # distance of the middles of two sections of a train, metres


@dataclass(frozen=True)
class Stream:
    """Vehicles on one lane.

    Args:
        x: Distance of the lane to the right of the centre line, metres.
        speed: Speed along the road, m/s; negative towards the camera.
        gap: Distance from one place for a vehicle to the next, metres; longer than the longest vehicle.
        kinds: Kinds of items to draw from; a kind that is listed twice is twice as likely.
        share: Share of the places that are taken.
        clear: Distance ahead of the camera without vehicles, metres; 0 for a lane on which the camera does not drive.
        wander: Distance by which a vehicle may be off the middle of the lane, metres.
        train: Number of sections of each vehicle.
    """

    x: float
    speed: float
    gap: float
    kinds: tuple[str, ...] = ('car',)
    share: float = 0.7
    clear: float = 0.0
    wander: float = 0.3
    train: int = 1


@lru_cache(maxsize=4096)
def _vehicle(stream: Stream, seed: int, number: int, k: int) -> Item | None:
    """Return the vehicle at place ``k`` of a stream at time 0, or None."""
    rng = np.random.default_rng([seed, 9, number, k & 0xFFFFFFFF])
    if rng.random() > stream.share:
        return None
    kind = str(rng.choice(stream.kinds))
    room = stream.gap - {'car': 6, 'van': 7, 'bus': 13, 'coach': 13, 'truck': 16, 'carrier': 9, 'tram': 32}.get(kind, 3)
    return Item(
        kind,
        k * stream.gap + rng.uniform(0, max(room, 0.0)),
        stream.x + rng.uniform(-1, 1) * stream.wander,
        stream.speed,
        size=rng.uniform(0.95, 1.05),
        variant=int(rng.integers(1 << 16)),
        tint=bright_cloth(rng) if kind in RIDDEN else car_paint(rng),
    )


def vehicles_in_view(stream: Stream, seed: int, number: int, time: float, here: float) -> Iterator[tuple[Item, float]]:
    """Yield the vehicles of a stream in view, with their turn from the road in radians.

    Args:
        stream: Stream.
        seed: Seed of the drive.
        number: Number of the stream in the scene.
        time: Time since the start, seconds.
        here: Distance of the camera along the road, metres.
    """
    moved = stream.speed * time
    first, last = (int(np.floor((here + reach - moved) / stream.gap)) for reach in (-20.0, VIEW))
    for k in range(first, last + 1):
        vehicle = _vehicle(stream, seed, number, k)
        if vehicle is None:
            continue
        for section in range(stream.train):
            s = vehicle.s + moved + section * COUPLED
            if not (stream.clear and -10.0 < s - here < stream.clear):
                yield replace(vehicle, s=s), np.pi if stream.speed < 0 else 0.0
