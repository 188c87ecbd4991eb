# SPDX-License-Identifier: Apache-2.0
"""Decode JPEG and detect missing or wrong pixels.

libjpeg fills missing pixels with grey and only warns. :func:`stdc_core.io.jpeg_header.read_jpeg` removes everything
that libjpeg warns about without a wrong pixel. A warning therefore means damage, with one exception: extra bytes
between the last pixel and the end marker. Some cameras add a few of them. Many mean that damage made the decoder lose
its place.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache

import numpy as np

from stdc_core.io.jpeg_header import Jpeg
from stdc_ros.messages.decoder_error import DecoderError
from stdc_ros.messages.jpeg_seams import is_shifted

#: Largest number of bytes that cameras add before the end marker. Damage mostly leaves more: the code of whole blocks.
_MAX_EXTRA = 8

#: Warning of libjpeg about such bytes, with their number (jerror.h, JWRN_EXTRANEOUS_DATA).
_EXTRA = re.compile(r'(\d+) extraneous bytes before marker 0xd9')

_END = b'\xff\xd9'


def decode_jpeg(jpeg: Jpeg) -> np.ndarray:
    """Decode a JPEG; the orientation in EXIF is not applied.

    Returns:
        uint8 BGR ``[H, W, 3]``.

    Raises:
        DecoderError: Some pixels could not be read or are shifted.
    """
    decode = _decoder() if jpeg.components in (1, 3) else _decode_by_opencv  # simplejpeg does not convert CMYK to BGR
    try:
        image = decode(jpeg.data)
    except DecoderError as error:
        image = _decode_without_extra(decode, jpeg.data, error)
    if is_shifted(image, jpeg.unit_height, jpeg.unit_width):
        raise DecoderError('a part of the JPEG is shifted or has another brightness: some of its bytes are wrong')
    return image


def _decode_without_extra(decode: Callable[[bytes], np.ndarray], data: bytes, error: DecoderError) -> np.ndarray:
    """Decode a JPEG without the extra bytes before its end marker. Raise ``error`` if pixels are in them."""
    found = _EXTRA.search(str(error))
    if found is None:
        raise error
    end = len(data) - len(_END)
    begin = end - int(found[1])
    # Zeros are not the code of pixels: some cameras fill their buffer with them.
    if begin < 0 or (end - begin > _MAX_EXTRA and data[begin:end].strip(b'\0')):
        raise error
    try:
        return decode(data[:begin] + _END)
    except DecoderError:
        raise error from None


@lru_cache(maxsize=1)
def _decoder() -> Callable[[bytes], np.ndarray]:
    """Return simplejpeg's decoder where it is installed, else OpenCV's."""
    try:
        import simplejpeg
    except ImportError:
        return _decode_by_opencv

    def decode(data: bytes) -> np.ndarray:
        try:
            return simplejpeg.decode_jpeg(data, 'BGR', strict=True)
        except ValueError as error:
            raise DecoderError(str(error)) from error

    return decode


def _decode_by_opencv(data: bytes) -> np.ndarray:
    from stdc_ros.messages.opencv_jpeg import decode_by_opencv

    return decode_by_opencv(data)
