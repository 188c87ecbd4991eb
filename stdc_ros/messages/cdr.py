# SPDX-License-Identifier: Apache-2.0
"""Decode and encode ROS messages in the middleware's format (CDR), without ROS.

A raw subscription returns these bytes. An image decoded from them is a view of the bytes. rclpy's own conversion copies
a 6 MB image twice, and holds the interpreter's lock meanwhile.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from rosbags.typesys import Stores, get_typestore

from stdc_core.io.text import one_line

IMAGE = 'sensor_msgs/msg/Image'
COMPRESSED_IMAGE = 'sensor_msgs/msg/CompressedImage'
CAMERA_INFO = 'sensor_msgs/msg/CameraInfo'
POINT_CLOUD = 'sensor_msgs/msg/PointCloud2'

#: Message definitions for writing, and for reading bags without definitions (rosbag2 before Iron). The messages used
#: here are the same in Humble and all later distributions.
TYPES = get_typestore(Stores.ROS2_JAZZY)


# End of the part before the length of the data in an image without data.
_LENGTH = -4


class WireError(ValueError):
    """Bytes are not a message of the expected type."""


def decode(data: bytes, message_type: str) -> Any:
    """Return the message in CDR bytes; its arrays are views of the bytes.

    Args:
        data: CDR bytes with their header of four bytes. They may be invalid: the middleware does not check them.
        message_type: Name such as ``sensor_msgs/msg/Image``.

    Raises:
        WireError: The bytes are cut off or damaged.
    """
    try:
        # rosbags slices its input. A slice of a memoryview is a view, a slice of bytes is a copy.
        return TYPES.deserialize_cdr(memoryview(data), message_type)
    except Exception as error:  # the class depends on the release of rosbags
        raise WireError(f'{len(data)} bytes are not a {message_type}: {one_line(error)}') from error


def encode(message: Any) -> bytes:
    """Return the CDR bytes of a message of :data:`TYPES`, for ``Publisher.publish``."""
    name = message.__msgtype__
    if name not in (IMAGE, COMPRESSED_IMAGE):
        return bytes(TYPES.serialize_cdr(message, name))
    # The last field is the data: its length in four bytes, then the bytes. rosbags would copy them three times.
    data = np.ascontiguousarray(message.data).reshape(-1)
    empty = TYPES.serialize_cdr(dataclasses.replace(message, data=data[:0]), name)
    return b''.join((empty[:_LENGTH], np.array(data.size, np.uint32).tobytes(), data.data))
