# SPDX-License-Identifier: Apache-2.0
"""Convert ``sensor_msgs/Image`` messages to arrays and back.

The messages of every ROS 2 distribution and of ``rosbags`` have the same fields. The functions take both and import
neither, because bags are also read on machines without ROS.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import lru_cache
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np

from stdc_core.io.jpeg_header import JPEG_SIGNATURE, JpegError, read_jpeg
from stdc_core.io.text import one_line, quoted

#: Largest number of pixels of an image, and largest side that OpenCV's remap can address. Larger images are refused
#: before anything is allocated for them.
MAX_PIXELS = 1 << 26
MAX_SIDE = 32767

#: Encodings with a plain 8-bit layout: number of channels, and the OpenCV conversion to BGR (None: it is BGR already).
#: cv_bridge writes ``8UC1``, ``8UC3`` and ``8UC4`` for grey, BGR and BGRA images whose sender named no colours.
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

#: Planar YUV 4:2:0: a plane of luma above a plane of interleaved chroma with half its height.
_PLANAR = {'nv12': cv2.COLOR_YUV2BGR_NV12, 'nv21': cv2.COLOR_YUV2BGR_NV21}

#: Conversion of planar YUV 4:4:4 (``nv24``) to BGR. Levels are video levels (ITU-R BT.601), as OpenCV assumes for the
#: other YUV encodings.
_NV24 = 'nv24'
_VIDEO_TO_BGR = np.array(
    [
        [1.164, 2.018, 0.0, -1.164 * 16 - 2.018 * 128],
        [1.164, -0.391, -0.813, -1.164 * 16 + (0.391 + 0.813) * 128],
        [1.164, 0.0, 1.596, -1.164 * 16 - 1.596 * 128],
    ]
)

#: Packed YUV 4:2:2, two bytes per pixel, by name: the older name of the same layout, which every converter knows.
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

#: Encodings that :func:`make_image` writes: number of channels.
_WRITTEN = {'mono8': 1, 'bgr8': 3}


class ImageError(ValueError):
    """An image message contradicts itself, is damaged, or has an encoding that is not supported."""


def image_to_bgr(message: Any) -> np.ndarray:
    """Return the image of a ``sensor_msgs/Image`` as BGR.

    For a bgr8 image without padding, the result is a view of the message's data. 16-bit images are scaled to 8 bits.

    Args:
        message: Message of rclpy or of rosbags.

    Returns:
        uint8 ``[height, width, 3]`` BGR, C-contiguous.

    Raises:
        ImageError: The encoding is unknown, the size is 0 or more than ``MAX_PIXELS``, or width, height, step and
            length of the data contradict each other. These are checked before memory is allocated.
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
        planes = _rows(message, message.step, message.height * 3)  # with padding; a chroma row spans two steps
        luma, chroma = planes[: message.height], planes[message.height :].reshape(message.height, -1, 2)
        return cv2.transform(np.dstack([luma[:, : message.width], chroma[:, : message.width]]), _VIDEO_TO_BGR)
    if encoding in _CONVERTED:
        return convert(message)
    raise ImageError(f'unknown encoding {quoted(encoding)}, expected one of {", ".join(ENCODINGS)}')


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
    # rclpy's generated setter takes 0.7 s for a numpy array of 6 MB, and copies bytes once more.
    message.data.frombytes(array.data)
    return message


def _size(message: Any) -> str:
    return f'{message.width} x {message.height} pixels'


def check_size(what: str, width: int, height: int) -> None:
    """Raise ImageError unless the size of an image is within the limits.

    Args:
        what: Description of the image, with which the error begins.
        width: Width in pixels.
        height: Height in pixels.
    """
    if min(width, height) < 1:
        raise ImageError(f'{what} of {width} x {height} pixels, expected at least 1 x 1')
    if max(width, height) > MAX_SIDE or width * height > MAX_PIXELS:
        raise ImageError(
            f'{what} of {width} x {height} pixels, expected at most {MAX_PIXELS} in all and {MAX_SIDE} a side'
        )


def _rows(message: Any, row_bytes: int, rows: int) -> np.ndarray:
    """Return a view of the data as uint8 ``[rows, row_bytes]`` without padding, or raise ImageError."""
    size, encoding = _size(message), message.encoding
    check_size(f'{encoding} image', message.width, message.height)
    if message.step < row_bytes:
        raise ImageError(f'step {message.step} of a {encoding} image of {size}, expected at least {row_bytes}')
    data = np.frombuffer(message.data, np.uint8) if len(message.data) else np.empty(0, np.uint8)
    if data.size != message.step * rows:
        raise ImageError(
            f'{data.size} bytes of data in a {encoding} image of {size}, '
            f'expected {message.step * rows} (step {message.step} x {rows} rows)'
        )
    if _is_jpeg(data, message.width, message.height):
        raise ImageError(
            f'the data of a {encoding} image of {size} is a JPEG, expected pixels; '
            'set the pixel format of the camera driver to one that it decodes, such as mjpeg2rgb of usb_cam'
        )
    return data.reshape(rows, message.step)[:, :row_bytes]


def _is_jpeg(data: np.ndarray, width: int, height: int) -> bool:
    """Return whether the data begins with a JPEG of this size. Some drivers publish frames of webcams like that."""
    if data[: len(JPEG_SIGNATURE)].tobytes() != JPEG_SIGNATURE:
        return False
    try:
        return read_jpeg(data.tobytes(), need_end=False)[:2] == (width, height)
    except JpegError:
        return False


def convert(message: Any) -> np.ndarray:
    """Convert an image to BGR with ``cv_bridge`` or ``rosbags-image``, whichever is installed.

    The converter gets rows without padding in the machine's byte order, because rosbags-image ignores the step, and
    older releases of cv_bridge swap bytes with a method that numpy 2 no longer has.

    Args:
        message: Image with one of the encodings that need a converter, such as ``bayer_rggb8``.

    Raises:
        ImageError: The image contradicts itself, cannot be converted, or no converter is installed.
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
    except Exception as error:  # the two libraries share no error class, and cv2.error passes through
        what = f'{message.encoding} image of {_size(message)}'
        raise ImageError(f'{what} cannot be converted: {one_line(error)}') from error


@lru_cache(maxsize=1)
def _converter() -> Callable[[Any, str], np.ndarray]:
    """Return the converter of ``cv_bridge`` where its extension loads, else that of ``rosbags-image``."""
    try:
        # Without its extension, cv_bridge is imported but fails at the first image. This name needs the extension.
        from cv_bridge import CvBridge, getCvType  # noqa: F401

        return CvBridge().imgmsg_to_cv2
    except ImportError:
        pass
    try:
        from rosbags.image import message_to_cvimage

        return message_to_cvimage
    except ImportError:
        raise ImageError('this encoding needs cv_bridge or rosbags-image, and neither is installed') from None
