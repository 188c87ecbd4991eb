# SPDX-License-Identifier: Apache-2.0
"""Images and labels from files, with errors that name the file."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np

from stdc_core.classes import IGNORE

#: In a lookup table of ids: no label may have this value or colour.
UNKNOWN = 254

_PNG = b'\x89PNG\r\n\x1a\n'


class LabelError(ValueError):
    """A label that cannot be used; the message names the file.

    Args:
        unknown: pixels per id that the class table lacks, where that is what is wrong.
    """

    def __init__(self, message: str, unknown: dict[int, int] | None = None):
        super().__init__(message)
        self.unknown = unknown or {}


def read_image(path: Path) -> np.ndarray:
    """A picture as uint8 ``[H, W, 3]`` BGR, upright. Raises ValueError if it is none, OSError if it is not there."""
    return decode(path, path.read_bytes())


def decode(path: Path, data: bytes, flags: int = cv2.IMREAD_COLOR) -> np.ndarray:
    """The picture in a file's bytes. OpenCV does not get to see the name: of one that is not UTF-8, it crashes.

    Args:
        path: named in errors.
        flags: of ``cv2.imdecode``; by default uint8 ``[H, W, 3]`` BGR, upright.

    Raises:
        ValueError: it is none, or of more pixels than OpenCV allows.
    """
    try:
        array = cv2.imdecode(np.frombuffer(data, np.uint8), flags) if data else None
    except cv2.error as error:
        raise ValueError(f'{path}: cannot be read ({" ".join(str(error.err).split())})') from error
    if array is None:
        raise ValueError(f'{path}: not an image that OpenCV reads')
    return array


def read_ids(path: Path) -> np.ndarray:
    """A picture of ids as uint8 ``[H, W]``.

    Raises:
        ValueError: no picture, colours, 16 bits or less than 8.
        OSError: it is not there.
    """
    data = path.read_bytes()
    expected = 'expected one channel of 8-bit class ids, found'
    # Width, height, bits and kind of colour follow the signature, the length and the name of the first chunk.
    if data.startswith(_PNG) and len(data) > 25:
        bits, kind = data[24], data[25]
        if kind == 3:
            raise LabelError(f'{path}: {expected} a palette; save its indices as a greyscale PNG')
        # OpenCV would stretch these to 0 ... 255: a one would become 255, the ignored id.
        if kind == 0 and bits < 8:
            raise LabelError(f'{path}: {expected} a PNG of {bits} bits per pixel')
    label = decode(path, data, cv2.IMREAD_UNCHANGED)
    if label.ndim != 2 or label.dtype != np.uint8:
        raise LabelError(f'{path}: {expected} {label.dtype} {label.shape}')
    return label


def ids_of_colors(path: Path, colors: tuple[tuple[int, int, int], ...], ids: tuple[int, ...]) -> np.ndarray:
    """A picture of class colours as ids, uint8 ``[H, W]``.

    Args:
        colors: RGB, each with its entry in ``ids``.

    Raises:
        LabelError: the picture has another colour, which is named.
        ValueError: no picture.
        OSError: it is not there.
    """
    bgr = read_image(path)
    # Four bytes per pixel are one number per pixel: 0xAARRGGBB on machines that put the low byte first.
    packed = cv2.cvtColor(bgr, cv2.COLOR_BGR2BGRA).view('<u4')[..., 0] & 0xFFFFFF
    label = _color_lut(colors, ids).take(packed)
    if (label == UNKNOWN).any():
        codes, pixels = np.unique(packed[label == UNKNOWN], return_counts=True)
        names = [
            f'({code >> 16}, {code >> 8 & 255}, {code & 255}) in {count} pixels'
            for code, count in sorted(zip(codes.tolist(), pixels.tolist(), strict=True), key=lambda pair: -pair[1])
        ]
        raise LabelError(f'{path}: {some(names, 5)}: not one of the {len(colors)} colours (RGB) of the classes')
    return label


def count_ids(label: np.ndarray, classes: int, path: Path) -> np.ndarray:
    """Pixels per id, int64 ``[256]``.

    Raises:
        LabelError: an id is neither below ``classes`` nor 255; the message has the ids and their pixels.
    """
    counts = np.bincount(label.ravel(), minlength=256)
    unknown = {number: int(counts[number]) for number in range(classes, IGNORE) if counts[number]}
    if unknown:
        pixels = ', '.join(f'{number}: {count}' for number, count in unknown.items())
        message = f'class ids {list(unknown)} are not in the table of {classes} classes (pixels of {pixels})'
        raise LabelError(f'{path}: {message}', unknown)
    return counts


def some(items: Sequence[object], limit: int = 10) -> str:
    """The first items in words: ``a, b, c and 7 more``."""
    more = f' and {len(items) - limit} more' if len(items) > limit else ''
    return ', '.join(map(str, items[:limit])) + more


@lru_cache(maxsize=4)
def _color_lut(colors: tuple[tuple[int, int, int], ...], ids: tuple[int, ...]) -> np.ndarray:
    """Id per 24-bit colour, uint8 ``[2**24]``."""
    lut = np.full(1 << 24, UNKNOWN, np.uint8)
    lut[[red << 16 | green << 8 | blue for red, green, blue in colors]] = ids
    return lut
