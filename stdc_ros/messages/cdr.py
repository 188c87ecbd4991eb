# SPDX-License-Identifier: Apache-2.0
"""ROS messages as the middleware carries them (CDR), and the types to read them with, without ROS.

A raw subscription hands over these bytes. Reading an image out of them is a view; rclpy's own conversion of a 6 MB one
copies it twice and holds the interpreter's lock meanwhile.
"""

from __future__ import annotations

from typing import Any

from rosbags.typesys import Stores, get_typestore

from stdc_core.io.text import one_line

IMAGE = 'sensor_msgs/msg/Image'
COMPRESSED_IMAGE = 'sensor_msgs/msg/CompressedImage'
CAMERA_INFO = 'sensor_msgs/msg/CameraInfo'

#: Message definitions: of what is written, and of what is read where a bag has none of its own (rosbag2 before Iron).
#: Those that are used here are the same from Humble on.
TYPES = get_typestore(Stores.ROS2_JAZZY)


class WireError(ValueError):
    """Bytes that are not the message that they should be."""


def decode(data: bytes, message_type: str) -> Any:
    """A message of its bytes; its arrays are views of them.

    Raises:
        WireError: they are cut off or damaged. The middleware hands over whatever a publisher sends.
    """
    try:
        # Sliced by rosbags: of bytes that would be a copy.
        return TYPES.deserialize_cdr(memoryview(data), message_type)
    except Exception as error:  # which, on damaged bytes, depends on the release of rosbags
        raise WireError(f'{len(data)} bytes that are no {message_type}: {one_line(error)}') from error


def encode(message: Any) -> bytes:
    """The bytes of a message of :data:`TYPES`, for ``Publisher.publish``."""
    return bytes(TYPES.serialize_cdr(message, message.__msgtype__))
