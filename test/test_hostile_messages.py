# SPDX-License-Identifier: Apache-2.0
"""Test that messages which no camera should send give an image or an error with a reason."""

from __future__ import annotations

import dataclasses
import re
import struct
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from fuzzing import FUZZ, PIXELS, image_or_error, picture_of
from hypothesis import example, given
from hypothesis import strategies as st
from ros_helpers import Client, NodeProcess
from scenes import compressed_of, message_of, scene
from sensor_msgs.msg import CameraInfo, CompressedImage

from stdc_ros.bags.message import make_header
from stdc_ros.ground.camera_info import CameraInfoError, check_fit
from stdc_ros.ground.camera_model import CameraModel
from stdc_ros.messages.cdr import CAMERA_INFO, IMAGE, TYPES, WireError, decode, encode
from stdc_ros.messages.compressed_images import compressed_to_bgr
from stdc_ros.messages.images import ENCODINGS, image_to_bgr, make_image
from stdc_ros.node.outputs import scaled_camera_info

SIZES = st.one_of(st.integers(0, 9), st.sampled_from([100_000, 2**31 - 1, 2**31, 2**32 - 1]))
REALS = st.one_of(st.floats(), st.sampled_from([0.0, 1.0, 1e-320, 1e308, -1e308]))


def calibrated() -> Any:
    """Return a ``CameraInfo`` of ``TYPES`` for images of the size of :data:`PIXELS`."""
    region = TYPES.types['sensor_msgs/msg/RegionOfInterest'](0, 0, 0, 0, False)
    k, p = np.array([30.0, 0, 16, 0, 30, 12, 0, 0, 1]), np.array([30.0, 0, 16, 0, 0, 30, 12, 0, 0, 0, 1, 0])
    header = make_header(10**18, 'camera')
    eye = np.eye(3).reshape(-1)
    return TYPES.types[CAMERA_INFO](header, 24, 32, 'plumb_bob', np.zeros(5), k, eye, p, 0, 0, region)


@FUZZ
@given(
    height=SIZES,
    width=SIZES,
    step=SIZES,
    encoding=st.one_of(st.sampled_from(ENCODINGS), st.sampled_from(['32FC1', '64FC4']), st.text()),
    big_endian=st.integers(0, 255),
    data=st.binary(max_size=700),
)
def test_image_with_any_fields_is_read_or_refused(height, width, step, encoding, big_endian, data):
    message = SimpleNamespace(
        height=height, width=width, step=step, encoding=encoding, is_bigendian=big_endian, data=data
    )
    image = image_or_error(image_to_bgr, message)
    assert image is None or image.shape == (height, width, 3)


@FUZZ
@given(
    height=st.integers(1, 9),
    width=st.integers(1, 9),
    encoding=st.sampled_from(ENCODINGS),
    big_endian=st.integers(0, 255),
    padding=st.integers(0, 3),
    seed=st.integers(0, 9),
)
def test_every_consistent_image_is_read(height, width, encoding, big_endian, padding, seed):
    planar, packed = encoding in ('nv12', 'nv21'), encoding in ('yuv422', 'uyvy', 'yuv422_yuy2', 'yuyv')
    channels = 4 if 'a' in encoding[:4] and 'bay' not in encoding else 3 if encoding[:3] in ('bgr', 'rgb') else 1
    channels = {'8UC4': 4, '8UC3': 3, '8UC1': 1}.get(encoding, 2 if packed else channels)
    step = width * channels * (2 if encoding.endswith('16') else 1) + padding
    rows = height * 3 // 2 if planar else 3 * height if encoding == 'nv24' else height
    data = np.random.default_rng(seed).integers(0, 256, rows * step, np.uint8).tobytes()
    message = SimpleNamespace(
        height=height, width=width, step=step, encoding=encoding, is_bigendian=big_endian, data=data
    )
    image = image_or_error(image_to_bgr, message)
    if (planar and height % 2) or ((planar or packed) and width % 2):
        assert image is None
    else:
        assert image is not None
        assert image.shape == (height, width, 3)


@pytest.mark.parametrize('text', ['x' * 10_000_000, 'bgr8\n[ERROR] all is lost', '\x1b[2J\x1b[31m', '\u202etxet'])
def test_errors_quote_message_texts_safely(text):
    raw = SimpleNamespace(width=1, height=1, step=3, encoding=text, is_bigendian=0, data=bytes(3))
    assert image_or_error(image_to_bgr, raw) is None
    assert image_or_error(compressed_to_bgr, picture_of(b'none', text)) is None
    with pytest.raises(CameraInfoError) as caught:
        CameraModel.from_info(dataclasses.replace(calibrated(), distortion_model=text))
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 1000


GOOD_IMAGE = encode(make_image(TYPES.types[IMAGE], make_header(10**18, 'camera'), PIXELS[:4, :4], 'bgr8'))


@FUZZ
@given(
    at=st.integers(0, 130),
    cut=st.integers(0, 130),
    new=st.one_of(
        st.binary(max_size=12), st.sampled_from([0, 2**31, 2**32 - 1]).map(lambda value: struct.pack('<I', value))
    ),
    data=st.sampled_from([GOOD_IMAGE, encode(calibrated()), b'']),
    of=st.sampled_from([IMAGE, CAMERA_INFO]),
)
@example(at=0, cut=0, new=b'', data=b'', of=IMAGE)
@example(at=20, cut=4, new=b'\xff\xff\xff\xff', data=GOOD_IMAGE, of=IMAGE)
def test_damaged_bytes_are_decoded_or_refused(at, cut, new, data, of):
    try:
        decode(data[:at] + new + data[at + cut :], of)
    except WireError as error:
        assert str(error).isprintable()
        assert of in str(error)


@FUZZ
@given(
    size=st.tuples(SIZES, SIZES),
    binning=st.tuples(st.integers(0, 3), st.integers(0, 3)),
    region=st.tuples(SIZES, SIZES, SIZES, SIZES),
    image=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    larger=st.integers(1, 99_999),
)
@example(size=(24, 32), binning=(0, 0), region=(0, 0, 0, 0), image=(24, 32), larger=99_999)
@example(size=(9, 9), binning=(2, 2), region=(1, 1, 8, 8), image=(4, 4), larger=99_999)
@example(size=(9, 9), binning=(1, 1), region=(2**32 - 1, 0, 9, 9), image=(9, 9), larger=99_999)
@example(size=(2**32 - 1, 2**32 - 1), binning=(1, 1), region=(2**32 - 5, 0, 4, 4), image=(4, 4), larger=99_999)
def test_fitting_camera_info_can_be_scaled_and_encoded(size, binning, region, image, larger):
    info = calibrated()
    roi = TYPES.types['sensor_msgs/msg/RegionOfInterest'](*region, False)
    info = dataclasses.replace(info, height=size[0], width=size[1], binning_x=binning[0], binning_y=binning[1], roi=roi)
    try:
        check_fit(info, *image)
    except CameraInfoError as error:
        assert str(error).isprintable()
        return
    encode(scaled_camera_info(info, info.header, image, (larger, larger)))


@FUZZ
@given(
    d=st.lists(REALS, max_size=14),
    k=st.lists(REALS, min_size=9, max_size=9),
    places=st.sets(st.integers(0, 8), max_size=2),
    model=st.one_of(st.sampled_from(['', 'plumb_bob', 'rational_polynomial', 'equidistant']), st.text(max_size=5)),
    rectified=st.booleans(),
)
@example(d=[0.1, 0.1, 0, 0, 1e-320], k=[0.0] * 9, places=set(), model='plumb_bob', rectified=False)
@example(d=[1e308] * 4, k=[0.0] * 9, places=set(), model='equidistant', rectified=False)
@example(d=[], k=[1e308] * 9, places={0}, model='', rectified=False)
def test_any_camera_info_gives_a_model_or_an_error(d, k, places, model, rectified):
    info = calibrated()
    matrix, projection = info.k.copy(), info.p.copy()
    for place in places:
        matrix[place] = projection[place] = k[place]
    info = dataclasses.replace(info, d=np.array(d, np.float64), k=matrix, p=projection, distortion_model=model)
    points = [
        np.linspace(-1, 1, 7, dtype=np.float32),
        np.zeros(7, np.float32),
        np.linspace(-0.1, 2, 7, dtype=np.float32),
    ]
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        try:
            model = CameraModel.from_info(info, rectified)
        except CameraInfoError as error:
            assert str(error).isprintable()
            assert len(str(error)) < 1000
            return
        model.scaled(16, 12).project(*points)


def test_bad_camera_info_is_counted_and_masks_are_published():
    with NodeProcess(namespace='/left') as process, Client('/left') as client:
        process.wait_for_output('/left/segmentation/mask')
        client.listen('mask', 'camera_info')
        camera = client.node.create_publisher(CameraInfo, '/left/camera_info', 1)
        client.spin_until(lambda: camera.get_subscription_count() == 1, 'the node subscribes to the camera_info')
        frames = 0
        other = CameraInfo(height=480, width=640, k=[500.0, 0.0, 320.0, 0.0, 500.0, 240.0, 0.0, 0.0, 1.0])
        damaged = b'\0\1\0\0' + bytes(8) + b'\xff' * 400  # Fast DDS 3 drops shorter messages itself
        for bad, words in ((damaged, 'are not a sensor_msgs/msg/CameraInfo'), (other, '640 x 480 pixels')):
            client.received['camera_info'].clear()
            while words not in process.output:
                camera.publish(bad)
                client.segment(message_of(scene()))
                client.spin(0.2)
                frames += 1
                assert frames < 200, process.output
        assert not client.received['camera_info']
        warning = next(line for line in process.output.splitlines() if '640 x 480 pixels' in line)
        assert '/left/camera_info: CameraInfo of images of 640 x 480 pixels, expected 128 x 96' in warning
        assert int(client.diagnostics()['frames with a bad CameraInfo']) >= 2
        client.send_with_info(message_of(scene()), camera, CameraInfo(height=96, width=128), 'camera_info')
        assert client.diagnostics()['frames failed'] == '0'


def test_too_large_picture_needs_only_memory_for_its_pixels():
    node = NodeProcess('-p', 'image_transport:=compressed', namespace='/left')
    with node, Client('/left', image='/left/image/compressed', of=CompressedImage) as client:
        client.listen('mask')
        client.segment(compressed_of(scene(), 'png'))
        client.send(compressed_of(np.zeros((8192, 8192), np.uint8), 'png'))
        words = 'image on /left/image/compressed is left out: image of 8192 x 8192 pixels, expected at most 33554432'
        client.spin_until(lambda: words in node.output, 'a warning of the size')
        client.segment(compressed_of(scene(), 'png'))
        peak = re.search(r'VmHWM:\s+(\d+) kB', Path(f'/proc/{node.process.pid}/status').read_text())
        assert int(peak[1]) < 1 << 20  # less than 1 GB; the pixels need 200 MB
        report = client.diagnostics()
        assert (report['bad images'], report['frames failed']) == ('1', '0')


def test_outputs_keep_any_stamp():
    with NodeProcess('-p', 'max_frame_age:=3600.0', namespace='/left') as process, Client('/left') as client:
        process.wait_for_output('/left/segmentation/mask')
        client.listen('mask', 'overlay')
        for seconds, nanoseconds in ((2**31 - 1, 999_999_999), (2**31 - 2, 2**32 - 1)):
            message = message_of(scene())
            message.header.stamp.sec, message.header.stamp.nanosec = seconds, nanoseconds
            for output in ('mask', 'overlay'):
                assert client.segment(message, output).header == message.header
        assert client.set_parameter('max_frame_age', 0.0).successful
        for seconds, nanoseconds in ((1000, 5), (0, 0), (-1, 0), (-(2**31), 2**32 - 1)):
            message = message_of(scene())
            message.header.stamp.sec, message.header.stamp.nanosec = seconds, nanoseconds
            assert client.segment(message).header == message.header
        assert client.diagnostics()['frames failed'] == '0'
        assert 'ERROR' not in process.output
