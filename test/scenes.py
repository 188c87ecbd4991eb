# SPDX-License-Identifier: Apache-2.0
"""Make pictures and messages for the tests of the node."""

from __future__ import annotations

import cv2
import numpy as np
import ros_helpers  # noqa: F401  (isolates this run; before rclpy)
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import Header


def scene(height: int = 96, width: int = 128, seed: int = 0) -> np.ndarray:
    """Return a picture with sky, road and some blobs, which has several classes, uint8 ``[H, W, 3]`` BGR."""
    noise = np.random.default_rng(seed).integers(0, 60, (height // 8, width // 8, 3), np.uint8)
    image = cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC)
    image[: height // 2] += np.uint8(150)
    cv2.rectangle(image, (width // 4, height // 4), (width // 2, height * 3 // 4), (40, 90, 70), -1)
    return image


_next_stamp = iter(range(1, 10**9))


def next_header(frame_id: str = 'camera') -> Header:
    """Return a header with a unique stamp."""
    header = Header(frame_id=frame_id)
    header.stamp.sec, header.stamp.nanosec = 1_700_000_000, next(_next_stamp)
    return header


def message_of(array: np.ndarray, encoding: str = 'bgr8', padding: int = 0, frame_id: str = 'camera') -> Image:
    """Return the image message of an array, with ``padding`` bytes after each row."""
    rows = np.pad(array.reshape(array.shape[0], -1), ((0, 0), (0, padding)), constant_values=77)
    message = Image(
        header=next_header(frame_id),
        height=array.shape[0],
        width=array.shape[1],
        encoding=encoding,
        step=rows.shape[1],
    )
    message.data.frombytes(rows.tobytes())
    return message


def compressed_of(array: np.ndarray, form: str) -> CompressedImage:
    """Return the compressed image message of an array. ``form`` is ``jpeg`` or ``png``."""
    message = CompressedImage(header=next_header(), format=f'bgr8; {form} compressed bgr8')
    message.data.frombytes(cv2.imencode(f'.{form}', array)[1].tobytes())
    return message


def pinhole_info(image: np.ndarray) -> CameraInfo:
    """Return a CameraInfo with a focal length of 400 pixels, the centre at (240, 180) and no distortion."""
    info = CameraInfo(height=image.shape[0], width=image.shape[1], distortion_model='plumb_bob')
    info.k = [400.0, 0.0, 240.0, 0.0, 400.0, 180.0, 0.0, 0.0, 1.0]
    return info


def pixels(message: Image) -> np.ndarray:
    """Return the array of a message without padding."""
    channels = {'mono8': 1, 'bgr8': 3}[message.encoding]
    assert message.step == message.width * channels
    array = np.frombuffer(message.data, np.uint8)
    return array.reshape((message.height, message.width) + ((3,) if channels == 3 else ()))
