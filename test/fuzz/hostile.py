# SPDX-License-Identifier: Apache-2.0
"""Messages that no camera should send: fields that contradict each other, damaged pictures, and damaged bytes.

Small ones, so that a million take minutes. All come from one seed: the same seed makes the same messages.
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

#: Of unsigned fields: nothing, limits of their types, and claims of gigabytes.
NUMBERS = (0, 1, 2, 3, 7, 31, 33, 255, 32767, 32768, 65536, 100_000, 2**31 - 1, 2**31, 2**32 - 1)

#: Of fields that are floating-point numbers.
REALS = (0.0, -1.0, 1.0, 1e-320, 1e-12, 1e6, 1e308, -1e308, float('nan'), float('inf'), -float('inf'))

#: Of texts: unknown and misspelt names, escape codes, lines, other alphabets, and what fills a log.
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

#: Seconds and nanoseconds: none, before 1970, the ends of the fields, and more nanoseconds than a second has.
STAMPS = ((0, 0), (-1, 0), (-(2**31), 0), (2**31 - 1, 999_999_999), (1_700_000_000, 2**32 - 1), (1, 10**9))

_FORMATS = ('bgr8; jpeg compressed bgr8', 'mono8; png compressed ', '16UC1; compressedDepth png', 'tiff', *TEXTS)


def picture(number: int) -> np.ndarray:
    """A picture of its own for each number, uint8 BGR ``[24, 32, 3]``."""
    noise = np.random.default_rng(number).integers(0, 256, (6, 8, 3), np.uint8)
    return cv2.resize(noise, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)


def png_chunk(kind: bytes, data: bytes) -> bytes:
    """A chunk with its length and its right checksum."""
    return struct.pack('>I', len(data)) + kind + data + struct.pack('>I', zlib.crc32(kind + data))


def claim(data: bytes, width: int, height: int) -> bytes:
    """A JPEG or PNG that claims another size; all else in it stays whole."""
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
    """An endless source of messages, as bytes, that are bad or at least odd.

    Args:
        seed: of all that is random.
        transport: of the images, ``raw`` or ``compressed``.
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
        """An image of the transport."""
        if self._transport == 'raw':
            return self._damaged(self._image, self._odd_image)
        return self._damaged(self._compressed, self._odd_picture)

    def camera_info(self) -> bytes:
        """A ``CameraInfo``."""
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
        """Bytes cut off, turned, overwritten by a length, inserted, or none of the message's at all."""
        draw, changed = self._random, bytearray(data)
        kind = draw.randrange(6)
        # Most of a message is pixels, of which every value is a good one: half of the changes are before them.
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
    """Images that must come through, each with pixels and a stamp of its own.

    Args:
        transport: ``raw`` or ``compressed``.
    """

    def __init__(self, transport: str):
        self._transport = transport
        self._numbers = itertools.count(1)

    def __next__(self) -> tuple[int, np.ndarray, bytes]:
        """Its stamp in nanoseconds, its pixels and its message."""
        number = next(self._numbers)
        stamp, pixels = 1_900_000_000 * 10**9 + number, picture(number)
        header = make_header(stamp, 'camera')
        if self._transport == 'raw':
            return stamp, pixels, encode(make_image(TYPES.types[IMAGE], header, pixels, 'bgr8'))
        data = cv2.imencode('.png', pixels)[1].reshape(-1)
        return stamp, pixels, encode(TYPES.types[COMPRESSED_IMAGE](header, 'png', data))


def camera_info(header: Any) -> Any:
    """A ``CameraInfo`` of :func:`picture`'s size that is right."""
    region = TYPES.types['sensor_msgs/msg/RegionOfInterest'](0, 0, 0, 0, False)
    k = np.array([30.0, 0, 16, 0, 30, 12, 0, 0, 1])
    p = np.array([30.0, 0, 16, 0, 0, 30, 12, 0, 0, 0, 1, 0])
    return TYPES.types[CAMERA_INFO](
        header, HEIGHT, WIDTH, 'plumb_bob', np.zeros(5), k, np.eye(3).reshape(-1), p, 0, 0, region
    )
