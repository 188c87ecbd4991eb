# SPDX-License-Identifier: Apache-2.0
"""Define the message types in bags, read their names in every spelling, and read their bytes."""

from __future__ import annotations

import re
import struct
from typing import Any, NamedTuple

from rosbags.typesys import Stores, get_types_from_msg, get_typestore

from stdc_core.io.text import one_line
from stdc_ros.messages.cdr import CAMERA_INFO, COMPRESSED_IMAGE, IMAGE

__all__ = [
    'BAG_TYPES',
    'CAMERA_INFO',
    'COMPRESSED_IMAGE',
    'COMPRESSED_VIDEO',
    'FFMPEG_PACKET',
    'IMAGE',
    'LABEL_INFO',
    'read_message',
    'ros2_type_name',
]

FFMPEG_PACKET = 'ffmpeg_image_transport_msgs/msg/FFMPEGPacket'
COMPRESSED_VIDEO = 'foxglove_msgs/msg/CompressedVideo'
LABEL_INFO = 'vision_msgs/msg/LabelInfo'

#: Message encodings that can be read. Old recorders of ROS 2 write ``''`` for CDR.
CDR_ENCODINGS = ('cdr', '')
ROS1_ENCODING = 'ros1'

#: Definitions of all messages that are read from or written to bags. Definitions inside a bag are not used, because
#: rosbags would generate Python code from them.
BAG_TYPES = get_typestore(Stores.ROS2_JAZZY)
# vision_msgs is not part of the ROS 2 core, so rosbags does not know it.
BAG_TYPES.register(get_types_from_msg('uint16 class_id\nstring class_name', 'vision_msgs/msg/VisionClass'))
BAG_TYPES.register(
    get_types_from_msg('std_msgs/Header header\nvision_msgs/VisionClass[] class_map\nfloat32 threshold', LABEL_INFO)
)
BAG_TYPES.register(
    get_types_from_msg(
        'std_msgs/Header header\nint32 width\nint32 height\nstring encoding\nuint64 pts\nuint8 flags\n'
        'bool is_bigendian\nuint8[] data',
        FFMPEG_PACKET,
    )
)
# The definition of ROS 1 and of the first release for ROS 2.
_OLD_FFMPEG_PACKET = 'ffmpeg_image_transport_msgs/msg/OldFFMPEGPacket'
BAG_TYPES.register(
    get_types_from_msg(
        'std_msgs/Header header\nuint8[] data\nint32 img_width\nint32 img_height\nstring encoding\nuint64 pts\n'
        'uint8 flags',
        _OLD_FFMPEG_PACKET,
    )
)
BAG_TYPES.register(
    get_types_from_msg(
        'builtin_interfaces/Time timestamp\nstring frame_id\nuint8[] data\nstring format', COMPRESSED_VIDEO
    )
)


def ros2_type_name(name: str) -> str:
    """Return the ROS 2 spelling of a message type, such as ``sensor_msgs/msg/Image``.

    ``sensor_msgs/Image`` (ROS 1 and some ROS 2 recorders), ``sensor_msgs::msg::dds_::Image_`` (DDS recorders) and
    ``sensor_msgs.msg.Image`` name the same type. Any other name is returned as it is.

    Args:
        name: Type name in a bag.
    """
    parts = re.split(r'::|[/.]', name)
    if '.' in name and 'msg' not in parts:  # a name such as foxglove.Log is a Protobuf type
        return name
    # rosbags puts a 'msg' of its own into names of rosbag1 that it does not know.
    words = [part for part in parts if part not in ('msg', 'dds_')]
    if len(words) != 2 or not all(words):
        return name
    package, message = words
    return f'{package}/msg/{message.removesuffix("_") if "dds_" in parts else message}'


def to_cdr(data: bytes | memoryview, type_name: str, encoding: str) -> bytes | memoryview:
    """Return the CDR bytes of a message, which may be serialised in the format of ROS 1.

    Args:
        data: Serialised message.
        type_name: Type in the spelling of ROS 2.
        encoding: Message encoding, ``'cdr'`` or ``'ros1'``.

    Raises:
        ValueError: The encoding is neither of them.
        Exception: The bytes are not a message of this type (rosbags raises several kinds).
    """
    if encoding not in (ROS1_ENCODING, *CDR_ENCODINGS):
        raise ValueError(f'message encoding {encoding!r}, expected cdr or ros1')
    if type_name == FFMPEG_PACKET:
        return _current_packet(data, encoding)
    return BAG_TYPES.ros1_to_cdr(data, type_name) if encoding == ROS1_ENCODING else data


def _current_packet(data: bytes | memoryview, encoding: str) -> bytes | memoryview:
    """Return the CDR bytes of an ``FFMPEGPacket`` in its current definition; the data may have the old one."""
    try:
        cdr = BAG_TYPES.ros1_to_cdr(data, FFMPEG_PACKET) if encoding == ROS1_ENCODING else data
        current: Any = BAG_TYPES.deserialize_cdr(cdr, FFMPEG_PACKET)
        if current.encoding.isprintable():
            return cdr
    except Exception:  # rosbags raises many kinds
        pass
    cdr = BAG_TYPES.ros1_to_cdr(data, _OLD_FFMPEG_PACKET) if encoding == ROS1_ENCODING else data
    old: Any = BAG_TYPES.deserialize_cdr(cdr, _OLD_FFMPEG_PACKET)
    fields = (old.header, old.img_width, old.img_height, old.encoding, old.pts, old.flags, False, old.data)
    return BAG_TYPES.serialize_cdr(BAG_TYPES.types[FFMPEG_PACKET](*fields), FFMPEG_PACKET)


def read_message(data: bytes | memoryview, type_name: str) -> Any:
    """Return the message object of CDR bytes; its arrays are views of them.

    Args:
        data: CDR bytes.
        type_name: Type in the spelling of ROS 2.

    Raises:
        Exception: The bytes are not a message of this type (rosbags raises several kinds).
    """
    if type_name == COMPRESSED_VIDEO:
        return read_compressed_video(data)
    return BAG_TYPES.deserialize_cdr(data, type_name)


class CompressedVideo(NamedTuple):
    """The used fields of ``foxglove_msgs/CompressedVideo``."""

    timestamp: Any
    frame_id: str
    data: bytes
    format: str


class _Time(NamedTuple):
    sec: int
    nanosec: int


def read_compressed_video(data: bytes | memoryview) -> CompressedVideo:
    """Read a ``foxglove_msgs/CompressedVideo`` from CDR bytes. Newer definitions may have more fields at the end.

    Raises:
        ValueError: The bytes are not such a message.
    """
    view = memoryview(data)
    order = '<' if view[1] & 1 else '>'
    body = view[4:]
    try:
        sec, nanosec = struct.unpack_from(f'{order}iI', body, 0)
        frame_id, position = _sequence(body, 8, order)
        payload, position = _sequence(body, position, order)
        name, _ = _sequence(body, position, order)
        texts = [bytes(text).rstrip(b'\x00').decode() for text in (frame_id, name)]
    except (struct.error, IndexError, UnicodeDecodeError) as error:
        raise ValueError(f'not a foxglove_msgs/msg/CompressedVideo: {one_line(error)}') from error
    return CompressedVideo(_Time(sec, nanosec), texts[0], bytes(payload), texts[1])


def _sequence(body: memoryview, position: int, order: str) -> tuple[memoryview, int]:
    position += -position % 4
    (size,) = struct.unpack_from(f'{order}I', body, position)
    end = position + 4 + size
    if end > len(body):
        raise IndexError(f'{size} bytes at {position}, expected at most {len(body) - position - 4}')
    return body[position + 4 : end], end
