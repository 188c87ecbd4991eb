# SPDX-License-Identifier: Apache-2.0
"""Make messages that no camera should send: contradicting fields, damaged pictures and damaged bytes.

They are small, so that a million take minutes. The same seed gives the same messages.
"""

from __future__ import annotations

import dataclasses
import itertools
import random
import struct
import zlib
from typing import Any

import cv2
import numpy as np

from stdc_ros.bags.message import make_header
from stdc_ros.messages.cdr import CAMERA_INFO, COMPRESSED_IMAGE, IMAGE, TYPES, encode
from stdc_ros.messages.images import ENCODINGS, make_image

HEIGHT, WIDTH = 24, 32

#: Values for unsigned fields: zero, limits of their types, and claims of gigabytes.
NUMBERS = (0, 1, 2, 3, 7, 31, 33, 255, 32767, 32768, 65536, 100_000, 2**31 - 1, 2**31, 2**32 - 1)

#: Values for floating-point fields.
REALS = (0.0, -1.0, 1.0, 1e-320, 1e-12, 1e6, 1e308, -1e308, float('nan'), float('inf'), -float('inf'))

#: Values for strings: unknown and misspelt names, escape codes, several lines, other alphabets, and long texts.
TEXTS = (
    '',
    '32FC1',
    '64FC4',
    'BGR8',
    'bgr8 ',
    'bgr8\n[ERROR] all is lost',
    '\x1b[31mred\x1b[2J',
    '\u202etxet',
    'größe\0',
)
LONG_TEXT = 'x' * 1_000_000

#: Seconds and nanoseconds of stamps: 0, before 1970, limits of the fields, and more nanoseconds than a second has.
STAMPS = ((0, 0), (-1, 0), (-(2**31), 0), (2**31 - 1, 999_999_999), (1_700_000_000, 2**32 - 1), (1, 10**9))

_FORMATS = ('bgr8; jpeg compressed bgr8', 'mono8; png compressed ', '16UC1; compressedDepth png', 'tiff', *TEXTS)


def picture(number: int) -> np.ndarray:
    """Return a picture that differs for each number, uint8 BGR ``[24, 32, 3]``."""
    noise = np.random.default_rng(number).integers(0, 256, (6, 8, 3), np.uint8)
    return cv2.resize(noise, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)


def png_chunk(kind: bytes, data: bytes) -> bytes:
    """Return a PNG chunk with its length and its correct checksum."""
    return struct.pack('>I', len(data)) + kind + data + struct.pack('>I', zlib.crc32(kind + data))


def claim(data: bytes, width: int, height: int) -> bytes:
    """Return a JPEG or PNG that claims another size, and is valid otherwise."""
    if data.startswith(b'\x89PNG'):
        header = struct.pack('>II', width, height) + data[24:29]
        return data[:8] + png_chunk(b'IHDR', header) + data[33:]
    changed = bytearray(data)
    for marker in (b'\xff\xc0', b'\xff\xc2'):
        at = data.find(marker)
        if at > 0:
            changed[at + 5 : at + 9] = struct.pack('>HH', height & 0xFFFF, width & 0xFFFF)
    return bytes(changed)


class Hostile:
    """Endless source of serialised messages that are bad or at least odd.

    Args:
        seed: Seed of the random generator.
        transport: Transport of the images, ``raw`` or ``compressed``.
    """

    def __init__(self, seed: int, transport: str):
        self._random = random.Random(seed)
        self._transport = transport
        header = make_header(10**18, 'camera')
        pixels = picture(0)
        self._pictures = [
            cv2.imencode(extension, image, options)[1].tobytes()
            for extension, image, options in (
                ('.jpg', pixels, []),
                ('.jpg', pixels, [cv2.IMWRITE_JPEG_PROGRESSIVE, 1]),
                ('.jpg', pixels[..., 0], []),
                ('.png', pixels, []),
                ('.png', pixels[..., 0], []),
                ('.png', pixels.astype(np.uint16) * 257, []),
                ('.png', np.dstack([pixels, pixels[..., 0]]), []),
                ('.webp', pixels, []),
                ('.tiff', pixels, []),
                ('.bmp', pixels, []),
            )
        ]
        self._image = make_image(TYPES.types[IMAGE], header, pixels, 'bgr8')
        self._compressed = TYPES.types[COMPRESSED_IMAGE](header, 'jpeg', np.frombuffer(self._pictures[0], np.uint8))
        self._info = camera_info(header)

    def image(self) -> bytes:
        """Return an image message."""
        if self._transport == 'raw':
            return self._damaged(self._image, self._odd_image)
        return self._damaged(self._compressed, self._odd_picture)

    def camera_info(self) -> bytes:
        """Return a ``CameraInfo`` message."""
        return self._damaged(self._info, self._odd_info)

    def _damaged(self, message: Any, odd: Any) -> bytes:
        if self._random.random() < 0.6:
            message = odd()
            if self._random.random() < 0.3:
                message = dataclasses.replace(message, header=self._odd_header(message.header))
        data = encode(message)
        return data if message is not self._template(message) else self._mutated(data)

    def _template(self, message: Any) -> Any:
        return {IMAGE: self._image, COMPRESSED_IMAGE: self._compressed, CAMERA_INFO: self._info}[message.__msgtype__]

    def _odd_header(self, header: Any) -> Any:
        seconds, nanoseconds = self._random.choice(STAMPS)
        stamp = dataclasses.replace(header.stamp, sec=seconds, nanosec=nanoseconds)
        return dataclasses.replace(header, stamp=stamp, frame_id=self._text(TEXTS))

    def _odd_image(self) -> Any:
        draw = self._random
        changes: dict[str, Any] = {}
        for name in draw.sample(['width', 'height', 'step', 'encoding', 'data'], draw.randint(1, 3)):
            if name == 'encoding':
                changes[name] = self._text((*ENCODINGS, *TEXTS))
            elif name == 'data':
                length = draw.choice([0, 1, self._image.data.size - 1, self._image.data.size + 1, 5000])
                changes[name] = np.resize(np.array([np.nan, np.inf], '<f4').view(np.uint8), length)
            else:
                changes[name] = draw.choice(NUMBERS)
        return dataclasses.replace(self._image, is_bigendian=draw.choice([0, 1, 7, 255]), **changes)

    def _odd_picture(self) -> Any:
        draw = self._random
        data = draw.choice(self._pictures)
        kind = draw.randrange(6)
        if kind == 0:
            data = data[: draw.randrange(len(data))]
        elif kind == 1:
            data = claim(data, draw.choice(NUMBERS), draw.choice(NUMBERS))
        elif kind == 2:
            other = draw.choice(self._pictures)
            data = data[: draw.randrange(len(data))] + other[draw.randrange(len(other)) :]
        elif kind == 3:
            data = self._mutated(data)
        elif kind == 4:
            data = draw.choice([data[:8], b'']) + draw.randbytes(draw.randrange(600))
        text = self._text(_FORMATS)
        return dataclasses.replace(self._compressed, format=text, data=np.frombuffer(data, np.uint8))

    def _odd_info(self) -> Any:
        draw = self._random
        changes: dict[str, Any] = {}
        names = ('width', 'height', 'binning_x', 'binning_y', 'distortion_model', 'd', 'k', 'r', 'p', 'roi')
        for name in draw.sample(names, draw.randint(1, 3)):
            if name == 'distortion_model':
                changes[name] = self._text(('plumb_bob', 'rational_polynomial', 'equidistant', *TEXTS))
            elif name == 'd':
                changes[name] = np.array(draw.choices(REALS, k=draw.choice([0, 1, 4, 5, 8, 14, 1000])), np.float64)
            elif name in ('k', 'r', 'p'):
                values = getattr(self._info, name).copy()
                values[draw.randrange(values.size)] = draw.choice(REALS)
                changes[name] = values
            elif name == 'roi':
                edges = {edge: draw.choice(NUMBERS) for edge in ('x_offset', 'y_offset', 'width', 'height')}
                changes[name] = dataclasses.replace(self._info.roi, **edges)
            else:
                changes[name] = draw.choice(NUMBERS)
        return dataclasses.replace(self._info, **changes)

    def _text(self, texts: tuple[str, ...]) -> str:
        return LONG_TEXT if self._random.random() < 1e-4 else self._random.choice(texts)

    def _mutated(self, data: bytes) -> bytes:
        """Return the bytes cut off, flipped, overwritten by a length or extended, or other bytes instead."""
        draw, changed = self._random, bytearray(data)
        kind = draw.randrange(6)
        # Most bytes of a message are pixels, which may have any value. So half of the changes are in the bytes before.
        at = draw.randrange(min(len(changed), draw.choice([80, len(changed)])))
        if kind == 0:
            del changed[at:]
        elif kind == 1:
            for _ in range(draw.randint(1, 8)):
                changed[draw.randrange(min(len(changed), 80))] ^= 1 << draw.randrange(8)
        elif kind == 2:
            changed[at & -4 : (at & -4) + 4] = struct.pack('<I', draw.choice(NUMBERS))
        elif kind == 3:
            changed[at:at] = draw.randbytes(draw.randint(1, 40))
        elif kind == 4:
            del changed[at : at + draw.randint(1, 40)]
        else:
            changed[draw.choice([0, 4]) :] = draw.randbytes(draw.randrange(200))
        return bytes(changed)


class GoodFrames:
    """Source of valid images with different pixels and stamps.

    Args:
        transport: Transport of the images, ``raw`` or ``compressed``.
    """

    def __init__(self, transport: str):
        self._transport = transport
        self._numbers = itertools.count(1)

    def __next__(self) -> tuple[int, np.ndarray, bytes]:
        """Return stamp in nanoseconds, pixels and message of the next image."""
        number = next(self._numbers)
        stamp, pixels = 1_900_000_000 * 10**9 + number, picture(number)
        header = make_header(stamp, 'camera')
        if self._transport == 'raw':
            return stamp, pixels, encode(make_image(TYPES.types[IMAGE], header, pixels, 'bgr8'))
        data = cv2.imencode('.png', pixels)[1].reshape(-1)
        return stamp, pixels, encode(TYPES.types[COMPRESSED_IMAGE](header, 'png', data))


def camera_info(header: Any) -> Any:
    """Return a valid ``CameraInfo`` for images of the size of :func:`picture`."""
    region = TYPES.types['sensor_msgs/msg/RegionOfInterest'](0, 0, 0, 0, False)
    k = np.array([30.0, 0, 16, 0, 30, 12, 0, 0, 1])
    p = np.array([30.0, 0, 16, 0, 0, 30, 12, 0, 0, 0, 1, 0])
    return TYPES.types[CAMERA_INFO](
        header, HEIGHT, WIDTH, 'plumb_bob', np.zeros(5), k, np.eye(3).reshape(-1), p, 0, 0, region
    )
