# SPDX-License-Identifier: Apache-2.0
"""Message types in bags: how recorders spell their names, and how their bytes are read."""

from __future__ import annotations

import re
from typing import Any

from rosbags.typesys import Stores, get_types_from_msg, get_typestore

from stdc_ros.messages.cdr import CAMERA_INFO, COMPRESSED_IMAGE, IMAGE

__all__ = ['BAG_TYPES', 'CAMERA_INFO', 'COMPRESSED_IMAGE', 'IMAGE', 'LABEL_INFO', 'read_message', 'ros2_type_name']

LABEL_INFO = 'vision_msgs/msg/LabelInfo'

#: Message encodings that can be read. ``''`` is what old recorders of ROS 2 write for CDR.
CDR_ENCODINGS = ('cdr', '')
ROS1_ENCODING = 'ros1'

#: Message definitions of everything that is read from or written to bags. Definitions inside a bag are not used:
#: rosbags would generate Python code from them.
BAG_TYPES = get_typestore(Stores.ROS2_JAZZY)
# vision_msgs is not part of the ROS 2 core, so rosbags does not know it.
BAG_TYPES.register(get_types_from_msg('uint16 class_id\nstring class_name', 'vision_msgs/msg/VisionClass'))
BAG_TYPES.register(
    get_types_from_msg('std_msgs/Header header\nvision_msgs/VisionClass[] class_map\nfloat32 threshold', LABEL_INFO)
)


def ros2_type_name(name: str) -> str:
    """Return the ROS 2 spelling of a message type, such as ``sensor_msgs/msg/Image``.

    ``sensor_msgs/Image`` (ROS 1 and some ROS 2 recorders), ``sensor_msgs::msg::dds_::Image_`` (DDS recorders) and
    ``sensor_msgs.msg.Image`` name the same type. Any other name is returned as it is.

    Args:
        name: Type name as a bag has it.
    """
    parts = re.split(r'::|[/.]', name)
    if 'dds_' in parts:
        parts.remove('dds_')
        parts[-1] = parts[-1].removesuffix('_')
    if len(parts) == 2 and '.' not in name:  # a name such as foxglove.Log is a Protobuf type
        parts.insert(1, 'msg')
    is_message = len(parts) == 3 and parts[1] == 'msg' and all(parts)
    return '/'.join(parts) if is_message else name


def to_cdr(data: bytes | memoryview, type_name: str, encoding: str) -> bytes | memoryview:
    """Return the CDR bytes of a message, which may be serialised as in ROS 1.

    Args:
        data: Serialised message.
        type_name: Type in the spelling of ROS 2.
        encoding: Message encoding, ``'cdr'`` or ``'ros1'``.

    Raises:
        ValueError: The encoding is another one.
        Exception: The bytes are not a message of this type (rosbags raises several kinds).
    """
    if encoding == ROS1_ENCODING:
        return BAG_TYPES.ros1_to_cdr(data, type_name)
    if encoding in CDR_ENCODINGS:
        return data
    raise ValueError(f'message encoding {encoding!r}, expected cdr or ros1')


def read_message(data: bytes | memoryview, type_name: str) -> Any:
    """Return the message object of CDR bytes; its arrays are views of them.

    Args:
        data: CDR bytes.
        type_name: Type in the spelling of ROS 2.

    Raises:
        Exception: The bytes are not a message of this type (rosbags raises several kinds).
    """
    return BAG_TYPES.deserialize_cdr(data, type_name)
