# SPDX-License-Identifier: Apache-2.0
"""Test the output messages of a segmented image."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from stdc_core.classes import class_table
from stdc_core.inference import Segmentation
from stdc_core.pictures.overlay import overlay
from stdc_ros.bags.message import make_header
from stdc_ros.ground.camera_info import check_fit
from stdc_ros.ground.camera_model import CameraModel
from stdc_ros.messages.cdr import CAMERA_INFO, TYPES, decode, encode
from stdc_ros.node.outputs import FrameOutputs, scaled_camera_info

HEADER = make_header(1_700_000_000_123_456_789, 'camera')
RANDOM = np.random.default_rng(0)
IMAGE = RANDOM.integers(0, 256, (60, 80, 3), np.uint8)
FOUND = Segmentation(RANDOM.integers(0, 11, (60, 80), np.uint8), RANDOM.integers(0, 256, (60, 80), np.uint8))
LABELS = {'mask', 'confidence', 'camera_info', 'mask/compressed'}


def make_info(height: int = 60, width: int = 80):
    return TYPES.types[CAMERA_INFO](
        header=make_header(5, 'camera'),
        height=height,
        width=width,
        distortion_model='plumb_bob',
        d=np.array([0.1, -0.2, 0.0, 0.0, 0.0]),
        k=np.array([50.0, 0, 40, 0, 55, 30, 0, 0, 1]),
        r=np.eye(3).reshape(-1),
        p=np.array([50.0, 0, 40, -7, 0, 55, 30, 0, 0, 0, 1, 0]),
        binning_x=0,
        binning_y=0,
        roi=TYPES.types['sensor_msgs/msg/RegionOfInterest'](0, 0, 0, 0, False),
    )


def array_of(message) -> np.ndarray:
    return message.data.reshape(message.height, message.width, -1).squeeze()


def test_labels_have_the_header_of_the_image():
    outputs = FrameOutputs(HEADER, IMAGE, FOUND, (60, 80), 0.0)
    messages = dict(outputs.labels(LABELS, make_info()))
    assert list(messages) == ['mask', 'confidence', 'camera_info', 'mask/compressed']
    assert all(message.header == HEADER for message in messages.values())
    np.testing.assert_array_equal(array_of(messages['mask']), FOUND.mask)
    np.testing.assert_array_equal(array_of(messages['confidence']), FOUND.confidence)
    compressed = messages['mask/compressed']
    assert compressed.format.startswith('mono8; png')
    np.testing.assert_array_equal(cv2.imdecode(compressed.data, cv2.IMREAD_UNCHANGED), FOUND.mask)


def test_only_wanted_outputs_are_made():
    outputs = FrameOutputs(HEADER, IMAGE, FOUND, (60, 80), 0.0)
    assert [name for name, _ in outputs.labels({'mask', 'overlay'}, make_info())] == ['mask']
    assert not list(outputs.labels({'camera_info'}, None))
    assert [name for name, _ in outputs.pictures({'mask', 'overlay'}, class_table('camvid'), 0.5, 85)] == ['overlay']


@pytest.mark.parametrize('threshold', [0.004, 0.5, 1.0])
def test_pixels_with_low_confidence_lose_their_class(threshold):
    outputs = FrameOutputs(HEADER, IMAGE, FOUND, (60, 80), threshold)
    unsure = FOUND.confidence / 255 < threshold
    np.testing.assert_array_equal(outputs.mask == 255, unsure)
    np.testing.assert_array_equal(outputs.mask[~unsure], FOUND.mask[~unsure])
    # The overlay shows the image at these pixels.
    (_, message) = next(outputs.pictures({'overlay'}, class_table('camvid'), 1.0, 85))
    np.testing.assert_array_equal(array_of(message)[unsure], IMAGE[unsure])


def test_overlay_drawn_elsewhere_is_used_if_it_is_the_same():
    asked: list[float] = []

    def draw(opacity: float) -> np.ndarray:
        asked.append(opacity)
        return 255 - IMAGE

    for size, threshold, taken in (((60, 80), 0.0, True), ((60, 80), 0.5, False), ((30, 40), 0.0, False)):
        outputs = FrameOutputs(HEADER, IMAGE, FOUND, size, threshold)
        ((_, message),) = outputs.pictures({'overlay'}, class_table('camvid'), 0.25, 85, draw)
        assert (message.height, message.width) == size
        assert np.array_equal(message.data, (255 - IMAGE).reshape(-1)) == taken
    assert asked == [0.25]


def test_other_size_takes_nearest_labels_and_scales_the_camera():
    outputs = FrameOutputs(HEADER, IMAGE, FOUND, (20, 16), 0.0)
    messages = dict(outputs.labels(LABELS, make_info()))
    # The middle one of 3 x 5 pixels. (For even numbers, OpenCV before 4.8 chooses another pixel than later versions.)
    np.testing.assert_array_equal(array_of(messages['mask']), FOUND.mask[1::3, 2::5])
    info = messages['camera_info']
    assert (info.height, info.width) == (20, 16)
    np.testing.assert_allclose(info.k, [10, 0, 8, 0, 55 / 3, 10, 0, 0, 1])
    np.testing.assert_allclose(info.p, [10, 0, 8, -1.4, 0, 55 / 3, 10, 0, 0, 0, 1, 0])
    np.testing.assert_array_equal(info.d, make_info().d)
    pictures = dict(outputs.pictures({'color_mask', 'overlay'}, class_table('camvid'), 0.5, 85))
    small = cv2.resize(IMAGE, (16, 20), interpolation=cv2.INTER_AREA)
    expected = overlay(small, FOUND.mask[1::3, 2::5], class_table('camvid'))
    np.testing.assert_array_equal(array_of(pictures['overlay']), expected)


def test_scaled_camera_info_keeps_points_in_place():
    point = np.array([0.3, -0.2, 2.0])
    info = make_info()
    before = np.reshape(info.k, (3, 3)) @ point
    after = np.reshape(scaled_camera_info(info, HEADER, (60, 80), (45, 160)).k, (3, 3)) @ point
    np.testing.assert_allclose(after[:2] / after[2], before[:2] / before[2] * (2.0, 0.75))


@pytest.mark.parametrize('size', [(45, 80), (20, 33), (180, 240)])
@pytest.mark.parametrize(
    ('binning', 'region'),
    [((0, 0), (0, 0, 0, 0)), ((1, 1), (7, 5, 61, 43)), ((2, 2), (0, 0, 0, 0)), ((2, 3), (7, 5, 61, 43))],
)
def test_scaled_region_keeps_points_in_place(binning, region, size):
    info = make_info()
    _left, _top, width, height = region
    info.k[1] = info.p[1] = 1.5
    info.roi.x_offset, info.roi.y_offset, info.roi.width, info.roi.height = region
    info.binning_x, info.binning_y = binning
    image = (height or 60) // max(binning[1], 1), (width or 80) // max(binning[0], 1)
    scaled = scaled_camera_info(info, HEADER, image, size)
    check_fit(scaled, *size)
    assert (scaled.roi.x_offset + scaled.roi.width, scaled.roi.y_offset + scaled.roi.height) <= (
        scaled.width,
        scaled.height,
    )
    point = np.array([0.2]), np.array([-0.1]), np.array([2.0])
    for rectified in (False, True):
        info.p[3] = scaled.p[3] = 0.0
        before = np.concatenate(CameraModel.from_info(info, rectified).project(*point))
        after = np.concatenate(CameraModel.from_info(scaled, rectified).project(*point))
        np.testing.assert_allclose(after / size[::-1], before / image[::-1], atol=1e-9)


def test_messages_survive_encoding():
    outputs = FrameOutputs(HEADER, IMAGE, FOUND, (60, 80), 0.0)
    for _, message in outputs.labels(LABELS, make_info()):
        back = decode(encode(message), message.__msgtype__)
        assert back.header == HEADER
        assert encode(back) == encode(message)
