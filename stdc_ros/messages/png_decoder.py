# SPDX-License-Identifier: Apache-2.0
"""Decode PNG after checking its chunks and pixels.

libpng reports damage only by a line on stderr for each picture, and OpenCV returns the pixels that were decoded until
then. So damage is detected here, and chunks that libpng warns about are removed.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

import cv2
import numpy as np

from stdc_ros.messages.decoder_error import DecoderError

#: Number of samples in a pixel, and allowed bits of a sample, by colour type (PNG specification, table 11.1).
_GREY, _PALETTE = 0, 3
_TYPES = {0: (1, (1, 2, 4, 8, 16)), 2: (3, (8, 16)), 3: (1, (1, 2, 4, 8)), 4: (2, (8, 16)), 6: (4, (8, 16))}

#: Passes of an interlaced image (Adam7): first column and row, and the steps between columns and between rows.
_ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))

_SIGNATURE = b'\x89PNG\r\n\x1a\n'


def is_16_bit_png(data: bytes) -> bool:
    """Return whether the data is a PNG with 16 bits in each channel."""
    return data.startswith(_SIGNATURE) and data[24:25] == bytes((16,))


def is_grey_16_bit_png(data: bytes) -> bool:
    """Return whether the data is a PNG with one channel of 16 bits."""
    return is_16_bit_png(data) and data[25:26] == bytes((_GREY,))


def decode_png(data: bytes, unchanged: bool = False) -> np.ndarray:
    """Decode a PNG; transparency is ignored.

    Args:
        data: Bytes that ``stdc_core.io.picture_header.read_picture`` has returned, with valid chunks.
        unchanged: Whether to keep the number of channels and 16 bits.

    Returns:
        uint8 BGR ``[H, W, 3]``. If ``unchanged``, uint8 or uint16: grey ``[H, W]``, BGR or BGRA ``[H, W, C]``.

    Raises:
        DecoderError: The header is invalid, or pixels are missing or damaged.
    """
    chunks = list(_chunks(data))
    header = chunks[0][1]
    width, height, bits, colour, compression, filtering, interlace = struct.unpack('>II5B', header)
    samples, allowed = _TYPES.get(colour, (0, ()))
    if bits not in allowed or compression or filtering or interlace > 1 or not width or not height:
        raise DecoderError(f'the header of the PNG is invalid: {header.hex(" ")}')
    palette = next((content for kind, content in chunks if kind == b'PLTE'), b'')
    if colour == _PALETTE and not palette:
        raise DecoderError('the PNG has no palette')
    stream = _checked_pixels(
        b''.join(content for kind, content in chunks if kind == b'IDAT'),
        list(_passes(width, height, bits * samples, bool(interlace))),
    )
    kept = [(b'IHDR', header), (b'IDAT', stream), (b'IEND', b'')]
    if colour == _PALETTE:
        size = 3 << bits  # in full: libpng warns about pixels outside the palette
        kept.insert(1, (b'PLTE', palette[:size].ljust(size, b'\0')))
    clean = _SIGNATURE + b''.join(_chunk(kind, content) for kind, content in kept)
    flags = cv2.IMREAD_UNCHANGED if unchanged else cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
    image = cv2.imdecode(np.frombuffer(clean, np.uint8), flags)
    if image is None:
        raise DecoderError('OpenCV cannot decode the PNG')
    return image


def _chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    position = len(_SIGNATURE)
    while position < len(data):
        length = int.from_bytes(data[position : position + 4], 'big')
        yield data[position + 4 : position + 8], data[position + 8 : position + 8 + length]
        position += 12 + length


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack('>I', len(content)) + kind + content + struct.pack('>I', zlib.crc32(kind + content))


def _passes(width: int, height: int, bits: int, interlaced: bool) -> Iterator[tuple[int, int]]:
    """Yield for each pass with pixels its number of rows, and the bytes of a row with its filter type."""
    for left, top, across, down in _ADAM7 if interlaced else ((0, 0, 1, 1),):
        columns, rows = -(-(width - left) // across), -(-(height - top) // down)
        if columns > 0 and rows > 0:
            yield rows, 1 + (columns * bits + 7) // 8


def _checked_pixels(stream: bytes, passes: list[tuple[int, int]]) -> bytes:
    """Return the compressed pixels without any bytes behind them.

    Args:
        stream: Content of all IDAT chunks.
        passes: Result of :func:`_passes`.

    Raises:
        DecoderError: Pixels are missing or damaged.
    """
    expected = sum(rows * row for rows, row in passes)
    inflate = zlib.decompressobj()
    try:
        pixels = inflate.decompress(stream, expected + 1)
    except zlib.error as error:
        raise DecoderError(f'the pixels of the PNG are damaged: {error}') from error
    if len(pixels) < expected:
        raise DecoderError(f'the PNG has {len(pixels)} bytes of pixels, expected {expected}')
    start = 0
    for rows, row in passes:
        if max(pixels[start : start + rows * row : row]) > 4:
            raise DecoderError('the pixels of the PNG are damaged: unknown filter type')
        start += rows * row
    whole = len(pixels) == expected and inflate.eof and not inflate.unused_data
    return stream if whole else zlib.compress(pixels[:expected], 0)
