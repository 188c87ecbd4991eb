# SPDX-License-Identifier: Apache-2.0
"""Decode the JPEG or PNG data of a compressed image. A picture with missing pixels is an error."""

from __future__ import annotations

import numpy as np

from stdc_core.io.jpeg_header import JPEG_SIGNATURE, Jpeg, JpegError, read_jpeg
from stdc_core.io.picture_header import Picture, PictureError, read_picture
from stdc_ros.messages.decoder_error import DecoderError
from stdc_ros.messages.jpeg_decoder import decode_jpeg
from stdc_ros.messages.png_decoder import decode_png


def read_header(data: bytes) -> Jpeg | Picture:
    """Read the size of a JPEG or PNG without decoding it. A JPEG may lack its end marker.

    Raises:
        DecoderError: The data is not a JPEG or PNG, or it is cut off.
    """
    try:
        return read_jpeg(data, need_end=False) if data.startswith(JPEG_SIGNATURE) else read_picture(data)
    except (JpegError, PictureError) as error:
        raise DecoderError(str(error)) from error


def decode_picture(picture: Jpeg | Picture, unchanged: bool = False) -> np.ndarray:
    """Decode a JPEG or PNG. The orientation in EXIF is not applied, transparency is ignored.

    Args:
        picture: Result of :func:`read_header`.
        unchanged: Whether to keep the number of channels and the 16 bits of a PNG.

    Returns:
        uint8 BGR ``[H, W, 3]``. If ``unchanged``, uint8 or uint16: grey ``[H, W]``, BGR or BGRA ``[H, W, C]``.

    Raises:
        DecoderError: Some pixels cannot be read.
    """
    return decode_jpeg(picture) if isinstance(picture, Jpeg) else decode_png(picture.data, unchanged)
