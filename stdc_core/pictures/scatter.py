# SPDX-License-Identifier: Apache-2.0
"""Draw a scatter plot with named points, such as speed against accuracy."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np

from stdc_core.pictures.drawing import GREY, WHITE, Color, canvas, put_text, text_width

_INK: Color = (50, 46, 42)
_GRID: Color = (228, 226, 224)
_LEFT, _RIGHT, _TOP, _BOTTOM = 90, 190, 70, 70
_NAME_SIZE, _LINE = 9, 16  # height of capital letters, and of a line, pixels


class Point(NamedTuple):
    """A point of a scatter plot.

    Attributes:
        x: Horizontal value.
        y: Vertical value.
        name: Text beside the point.
        color: BGR colour.
    """

    x: float
    y: float
    name: str
    color: Color


def scatter(
    points: Sequence[Point], title: str, x_label: str, y_label: str, size: tuple[int, int] = (720, 1100)
) -> np.ndarray:
    """Return a scatter plot.

    Args:
        points: Points, one at least.
        title: Line above the plot.
        x_label: Name of the horizontal axis.
        y_label: Name of the vertical axis.
        size: (height, width) of the picture in pixels.

    Returns:
        uint8 BGR ``[*size, 3]``.
    """
    picture = canvas(*size, WHITE)
    height, width = size
    x_ticks = ticks([point.x for point in points])
    y_ticks = ticks([point.y for point in points])

    def place(x: float, y: float) -> tuple[int, int]:
        across = (x - x_ticks[0]) / (x_ticks[-1] - x_ticks[0])
        up = (y - y_ticks[0]) / (y_ticks[-1] - y_ticks[0])
        column = _LEFT + across * (width - _LEFT - _RIGHT)
        return round(column), round(height - _BOTTOM - up * (height - _TOP - _BOTTOM))

    for x in x_ticks:
        cv2.line(picture, place(x, y_ticks[0]), place(x, y_ticks[-1]), _GRID, 1)
        put_text(picture, f'{x:g}', (place(x, y_ticks[0])[0], height - _BOTTOM + 22), 9, GREY, 'center')
    for y in y_ticks:
        cv2.line(picture, place(x_ticks[0], y), place(x_ticks[-1], y), _GRID, 1)
        put_text(picture, f'{y:g}', (_LEFT - 12, place(x_ticks[0], y)[1] + 4), 9, GREY, 'right')
    put_text(picture, title, (_LEFT, 32), 13, _INK, bold=True)
    put_text(picture, x_label, ((width - _RIGHT + _LEFT) // 2, height - 18), 10, _INK, 'center')
    put_text(picture, y_label, (20, _TOP - 14), 10, _INK)
    dots = [place(point.x, point.y) for point in points]
    for point, dot, (column, row) in zip(
        points, dots, place_names([point.name for point in points], dots), strict=True
    ):
        cv2.circle(picture, dot, 6, point.color, -1, cv2.LINE_AA)
        put_text(picture, point.name, (column, row), _NAME_SIZE, _INK)
    return picture


def place_names(names: Sequence[str], dots: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return where names are written: right of their dots, and moved down where another name is.

    Args:
        names: Name of each point.
        dots: Column and row of each point, pixels.

    Returns:
        Column and row of the left end of each baseline.
    """
    taken: list[tuple[int, int, int]] = []  # left, right, row
    found: dict[int, tuple[int, int]] = {}
    for index in sorted(range(len(dots)), key=lambda index: dots[index][1]):
        left, row = dots[index][0] + 11, dots[index][1] + 4
        right = left + text_width(names[index], _NAME_SIZE)
        while any(left < end and begin < right and abs(row - line) < _LINE for begin, end, line in taken):
            row += 1
        taken.append((left, right, row))
        found[index] = left, row
    return [found[index] for index in range(len(dots))]


def ticks(values: Sequence[float]) -> list[float]:
    """Return at most about six round numbers, evenly spaced, that enclose all values."""
    low, high = min(values), max(values)
    if high == low:
        low, high = low - 1, high + 1
    step = 10 ** math.floor(math.log10((high - low) / 5))
    step *= next(factor for factor in (1, 2, 5, 10) if factor * step * 6 >= high - low)
    first, last = math.floor(low / step), math.ceil(high / step)
    return [index * step for index in range(first, last + 1)]
