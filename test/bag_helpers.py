# SPDX-License-Identifier: Apache-2.0
"""Make small bags of every format for tests."""

from __future__ import annotations

import struct
from pathlib import Path

import cv2
import numpy as np
from rosbags.rosbag1 import Writer as Writer1
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin
from rosbags.rosbag2 import Writer as Writer2
from rosbags.typesys import Stores, get_typestore

from stdc_ros.messages.cdr import CAMERA_INFO, COMPRESSED_IMAGE, IMAGE

#: Name of the bag by format.
KINDS = {'rosbag1': 'drive.bag', 'sqlite3': 'drive', 'mcap folder': 'drive', 'mcap': 'drive.mcap'}
CAMERA = '/camera/image_raw'
PERIOD = 66_666_667
BEGIN = 1_600_000_000_123_456_789


def picture(index: int, height: int = 40, width: int = 64) -> np.ndarray:
    """Return a picture that differs for each index, uint8 ``[H, W, 3]`` BGR."""
    image = np.random.default_rng(index).integers(0, 60, (height, width, 3), np.uint8)
    cv2.rectangle(image, (index % 40, 8), (index % 40 + 20, 30), (40, 200 - index, 3 * index), -1)
    return image


def stamp(index: int) -> int:
    """Return the header stamp of a picture in nanoseconds. The time of recording is 5 ms later."""
    return BEGIN + index * PERIOD


def make_bag(
    folder: Path, kind: str, topics: dict[str, str] | None = None, frames: int = 6, compression: str = ''
) -> Path:
    """Write a bag with the pictures 0, 1, ... on every topic.

    Args:
        folder: Folder for the bag.
        kind: Format of :data:`KINDS`.
        topics: Message type by topic; default: one camera.
        frames: Number of messages on each topic.
        compression: For rosbag1 ``lz4`` or ``bz2``; for rosbag2 the part that is compressed: ``file``, ``message`` or,
            for MCAP, ``storage``.

    Returns:
        Path of the bag.
    """
    topics = topics or {CAMERA: IMAGE}
    path = folder / KINDS[kind]
    types = get_typestore(Stores.ROS1_NOETIC if kind == 'rosbag1' else Stores.ROS2_JAZZY)
    target = folder / 'made' if kind == 'mcap' else path
    if kind == 'rosbag1':
        writer = Writer1(target)
        if compression:
            writer.set_compression(Writer1.CompressionFormat[compression.upper()])
    else:
        storage = StoragePlugin.SQLITE3 if kind == 'sqlite3' else StoragePlugin.MCAP
        writer = Writer2(target, version=8, storage_plugin=storage)
        if compression:
            writer.set_compression(CompressionMode[compression.upper()], CompressionFormat.ZSTD)
    serialize = types.serialize_ros1 if kind == 'rosbag1' else types.serialize_cdr
    with writer:
        connections = {name: writer.add_connection(name, of, typestore=types) for name, of in topics.items()}
        for index in range(frames):
            for name, of in topics.items():
                data = serialize(_message(types, of, index), of)
                writer.write(connections[name], stamp(index) + 5_000_000, data)
    if kind == 'mcap':
        (target / 'made.mcap').rename(path)
    return path


def mcap_record(opcode: int, *parts: bytes | memoryview | str) -> bytes:
    """Return an MCAP record (https://mcap.dev/spec). Strings are written after their length."""
    content = b''.join(
        struct.pack('<I', len(part)) + part.encode() if isinstance(part, str) else part for part in parts
    )
    return struct.pack('<BQ', opcode, len(content)) + content


def _message(types, of: str, index: int):
    seconds, nanoseconds = divmod(stamp(index), 10**9)
    time = types.types['builtin_interfaces/msg/Time'](sec=seconds, nanosec=nanoseconds)
    counter = {'seq': index} if 'seq' in types.types['std_msgs/msg/Header'].__dataclass_fields__ else {}
    header = types.types['std_msgs/msg/Header'](stamp=time, frame_id='front', **counter)
    image = picture(index)
    if of == IMAGE:
        height, width = image.shape[:2]
        return types.types[of](header, height, width, 'bgr8', 0, 3 * width, image.reshape(-1))
    if of == COMPRESSED_IMAGE:
        return types.types[of](header, 'png', cv2.imencode('.png', image)[1].reshape(-1))
    if of == CAMERA_INFO:
        empty = dict.fromkeys(('x_offset', 'y_offset', 'height', 'width', 'do_rectify'), 0)
        region = types.types['sensor_msgs/msg/RegionOfInterest'](**empty)
        matrices = np.zeros(5), np.eye(3).reshape(-1), np.eye(3).reshape(-1), np.eye(3, 4).reshape(-1)
        return types.types[of](header, 40, 64, 'plumb_bob', *matrices, 0, 0, region)
    return types.types[of](data=f'number {index}')
