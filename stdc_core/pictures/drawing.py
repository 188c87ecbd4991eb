# SPDX-License-Identifier: Apache-2.0
"""Draw text, swatches and legends on uint8 BGR pictures.

Text is drawn large by OpenCV and shrunk, which makes its strokes smooth.
"""

from __future__ import annotations

from typing import Literal

import cv2
import numpy as np

from stdc_core.classes import ClassTable

Color = tuple[int, int, int]

#: Colours, BGR.
DARK, LIGHT = (32, 30, 28), (235, 235, 235)
WHITE, BLACK, GREY = (255, 255, 255), (30, 28, 26), (130, 126, 122)

_FONT = cv2.FONT_HERSHEY_DUPLEX
_ENLARGED = 4
# Height of capital letters in the units of OpenCV's font.
_CAPITAL = 21


def canvas(height: int, width: int, color: Color) -> np.ndarray:
    """Return a picture of one colour, uint8 ``[height, width, 3]``."""
    return np.full((height, width, 3), color, np.uint8)


def text_mask(text: str, size: float, bold: bool = False) -> tuple[np.ndarray, int]:
    """Return the coverage of a line of text, and the row of its baseline.

    Args:
        text: Text; letters outside ASCII become question marks.
        size: Height of the capital letters, pixels.
        bold: Whether strokes are thicker.

    Returns:
        Coverage, float32 ``[h, w]``, 0 to 1, and the row.
    """
    scale = _ENLARGED * size / _CAPITAL
    stroke = max(1, round(_ENLARGED * size * (0.16 if bold else 0.11)))
    plain = text.encode('ascii', 'replace').decode()  # the font has no other letters
    (width, height), below = cv2.getTextSize(plain, _FONT, scale, stroke)
    pad = stroke + _ENLARGED
    ascent, total = (-(-(n + pad) // _ENLARGED) for n in (height, height + below + pad))
    picture = np.zeros((total * _ENLARGED, -(-(width + 2 * pad) // _ENLARGED) * _ENLARGED), np.uint8)
    cv2.putText(picture, plain, (pad, ascent * _ENLARGED), _FONT, scale, 255, stroke, cv2.LINE_AA)
    shrunk = cv2.resize(picture, None, fx=1 / _ENLARGED, fy=1 / _ENLARGED, interpolation=cv2.INTER_AREA)
    return shrunk.astype(np.float32) / 255, ascent


def text_width(text: str, size: float, bold: bool = False) -> int:
    """Return the width of a line of text in pixels."""
    return text_mask(text, size, bold)[0].shape[1]


def put_text(
    picture: np.ndarray,
    text: str,
    at: tuple[int, int],
    size: float,
    color: Color = LIGHT,
    align: Literal['left', 'center', 'right'] = 'left',
    bold: bool = False,
    outline: Color | None = None,
) -> None:
    """Draw a line of text into a picture. Parts outside the picture are left out.

    Args:
        picture: uint8 BGR ``[H, W, 3]``, changed in place.
        text: Text of ASCII letters.
        at: Column and row of the left end, centre or right end of the baseline.
        size: Height of the capital letters, pixels.
        color: BGR colour.
        align: Point of the baseline that is at ``at``.
        bold: Whether strokes are thicker.
        outline: BGR colour around the letters, for text on a photograph.
    """
    mask, ascent = text_mask(text, size, bold)
    shift = {'left': 0, 'center': mask.shape[1] // 2, 'right': mask.shape[1]}[align]
    if outline is not None:
        halo = np.minimum(2 * cv2.GaussianBlur(cv2.dilate(mask, np.ones((3, 3))), (3, 3), 0), 1)
        paint(picture, halo, (at[0] - shift, at[1] - ascent), outline)
    paint(picture, mask, (at[0] - shift, at[1] - ascent), color)


def put_slanted_text(picture: np.ndarray, text: str, at: tuple[int, int], size: float, color: Color) -> None:
    """Draw text that rises at 45 degrees; its baseline begins at ``at`` (column, row)."""
    mask, ascent = text_mask(text, size)
    side = mask.shape[0] + mask.shape[1]
    # Turns the text about the left end of its baseline, which moves to the lower left of a square.
    turn = cv2.getRotationMatrix2D((0, ascent), 45, 1)
    turn[:, 2] += (mask.shape[0], side - mask.shape[0] - ascent)
    turned = cv2.warpAffine(mask, turn, (side, side), flags=cv2.INTER_LINEAR)
    paint(picture, turned, (at[0] - mask.shape[0], at[1] - side + mask.shape[0]), color)


def paint(picture: np.ndarray, coverage: np.ndarray, corner: tuple[int, int], color: Color) -> None:
    """Blend a colour into a picture.

    Args:
        picture: uint8 BGR ``[H, W, 3]``, changed in place.
        coverage: Weight of the colour, float32 ``[h, w]``, 0 to 1.
        corner: Column and row of the upper left pixel of ``coverage``, which may be outside the picture.
        color: BGR colour.
    """
    left, top = corner
    rows = slice(max(top, 0), min(top + coverage.shape[0], picture.shape[0]))
    columns = slice(max(left, 0), min(left + coverage.shape[1], picture.shape[1]))
    if rows.start >= rows.stop or columns.start >= columns.stop:
        return
    weight = coverage[rows.start - top : rows.stop - top, columns.start - left : columns.stop - left, None]
    region = picture[rows, columns]
    picture[rows, columns] = (region + (np.array(color, np.float32) - region) * weight).round().astype(np.uint8)


def shorten(text: str, size: float, width: int) -> str:
    """Return the text, with dots in its middle if it is wider than ``width`` pixels."""
    short, kept = text, len(text)
    while kept > 2 and text_width(short, size) > width:
        kept -= 1
        short = text[: kept // 2] + '...' + text[len(text) - kept + kept // 2 :]
    return short


def swatch(picture: np.ndarray, at: tuple[int, int], size: int, color: Color, edge: Color = GREY) -> None:
    """Draw a square with a thin edge; ``at`` (column, row) is its upper left corner."""
    cv2.rectangle(picture, at, (at[0] + size - 1, at[1] + size - 1), color, -1)
    cv2.rectangle(picture, at, (at[0] + size - 1, at[1] + size - 1), edge, 1)


def drawn_names(classes: ClassTable) -> list[str]:
    """Return the class names that the font can draw, and ``class ID`` for a name with letters outside ASCII."""
    return [name if name.isascii() else f'class {index}' for index, name in enumerate(classes.names)]


def legend(classes: ClassTable, width: int, background: Color = DARK, color: Color = LIGHT) -> np.ndarray:
    """Return a legend of colours and class names in columns, uint8 BGR ``[*, width, 3]``."""
    size, box, line, gap = 10, 16, 28, 14
    names = drawn_names(classes)
    cell = max(text_width(name, size) for name in names) + box + 8 + 20
    columns = max(1, min((width - 2 * gap) // cell, len(classes)))
    rows = -(-len(classes) // columns)
    picture = canvas(rows * line + gap, width, background)
    palette = classes.palette_bgr()
    for index, name in enumerate(names):
        left, top = gap + index % columns * cell, index // columns * line
        swatch(picture, (left, top), box, tuple(palette[index].tolist()))
        put_text(picture, name, (left + box + 8, top + 13), size, color)
    return picture
