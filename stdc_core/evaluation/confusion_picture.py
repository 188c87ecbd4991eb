# SPDX-License-Identifier: Apache-2.0
"""Draw the confusion matrix as a picture."""

from __future__ import annotations

import numpy as np

from stdc_core.classes import ClassTable
from stdc_core.evaluation.metrics import ConfusionMatrix
from stdc_core.pictures.drawing import (
    BLACK,
    GREY,
    WHITE,
    Color,
    canvas,
    drawn_names,
    put_slanted_text,
    put_text,
    swatch,
    text_width,
)

# Colours of a full cell, BGR: correct and wrong predictions.
_RIGHT, _WRONG = (150, 88, 24), (36, 40, 190)
_LINE = (222, 220, 218)
_CELL, _TEXT, _MARGIN = 54, 10, 28
_OUTSIDE = 'none of these'


def confusion_picture(confusion: ConfusionMatrix, classes: ClassTable, title: str, subtitle: str) -> np.ndarray:
    """Draw the pixels of each true class by predicted class, in percent, with IoU and share of all pixels.

    Correct predictions are blue, wrong ones red. Predictions outside the table have a column if there are any.

    Args:
        confusion: Confusion matrix.
        classes: Classes of the matrix.
        title: Title.
        subtitle: Line below the title.

    Returns:
        uint8 BGR ``[H, W, 3]``, as large as the class table needs.
    """
    counts = confusion.counts
    own = drawn_names(classes)
    names = [*own, _OUTSIDE] if counts[:, -1].any() else own
    pixels = counts.sum(axis=1)
    share = np.divide(counts, pixels[:, None], out=np.zeros(counts.shape), where=pixels[:, None] > 0)
    slant = int(max(text_width(name, _TEXT) for name in names) * 0.71) + 24
    left = max(text_width(name, _TEXT) for name in own) + 2 * _MARGIN + 24
    top = 104 + slant
    right = left + _CELL * len(names)
    width = max(right + 190 + slant // 2, text_width(subtitle, 10) + 2 * _MARGIN, text_width(title, 15, True) + 60)
    bottom = top + _CELL * len(classes)
    picture = canvas(bottom + 62, width, WHITE)

    put_text(picture, title, (_MARGIN, 46), 15, BLACK, bold=True)
    put_text(picture, subtitle, (_MARGIN, 74), 10, GREY)
    put_text(picture, 'true class', (left - 14, top - 10), _TEXT, GREY, 'right')
    for column, name in enumerate(names):
        put_slanted_text(picture, name, (left + column * _CELL + _CELL // 2 - 2, top - 12), _TEXT, BLACK)
    put_text(picture, 'IoU', (right + 90, top - 12), _TEXT, BLACK, 'right', bold=True)
    put_text(picture, 'pixels', (right + 170, top - 12), _TEXT, BLACK, 'right')
    palette, iou = classes.palette_bgr(), confusion.iou()
    for row, name in enumerate(own):
        middle = top + row * _CELL + _CELL // 2
        swatch(picture, (left - 30, middle - 8), 16, tuple(palette[row].tolist()))
        put_text(picture, name, (left - 38, middle + 5), _TEXT, BLACK, 'right')
        for column in range(len(names)):
            _cell(picture, (left + column * _CELL, top + row * _CELL), share[row, column], row == column, pixels[row])
        score = f'{100 * iou[row]:.1f}' if np.isfinite(iou[row]) else '-'
        put_text(picture, score, (right + 90, middle + 5), _TEXT, BLACK, 'right', bold=True)
        portion = f'{100 * pixels[row] / max(pixels.sum(), 1):.2f} %' if pixels[row] else '0'
        put_text(picture, portion, (right + 170, middle + 5), _TEXT, GREY, 'right')
    note = 'Columns: predicted class. Cells: percent of the row; blue: correct, red: wrong; empty: below 0.05.'
    put_text(picture, note, (_MARGIN, bottom + 36), 9, GREY)
    return picture


def _cell(picture: np.ndarray, corner: tuple[int, int], share: float, hit: bool, pixels: int) -> None:
    """Draw a cell of the matrix.

    Args:
        picture: Picture to draw on.
        corner: Column and row of the upper left pixel.
        share: Share of the row, 0 to 1.
        hit: Whether the predicted class is the true one.
        pixels: Number of pixels in the row.
    """
    x, y = corner
    # The square root makes wrong predictions visible, most of which are a few percent.
    strength = np.sqrt(share) if not hit else share
    full = np.array(_RIGHT if hit else _WRONG)
    color = (255 + (full - 255) * strength).round().astype(int)
    picture[y : y + _CELL, x : x + _CELL] = _LINE
    picture[y : y + _CELL - 1, x : x + _CELL - 1] = color if pixels else (246, 245, 244)
    if share >= 0.0005:
        ink: Color = WHITE if color @ (0.114, 0.587, 0.299) < 150 else BLACK
        text = f'{100 * share:.1f}' if share < 0.9995 else '100'
        put_text(picture, text, (x + _CELL // 2, y + _CELL // 2 + 5), _TEXT, ink, 'center', bold=hit)
