# SPDX-License-Identifier: Apache-2.0
"""Decode and encode ROS messages in the middleware's format (CDR), without ROS.

A raw subscription returns these bytes. Decoding an image from them makes a view; rclpy's own conversion of a 6 MB image
copies it twice and holds the interpreter's lock meanwhile.
"""

from __future__ import annotations

from typing import Any

from rosbags.typesys import Stores, get_typestore

from stdc_core.io.text import one_line

IMAGE = 'sensor_msgs/msg/Image'
COMPRESSED_IMAGE = 'sensor_msgs/msg/CompressedImage'
CAMERA_INFO = 'sensor_msgs/msg/CameraInfo'
POINT_CLOUD = 'sensor_msgs/msg/PointCloud2'

#: Message definitions for writing, and for reading bags that have none of their own (rosbag2 before Iron). The messages
#: that are used here are the same from Humble on.
TYPES = get_typestore(Stores.ROS2_JAZZY)


class WireError(ValueError):
    """Bytes are not a message of the expected type."""


def decode(data: bytes, message_type: str) -> Any:
    """Return the message that the bytes hold; its arrays are views of them.

    Args:
        data: CDR bytes with their header of four bytes. The middleware delivers whatever a publisher sends.
        message_type: Name such as ``sensor_msgs/msg/Image``.

    Raises:
        WireError: The bytes are cut off or damaged.
    """
    try:
        # Sliced by rosbags: of bytes that would be a copy.
        return TYPES.deserialize_cdr(memoryview(data), message_type)
    except Exception as error:  # which, on damaged bytes, depends on the release of rosbags
        raise WireError(f'{len(data)} bytes are not a {message_type}: {one_line(error)}') from error


def encode(message: Any) -> bytes:
    """Return the CDR bytes of a message of :data:`TYPES`, for ``Publisher.publish``."""
    return bytes(TYPES.serialize_cdr(message, message.__msgtype__))
