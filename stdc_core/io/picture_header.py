# SPDX-License-Identifier: Apache-2.0
"""JPEG and PNG before they are decoded: how large they say they are, and whether they are whole.

A picture of a few kilobytes may claim gigabytes, and decoders allocate what is claimed.
"""

from __future__ import annotations

import re
import zlib
from typing import NamedTuple

_JPEG = b'\xff\xd8\xff'
_PNG = b'\x89PNG\r\n\x1a\n'

#: A JPEG's next marker, found as libjpeg finds it: it skips all that is none.
_MARKER = re.compile(b'\xff+([^\x00\xff])')

#: Markers of JPEG (ITU T.81, table B.1). Those of a frame tell its size.
_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
_WITHOUT_LENGTH = {0x01, *range(0xD0, 0xD8)}
_START_OF_SCAN, _END = 0xDA, b'\xff\xd9'

#: A picture has some tens of segments before its scans, and a progressive one about ten scans. Thousands take minutes.
MAX_SEGMENTS = 1000
MAX_SCANS = 100

#: A PNG is written in chunks of 8 KiB and more.
MAX_CHUNKS = 1 << 16

#: The chunks of a PNG that make its pixels. The others (colour profiles, texts, animation) are not for the decoder.
_PNG_CHUNKS = (b'IHDR', b'PLTE', b'tRNS', b'IDAT', b'IEND')


#: What a picture that :func:`read_picture` reads begins with.
SIGNATURES = (_JPEG, _PNG)


class PictureError(ValueError):
    """Bytes that are no whole JPEG or PNG; the message says what they are."""


class Picture(NamedTuple):
    """A JPEG or PNG that is whole: the size that it claims, and the bytes for the decoder."""

    width: int
    height: int
    data: bytes


def read_picture(data: bytes) -> Picture:
    """Look at the outside of a JPEG or PNG; nothing is decoded, nor allocated by the size that it claims.

    Raises:
        PictureError: it is neither, or it is cut off or damaged.
    """
    if data.startswith(_JPEG):
        return _read_jpeg(data)
    if data.startswith(_PNG):
        return _read_png(data)
    raise PictureError(f'the data begins with {data[:8]!r}' if data else 'there is no data')


def _read_jpeg(data: bytes) -> Picture:
    position, size = 2, None
    for _ in range(MAX_SEGMENTS):
        marker = _MARKER.search(data, position)
        if marker is None or marker.end() + 2 > len(data):
            raise PictureError('the JPEG is cut off before its pixels')
        kind, position = marker[1][0], marker.end()
        if kind in _WITHOUT_LENGTH:
            continue
        if kind == _START_OF_SCAN:
            break
        if kind in _FRAMES:
            if position + 7 > len(data):
                raise PictureError('the JPEG is cut off before its pixels')
            height, width = (int.from_bytes(data[position + at : position + at + 2], 'big') for at in (3, 5))
            size = width, height
        position += int.from_bytes(data[position : position + 2], 'big')
    else:
        raise PictureError(f'the JPEG has more than {MAX_SEGMENTS} segments before its pixels')
    if size is None:
        raise PictureError('the JPEG tells no size')
    # No other marker looks like these inside the pixels, where each byte 0xff is followed by 0.
    if data.rfind(_END, position) < 0:
        raise PictureError('the JPEG is cut off: it has no end')
    if data.count(bytes([0xFF, _START_OF_SCAN]), position) >= MAX_SCANS:
        raise PictureError(f'the JPEG has more than {MAX_SCANS} scans')
    return Picture(*size, data)


def _read_png(data: bytes) -> Picture:
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
