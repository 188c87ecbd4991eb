# SPDX-License-Identifier: Apache-2.0
"""Decode JPEGs with bytes that cameras add behind pixels: before the end marker and before restart markers.

libjpeg warns about them in the same words as about damage that made it lose its place. Few bytes, or any number of
zeros, are the camera's. Many other bytes are the code of pixels that were not decoded.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Protocol

import numpy as np

from stdc_core.io.jpeg_header import Jpeg
from stdc_ros.messages.decoder_error import DecoderError


class Decode(Protocol):
    """Decoder of a JPEG."""

    def __call__(self, data: bytes, strict: bool = True) -> np.ndarray:
        """Decode a JPEG; raise DecoderError if that fails or, if ``strict``, with the first warning of libjpeg."""


#: Largest number of bytes that cameras add before a marker. Damage mostly leaves more: the code of whole blocks.
_MAX_EXTRA = 8

#: Warning of libjpeg about such bytes, with their number and the marker (jerror.h, JWRN_EXTRANEOUS_DATA): restart
#: marker 0xd0 to 0xd7, or end marker.
_EXTRA = re.compile(r'(\d+) extraneous bytes before marker 0x(d[0-79])')

_END = b'\xff\xd9'
_RESTART_MARKER = re.compile(rb'\xff([\xd0-\xd7])')

#: Largest width and height of a JPEG that libjpeg decodes (jmorecfg.h, JPEG_MAX_DIMENSION).
_MAX_SIDE = 65500


def decode_with_extra_bytes(decode: Decode, jpeg: Jpeg, error: DecoderError) -> np.ndarray:
    """Decode a JPEG with bytes before its markers that belong to no pixel.

    Args:
        decode: Decoder.
        jpeg: JPEG to decode.
        error: Error that ``decode`` raised.

    Raises:
        DecoderError: Other bytes are wrong, or pixels are missing.
    """
    found = _EXTRA.search(str(error))
    if found is None:
        raise error
    try:
        if found[2] == 'd9':
            return decode(_cut_extra(jpeg.data.removesuffix(_END), int(found[1]), error) + _END)
        for part in _between_restarts(jpeg, error):
            _check_alone(decode, part, error)
        return decode(jpeg.data, strict=False)
    except DecoderError:
        raise error from None


def _cut_extra(data: bytes, count: int, error: DecoderError) -> bytes:
    """Return data without its last bytes. Raise ``error`` if these may be the code of pixels."""
    extra = data[-count:]
    if len(extra) < count or (count > _MAX_EXTRA and extra.strip(b'\0')):
        raise error
    return data[:-count]


def _check_alone(decode: Decode, part: bytes, error: DecoderError) -> None:
    """Check that a JPEG without its end marker has all pixels and few extra bytes; raise DecoderError."""
    try:
        decode(part + _END)
    except DecoderError as problem:
        found = _EXTRA.search(str(problem))
        if found is None:
            raise
        _cut_extra(part, int(found[1]), error)


def _between_restarts(jpeg: Jpeg, error: DecoderError) -> Iterator[bytes]:
    """Yield the pixels between two restart markers as a JPEG of their own, without an end marker.

    Raise ``error`` if a marker is missing.
    """
    interval = jpeg.restart_interval
    if not interval or interval * jpeg.unit_width > _MAX_SIDE:
        raise error
    header, pixels = jpeg.data[: jpeg.pixel_position], jpeg.data[jpeg.pixel_position :].removesuffix(_END)
    units = -(-jpeg.width // jpeg.unit_width) * -(-jpeg.height // jpeg.unit_height)
    starts = range(0, units, interval)
    # In pixel data, 0 follows each byte 0xff, so this finds markers only.
    parts = _RESTART_MARKER.split(pixels)
    if list(b''.join(parts[1::2])) != [0xD0 + number % 8 for number in range(len(starts) - 1)]:
        raise error
    for start, part in zip(starts, parts[::2], strict=True):
        width = min(interval, units - start) * jpeg.unit_width
        size = jpeg.unit_height.to_bytes(2, 'big') + width.to_bytes(2, 'big')
        yield header[: jpeg.size_position] + size + header[jpeg.size_position + 4 :] + part
