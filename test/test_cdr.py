# SPDX-License-Identifier: Apache-2.0
"""Test that images are written as rosbags writes them."""

from __future__ import annotations

import numpy as np
import pytest

from stdc_ros.messages.cdr import COMPRESSED_IMAGE, IMAGE, TYPES, decode, encode
from stdc_ros.messages.images import make_image


@pytest.mark.parametrize('frame_id', ['', 'c', 'cam', 'camera_optical_frame', 'Kamera hinten rechts: ä'])
@pytest.mark.parametrize('shape', [(1, 1), (7, 5), (3, 4, 3), (0, 5)])
def test_images_are_the_bytes_of_rosbags(frame_id, shape):
    types = TYPES.types
    header = types['std_msgs/msg/Header'](types['builtin_interfaces/msg/Time'](7, 9), frame_id)
    array = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    image = make_image(types[IMAGE], header, array, 'mono8' if array.ndim == 2 else 'bgr8')
    compressed = types[COMPRESSED_IMAGE](header, 'mono8; png compressed ', array.reshape(-1))
    for message, name in ((image, IMAGE), (compressed, COMPRESSED_IMAGE)):
        data = encode(message)
        assert type(data) is bytes and data == bytes(TYPES.serialize_cdr(message, name))
        np.testing.assert_array_equal(decode(data, name).data, array.reshape(-1))
