# SPDX-License-Identifier: Apache-2.0
"""Test ``CompressedImage.format`` in the spellings of all publishers, and the pictures that follow from it."""

from __future__ import annotations

from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from stdc_ros.messages.compressed_format import CompressedFormat, read_format
from stdc_ros.messages.compressed_images import compressed_to_bgr
from stdc_ros.messages.images import ImageError, image_to_bgr

PATTERNS = ('rggb', 'bggr', 'gbrg', 'grbg')

#: A picture without fine detail, which demosaicing and JPEG change little.
SMOOTH = cv2.resize(np.random.default_rng(0).integers(0, 256, (3, 4, 3), np.uint8), (96, 64))


def mosaic_of(image: np.ndarray, pattern: str) -> np.ndarray:
    """Return the Bayer mosaic of an image, uint8 ``[H, W]``."""
    mosaic = np.empty(image.shape[:2], np.uint8)
    for index, colour in enumerate(pattern):
        row, column = divmod(index, 2)
        mosaic[row::2, column::2] = image[row::2, column::2, 'bgr'.index(colour)]
    return mosaic


def compressed(array: np.ndarray, kind: str, text: str) -> SimpleNamespace:
    """Return an object with the fields of ``sensor_msgs/CompressedImage``."""
    return SimpleNamespace(format=text, data=cv2.imencode(f'.{kind}', array)[1].reshape(-1))


def error_of(image: np.ndarray) -> float:
    """Return the mean difference from ``SMOOTH``."""
    return float(np.abs(image.astype(int) - SMOOTH).mean())


@pytest.mark.parametrize('pattern', PATTERNS)
@pytest.mark.parametrize(
    ('kind', 'codec', 'bits'), [('jpg', 'jpeg', 8), ('png', 'png', 8), ('png', 'png', 16), ('jpg', 'jpeg', 16)]
)
@pytest.mark.parametrize(
    'text',
    [
        'bayer_{}; {} compressed bayer_{}',  # ROS 2, jpeg_compress_bayer
        'bayer_{}; {} compressed ',  # ROS 1, and PNG of ROS 2
        'bayer_{}; {} compressed',
        'bayer_{};{} compressed',
        'BAYER_{}; {} Compressed\0',
        'bayer_{}; {}',
        'bayer_{}',
    ],
)
def test_compressed_bayer_image_is_demosaiced(pattern, kind, codec, bits, text):
    encoding = f'{pattern.upper() if "BAYER" in text else pattern}{bits}'
    mosaic = mosaic_of(SMOOTH, pattern)
    if bits == 16 and kind == 'png':  # JPEG reduces 16 bits to 8
        mosaic = mosaic * np.uint16(257)
    assert error_of(compressed_to_bgr(compressed(mosaic, kind, text.format(encoding, codec, encoding)))) < 4


@pytest.mark.parametrize('bits', [8, 16])
def test_compressed_bayer_image_equals_the_raw_one(bits):
    mosaic = mosaic_of(SMOOTH, 'gbrg').astype(f'u{bits // 8}') * (257 if bits == 16 else 1)
    fields = {'height': 64, 'width': 96, 'step': 96 * bits // 8, 'encoding': f'bayer_gbrg{bits}', 'is_bigendian': 0}
    raw = image_to_bgr(SimpleNamespace(**fields, data=mosaic.astype(f'<u{bits // 8}').tobytes()))
    np.testing.assert_array_equal(
        compressed_to_bgr(compressed(mosaic, 'png', f'bayer_gbrg{bits}; png compressed ')), raw
    )


@pytest.mark.parametrize(
    ('encoding', 'text', 'channels'),
    [
        ('mono16', 'mono16; png compressed ', [0]),
        ('bgr16', 'bgr16; png compressed bgr16', [0, 1, 2]),
        ('rgb16', 'rgb16; png compressed bgr16', [2, 1, 0]),
        ('bgra16', 'bgra16; png compressed bgra16', [0, 1, 2, 0]),
        ('bgr16', 'png', [0, 1, 2]),
    ],
)
def test_compressed_16_bit_image_equals_the_raw_one(encoding, text, channels):
    bgr = np.random.default_rng(1).integers(0, 65536, (8, 12, 3), np.uint16)
    fields = {'height': 8, 'width': 12, 'step': 24 * len(channels), 'encoding': encoding, 'is_bigendian': 0}
    raw = image_to_bgr(SimpleNamespace(**fields, data=bgr[..., channels].astype('<u2').tobytes()))
    stored = bgr[..., sorted(channels[:3]) + channels[3:]]
    np.testing.assert_array_equal(compressed_to_bgr(compressed(stored, 'png', text)), raw)


def test_demosaiced_bayer_image_is_unchanged():
    grey = cv2.cvtColor(SMOOTH, cv2.COLOR_BGR2GRAY)
    expected = cv2.cvtColor(grey, cv2.COLOR_GRAY2BGR)
    # By default, ROS 2 converts Bayer images to grey before JPEG compression.
    for text in ('bayer_rggb8; png compressed mono8', 'bayer_rggb16; png compressed mono8'):
        np.testing.assert_array_equal(compressed_to_bgr(compressed(grey, 'png', text)), expected)
    # Pictures with colours are not mosaics, whatever the format says.
    for text in (
        'bayer_rggb8; png compressed bgr8',
        'bayer_rggb8; png compressed ',
        'bayer_rggb8; png compressed rgb8',
    ):
        np.testing.assert_array_equal(compressed_to_bgr(compressed(SMOOTH, 'png', text)), SMOOTH)


@pytest.mark.parametrize('kind', ['jpg', 'png'])
@pytest.mark.parametrize(
    'text',
    [
        '16UC1; png compressed ',
        '16UC1; png compressed',
        '16UC1; jpeg compressed ',
        '16UC1; jpeg compressed mono8',
        '16UC1; jpeg compressed bgr8',
        '16uc1;png',
        '16UC1; png compressed 16UC1',
        '16UC1',
        '32FC1; png compressed ',
        '32FC1; jpeg compressed mono8',
        '16SC1; png compressed ',
        '16UC; png compressed ',
        '32FC; png compressed ',
        '64FC1; png compressed ',
        'png compressed 16UC1',
        'disparity; png compressed ',
        'depth; jpeg compressed ',
        'mono12; jpeg compressed mono8',
        'bayer_rggb12; jpeg compressed ',
    ],
)
def test_depths_are_refused_like_on_raw_topics(text, kind):
    depth = SMOOTH[..., 0] if kind == 'jpg' else SMOOTH[..., 0] * np.uint16(200)
    with pytest.raises(ImageError, match=r"unknown encoding '\w+', expected one of bgr8, 8UC3, rgb8, mono8"):
        compressed_to_bgr(compressed(depth, kind, text))


@pytest.mark.parametrize(
    'text', ['16UC1; compressedDepth', '16UC1; compressedDepth png', '32FC1;compresseddepth rvl', '16UC1; rvl']
)
def test_compressed_depth_is_refused(text):
    with pytest.raises(ImageError, match='holds depths, expected a JPEG or PNG picture'):
        compressed_to_bgr(compressed(SMOOTH[..., 0], 'png', text))


@pytest.mark.parametrize('begin', [b'\0\0\1', b'\0\0\0\1'])
def test_video_is_named(begin):
    with pytest.raises(ImageError, match='holds H.264 or H.265 video, expected a JPEG or PNG; segment_bag'):
        compressed_to_bgr(SimpleNamespace(format='h264', data=begin + b'\x67\x42'))


@pytest.mark.parametrize('text', ['png', '', 'PNG', 'png compressed '])
def test_grey_16_bit_png_without_encoding_is_refused(text):
    depth = SMOOTH[..., 0] * np.uint16(257)
    with pytest.raises(ImageError, match="may hold depths; .* such as 'mono16; png compressed '"):
        compressed_to_bgr(compressed(depth, 'png', text))
    named = compressed_to_bgr(compressed(depth, 'png', 'mono16; png compressed '))
    np.testing.assert_array_equal(named, np.dstack([SMOOTH[..., 0]] * 3))


@pytest.mark.parametrize(
    'text',
    [
        *('', 'jpeg', 'jpg', 'JPEG', '.jpg', 'mjpeg', 'image/jpeg', 'png', 'webp', 'jpeg compressed bgr8'),
        *('rgb8; jpeg compressed bgr8', 'rgb8;jpeg compressed bgr8', 'rgb8; jpeg compressed rgb8', 'rgb8; jpeg'),
        *('bgr8; png compressed bgr8', 'rgb16; png compressed bgr16', 'bgra8; jpeg compressed bgr8', 'rgba8; png'),
        *('yuv422; jpeg compressed bgr8', 'yuv422_yuy2; jpeg compressed bgr8', 'nv12; jpeg compressed bgr8'),
        *('8UC3; jpeg compressed bgr8', '; jpeg compressed bgr8', 'jpeg; bgr8', 'BGR8; JPEG compressed RGB8'),
        *('nv24; jpeg compressed bgr8', 'bgr; jpeg compressed bgr8', 'front camera; jpeg compressed bgr8'),
        *('mono8; jpeg compressed mono8', 'mono8; jpeg compressed ', 'mono16; jpeg compressed mono8', '8UC1; png'),
    ],
)
def test_pictures_with_every_format_spelling(text):
    grey = text.startswith(('mono', '8UC1'))
    picture = np.dstack([SMOOTH[..., 0]] * 3) if grey else SMOOTH
    stored = picture[..., 0] if grey else picture
    np.testing.assert_array_equal(compressed_to_bgr(compressed(stored, 'png', text)), picture)


def test_parts_of_a_format():
    assert read_format('rgb8; jpeg compressed bgr8') == CompressedFormat('rgb8', 'bgr8', False)
    assert read_format('bayer_grbg16; png compressed ') == CompressedFormat('bayer_grbg16', 'bayer_grbg16', False)
    assert read_format('16UC1; compressedDepth png') == CompressedFormat('16uc1', '16uc1', True)
    assert read_format('jpeg') == CompressedFormat('', '', False)
