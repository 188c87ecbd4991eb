# SPDX-License-Identifier: Apache-2.0
"""Scan MCAP and rosbag1 files record by record, without an index, up to where they are truncated.

The stream reader of the ``mcap`` library reads whole chunks only. This scanner also reads the messages of a chunk that
is cut in the middle, up to the cut (docs/architecture.md).
"""

from __future__ import annotations

import heapq
import struct
from binascii import crc32
from collections import Counter
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import BinaryIO, NamedTuple

from stdc_ros.bags.decompression import LARGEST_CHUNK, unpack
from stdc_ros.bags.indexed_bag import Channel
from stdc_ros.bags.message_types import ROS1_ENCODING, ros2_type_name

MCAP_MAGIC = b'\x89MCAP0\r\n'
ROSBAG1_MAGIC = b'#ROSBAG V2.0\n'


class ChannelRecord(NamedTuple):
    """Channel with its id, which is unique within the file."""

    id: int
    channel: Channel


class MessageRecord(NamedTuple):
    """Message of a file: time in nanoseconds, id of the channel, serialised data."""

    time: int
    channel_id: int
    data: bytes


#: Content of one record of a file; for a chunk, all records in it. None at the end, or where the file is truncated.
Records = list[ChannelRecord | MessageRecord] | None


class RecordScanner:
    """Scans a file of records.

    Args:
        path: File to scan.

    Attributes:
        channels: Channels by id.
        counts: Number of complete messages by id of the channel.
        complete: Whether the file is known to be complete.
    """

    magic: bytes

    def __init__(self, path: Path):
        self.path = path
        self.complete = False
        self._damaged = False  # before the end of the file
        self.channels: dict[int, Channel] = {}
        self.counts: Counter[int] = Counter()
        self._inside_chunk = False  # chunks are not nested
        self._places: list[tuple[int, int]] = []  # time of the first message, position in the file
        with path.open('rb') as file:
            if file.read(len(self.magic)) != self.magic:
                return
            position = file.tell()
            while (records := self._parse(file)) is not None:
                messages = [record for record in records if isinstance(record, MessageRecord)]
                self.channels |= {record.id: record.channel for record in records if isinstance(record, ChannelRecord)}
                self.counts.update(message.channel_id for message in messages)
                if messages:
                    self._places.append((min(message.time for message in messages), position))
                position = file.tell()

    @property
    def begin(self) -> int:
        """Time of the first message in nanoseconds; 0 without messages."""
        return min(self._places, default=(0, 0))[0]

    def _parse(self, file: BinaryIO) -> Records:
        """Parse the record at the current position of the file and move to the next."""
        raise NotImplementedError

    def _parse_chunk(self, data: bytes) -> list[ChannelRecord | MessageRecord]:
        inner, found = BytesIO(data), []
        self._inside_chunk = True
        try:
            while (records := self._parse(inner)) is not None:
                found += records
        finally:
            self._inside_chunk = False
        self._damaged |= inner.tell() < len(data)
        return found

    def messages(self) -> Iterator[MessageRecord]:
        """Yield all complete messages in the order of their times."""
        waiting: list[tuple[int, int, MessageRecord]] = []
        count = 0  # keeps the order of equal times
        with self.path.open('rb') as file:
            for start, position in sorted(self._places):
                while waiting and waiting[0][0] < start:
                    yield heapq.heappop(waiting)[2]
                file.seek(position)
                for record in self._parse(file) or ():
                    if isinstance(record, MessageRecord):
                        heapq.heappush(waiting, (record.time, count, record))
                        count += 1
        while waiting:
            yield heapq.heappop(waiting)[2]


def _unpacked(compression: str, data: bytes, complete: bool, checksum: int = 0) -> bytes:
    """Decompress a chunk, or the part of it before the cut. Return no bytes if it is damaged.

    Args:
        compression: Name of the compression in the file.
        data: Compressed bytes.
        complete: Whether no byte is missing.
        checksum: CRC32 of the content; 0 if the file has none.
    """
    try:
        content = unpack(compression, data, LARGEST_CHUNK)
    except (KeyError, ValueError):
        return b''
    return b'' if complete and checksum and crc32(content) != checksum else content


class McapScanner(RecordScanner):
    """Scans an MCAP file (https://mcap.dev/spec): opcode, length, content."""

    magic = MCAP_MAGIC

    def __init__(self, path: Path):
        self._schemas: dict[int, str] = {}
        super().__init__(path)
        with path.open('rb') as file:
            file.seek(-min(len(MCAP_MAGIC), path.stat().st_size), 2)
            self.complete &= file.read() == MCAP_MAGIC

    def _parse(self, file: BinaryIO) -> Records:
        head = file.read(9)
        if len(head) < 9:
            return None
        opcode, size = struct.unpack('<BQ', head)
        body = BytesIO(_read(file, size))
        complete = body.getbuffer().nbytes == size
        try:
            if opcode == 0x06 and not self._inside_chunk:
                return self._chunk(body)
            self._damaged |= not complete
            # The summary section repeats the channels, whose chunk may be damaged, and ends with the footer.
            if not complete or opcode == 0x02:  # footer
                self.complete = complete and not self._damaged
                return None
            if opcode == 0x03:  # schema
                (number,) = struct.unpack('<H', body.read(2))
                self._schemas[number] = _text(body)
            elif opcode == 0x04:  # channel
                number, schema = struct.unpack('<HH', body.read(4))
                topic, encoding = _text(body), _text(body)
                type_name = ros2_type_name(self._schemas.get(schema, ''))
                return [ChannelRecord(number, Channel(topic, type_name, encoding))]
            elif opcode == 0x05:  # message
                number, _, time, _ = struct.unpack('<HIQQ', body.read(22))
                return [MessageRecord(time, number, body.read())]
        except (struct.error, UnicodeDecodeError):
            return None
        return []

    def _chunk(self, body: BytesIO) -> list[ChannelRecord | MessageRecord]:
        body.seek(16)
        unpacked_size, checksum = struct.unpack('<QI', body.read(12))
        compression = _text(body)
        (size,) = struct.unpack('<Q', body.read(8))
        packed = body.read()
        content = _unpacked(compression, packed[:size], len(packed) >= size, checksum)
        self._damaged |= len(content) != unpacked_size
        return self._parse_chunk(content)


def _read(file: BinaryIO, size: int) -> bytes:
    """Read at most ``size`` bytes. Python would allocate all of a huge, damaged size."""
    here = file.tell()
    left = file.seek(0, 2) - here
    file.seek(here)
    return file.read(min(size, left))


def _text(file: BinaryIO) -> str:
    (size,) = struct.unpack('<I', file.read(4))
    return file.read(size).decode()


class Rosbag1Scanner(RecordScanner):
    """Scans a rosbag1 file (http://wiki.ros.org/Bags/Format/2.0): header fields and content, each with its length."""

    magic = ROSBAG1_MAGIC

    def _parse(self, file: BinaryIO) -> Records:
        try:
            header = _fields(_sized(file)[0])
            content, complete = _sized(file)
            opcode = header['op'][0]
            if opcode == 5 and not self._inside_chunk:
                return self._parse_chunk(_unpacked(header['compression'].decode(), content, complete))
            if not complete:
                return None
            if opcode == 7:  # connection
                (number,) = struct.unpack('<I', header['conn'])
                type_name = ros2_type_name(_fields(content)['type'].decode())
                return [ChannelRecord(number, Channel(header['topic'].decode(), type_name, ROS1_ENCODING))]
            if opcode == 2:  # message
                (number,) = struct.unpack('<I', header['conn'])
                seconds, nanoseconds = struct.unpack('<II', header['time'])
                return [MessageRecord(seconds * 10**9 + nanoseconds, number, content)]
        except (struct.error, KeyError, IndexError, UnicodeDecodeError):
            return None
        return []


def _sized(file: BinaryIO) -> tuple[bytes, bool]:
    """Read content that follows its length. Return it and whether it is complete."""
    (size,) = struct.unpack('<I', file.read(4))
    content = _read(file, size)
    return content, len(content) == size


def _fields(data: bytes) -> dict[str, bytes]:
    file, fields = BytesIO(data), {}
    while file.tell() < len(data):
        name, _, value = _sized(file)[0].partition(b'=')
        fields[name.decode()] = value
    return fields
