# SPDX-License-Identifier: Apache-2.0
"""Test the way from a camera's bytes to output messages, without rclpy."""

from __future__ import annotations

import gc
import logging
import subprocess
import sys
import time
import weakref
from typing import Any

import cv2
import numpy as np
import pytest

from stdc_core.inference import Segmenter
from stdc_core.pictures.overlay import colorize, overlay
from stdc_ros.bags.message import make_header
from stdc_ros.ground.camera_info import CameraInfoError
from stdc_ros.messages.cdr import COMPRESSED_IMAGE, IMAGE, TYPES, encode
from stdc_ros.messages.images import make_image
from stdc_ros.node.camera_health import CameraHealth
from stdc_ros.node.frame_pipeline import Frame, FramePipeline
from stdc_ros.node.frame_statistics import FrameStatistics
from stdc_ros.node.outputs import JPEG_FORMAT
from stdc_ros.node.parameters import Parameters

STAMP = 1_700_000_000_000_000_000


@pytest.fixture(scope='module')
def segmenter() -> Segmenter:
    return Segmenter.load()


def picture(seed: int = 0, size: tuple[int, int] = (96, 128)) -> np.ndarray:
    """Return a picture with bright noise above and dark noise below, uint8 BGR."""
    image = np.random.default_rng(seed).integers(0, 60, (*size, 3), np.uint8)
    image[: size[0] // 2] += np.uint8(150)
    return image


class ListCamera:
    """Camera that stores published messages."""

    def __init__(self, *wanted: str, name: str = ''):
        self.name = name
        self.topic = f'/{name}/image'
        self.statistics = FrameStatistics()
        self.health = CameraHealth()
        self.published: list[tuple[str, Any]] = []
        self._wanted = set(wanted)

    def wanted(self) -> set[str]:
        return self._wanted

    def camera_info(self, height: int, width: int) -> Any:
        return f'info of {width} x {height}'

    def publish(self, output: str, message: Any) -> None:
        self.published.append((output, message))

    def frame(self, image: np.ndarray) -> Frame:
        message = make_image(TYPES.types[IMAGE], make_header(STAMP, 'lens'), image, 'bgr8')
        return Frame(self, encode(message), time.monotonic(), time.time())


def array_of(message: Any) -> np.ndarray:
    return message.data.reshape(message.height, message.width, -1).squeeze()


def pipeline_of(segmenter: Segmenter, grids: Any = None, **settings: Any) -> FramePipeline:
    return FramePipeline(segmenter, Parameters(**settings), grids or {}, time.time)


def test_pipeline_needs_no_rclpy():
    code = 'import sys, stdc_ros.node.frame_pipeline; sys.exit("rclpy" in sys.modules)'
    assert subprocess.run([sys.executable, '-c', code]).returncode == 0


def test_labels_are_published_before_pictures(segmenter):
    image = picture()
    camera = ListCamera('mask', 'color_mask', 'overlay')
    pipeline_of(segmenter).process([camera.frame(image)])
    assert [name for name, _ in camera.published] == ['mask', 'color_mask', 'overlay']
    messages = dict(camera.published)
    mask = segmenter(image).mask
    classes = segmenter.info.classes
    np.testing.assert_array_equal(array_of(messages['mask']), mask)
    np.testing.assert_array_equal(array_of(messages['color_mask']), colorize(mask, classes))
    np.testing.assert_array_equal(array_of(messages['overlay']), overlay(image, mask, classes))
    assert all(message.header == make_header(STAMP, 'lens') for message in messages.values())
    assert camera.statistics.counts == {'segmented': 1}


@pytest.mark.parametrize('name', ['color_mask', 'overlay'])
def test_compressed_pictures_have_the_jpeg_quality(segmenter, name):
    sizes = []
    for quality in (30, 95):
        camera = ListCamera(name, f'{name}/compressed')
        pipeline_of(segmenter, jpeg_quality=quality).process([camera.frame(picture())])
        raw, compressed = (dict(camera.published)[output] for output in (name, f'{name}/compressed'))
        assert compressed.__msgtype__ == COMPRESSED_IMAGE
        assert compressed.format == JPEG_FORMAT
        assert compressed.header == raw.header
        expected = cv2.imencode('.jpg', array_of(raw), [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
        assert compressed.data.tobytes() == expected.tobytes()
        sizes.append(len(compressed.data))
    assert sizes[0] < sizes[1]


def test_compressed_picture_without_the_raw_one(segmenter):
    camera = ListCamera('overlay/compressed')
    pipeline_of(segmenter).process([camera.frame(picture())])
    assert [name for name, _ in camera.published] == ['overlay/compressed']


def test_images_of_one_size_are_segmented_in_one_call(segmenter):
    class Counting:
        """Segmenter that records the number of images in each call."""

        calls: list[int] = []

        def __getattr__(self, name: str) -> Any:
            return getattr(segmenter, name)

        def __call__(self, images: np.ndarray, confidence: bool) -> Any:
            self.calls.append(len(images))
            return segmenter(images, confidence)

    cameras = [ListCamera('mask', name=name) for name in 'abc']
    sizes = (64, 96), (96, 128), (64, 96)
    images = [picture(seed, size) for seed, size in enumerate(sizes)]
    FramePipeline(Counting(), Parameters(), {}, time.time).process(
        [camera.frame(image) for camera, image in zip(cameras, images, strict=True)]
    )
    assert sorted(Counting.calls) == [1, 2]
    for camera, image in zip(cameras, images, strict=True):
        ((_, message),) = camera.published
        np.testing.assert_array_equal(array_of(message), segmenter(image).mask)


def test_bad_frame_does_not_affect_the_others(segmenter, caplog):
    good, bad = ListCamera('mask', name='good'), ListCamera('mask', name='bad')
    damaged = bad.frame(picture())._replace(data=b'no image')
    with caplog.at_level(logging.WARNING, 'stdc_ros'):
        pipeline = pipeline_of(segmenter)
        pipeline.process([damaged, good.frame(picture())])
        pipeline.process([damaged])  # log lines are throttled
    assert [name for name, _ in good.published] == ['mask']
    assert not bad.published
    assert bad.statistics.counts['bad'] == 2
    (record,) = [record for record in caplog.records if record.name.startswith('stdc_ros')]
    assert record.getMessage().startswith('image on /bad/image is left out: ')


def test_unwanted_and_old_frames_are_not_segmented(segmenter):
    for camera, outcome in ((ListCamera(), 'unwanted'), (ListCamera('mask'), 'too old')):
        pipeline_of(segmenter, max_frame_age=1.0).process([camera.frame(picture())])
        assert not camera.published
        assert camera.statistics.counts == {outcome: 1}


def test_failed_grid_is_counted_and_the_mask_published(segmenter):
    class NoGrid:
        def message(self, header: Any, segmentation: Any, info: Any) -> Any:
            assert info == 'info of 128 x 96'
            raise CameraInfoError('no transform')

    camera = ListCamera('mask', 'drivable_grid')
    pipeline_of(segmenter, {'': NoGrid()}).process([camera.frame(picture())])
    assert [name for name, _ in camera.published] == ['mask']
    assert camera.statistics.new_troubles() == {'without a grid': '1 frames without a grid (no transform)'}


def test_closed_camera_is_forgotten(segmenter):
    pipeline = pipeline_of(segmenter)
    camera = ListCamera('mask')
    frame = camera.frame(picture())
    pipeline.process([frame._replace(data=b'no image')])
    pipeline.report_failure([frame], RuntimeError('out of memory'))
    forgotten = weakref.ref(camera)
    del camera, frame
    gc.collect()
    assert forgotten() is None
