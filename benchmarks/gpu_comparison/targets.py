# SPDX-License-Identifier: Apache-2.0
"""Compare what the GPU benchmark measured with what it was to reach."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from gpu_comparison.plan import COMPILED, EAGER_16, EAGER_32, INT8, NETWORKS, PYTORCH, SEG50, SHIPPED, SMALL


class Target(NamedTuple):
    """A number to reach.

    Attributes:
        what: What is measured, with its unit.
        goal: Number to reach.
        accepted: Number that is accepted at first; the goal itself where only that counts.
        at_least: Whether more is better.
        value: Number that was measured; None if it was not.
    """

    what: str
    goal: float
    accepted: float
    at_least: bool
    value: float | None

    @property
    def verdict(self) -> str:
        """Whether the goal was met."""
        if self.value is None:
            return 'not measured'
        for limit, text in ((self.goal, 'met'), (self.accepted, 'accepted')):
            if self.value >= limit if self.at_least else self.value <= limit:
                return text
        return 'not met'


def targets(numbers: dict[str, Any], library: str) -> list[Target]:
    """Return the targets of a library, which are for an H200. Masks of rendered frames do not count."""
    rows = numbers['rows']
    times = {name: value_of(rows, library, 'fp16', name, 'device_ms') for name in NETWORKS}
    paper = [faster_than_pytorch(rows, name, name, times[name]) for name in NETWORKS if name != SMALL]
    eager, best = (smallest(ratios) for ratios in zip(*paper, strict=True))
    variants = f'variants of {SEG50}'
    fused = None
    for precision in ('fp32', 'fp16'):
        whole = value_of(rows, library, precision, SEG50, 'device_ms', variants, kernels=False)
        fused = ratio(whole, value_of(rows, library, precision, SEG50, 'device_ms', variants)) or fused
    real = numbers.get('data') is not None
    equal = value_of(rows, library, 'fp16', SHIPPED, 'equal')
    scores = [value_of(rows, library, 'int8', INT8, name) for name in ('miou_expected', 'miou')]
    lost = None if None in scores else scores[0] - scores[1]
    first = numbers.get('first_mask', {}).get(library, {})
    return [
        Target(f'{SMALL}, fp16, image and mask on the device, ms', 0.20, 0.35, False, times[SMALL]),
        Target(
            f'{SEG50}, fp16, bytes on the host to mask on the host, ms',
            1.0,
            1.0,
            False,
            value_of(rows, library, 'fp16', SEG50, 'host_ms'),
        ),
        Target("times as fast as PyTorch eager float32, the paper's four networks", 10, 10, True, eager),
        Target('times as fast as the best of PyTorch eager float16 and torch.compile, the same', 2, 2, True, best),
        Target('% of labels equal to float32, fp16, real frames', 99.9, 99.9, True, equal if real else None),
        Target('s from the start of a process to its first mask, empty cache', 10, 10, False, first.get('empty')),
        Target('the same, full cache', 3, 3, False, first.get('full')),
        Target('points of mIoU lost by int8, real frames', 0.5, 0.5, False, lost if real else None),
        Target('times as fast with our kernels as all in the engine', 1, 1, True, fused),
    ]


def value_of(
    rows: Iterable[dict[str, Any]],
    library: str,
    precision: str,
    model: str,
    name: str,
    group: str | None = None,
    kernels: bool = True,
) -> Any:
    """Return a number of a contender with one image; None if it was not measured.

    Args:
        rows: Rows of the comparison.
        library: Library.
        precision: Precision, or how PyTorch computes.
        model: Model.
        name: Name of the number.
        group: Title of the group; None takes the first group that has the contender.
        kernels: See ``Contender``.
    """
    wanted = (library, precision, model, kernels, 1)
    for row in rows:
        found = (row['library'], row['precision'], row['model'], row['kernels'], row['batch'])
        if found == wanted and group in (None, row['group']):
            return row.get(name)
    return None


def faster_than_pytorch(
    rows: list[dict[str, Any]], group: str, model: str, time: float | None
) -> tuple[float | None, float | None]:
    """Return how many times as fast a time is as PyTorch eager in float32, and as the best of PyTorch in float16.

    Both are from the same group. The second is None unless eager and compiled float16 were measured. ``max-autotune``,
    which has a group of its own, counts too.
    """
    eager = value_of(rows, PYTORCH, EAGER_32, model, 'device_ms', group)
    ways = [value_of(rows, PYTORCH, way, model, 'device_ms', group) for way in (EAGER_16, COMPILED)]
    if None in ways:
        return ratio(eager, time), None
    tuned = [row['device_ms'] for row in rows if row['library'] == PYTORCH and row['model'] == model]
    return ratio(eager, time), ratio(min(tuned), time)


def ratio(time: float | None, ours: float | None) -> float | None:
    """Return time divided by ours; None if one is missing."""
    return None if time is None or ours is None else time / ours


def smallest(values: Iterable[float | None]) -> float | None:
    """Return the smallest value; None if one is missing."""
    found = list(values)
    return None if None in found else min(value for value in found if value is not None)
