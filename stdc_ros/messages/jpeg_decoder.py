# SPDX-License-Identifier: Apache-2.0
"""Decode JPEG and detect missing or wrong pixels.

libjpeg fills missing pixels with grey and only warns. :func:`stdc_core.io.jpeg_header.read_jpeg` removes everything
that libjpeg warns about without a wrong pixel. A warning therefore means damage, with one exception: extra bytes before
markers (:mod:`stdc_ros.messages.jpeg_extra_bytes`).
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from stdc_core.io.jpeg_header import Jpeg
from stdc_ros.messages.decoder_error import DecoderError
from stdc_ros.messages.jpeg_extra_bytes import Decode, decode_with_extra_bytes
from stdc_ros.messages.jpeg_seams import is_shifted


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
        image = decode_with_extra_bytes(decode, jpeg, error)
    if is_shifted(image, jpeg.unit_height, jpeg.unit_width):
        raise DecoderError('a part of the JPEG is shifted or has another brightness: some of its bytes are wrong')
    return image


@lru_cache(maxsize=1)
def _decoder() -> Decode:
    """Return simplejpeg's decoder where it is installed, else OpenCV's."""
    try:
        import simplejpeg
    except ImportError:
        return _decode_by_opencv

    def decode(data: bytes, strict: bool = True) -> np.ndarray:
        try:
            return simplejpeg.decode_jpeg(data, 'BGR', strict=strict)
        except ValueError as error:
            raise DecoderError(str(error)) from error

    return decode


def _decode_by_opencv(data: bytes, strict: bool = True) -> np.ndarray:
    from stdc_ros.messages.opencv_jpeg import decode_by_opencv

    return decode_by_opencv(data, strict)
