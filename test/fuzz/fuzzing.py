# SPDX-License-Identifier: Apache-2.0
"""Make pictures and checks for the tests of hostile messages."""

from __future__ import annotations

import struct
import zlib
from types import SimpleNamespace

import cv2
import numpy as np
from hypothesis import HealthCheck, settings
from scenes import scene

from stdc_ros.messages.images import ImageError

#: Settings of Hypothesis: the same examples on every run, without a time limit for an example.
FUZZ = settings(derandomize=True, deadline=None, max_examples=300, suppress_health_check=[HealthCheck.too_slow])

PIXELS = scene(24, 32)
PICTURES = {
    name: cv2.imencode(extension, image, options)[1].tobytes()
    for name, extension, image, options in (
        ('jpeg', '.jpg', PIXELS, []),
        ('progressive jpeg', '.jpg', PIXELS, [cv2.IMWRITE_JPEG_PROGRESSIVE, 1]),
        ('grey jpeg', '.jpg', PIXELS[..., 0], []),
        ('png', '.png', PIXELS, []),
        ('grey png', '.png', PIXELS[..., 0], []),
        ('16 bit png', '.png', PIXELS.astype(np.uint16) * 257, []),
        ('alpha png', '.png', np.dstack([PIXELS, PIXELS[..., 0]]), []),
    )
}


def chunk(kind: bytes, data: bytes) -> bytes:
    """Return a chunk of a PNG."""
    return struct.pack('>I', len(data)) + kind + data + struct.pack('>I', zlib.crc32(kind + data))


def png_claiming(width: int, height: int, pixels: bytes = b'') -> bytes:
    """Return a PNG that is complete except for its pixels."""
    header = chunk(b'IHDR', struct.pack('>II5B', width, height, 8, 2, 0, 0, 0))
    return PICTURES['png'][:8] + header + chunk(b'IDAT', zlib.compress(pixels)) + chunk(b'IEND', b'')


def jpeg_claiming(width: int, height: int) -> bytes:
    """Return a JPEG that claims a larger size than its pixels fill."""
    data = bytearray(PICTURES['jpeg'])
    at = data.find(b'\xff\xc0')
    data[at + 5 : at + 9] = struct.pack('>HH', height, width)
    return bytes(data)


def picture_of(data: bytes, text: str = 'jpeg') -> SimpleNamespace:
    """Return an object with the used fields of ``sensor_msgs/CompressedImage``."""
    return SimpleNamespace(format=text, data=data)


def image_or_error(convert, message) -> np.ndarray | None:
    """Return the image of a conversion, or None after a proper error."""
    try:
        image = convert(message)
    except ImageError as error:
        assert str(error).isprintable(), 'one line without control characters'
        assert len(str(error)) < 1000
        return None
    assert image.dtype == np.uint8
    assert image.flags.c_contiguous
    return image
