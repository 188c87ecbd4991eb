# SPDX-License-Identifier: Apache-2.0
"""Read images and labels from files, with errors that name the file."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np

from stdc_core.classes import IGNORE
from stdc_core.io.jpeg_header import JPEG_SIGNATURE

#: Value for unknown ids and colours in lookup tables of ids.
UNKNOWN = 254

_PNG = b'\x89PNG\r\n\x1a\n'


class LabelError(ValueError):
    """A label that cannot be used. The message names the file.

    Args:
        message: Message.
        unknown: Number of pixels of each id that the class table lacks.
    """

    def __init__(self, message: str, unknown: dict[int, int] | None = None):
        super().__init__(message)
        self.unknown = unknown or {}


def read_image(path: Path) -> np.ndarray:
    """Read an image, turned upright by its EXIF data.

    Args:
        path: File.

    Returns:
        uint8 BGR ``[H, W, 3]``.

    Raises:
        ValueError: The file is not an image.
        OSError: The file cannot be read.
    """
    return decode(path, _bytes(path))


def decode(path: Path, data: bytes, flags: int = cv2.IMREAD_COLOR) -> np.ndarray:
    """Decode an image from the bytes of a file. OpenCV would crash on a file name that is not UTF-8.

    Args:
        path: File, for errors.
        data: Bytes of the file.
        flags: Flags of ``cv2.imdecode``.

    Returns:
        uint8 BGR ``[H, W, 3]``, upright, with the default flags.

    Raises:
        ValueError: The bytes are not an image, or one with more pixels than OpenCV allows.
    """
    try:
        array = cv2.imdecode(np.frombuffer(data, np.uint8), flags) if data else None
    except cv2.error as error:
        raise ValueError(f'{path}: cannot be read ({" ".join(str(error.err).split())})') from error
    if array is None:
        raise ValueError(f'{path}: not an image that OpenCV reads')
    return array


def read_ids(path: Path) -> np.ndarray:
    """Read an image of class ids.

    Args:
        path: File.

    Returns:
        uint8 ``[H, W]``.

    Raises:
        ValueError: The file is not an image, or does not have one channel of 8 bits.
        OSError: The file cannot be read.
    """
    data = _bytes(path)
    expected = 'expected one channel of 8-bit class ids, found'
    # In a PNG, width, height, bits and colour type follow the signature, and the length and name of the first chunk.
    if data.startswith(_PNG) and len(data) > 25:
        bits, kind = data[24], data[25]
        if kind == 3:
            raise LabelError(f'{path}: {expected} a palette; save its indices as a greyscale PNG')
        # OpenCV would stretch these to 0 to 255: with one bit, id 1 would become 255, the ignored id.
        if kind == 0 and bits < 8:
            raise LabelError(f'{path}: {expected} a PNG of {bits} bits per pixel')
    if data.startswith(JPEG_SIGNATURE):
        raise LabelError(f'{path}: {expected} a JPEG, whose compression changes ids; export the labels as PNG')
    label = decode(path, data, cv2.IMREAD_UNCHANGED)
    if label.ndim != 2 or label.dtype != np.uint8:
        raise LabelError(f'{path}: {expected} {label.dtype} {label.shape}')
    return label


def ids_of_colors(path: Path, colors: tuple[tuple[int, int, int], ...], ids: tuple[int, ...]) -> np.ndarray:
    """Read an image of class colours as ids.

    Args:
        path: File.
        colors: RGB colours.
        ids: Id of each colour.

    Returns:
        uint8 ``[H, W]``.

    Raises:
        LabelError: The image has another colour. The message names it.
        ValueError: The file is not an image.
        OSError: The file cannot be read.
    """
    bgr = read_image(path)
    # The four bytes of a pixel, read as one little-endian number, are 0xAARRGGBB.
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
    """Count the pixels of each id.

    Args:
        label: uint8 ``[H, W]``.
        classes: Number of classes; ids are smaller than this, or 255.
        path: File, for errors.

    Returns:
        int64 ``[256]``.

    Raises:
        LabelError: The label has another id. The message names the ids and counts their pixels.
    """
    counts = np.bincount(label.ravel(), minlength=256)
    unknown = {number: int(counts[number]) for number in range(classes, IGNORE) if counts[number]}
    if unknown:
        pixels = ', '.join(f'{number}: {count}' for number, count in unknown.items())
        message = f'class ids {list(unknown)} are not in the table of {classes} classes (pixels of {pixels})'
        raise LabelError(f'{path}: {message}', unknown)
    return counts


def _bytes(path: Path) -> bytes:
    """Return the bytes of a file. Unlike ``Path.read_bytes``, every OSError names the file."""
    try:
        return path.read_bytes()
    except OSError as error:
        if error.filename is not None:
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error


def some(items: Sequence[object], limit: int = 10) -> str:
    """Return the first items in words, such as ``a, b, c and 7 more``."""
    more = f' and {len(items) - limit} more' if len(items) > limit else ''
    return ', '.join(map(str, items[:limit])) + more


@lru_cache(maxsize=4)
def _color_lut(colors: tuple[tuple[int, int, int], ...], ids: tuple[int, ...]) -> np.ndarray:
    """Return the id of each 24-bit RGB colour, uint8 ``[2**24]``."""
    lut = np.full(1 << 24, UNKNOWN, np.uint8)
    lut[[red << 16 | green << 8 | blue for red, green, blue in colors]] = ids
    return lut
