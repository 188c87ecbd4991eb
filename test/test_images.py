# SPDX-License-Identifier: Apache-2.0
"""Test converting image messages of rclpy and rosbags to arrays and back."""

from __future__ import annotations

import os
import subprocess
import sys

os.environ['ROS_PYTHON_CHECK_FIELDS'] = '1'  # makes wrong field types an error

import cv2
import numpy as np
import pytest
from rosbags.typesys import Stores, get_typestore
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header

from stdc_ros.messages.compressed_images import compressed_to_bgr
from stdc_ros.messages.images import ENCODINGS, ImageError, image_to_bgr, make_image
from stdc_ros.messages.opencv_jpeg import decode_by_opencv

HEIGHT, WIDTH = 6, 8
BGR = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)


def message_of(array: np.ndarray, encoding: str, padding: int = 0) -> Image:
    """Return the message of an array ``[H, W, ...]`` of any dtype, with ``padding`` bytes after each row."""
    rows = np.ascontiguousarray(array).view(np.uint8).reshape(array.shape[0], -1)
    rows = np.pad(rows, ((0, 0), (0, padding)), constant_values=99)
    message = Image(height=array.shape[0], width=array.shape[1], encoding=encoding, step=rows.shape[1])
    message.data.frombytes(rows.tobytes())
    return message


@pytest.mark.parametrize('padding', [0, 5])
@pytest.mark.parametrize(
    ('encoding', 'pixels', 'expected'),
    [
        ('bgr8', BGR, BGR),
        ('8UC3', BGR, BGR),
        ('rgb8', BGR[..., ::-1], BGR),
        ('bgra8', np.dstack([BGR, BGR[..., 0]]), BGR),
        ('8UC4', np.dstack([BGR, BGR[..., 0]]), BGR),
        ('rgba8', np.dstack([BGR[..., ::-1], BGR[..., 0]]), BGR),
        ('mono8', BGR[..., 0], np.dstack([BGR[..., 0]] * 3)),
        ('8UC1', BGR[..., 0], np.dstack([BGR[..., 0]] * 3)),
    ],
)
def test_plain_8_bit_encodings_are_exact(encoding, pixels, expected, padding):
    image = image_to_bgr(message_of(pixels, encoding, padding))
    assert image.dtype == np.uint8
    assert image.flags.c_contiguous
    np.testing.assert_array_equal(image, expected)


@pytest.mark.parametrize('kind', ['png', 'jpeg'])
def test_compressed_bayer_pattern_is_not_grey(kind):
    pattern = np.zeros((16, 16), np.uint8)
    pattern[::2, ::2] = 255  # rggb: only red
    picture = cv2.imencode(f'.{kind}', pattern)[1]
    colour = compressed_to_bgr(CompressedImage(format=f'bayer_rggb8; {kind} compressed ', data=picture.tobytes()))
    expected = image_to_bgr(message_of(pattern, 'bayer_rggb8'))
    assert np.abs(colour.astype(int) - expected).max() <= (0 if kind == 'png' else 40)
    assert colour[4:-4, 4:-4, 2].min() > 200 and colour[4:-4, 4:-4, 0].max() < 60
    for other in (f'bayer_rggb8; {kind} compressed bgr8', f'mono8; {kind} compressed ', kind):
        grey = compressed_to_bgr(CompressedImage(format=other, data=picture.tobytes()))
        np.testing.assert_array_equal(grey[..., 0], grey[..., 2])


def test_bgr8_without_padding_is_not_copied():
    message = message_of(BGR, 'bgr8')
    assert np.shares_memory(image_to_bgr(message), np.frombuffer(message.data, np.uint8))


@pytest.mark.parametrize('padding', [0, 6])
@pytest.mark.parametrize('big_endian', [False, True])
@pytest.mark.parametrize(
    ('encoding', 'channels'), [('bgr16', [0, 1, 2]), ('rgb16', [2, 1, 0]), ('bgra16', [0, 1, 2, 0]), ('mono16', 0)]
)
def test_16_bit_images_are_scaled_to_8(encoding, channels, big_endian, padding):
    # Not times 257, which makes both bytes equal, so that their order would not matter.
    pixels = (BGR.astype(np.uint16) * 256 + 7)[..., channels]
    message = message_of(pixels.astype('>u2' if big_endian else '<u2'), encoding, padding)
    message.is_bigendian = int(big_endian)
    expected = BGR if encoding != 'mono16' else np.dstack([BGR[..., 0]] * 3)
    assert np.abs(image_to_bgr(message).astype(int) - expected).max() <= 1


@pytest.mark.parametrize('padding', [0, 6])
def test_yuv_and_bayer_images_keep_their_colours(padding):
    blue = np.full((HEIGHT, WIDTH, 3), (200, 60, 30), np.uint8)
    yuv = cv2.cvtColor(blue[:2, :2], cv2.COLOR_BGR2YUV_I420).reshape(-1)[[0, 4, 5]]  # Y, U, V
    uyvy = np.tile(np.array([[yuv[1], yuv[0]], [yuv[2], yuv[0]]], np.uint8), (HEIGHT, WIDTH // 2, 1))
    bayer = np.empty((HEIGHT, WIDTH), np.uint8)  # bggr: blue first
    bayer[::2, ::2], bayer[1::2, 1::2], bayer[::2, 1::2], bayer[1::2, ::2] = 200, 30, 60, 60
    luma, chroma = np.full((HEIGHT, WIDTH), yuv[0]), np.tile(yuv[1:], (HEIGHT // 2, WIDTH // 2))
    planar = message_of(np.vstack([luma, chroma]).astype(np.uint8), 'nv12', padding)
    planar.height = HEIGHT
    full = np.zeros((3 * HEIGHT, WIDTH + padding), np.uint8)
    full[:HEIGHT, :WIDTH] = yuv[0]
    full[HEIGHT:].reshape(HEIGHT, -1)[:, : 2 * WIDTH] = np.tile(yuv[1:], (HEIGHT, WIDTH))
    planar_444 = message_of(full, 'nv24')
    planar_444.height, planar_444.width = HEIGHT, WIDTH
    messages = [
        planar,
        planar_444,
        message_of(bayer, 'bayer_bggr8', padding),
        message_of(bayer.astype(np.uint16) * 257, 'bayer_bggr16', padding),
        *(message_of(uyvy, encoding, padding) for encoding in ('yuv422', 'uyvy')),
        *(message_of(uyvy[..., ::-1], encoding, padding) for encoding in ('yuv422_yuy2', 'yuyv')),
    ]
    for message in messages:
        image = image_to_bgr(message)
        assert image.shape == blue.shape, message.encoding
        assert np.abs(image.astype(int) - blue).max() <= 3, message.encoding


def test_every_listed_encoding_is_read():
    for encoding in ENCODINGS:
        message = Image(height=4, width=4, encoding=encoding, step=32)
        message.data.frombytes(bytes(32 * {'nv12': 6, 'nv21': 6, 'nv24': 12}.get(encoding, 4)))
        assert image_to_bgr(message).shape == (4, 4, 3), encoding


@pytest.mark.parametrize(
    ('changes', 'words'),
    [
        ({'width': 0}, '0 x 6'),
        ({'height': 0}, '8 x 0'),
        ({'width': 9}, 'step 24'),
        ({'height': 7}, '144 bytes'),
        ({'height': 2**32 - 1, 'width': 2**31, 'step': 2**32 - 1}, '2147483648 x 4294967295 pixels, expected at most'),
        ({'height': 2**32 - 1}, '8 x 4294967295 pixels, expected at most'),
        ({'height': 10_000}, '144 bytes'),
        ({'step': 0}, 'step 0'),
        ({'step': 25}, '144 bytes'),
        ({'data': b''}, '0 bytes'),
        ({'data': bytes(143)}, '143 bytes'),
        ({'encoding': 'bgra8'}, 'expected at least 32'),
        ({'encoding': ''}, "unknown encoding ''"),
        ({'encoding': '32FC1'}, "unknown encoding '32FC1'"),
        ({'encoding': 'bgr16'}, 'expected at least 48'),
        ({'encoding': 'yuv422', 'width': 7}, 'even width'),
        ({'encoding': 'nv12', 'height': 5}, 'even width and height'),
    ],
)
def test_contradicting_message_is_an_error(changes, words):
    message = message_of(BGR, 'bgr8')
    for name, value in changes.items():
        setattr(message, name, value)
    with pytest.raises(ImageError, match=words):
        image_to_bgr(message)


@pytest.mark.parametrize('encoding', ['bgr8', 'yuv422'])
def test_jpeg_instead_of_pixels_is_an_error(encoding):
    """usb_cam's pixel format raw_mjpeg publishes such images: the JPEG and what was in the buffer behind it."""
    pixels = np.full((48, 64, 3 if encoding == 'bgr8' else 2), 128, np.uint8)
    jpeg = cv2.imencode('.jpg', cv2.resize(BGR, (64, 48)))[1].reshape(-1)
    pixels.reshape(-1)[: jpeg.size] = jpeg
    with pytest.raises(ImageError, match=f'the data of a {encoding} image of 64 x 48 pixels is a JPEG'):
        image_to_bgr(message_of(pixels, encoding))
    pixels.reshape(-1)[3:] = 128  # only its first three bytes
    assert image_to_bgr(message_of(pixels, encoding)).shape == (48, 64, 3)


@pytest.mark.parametrize('extension', ['jpg', 'png'])
def test_compressed_images(extension):
    smooth = cv2.resize(BGR, (64, 48))
    encoded = cv2.imencode(f'.{extension}', smooth, [cv2.IMWRITE_JPEG_QUALITY, 100])[1].tobytes()
    image = compressed_to_bgr(CompressedImage(format=f'bgr8; {extension} compressed bgr8', data=encoded))
    assert np.abs(image.astype(int) - smooth).mean() < 4


@pytest.mark.parametrize(
    ('format_', 'data'), [('jpeg', b''), ('jpeg', b'no image'), ('16UC1; compressedDepth png', bytes(100))]
)
def test_invalid_compressed_images(format_, data):
    with pytest.raises(ImageError, match=f'{format_}.*{len(data)} bytes'):
        compressed_to_bgr(CompressedImage(format=format_, data=data))


@pytest.mark.parametrize('broken', ['full', 'closed'])
def test_broken_stderr_does_not_affect_decoding(monkeypatch, broken):
    encoded = cv2.imencode('.jpg', BGR)[1].tobytes()
    decode = cv2.imdecode
    expected = decode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_COLOR)

    def decode_and_log(*arguments):
        os.write(2, b'of another thread\n')
        return decode(*arguments)

    monkeypatch.setattr(cv2, 'imdecode', decode_and_log)
    decode_by_opencv(encoded)  # opens the file that receives the lines
    if broken == 'full':
        writing = os.open('/dev/full', os.O_WRONLY)
    else:
        reading, writing = os.pipe()
        os.close(reading)
    before = os.dup(2)
    os.dup2(writing, 2)
    try:
        descriptors = len(os.listdir('/proc/self/fd'))
        for _ in range(3):
            np.testing.assert_array_equal(decode_by_opencv(encoded), expected)
        assert len(os.listdir('/proc/self/fd')) == descriptors
    finally:
        os.dup2(before, 2)
        os.close(before)
        os.close(writing)


@pytest.mark.parametrize(('encoding', 'array'), [('mono8', BGR[..., 1]), ('bgr8', BGR[:, ::-1])])
def test_make_image_for_rclpy_and_rosbags(encoding, array):
    store = get_typestore(Stores.ROS2_HUMBLE)
    time = store.types['builtin_interfaces/msg/Time'](sec=5, nanosec=7)
    bag_header = store.types['std_msgs/msg/Header'](stamp=time, frame_id='camera')
    header = Header(frame_id='camera')
    header.stamp.sec, header.stamp.nanosec = 5, 7
    ros = make_image(Image, header, array, encoding)
    bag = make_image(store.types['sensor_msgs/msg/Image'], bag_header, array, encoding)
    for message in (ros, bag):
        assert (message.height, message.width, message.encoding) == (HEIGHT, WIDTH, encoding)
        assert message.step == WIDTH * (3 if encoding == 'bgr8' else 1)
        assert (message.header.stamp.sec, message.header.stamp.nanosec) == (5, 7)
        assert message.header.frame_id == 'camera'
        assert bytes(message.data) == array.tobytes()
        image = image_to_bgr(message)
        np.testing.assert_array_equal(image if encoding == 'bgr8' else image[..., 0], array)
    back = store.deserialize_cdr(store.serialize_cdr(bag, 'sensor_msgs/msg/Image'), 'sensor_msgs/msg/Image')
    assert bytes(back.data) == array.tobytes()


@pytest.mark.parametrize(
    ('array', 'encoding'),
    [(BGR, 'mono8'), (BGR[..., 0], 'bgr8'), (BGR.astype(np.int16), 'bgr8'), (BGR, 'rgb16'), (BGR[..., :2], 'bgr8')],
)
def test_make_image_refuses_wrong_arrays(array, encoding):
    with pytest.raises(ValueError, match=encoding):
        make_image(Image, Header(), array, encoding)


def test_images_need_no_ros():
    code = (
        'import sys, stdc_ros.messages.images, stdc_ros.node.latest_frame_worker; '
        'print([name for name in ("rclpy", "sensor_msgs", "rosbags", "torch") if name in sys.modules])'
    )
    environment = {**os.environ, 'PYTHONPATH': os.pathsep.join(sys.path)}
    found = subprocess.run([sys.executable, '-c', code], env=environment, capture_output=True, text=True, check=True)
    assert found.stdout.strip() == '[]'
