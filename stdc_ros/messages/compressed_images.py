# SPDX-License-Identifier: Apache-2.0
"""Convert ``sensor_msgs/CompressedImage`` messages to arrays, by their data and their ``format``."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import numpy as np

from stdc_core.io.text import one_line, quoted
from stdc_ros.messages.compressed_format import CompressedFormat, read_format
from stdc_ros.messages.decoder_error import DecoderError
from stdc_ros.messages.image_decoder import decode_picture, read_header
from stdc_ros.messages.images import ENCODINGS, ImageError, check_size, convert
from stdc_ros.messages.png_decoder import is_16_bit_png, is_grey_16_bit_png

#: Names of the encodings in lower case, as ``CompressedImage.format`` may spell them.
_BY_LOWER = {encoding.lower(): encoding for encoding in ENCODINGS}

#: First bytes of a packet of H.264 or H.265 (ITU-T H.264, annex B).
_VIDEO = (b'\0\0\1', b'\0\0\0\1')

#: Encodings of pictures with 16 bits by their number of channels.
_NAMES_16_BIT = {1: 'mono16', 3: 'bgr16', 4: 'bgra16'}


def compressed_to_bgr(message: Any) -> np.ndarray:
    """Return the image of a ``sensor_msgs/CompressedImage`` as BGR.

    The data must be a JPEG or a PNG. ``format`` gives the encoding of the image that was compressed: a Bayer image is
    demosaiced, and encodings that are refused on a raw topic, such as depths, are refused here too. A format without
    an encoding (``jpeg``) is taken for a picture. The orientation in EXIF is not applied, because ``CameraInfo``
    describes the stored height and width. 16 bits become 8, and alpha is dropped.

    Args:
        message: Message of rclpy or of rosbags.

    Returns:
        uint8 ``[height, width, 3]`` BGR, C-contiguous.

    Raises:
        ImageError: The data is missing, not a JPEG or PNG, cut off, damaged or larger than ``MAX_PIXELS``, or
            ``format`` names depths or an unknown encoding. The size is checked before anything is decoded.

    Example:
        >>> message = SimpleNamespace(format='jpeg', data=cv2.imencode('.jpg', np.zeros((4, 6, 3), np.uint8))[1])
        >>> compressed_to_bgr(message).shape
        (4, 6, 3)
    """
    what = f'compressed image of format {quoted(message.format)} with {len(message.data)} bytes'
    form = read_format(message.format)
    if form.depth:
        raise ImageError(f'{what}: compressedDepth holds depths, expected a JPEG or PNG picture')
    if form.is_matrix and form.source not in _BY_LOWER:
        raise _unknown_encoding(what, form)
    data = bytes(message.data)
    if data.startswith(_VIDEO):
        raise ImageError(
            f'{what} holds H.264 or H.265 video, expected a JPEG or PNG; segment_bag and play_bag read video'
        )
    try:
        header = read_header(data)
    except DecoderError as error:
        raise ImageError(f'{what}: {error}, expected a whole JPEG or PNG') from error
    check_size(what, header.width, header.height)
    if not form.source and is_grey_16_bit_png(data):
        raise ImageError(
            f'{what}: a grey PNG of 16 bits may hold depths; if it is a picture, '
            "expected a format that says so, such as 'mono16; png compressed '"
        )
    bayer = form.stored.startswith('bayer_') and form.stored in _BY_LOWER
    try:
        picture = decode_picture(header, unchanged=bayer or is_16_bit_png(data))
    except DecoderError as error:
        raise ImageError(f'{what} is damaged: {one_line(error)}, expected a whole JPEG or PNG') from error
    if bayer:
        return _demosaic(picture, form.stored)
    if form.source and form.source not in _BY_LOWER and _is_grey(picture):
        raise _unknown_encoding(what, form)
    return _to_8_bits(picture)


def _unknown_encoding(what: str, form: CompressedFormat) -> ImageError:
    return ImageError(f'{what}: unknown encoding {quoted(form.source)}, expected one of {", ".join(ENCODINGS)}')


def _is_grey(picture: np.ndarray) -> bool:
    """Return whether a picture has one channel, or three equal ones."""
    return picture.ndim == 2 or bool(
        np.array_equal(picture[..., 0], picture[..., 1]) and np.array_equal(picture[..., 0], picture[..., 2])
    )


def _demosaic(picture: np.ndarray, stored: str) -> np.ndarray:
    """Return the BGR image of a compressed Bayer mosaic.

    A picture with colours is returned in 8 bits: the publisher has demosaiced it already, whatever its format says.

    Args:
        picture: Mosaic of 8 or 16 bits, ``[H, W]`` or with equal channels.
        stored: Encoding of the mosaic, such as ``bayer_rggb8``.
    """
    if not _is_grey(picture):
        return _to_8_bits(picture)
    # JPEG reduces 16 bits to 8, so the bits are those of the decoded picture and not those of the encoding.
    mosaic = picture if picture.ndim == 2 else picture[..., 0]
    return _convert(mosaic, f'{stored[:10]}{8 * mosaic.itemsize}')


def _to_8_bits(picture: np.ndarray) -> np.ndarray:
    """Return a grey, BGR or BGRA picture of 8 or 16 bits as BGR of 8 bits."""
    if picture.dtype == np.uint8:
        return np.ascontiguousarray(picture[..., :3])
    return _convert(picture, _NAMES_16_BIT[1 if picture.ndim == 2 else picture.shape[2]])


def _convert(picture: np.ndarray, encoding: str) -> np.ndarray:
    """Return the BGR image of a picture, converted as a raw image of an encoding is."""
    picture = np.ascontiguousarray(picture)
    height, width = picture.shape[:2]
    fields = {'width': width, 'height': height, 'step': picture[0].nbytes, 'encoding': encoding}
    return convert(SimpleNamespace(**fields, is_bigendian=sys.byteorder == 'big', data=picture.tobytes()))
