# SPDX-License-Identifier: Apache-2.0
"""Check JPEG and PNG before they are decoded: the size that they claim, and whether they are whole.

A picture of a few kilobytes may claim gigabytes, and decoders allocate what is claimed.
"""

from __future__ import annotations

import zlib
from typing import NamedTuple

from stdc_core.io.jpeg_header import JPEG_SIGNATURE, JpegError, read_jpeg

_PNG = b'\x89PNG\r\n\x1a\n'

#: Largest number of chunks in a PNG; encoders write chunks of 8 KiB and more.
MAX_CHUNKS = 1 << 16

#: Chunks of a PNG that make its pixels. Others (colour profiles, texts, animation) are not given to the decoder.
_PNG_CHUNKS = (b'IHDR', b'PLTE', b'tRNS', b'IDAT', b'IEND')


#: First bytes of the formats that :func:`read_picture` reads.
SIGNATURES = (JPEG_SIGNATURE, _PNG)


class PictureError(ValueError):
    """Data that is not a whole JPEG or PNG. The message says what was found."""


class Picture(NamedTuple):
    """Whole JPEG or PNG.

    Args:
        width: Claimed width, pixels.
        height: Claimed height, pixels.
        data: Bytes for a decoder.
    """

    width: int
    height: int
    data: bytes


def read_picture(data: bytes) -> Picture:
    """Check a JPEG or PNG, and read its size. Nothing is decoded, and the claimed size is not allocated.

    Args:
        data: Bytes of the file.

    Raises:
        PictureError: The data is not a JPEG or PNG, or it is cut off or damaged.
    """
    if data.startswith(JPEG_SIGNATURE):
        try:
            jpeg = read_jpeg(data)
        except JpegError as error:
            raise PictureError(str(error)) from error
        return Picture(jpeg.width, jpeg.height, jpeg.data)
    if data.startswith(_PNG):
        return read_png(data)
    raise PictureError(f'the data begins with {data[:8]!r}' if data else 'there is no data')


def read_png(data: bytes) -> Picture:
    """Read the size of a PNG, and the chunks that make its pixels.

    Args:
        data: Bytes of the file, from the signature on.

    Raises:
        PictureError: The data is cut off, or the checksum of a chunk is wrong.
    """
    if data[12:16] != b'IHDR' or int.from_bytes(data[8:12], 'big') != 13:
        raise PictureError('the PNG has no header')
    width, height = (int.from_bytes(data[at : at + 4], 'big') for at in (16, 20))
    kept, position = [_PNG], len(_PNG)
    for _ in range(MAX_CHUNKS):
        end = position + 12 + int.from_bytes(data[position : position + 4], 'big')
        kind = data[position + 4 : position + 8]
        if position + 12 > len(data) or end > len(data):
            raise PictureError('the PNG is cut off')
        if zlib.crc32(memoryview(data)[position + 4 : end - 4]) != int.from_bytes(data[end - 4 : end], 'big'):
            raise PictureError(f'the PNG is damaged: the checksum of its chunk {kind!r} is wrong')
        if kind in _PNG_CHUNKS:
            kept.append(data[position:end])
        if kind == b'IEND':
            return Picture(width, height, b''.join(kept))
        position = end
    raise PictureError(f'the PNG has more than {MAX_CHUNKS} chunks')
