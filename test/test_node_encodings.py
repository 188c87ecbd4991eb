# SPDX-License-Identifier: Apache-2.0
"""Test that the live node gives the offline masks for every encoding, with padding, odd sizes and big-endian data."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from ros_helpers import Client, NodeProcess
from scenes import message_of, pixels, scene
from sensor_msgs.msg import Image

from stdc_core.inference import Segmenter
from stdc_ros.messages.images import ENCODINGS, image_to_bgr

#: Encodings in which two pixels share their chroma.
PACKED = ('yuv422', 'uyvy', 'yuv422_yuy2', 'yuyv')

#: Indices in BGR of the four pixels of a Bayer tile, row by row.
COLOURS = {'r': 2, 'g': 1, 'b': 0}


@pytest.fixture(scope='module')
def segmenter() -> Segmenter:
    return Segmenter.load()


@pytest.fixture(scope='module')
def client():
    with NodeProcess(namespace='/codes') as process:
        process.wait_for_output('/codes/image -> /codes/segmentation/mask')
        with Client('/codes') as client:
            client.listen('mask')
            yield client


def size_of(encoding: str) -> tuple[int, int]:
    """Return height and width for an encoding, odd if the encoding allows it."""
    if encoding in ('nv12', 'nv21'):
        return 70, 94
    return 71, 94 if encoding in PACKED else 93


def rows_of(image: np.ndarray, encoding: str, order: str = '<') -> np.ndarray:
    """Return an image in an encoding, uint8 ``[rows, bytes]``.

    Args:
        image: uint8 ``[H, W, 3]`` BGR.
        encoding: Name of the encoding.
        order: Byte order of 16-bit numbers, ``<`` or ``>``.
    """
    if encoding.startswith('bayer'):
        values = np.empty(image.shape[:2], np.uint8)
        for index, colour in enumerate(encoding[6:10]):
            row, column = divmod(index, 2)
            values[row::2, column::2] = image[row::2, column::2, COLOURS[colour]]
    elif encoding in ('nv12', 'nv21'):
        luma, chroma = planes_of(image)
        pairs = np.stack(chroma if encoding == 'nv12' else chroma[::-1], axis=-1)
        values = np.vstack([luma, pairs.reshape(-1, image.shape[1])])
    elif encoding == 'nv24':
        luma, chroma = planes_of(cv2.resize(image, None, fx=2, fy=2, interpolation=cv2.INTER_NEAREST))
        values = np.concatenate([luma[::2, ::2].reshape(-1), np.stack(chroma, axis=-1).reshape(-1)])
        values = values.reshape(-1, image.shape[1])
    elif encoding in PACKED:
        luma, chroma = planes_of(np.repeat(image, 2, axis=0))  # one chroma row for each image row
        pair = [luma[::2], np.stack(chroma, axis=-1).reshape(image.shape[:2])]
        values = np.stack(pair if encoding in ('yuv422_yuy2', 'yuyv') else pair[::-1], axis=-1)
    elif encoding in ('mono8', 'mono16', '8UC1'):
        values = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
    else:
        alpha = np.full((*image.shape[:2], 1), 9, np.uint8)
        colours = image[..., ::-1] if encoding.startswith('rgb') else image
        values = np.dstack([colours, alpha]) if 'a' in encoding or encoding == '8UC4' else colours
    if encoding.endswith('16'):
        # Not times 257, which makes both bytes equal, so that their order would not matter.
        values = (values.astype(np.uint16) * 256 + 7).astype(f'{order}u2')
    return np.ascontiguousarray(values).view(np.uint8).reshape(values.shape[0], -1)


def planes_of(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return luma ``[H, W]`` and both chromas ``[2, H / 2, W / 2]`` of an image of even size."""
    height, width = image.shape[:2]
    planes = cv2.cvtColor(image, cv2.COLOR_BGR2YUV_I420)
    return planes[:height], planes[height:].reshape(2, height // 2, width // 2)


def encoded(image: np.ndarray, encoding: str, padding: int, order: str = '<') -> Image:
    """Return the message of an image in an encoding, with ``padding`` bytes after each row."""
    rows = rows_of(image, encoding, order)
    if encoding == 'nv24':  # a chroma row is twice as long, and so is its padding
        height, width = image.shape[:2]
        chroma = np.pad(rows[height:].reshape(height, 2 * width), ((0, 0), (0, 2 * padding)))
        luma = np.pad(rows[:height], ((0, 0), (0, padding)))
        rows, padding = np.concatenate([luma, chroma.reshape(2 * height, width + padding)]), 0
    message = message_of(rows, encoding, padding)
    message.height, message.width = image.shape[:2]
    message.is_bigendian = int(order == '>')
    return message


@pytest.mark.parametrize('encoding', ENCODINGS)
def test_mask_of_every_encoding_equals_the_segmenters(client, segmenter, encoding):
    image = scene(*size_of(encoding))
    plain = image_to_bgr(encoded(image, encoding, padding=0))
    expected = segmenter(plain).mask
    assert len(np.unique(expected)) > 1
    # Demosaicing and shared chroma change colours at edges.
    grey = encoding in ('mono8', 'mono16', '8UC1')
    original = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR) if grey else image
    assert np.median(np.abs(plain.astype(int) - original)) <= 3
    for order in '<>' if encoding.endswith('16') else '<':
        for padding in (0, 6):
            message = encoded(image, encoding, padding, order)
            mask = client.segment(message)
            assert mask.header == message.header
            assert mask.encoding == 'mono8'
            np.testing.assert_array_equal(pixels(mask), expected, f'{padding} bytes of padding, byte order {order}')
