# SPDX-License-Identifier: Apache-2.0
"""Draw a sheet of images, labels, predictions and errors side by side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np

from stdc_core.classes import ClassTable
from stdc_core.pictures.drawing import (
    DARK,
    LIGHT,
    Color,
    canvas,
    legend,
    put_text,
    shorten,
    swatch,
    text_width,
)
from stdc_core.pictures.overlay import WRONG, colorize, errors, hatch

#: Width and largest height of a picture in the sheet, pixels. A higher image is shown narrower.
WIDTH, HIGHEST = 420, 480
_GAP = 10
_COLUMNS = ('image', 'truth', 'prediction', 'errors')
_MUTED: Color = (160, 156, 152)


class Row(NamedTuple):
    """Row of the sheet.

    Args:
        image: uint8 BGR ``[H, W, 3]``.
        truth: Label, uint8 ``[H, W]``.
        prediction: Predicted ids, uint8 ``[H, W]``.
        caption: Text below the row, such as the name of the file.
        score: Text below the row, such as ``mIoU 73.1 %``.
    """

    image: np.ndarray
    truth: np.ndarray
    prediction: np.ndarray
    caption: str
    score: str


def sheet(groups: Sequence[tuple[str, Sequence[Row]]], classes: ClassTable, title: str, subtitle: str) -> np.ndarray:
    """Draw rows of image, label, prediction and errors, in groups with headings, and a legend.

    Errors are red on the dimmed image. Pixels without a label, which do not count, are hatched.

    Args:
        groups: Heading and rows of each group.
        classes: Classes of the ids.
        title: Title.
        subtitle: Line below the title.

    Returns:
        uint8 BGR ``[H, W, 3]``.
    """
    width = len(_COLUMNS) * (WIDTH + _GAP) + _GAP
    parts = [_head(width, title, subtitle)]
    for heading, rows in groups:
        parts += [_heading(width, heading), *(_band(row, classes, width) for row in rows)]
    return np.concatenate([*parts, _legends(classes, width)])


def _head(width: int, title: str, subtitle: str) -> np.ndarray:
    """Draw title and subtitle."""
    picture = canvas(76, width, DARK)
    put_text(picture, title, (_GAP, 36), 15, LIGHT, bold=True)
    put_text(picture, subtitle, (_GAP, 64), 10, _MUTED)
    return picture


def _heading(width: int, text: str) -> np.ndarray:
    """Draw the heading of a group, if it has one, and the names of the columns."""
    picture = canvas(66 if text else 38, width, DARK)
    put_text(picture, text, (_GAP, 26), 11, LIGHT, bold=True)
    for index, name in enumerate(_COLUMNS):
        put_text(picture, name, (_GAP + index * (WIDTH + _GAP), len(picture) - 12), 10, LIGHT)
    return picture


def _band(row: Row, classes: ClassTable, width: int) -> np.ndarray:
    """Draw a row."""
    scale = min(WIDTH / row.image.shape[1], HIGHEST / row.image.shape[0])
    size = (max(1, round(row.image.shape[1] * scale)), max(1, round(row.image.shape[0] * scale)))
    image = cv2.resize(row.image, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
    truth, prediction = (cv2.resize(ids, size, interpolation=cv2.INTER_NEAREST) for ids in (row.truth, row.prediction))
    unlabelled = truth >= len(classes)
    pictures = [
        image,
        hatch(colorize(truth, classes), unlabelled),
        colorize(prediction, classes),
        errors(image, ~unlabelled & (truth != prediction), unlabelled),
    ]
    band = canvas(size[1] + 34, width, DARK)
    for index, picture in enumerate(pictures):
        left = _GAP + index * (WIDTH + _GAP) + (WIDTH - size[0]) // 2
        band[: size[1], left : left + size[0]] = picture
    below = size[1] + 18
    put_text(band, shorten(row.caption, 9, 2 * WIDTH), (_GAP, below), 9, _MUTED)
    put_text(band, row.score, (width - _GAP, below), 9, LIGHT, 'right')
    return band


def _legends(classes: ClassTable, width: int) -> np.ndarray:
    """Draw the legends of errors and classes."""
    marks = canvas(52, width, DARK)
    left = 14
    for name in ('wrong', 'not labelled, does not count'):
        swatch(marks, (left, 16), 16, WRONG)
        if name != 'wrong':
            box = marks[17:31, left + 1 : left + 15]
            box[:] = hatch(box, np.ones(box.shape[:2], bool))
        put_text(marks, name, (left + 24, 29), 10, LIGHT)
        left += text_width(name, 10) + 60
    return np.concatenate([marks, legend(classes, width)])
