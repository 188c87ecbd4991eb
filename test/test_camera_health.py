# SPDX-License-Identifier: Apache-2.0
"""Test the detection of frozen and dark cameras."""

from __future__ import annotations

import numpy as np

from stdc_ros.node.camera_health import PERIOD, CameraHealth


def noise(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (64, 48, 3), np.uint8)


def test_changing_images_are_healthy():
    health = CameraHealth()
    for index in range(20):
        health.update(noise(index), float(index))
        assert health.complaint(float(index), 3.0) == ''


def test_repeated_image_is_reported_until_it_changes():
    health = CameraHealth()
    for index in range(6):
        health.update(noise(0), 10.0 + index)
        assert bool(health.complaint(10.0 + index, 3.5)) == (index > 3)
    assert health.complaint(15.0, 3.5) == 'the same image for 5 s'
    health.update(noise(1), 16.0)
    assert health.complaint(16.0, 3.5) == ''


def test_a_slow_camera_is_not_frozen():
    health = CameraHealth()
    for time in (0.0, 10.0):
        health.update(noise(0), time)
    assert health.complaint(11.0, 3.0) == ''


def test_dark_camera_is_reported_despite_noise():
    health = CameraHealth()
    for index in range(5):
        health.update(noise(index) // 64, float(index))
    assert health.complaint(4.0, 3.0) == 'dark for 4 s (mean value 1.5 of 255)'
    health.update(noise(9), 5.0)
    assert health.complaint(5.0, 3.0) == ''


def test_one_changing_row_is_enough():
    health = CameraHealth()
    image = noise(0)
    for index in range(6):
        image[32, index] ^= 1
        health.update(image, float(index))
    assert health.complaint(5.0, 3.0) == ''


def test_fast_camera_is_looked_at_less_often():
    health, dark = CameraHealth(), noise(0) // 64
    health.update(noise(1), 0.0)
    health.update(dark, PERIOD / 2)
    assert health.complaint(4.0, 3.0) == ''
    health.update(dark, PERIOD)
    assert health.complaint(4.0, 3.0) == 'dark for 4 s (mean value 1.5 of 255)'
