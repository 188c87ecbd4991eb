# SPDX-License-Identifier: Apache-2.0
"""Test that unusual JPEGs with all pixels are read, and that missing or shifted pixels are an error."""

from __future__ import annotations

import itertools
import re
import struct
from collections.abc import Callable
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from stdc_core.io.jpeg_header import JpegError, read_jpeg
from stdc_ros.messages import jpeg_decoder
from stdc_ros.messages.compressed_images import compressed_to_bgr
from stdc_ros.messages.images import ImageError
from stdc_ros.messages.jpeg_seams import is_shifted, largest_stair
from stdc_ros.messages.opencv_jpeg import decode_by_opencv

RNG = np.random.default_rng(0)
HEIGHT, WIDTH = 240, 400


def photograph(height: int = HEIGHT, width: int = WIDTH, seed: int = 0) -> np.ndarray:
    """Return a picture with large and small detail, uint8 BGR."""
    rng = np.random.default_rng(seed)
    image = np.zeros((height, width, 3), np.float32)
    for cells, weight in ((3, 90), (12, 40), (60, 12)):
        noise = rng.normal(0, weight, (cells, cells * width // height, 3)).astype(np.float32)
        image += cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC)
    return np.clip(image + 120, 0, 255).astype(np.uint8)


IMAGE = photograph()


def jpeg_of(image: np.ndarray, *options: int) -> bytes:
    return cv2.imencode('.jpg', image, options)[1].tobytes()


FORMS = {
    'baseline': jpeg_of(IMAGE),
    'grey': jpeg_of(IMAGE[..., 0]),
    'progressive': jpeg_of(IMAGE, cv2.IMWRITE_JPEG_PROGRESSIVE, 1),
    'restarts': jpeg_of(IMAGE, cv2.IMWRITE_JPEG_RST_INTERVAL, 7),
    'grey restarts': jpeg_of(IMAGE[..., 0], cv2.IMWRITE_JPEG_RST_INTERVAL, 50),
    '4:2:2': jpeg_of(IMAGE, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_422),
}


@pytest.fixture(params=['simplejpeg', 'OpenCV'], autouse=True)
def _library(request, monkeypatch):
    if request.param == 'OpenCV':
        monkeypatch.setattr(jpeg_decoder, '_decoder', lambda: decode_by_opencv)
    else:
        pytest.importorskip('simplejpeg')


def read(data: bytes) -> np.ndarray:
    return compressed_to_bgr(SimpleNamespace(format='jpeg', data=data))


def decoded(data: bytes) -> np.ndarray:
    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)


def with_segment(data: bytes, kind: int, content: bytes) -> bytes:
    """Return the JPEG with one more segment after its start marker."""
    return data[:2] + bytes([0xFF, kind]) + struct.pack('>H', len(content) + 2) + content + data[2:]


@pytest.mark.parametrize('form', FORMS)
@pytest.mark.parametrize(
    'change',
    [
        lambda data: data,
        lambda data: data[:-2],
        lambda data: data[:-1],
        lambda data: data[:-2] + b'\0\0\xff\xd9',
        lambda data: data[:-2] + b'\x12\x34\x56\xff\xd9',
        lambda data: data[:-2] + b'\xff\xff\xff\xff\xd9',
        lambda data: data[:-2] + bytes(200) + b'\xff\xd9',
        lambda data: data[:-2] + bytes(200),
        lambda data: data + bytes(200),
        lambda data: data + data[:300],
    ],
    ids=['as it is', 'no end', 'half an end', 'zeros', 'bytes', 'fill', 'many zeros', 'zeros, no end', 'behind', 'two'],
)
def test_complete_jpeg_with_an_unusual_end_is_read(form, change):
    data = change(FORMS[form])
    for _ in range(2):  # also a second time, as with the frames of a camera
        np.testing.assert_array_equal(read(data), decoded(FORMS[form]))


def change_restarts(data: bytes, change: Callable[[int, bytes], bytes]) -> bytes:
    """Return the JPEG with each restart marker replaced by the result for its number and its bytes."""
    start, numbers = data.find(b'\xff\xda'), itertools.count()
    return data[:start] + re.sub(rb'\xff[\xd0-\xd7]', lambda match: change(next(numbers), match[0]), data[start:])


@pytest.mark.parametrize('form', ['restarts', 'grey restarts'])
@pytest.mark.parametrize(
    'extra',
    [b'\x12', b'\x12\x34\x56\x78\x9a', bytes(40), b'\xff\xff'],
    ids=['a byte', 'bytes', 'many zeros', 'fill'],
)
def test_extra_bytes_before_restart_markers_are_skipped(form, extra):
    """Some webcams write them in every frame, such as Logitech's C270 and C310."""
    whole = decoded(FORMS[form])
    everywhere = change_restarts(FORMS[form], lambda number, marker: extra + marker)
    np.testing.assert_array_equal(read(everywhere), whole)
    here_and_there = change_restarts(FORMS[form], lambda number, marker: extra[: number % 4] + marker)
    np.testing.assert_array_equal(read(here_and_there[:-2] + extra + b'\xff\xd9'), whole)


@pytest.mark.parametrize(
    'change',
    [
        lambda number, marker: b'\x12' * 40 + marker if number == 5 else marker,
        lambda number, marker: b'\x12' + (b'' if number == 5 else marker),
        lambda number, marker: b'\x12' + (b'\xff\xd3' if number == 5 else marker),
        lambda number, marker: b'\x12' + marker * (2 if number == 5 else 1),
    ],
    ids=['code of blocks', 'lost marker', 'wrong marker', 'lost pixels'],
)
def test_damage_between_restart_markers_is_an_error(change):
    with pytest.raises(ImageError, match='is damaged'):
        read(change_restarts(FORMS['restarts'], change))


@pytest.mark.parametrize('form', FORMS)
def test_jpeg_with_unusual_headers_is_read(form):
    data = FORMS[form]
    first = 2 + data[4] * 256 + data[5] + 2  # after the JFIF segment
    for changed in (
        data[:11] + b'\5' + data[12:],  # JFIF 5.1
        data[:first] + b'\0\0\0' + data[first:],
        with_segment(data, 0xE2, b'ICC_PROFILE\0\1\0' + bytes(9)),
        with_segment(data, 0xEE, b'Adobe\0\x64\0\0\0\0\7'),
        with_segment(data, 0xFE, b'a comment'),
    ):
        np.testing.assert_array_equal(read(changed), decoded(data))
    if form != 'progressive':
        scan = data.find(b'\xff\xda')
        last = scan + 2 + data[scan + 3]
        np.testing.assert_array_equal(read(data[: last - 3] + b'\0\0\0' + data[last:]), decoded(data))


def test_motion_jpeg_without_huffman_tables_is_read():
    data, position = FORMS['4:2:2'], 2
    bare = bytearray(data[:2])
    while data[position + 1] != 0xDA:
        length = 2 + int.from_bytes(data[position + 2 : position + 4], 'big')
        if data[position + 1] != 0xC4:
            bare += data[position : position + length]
        position += length
    assert len(bare) < position - 400
    np.testing.assert_array_equal(read(bytes(bare) + data[position:]), decoded(data))


@pytest.mark.parametrize('form', FORMS)
@pytest.mark.parametrize('end', [b'', b'\xff\xd9'])
def test_jpeg_with_missing_pixels_is_an_error(form, end):
    data = FORMS[form]
    for length in (len(data) - 4, len(data) - 10, len(data) * 9 // 10, len(data) // 2):
        with pytest.raises(ImageError, match=r'damaged|cut off'):
            read(data[:length] + end)
    with pytest.raises(ImageError, match='damaged'):
        read(data[: len(data) * 2 // 3] + data[-400:])


def test_progressive_jpeg_with_missing_scans_is_an_error():
    data = FORMS['progressive']
    at = [i for i in range(len(data)) if data[i : i + 2] == b'\xff\xda']
    assert len(at) > 4
    for end in at[1:]:
        tables = data.rfind(b'\xff\xc4', at[0], end)
        with pytest.raises(ImageError, match='it has no end'):
            read(data[: tables if tables > 0 else end])


@pytest.mark.parametrize('form', ['baseline', 'grey', '4:2:2'])
def test_random_bytes_before_the_end_are_an_error(form):
    data = FORMS[form]
    noise = bytes(RNG.integers(0, 255, 40, np.uint8))
    with pytest.raises(ImageError, match='extraneous'):
        read(data[:-2] + noise + data[-2:])


def shifted(image: np.ndarray, unit: tuple[int, int], at: tuple[int, int], change: tuple[int, int, int]) -> np.ndarray:
    """Return the image with another brightness from a block on, as one wrong difference changes it."""
    changed = image.astype(int)
    row, column = at[0] * unit[0], at[1] * unit[1]
    changed[row : row + unit[0], column:] += change
    changed[row + unit[0] :] += change
    return np.clip(changed, 0, 255).astype(np.uint8)


@pytest.mark.parametrize('size', [(HEIGHT, WIDTH), (720, 1280), (1080, 1920)])
@pytest.mark.parametrize('unit', [(16, 16), (8, 16), (8, 8)])
def test_shifted_pictures_are_detected(size, unit):
    for seed in range(3):
        image = photograph(*size, seed)
        assert not is_shifted(image, *unit)
        for change in ((25, 25, 25), (-30, -30, -30), (40, 0, 0)):
            at = (size[0] // unit[0] // 3, size[1] // unit[1] * (seed + 1) // 5)
            assert is_shifted(shifted(image, unit, at, change), *unit)


def test_natural_edges_are_not_stairs():
    image = photograph(720, 1280)
    image[:160] = 0  # a black bar
    image[-128:] = (40, 40, 40)
    image[320:480, 640:] = 255  # a window
    assert not is_shifted(image, 16, 16)
    assert largest_stair(image, 16, 16) < 5


def test_wrong_bit_that_changes_brightness_is_an_error():
    """Single wrong bits are detected if they change many pixels but not the number of pixels."""
    data = jpeg_of(photograph(720, 1280), cv2.IMWRITE_JPEG_QUALITY, 90)
    whole, start = decoded(data), data.find(b'\xff\xda') + 14
    wrong, missed = 0, 0
    for bit in RNG.integers(start * 8, len(data) * 8 - 32, 40):
        damaged = bytearray(data)
        damaged[bit // 8] ^= 1 << bit % 8
        try:
            image = read(bytes(damaged))
        except ImageError:
            wrong += 1
            continue
        share = (np.abs(image.astype(int) - whole).max(2) > 16).mean()
        missed += share > 0.05
        wrong += share > 0.05
    assert wrong > 10
    assert missed <= wrong // 4


def test_block_size_of_a_jpeg():
    units = {name: read_jpeg(data)[3:5] for name, data in FORMS.items()}
    assert units == {
        'baseline': (16, 16),
        'grey': (8, 8),
        'progressive': (16, 16),
        'restarts': (16, 16),
        'grey restarts': (8, 8),
        '4:2:2': (8, 16),
    }
    with pytest.raises(JpegError, match='it has no end'):
        read_jpeg(FORMS['baseline'][:-2])
