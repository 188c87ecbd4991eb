# SPDX-License-Identifier: Apache-2.0
"""Show the results on several datasets in one table, so that a network must be good on all of them."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from stdc_core.evaluation.evaluate import Evaluation

#: Class with a column of its own.
ROAD = 'road'


def table(names: Sequence[str], evaluations: Sequence[Evaluation]) -> str:
    """Return images, mIoU and road IoU of each dataset, and their means, as lines of text.

    Args:
        names: Name of each dataset.
        evaluations: Result on each dataset. The road is the class ``road``.
    """
    rows = [
        (name, str(len(each.images)), each.confusion.miou(), _road(each))
        for name, each in zip(names, evaluations, strict=True)
    ]
    rows.append(('mean', '', _mean([row[2] for row in rows]), _mean([row[3] for row in rows])))
    width = max(16, *(len(row[0]) for row in rows))
    lines = [f'{"":>{width}} {"images":>7} {"mIoU":>8} {"road":>8}']
    lines += [f'{name:>{width}} {images:>7} {_percent(miou)} {_percent(road)}' for name, images, miou, road in rows]
    return '\n'.join(lines)


def _road(evaluation: Evaluation) -> float:
    """Return the IoU of the road, or NaN if there is no such class."""
    names = evaluation.classes.names
    return float(evaluation.confusion.iou()[names.index(ROAD)]) if ROAD in names else math.nan


def _mean(values: list[float]) -> float:
    """Return the mean of the values that are numbers, or NaN if none is."""
    known = [value for value in values if math.isfinite(value)]
    return float(np.mean(known)) if known else math.nan


def _percent(value: float) -> str:
    """Return a share in percent, or a dash for NaN, 8 characters wide."""
    return f'{100 * value:>6.2f} %' if math.isfinite(value) else f'{"-":>8}'
