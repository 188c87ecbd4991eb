# SPDX-License-Identifier: Apache-2.0
"""Convert image messages to arrays and back.

Messages of ``sensor_msgs`` of any ROS 2 and of ``rosbags`` have the same fields. The functions take both and import
neither: bags are read on machines without ROS.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import lru_cache
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np

from stdc_core.io.text import one_line, quoted
from stdc_ros.messages.compressed_format import CompressedFormat, read_format
from stdc_ros.messages.decoder_error import DecoderError
from stdc_ros.messages.image_decoder import decode_picture, read_header
from stdc_ros.messages.png_decoder import is_grey_16_bit_png

#: Largest number of pixels of an image, and of its longer side, which OpenCV's remap can address. Larger images are
#: refused before anything is allocated for them.
MAX_PIXELS = 1 << 26
MAX_SIDE = 32767

#: Encodings that are a plain 8-bit layout: channels, and the OpenCV conversion to BGR (None: it is BGR already).
#: ``8UC1``, ``8UC3`` and ``8UC4`` are what cv_bridge calls a grey, BGR or BGRA image of a sender that named no colours.
_PLAIN = {
    'bgr8': (3, None),
    '8UC3': (3, None),
    'rgb8': (3, cv2.COLOR_RGB2BGR),
    'mono8': (1, cv2.COLOR_GRAY2BGR),
    '8UC1': (1, cv2.COLOR_GRAY2BGR),
    'bgra8': (4, cv2.COLOR_BGRA2BGR),
    '8UC4': (4, cv2.COLOR_BGRA2BGR),
    'rgba8': (4, cv2.COLOR_RGBA2BGR),
}

#: Planar YUV 4:2:0: a plane of luma over one of interleaved chroma, half as high.
_PLANAR = {'nv12': cv2.COLOR_YUV2BGR_NV12, 'nv21': cv2.COLOR_YUV2BGR_NV21}

#: Planar YUV 4:4:4 (``nv24``) to BGR, with video levels (ITU-R BT.601) like OpenCV's conversion of the others.
_NV24 = 'nv24'
_VIDEO_TO_BGR = np.array(
    [
        [1.164, 2.018, 0.0, -1.164 * 16 - 2.018 * 128],
        [1.164, -0.391, -0.813, -1.164 * 16 + (0.391 + 0.813) * 128],
        [1.164, 0.0, 1.596, -1.164 * 16 - 1.596 * 128],
    ]
)

#: Packed YUV 4:2:2, two bytes per pixel: the older names, which every converter knows.
_PACKED = {'yuv422': 'yuv422', 'uyvy': 'yuv422', 'yuv422_yuy2': 'yuv422_yuy2', 'yuyv': 'yuv422_yuy2'}

#: Encodings that ``cv_bridge`` or ``rosbags-image`` convert: element type and elements per pixel.
_CONVERTED = {
    **{f'bayer_{pattern}8': (np.uint8, 1) for pattern in ('rggb', 'bggr', 'gbrg', 'grbg')},
    **{f'bayer_{pattern}16': (np.uint16, 1) for pattern in ('rggb', 'bggr', 'gbrg', 'grbg')},
    **dict.fromkeys(_PACKED, (np.uint8, 2)),
    'mono16': (np.uint16, 1),
    'bgr16': (np.uint16, 3),
    'rgb16': (np.uint16, 3),
    'bgra16': (np.uint16, 4),
    'rgba16': (np.uint16, 4),
}

#: Every encoding that :func:`image_to_bgr` reads.
ENCODINGS = (*_PLAIN, *_PLANAR, _NV24, *_CONVERTED)

#: The same by their names in lower case, as ``CompressedImage.format`` may spell them.
_BY_LOWER = {encoding.lower(): encoding for encoding in ENCODINGS}

#: Encodings that :func:`make_image` writes: number of channels.
_WRITTEN = {'mono8': 1, 'bgr8': 3}


class ImageError(ValueError):
    """An image message contradicts itself, is damaged, or has an encoding that is not supported."""


def image_to_bgr(message: Any) -> np.ndarray:
    """Return the image of a ``sensor_msgs/Image`` as BGR.

    A bgr8 image without padding is a view of the message's data: nothing is copied. 16-bit images are scaled to 8 bits.

    Args:
        message: Message of rclpy or of rosbags.

    Returns:
        uint8 ``[height, width, 3]`` BGR, C-contiguous.

    Raises:
        ImageError: The encoding is unknown, the size is 0 or more than ``MAX_PIXELS``, or width, height, step and
            length of the data contradict each other. Nothing is allocated by the claimed size before that is checked.
    """
    encoding = message.encoding
    if encoding in _PLAIN:
        channels, conversion = _PLAIN[encoding]
        rows = _rows(message, message.width * channels, message.height)
        image = np.ascontiguousarray(rows).reshape(message.height, message.width, channels)
        return image if conversion is None else cv2.cvtColor(image, conversion)
    if encoding in _PLANAR:
        if message.width % 2 or message.height % 2:
            raise ImageError(f'{encoding} image of {_size(message)}: expected an even width and height')
        rows = _rows(message, message.width, message.height * 3 // 2)
        return cv2.cvtColor(np.ascontiguousarray(rows), _PLANAR[encoding])
    if encoding == _NV24:
        _rows(message, message.width, message.height * 3)
        planes = _rows(message, message.step, message.height * 3)  # with their padding, which chroma has twice
        luma, chroma = planes[: message.height], planes[message.height :].reshape(message.height, -1, 2)
        return cv2.transform(np.dstack([luma[:, : message.width], chroma[:, : message.width]]), _VIDEO_TO_BGR)
    if encoding in _CONVERTED:
        return _convert(message)
    raise ImageError(f'unknown encoding {quoted(encoding)}, expected one of {", ".join(ENCODINGS)}')


def compressed_to_bgr(message: Any) -> np.ndarray:
    """Return the image of a ``sensor_msgs/CompressedImage`` as BGR.

    The data must be a JPEG or a PNG. ``format`` tells the encoding of the image that was compressed: a Bayer image is
    demosaiced, and an encoding that a raw topic is refused for, such as depths, is refused here too. A format without
    an encoding (``jpeg``) is taken for a picture. The orientation in EXIF is not applied: height and width are those
    that ``CameraInfo`` describes. 16 bits become 8, and alpha is dropped.

    Args:
        message: Message of rclpy or of rosbags.

    Returns:
        uint8 ``[height, width, 3]`` BGR, C-contiguous.

    Raises:
        ImageError: The data is missing, neither JPEG nor PNG, cut off, damaged, or more than ``MAX_PIXELS``, which is
            checked before anything is decoded; or ``format`` names depths or an unknown encoding.

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
    try:
        header = read_header(data)
    except DecoderError as error:
        raise ImageError(f'{what}: {error}, expected a whole JPEG or PNG') from error
    _check_size(what, header.width, header.height)
    if not form.source and is_grey_16_bit_png(data):
        raise ImageError(
            f'{what}: a grey PNG of 16 bits may hold depths; if it is a picture, '
            "expected a format that says so, such as 'mono16; png compressed '"
        )
    bayer = form.stored.startswith('bayer_') and form.stored in _BY_LOWER
    try:
        picture = decode_picture(header, unchanged=bayer)
    except DecoderError as error:
        raise ImageError(f'{what} is damaged: {one_line(error)}, expected a whole JPEG or PNG') from error
    if bayer:
        return _demosaic(picture, form.stored)
    if form.source and form.source not in _BY_LOWER and _is_grey(picture):
        raise _unknown_encoding(what, form)
    return picture


def _unknown_encoding(what: str, form: CompressedFormat) -> ImageError:
    return ImageError(f'{what}: unknown encoding {quoted(form.source)}, expected one of {", ".join(ENCODINGS)}')


def _is_grey(picture: np.ndarray) -> bool:
    """Whether a picture has one channel, or three that are the same."""
    return picture.ndim == 2 or bool(
        np.array_equal(picture[..., 0], picture[..., 1]) and np.array_equal(picture[..., 0], picture[..., 2])
    )


def _demosaic(picture: np.ndarray, stored: str) -> np.ndarray:
    """Return the BGR image of a compressed Bayer mosaic, ``[H, W]`` or with equal channels, of 8 or 16 bits.

    A picture with colours is returned as it is: the publisher demosaiced it, whatever its format says.
    """
    if not _is_grey(picture):
        colours = picture[..., :3]
        return np.ascontiguousarray(colours if colours.dtype == np.uint8 else colours >> 8, np.uint8)
    mosaic = np.ascontiguousarray(picture if picture.ndim == 2 else picture[..., 0])
    height, width = mosaic.shape
    # JPEG squeezes 16 bits to 8: what counts is how many there are now.
    encoding = f'{stored[:10]}{8 * mosaic.itemsize}'
    fields = {'width': width, 'height': height, 'step': width * mosaic.itemsize, 'encoding': encoding}
    return _convert(SimpleNamespace(**fields, is_bigendian=sys.byteorder == 'big', data=mosaic.tobytes()))


def make_image(message_class: type, header: Any, array: np.ndarray, encoding: str) -> Any:
    """Return a ``sensor_msgs/Image`` without padding.

    Args:
        message_class: Class ``sensor_msgs.msg.Image``, or the class of that name from a ``rosbags`` typestore.
        header: Header of the image that the array was computed from.
        array: uint8 ``[H, W]`` for ``mono8``, uint8 ``[H, W, 3]`` for ``bgr8``.
        encoding: Name ``mono8`` or ``bgr8``.

    Raises:
        ValueError: The array does not have the shape or type of the encoding.
    """
    channels = _WRITTEN.get(encoding)
    if channels is None:
        raise ValueError(f'encoding {encoding!r}, expected one of {", ".join(_WRITTEN)}')
    if array.dtype != np.uint8 or array.shape[2:] != (() if channels == 1 else (channels,)) or array.ndim < 2:
        raise ValueError(f'{array.dtype} array of shape {list(array.shape)} is not a {encoding} image')
    height, width = array.shape[:2]
    fields = {
        'header': header,
        'height': height,
        'width': width,
        'encoding': encoding,
        'is_bigendian': 0,
        'step': width * channels,
    }
    array = np.ascontiguousarray(array)
    if hasattr(message_class, '__msgtype__'):  # rosbags: a dataclass that holds numpy arrays
        return message_class(**fields, data=array.reshape(-1))
    message = message_class(**fields)
    # The generated setter takes 0.7 s for 6 MB of numpy array, and a copy more for bytes.
    message.data.frombytes(array.data)
    return message


def _size(message: Any) -> str:
    return f'{message.width} x {message.height} pixels'


def _check_size(what: str, width: int, height: int) -> None:
    if min(width, height) < 1:
        raise ImageError(f'{what} of {width} x {height} pixels, expected at least 1 x 1')
    if max(width, height) > MAX_SIDE or width * height > MAX_PIXELS:
        raise ImageError(
            f'{what} of {width} x {height} pixels, expected at most {MAX_PIXELS} in all and {MAX_SIDE} a side'
        )


def _rows(message: Any, row_bytes: int, rows: int) -> np.ndarray:
    """Return a view of the data as uint8 ``[rows, row_bytes]`` without padding, or raise ImageError."""
    size, encoding = _size(message), message.encoding
    _check_size(f'{encoding} image', message.width, message.height)
    if message.step < row_bytes:
        raise ImageError(f'step {message.step} of a {encoding} image of {size}, expected at least {row_bytes}')
    data = np.frombuffer(message.data, np.uint8) if len(message.data) else np.empty(0, np.uint8)
    if data.size != message.step * rows:
        raise ImageError(
            f'{data.size} bytes of data in a {encoding} image of {size}, '
            f'expected {message.step * rows} (step {message.step} x {rows} rows)'
        )
    return data.reshape(rows, message.step)[:, :row_bytes]


def _convert(message: Any) -> np.ndarray:
    """Return the BGR image that ``cv_bridge`` or ``rosbags-image`` makes, whichever is installed.

    They get rows without padding in the machine's byte order: rosbags-image ignores the step, and older releases of
    cv_bridge swap bytes with a method that numpy 2 no longer has.
    """
    dtype, elements = _CONVERTED[message.encoding]
    if message.encoding in _PACKED and message.width % 2:
        raise ImageError(f'{message.encoding} image of {_size(message)}: expected an even width')
    rows = _rows(message, message.width * elements * np.dtype(dtype).itemsize, message.height)
    pixels = np.ascontiguousarray(rows).view(dtype)
    if bool(message.is_bigendian) != (sys.byteorder == 'big'):
        pixels = pixels.byteswap()
    unpadded = SimpleNamespace(
        height=message.height,
        width=message.width,
        encoding=_PACKED.get(message.encoding, message.encoding),
        is_bigendian=sys.byteorder == 'big',
        step=rows.shape[1],
        data=pixels.view(np.uint8).reshape(-1),
    )
    try:
        return np.ascontiguousarray(_converter()(unpadded, 'bgr8'))
    except Exception as error:  # the two have no common base class, and cv2.error comes through
        what = f'{message.encoding} image of {_size(message)}'
        raise ImageError(f'{what} cannot be converted: {one_line(error)}') from error


@lru_cache(maxsize=1)
def _converter() -> Callable[[Any, str], np.ndarray]:
    """Return the converter of ``cv_bridge`` where its extension loads, else that of ``rosbags-image``."""
    try:
        # cv_bridge itself imports without its extension and fails at the first image; this name tells.
        from cv_bridge import CvBridge, getCvType  # noqa: F401

        return CvBridge().imgmsg_to_cv2
    except ImportError:
        pass
    try:
        from rosbags.image import message_to_cvimage

        return message_to_cvimage
    except ImportError:
        raise ImageError('this encoding needs cv_bridge or rosbags-image; neither is installed') from None
