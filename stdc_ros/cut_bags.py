"""Bags without an end: the recorder was killed, the disk was full, the copy was cut off.

Such a bag has no index. All messages up to the cut are there, though, and are found by walking through the records.
"""

from __future__ import annotations

import bz2
import heapq
import re
import sqlite3
import struct
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from lz4.frame import decompress as lz4_decompress
from rosbags.typesys import Stores, get_typestore
from rosbags.typesys.msg import normalize_msgtype

try:
    from compression import zstd  # Python 3.14
except ImportError:
    from backports import zstd

MCAP_MAGIC = b'\x89MCAP0\r\n'
ROSBAG1_MAGIC = b'#ROSBAG V2.0\n'
_DECOMPRESS = {'lz4': lz4_decompress, 'zstd': zstd.decompress, 'bz2': bz2.decompress}


class CutBagError(ValueError):
    """Not even the start can be read."""


class Connection(NamedTuple):
    """A topic as one file has it; ``id`` is unique within the file."""

    id: int
    topic: str
    msgtype: str
    file: Path


class Record(NamedTuple):
    """A message as it is in the file: time in nanoseconds, id of the connection, serialised data."""

    time: int
    connection: int
    data: bytes


class TopicInfo(NamedTuple):
    """What ``CutBag.topics`` tells of a topic."""

    msgtype: str
    msgcount: int


#: What stands at one place of a file: a record or, of a chunk, all those in it. None at the end or at the cut.
Items = list[Connection | Record] | None


class CutBag:
    """What is left of a bag; the part of ``rosbags.highlevel.AnyReader`` that reading images needs.

    Args:
        files: in the order in which they were recorded, all ``.mcap``, all ``.db3`` or all ``.bag``.

    Raises:
        CutBagError: they hold no whole message.
    """

    def __init__(self, files: list[Path]):
        self._files = [_FORMATS[file.suffix](file) for file in files]
        self.connections = [connection for file in self._files for connection in file.connections.values()]
        self.topics: dict[str, TopicInfo] = {}
        for file in self._files:
            for connection in file.connections.values():
                before = self.topics.get(connection.topic, TopicInfo(connection.msgtype, 0)).msgcount
                count = before + file.counts[connection.id]
                self.topics[connection.topic] = TopicInfo(connection.msgtype, count)
        if not any(topic.msgcount for topic in self.topics.values()):
            raise CutBagError('and no whole message is left in it')
        ros1 = files[0].suffix == '.bag'
        types = get_typestore(Stores.ROS1_NOETIC if ros1 else Stores.ROS2_JAZZY)
        #: Message object from data and type name; standard types only.
        self.deserialize: Callable[[bytes, str], Any] = types.deserialize_ros1 if ros1 else types.deserialize_cdr

    def messages(self, connections: Collection[Connection]) -> Iterator[tuple[Connection, int, bytes]]:
        """Messages of these connections in the order of their times: connection, time in nanoseconds, data."""
        for file in self._files:
            wanted = {connection.id: connection for connection in connections if connection.file == file.path}
            for record in file.records():
                if record.connection in wanted:
                    yield wanted[record.connection], record.time, record.data


def open_cut_bag(path: Path, files: list[Path]) -> CutBag:
    """Read what is left of a bag: a file, or a folder with these files.

    Raises:
        CutBagError: nothing is left, or it is not a bag at all.
    """
    if path.is_dir():
        files = [*path.glob('*.mcap'), *path.glob('*.db3')]
    if len({file.suffix for file in files}) != 1:
        raise CutBagError('')
    # bag_10 comes after bag_9.
    return CutBag(sorted(files, key=lambda file: [int(n) for n in re.findall(r'\d+', file.name)]))


class _Walked:
    """A file that is walked through, record by record, up to the cut.

    ``connections`` by id; ``counts``: whole messages by id of the connection.
    """

    magic: bytes

    def __init__(self, path: Path):
        self.path = path
        self.connections: dict[int, Connection] = {}
        self.counts: Counter[int] = Counter()
        self._places: list[tuple[int, int]] = []  # time of the first message, position in the file
        with path.open('rb') as file:
            if file.read(len(self.magic)) != self.magic:
                return
            position = file.tell()
            while (items := self._parse(file)) is not None:
                records = [item for item in items if isinstance(item, Record)]
                self.connections |= {item.id: item for item in items if isinstance(item, Connection)}
                self.counts.update(record.connection for record in records)
                if records:
                    self._places.append((min(record.time for record in records), position))
                position = file.tell()

    def _parse(self, file: BinaryIO) -> Items:
        """What stands at the file's position, which is then behind it."""
        raise NotImplementedError

    def _parse_all(self, data: bytes) -> list[Connection | Record]:
        inner, found = BytesIO(data), []
        while (items := self._parse(inner)) is not None:
            found += items
        return found

    def records(self) -> Iterator[Record]:
        """All whole messages in the order of their times."""
        waiting: list[tuple[int, int, Record]] = []
        count = 0  # keeps the order of equal times
        with self.path.open('rb') as file:
            for start, position in sorted(self._places):
                while waiting and waiting[0][0] < start:
                    yield heapq.heappop(waiting)[2]
                file.seek(position)
                for item in self._parse(file) or ():
                    if isinstance(item, Record):
                        heapq.heappush(waiting, (item.time, count, item))
                        count += 1
        while waiting:
            yield heapq.heappop(waiting)[2]


def _unpacked(compression: str, data: bytes, whole: bool) -> bytes:
    """Content of a chunk. Of a cut one only if it is not compressed."""
    if compression in ('', 'none'):
        return data
    try:
        return _DECOMPRESS[compression](data) if whole else b''
    except Exception:  # four libraries with errors of their own: the chunk is damaged
        return b''


class _Mcap(_Walked):
    """https://mcap.dev/spec: opcode, length, content."""

    magic = MCAP_MAGIC

    def __init__(self, path: Path):
        self._schemas: dict[int, str] = {}
        super().__init__(path)

    def _parse(self, file: BinaryIO) -> Items:
        head = file.read(9)
        if len(head) < 9:
            return None
        opcode, size = struct.unpack('<BQ', head)
        body = BytesIO(_read(file, size))
        whole = body.getbuffer().nbytes == size
        try:
            if opcode == 0x06:  # chunk
                body.seek(28)
                compression = _text(body)
                body.seek(8, 1)
                return self._parse_all(_unpacked(compression, body.read(), whole))
            if not whole or opcode in (0x0F, 0x02):  # end of data, footer
                return None
            if opcode == 0x03:  # schema
                (number,) = struct.unpack('<H', body.read(2))
                self._schemas[number] = _text(body)
            elif opcode == 0x04:  # channel
                number, schema = struct.unpack('<HH', body.read(4))
                return [Connection(number, _text(body), self._schemas.get(schema, ''), self.path)]
            elif opcode == 0x05:  # message
                number, _, time, _ = struct.unpack('<HIQQ', body.read(22))
                return [Record(time, number, body.read())]
        except (struct.error, UnicodeDecodeError):
            return None
        return []


def _read(file: BinaryIO, size: int) -> bytes:
    """At most ``size`` bytes: damaged sizes are huge, and Python would allocate all of it."""
    here = file.tell()
    left = file.seek(0, 2) - here
    file.seek(here)
    return file.read(min(size, left))


def _text(file: BinaryIO) -> str:
    (size,) = struct.unpack('<I', file.read(4))
    return file.read(size).decode()


class _Rosbag1(_Walked):
    """http://wiki.ros.org/Bags/Format/2.0: header of fields, content, each with its length before it."""

    magic = ROSBAG1_MAGIC

    def _parse(self, file: BinaryIO) -> Items:
        try:
            header = _fields(_sized(file)[0])
            content, whole = _sized(file)
            opcode = header['op'][0]
            if opcode == 5:  # chunk
                return self._parse_all(_unpacked(header['compression'].decode(), content, whole))
            if not whole:
                return None
            if opcode == 7:  # connection
                (number,) = struct.unpack('<I', header['conn'])
                type_name = normalize_msgtype(_fields(content)['type'].decode())
                return [Connection(number, header['topic'].decode(), type_name, self.path)]
            if opcode == 2:  # message
                (number,) = struct.unpack('<I', header['conn'])
                seconds, nanoseconds = struct.unpack('<II', header['time'])
                return [Record(seconds * 10**9 + nanoseconds, number, content)]
        except (struct.error, KeyError, IndexError, UnicodeDecodeError):
            return None
        return []


def _sized(file: BinaryIO) -> tuple[bytes, bool]:
    """Content with its length before it, and whether all of it is there."""
    (size,) = struct.unpack('<I', file.read(4))
    content = _read(file, size)
    return content, len(content) == size


def _fields(data: bytes) -> dict[str, bytes]:
    file, fields = BytesIO(data), {}
    while file.tell() < len(data):
        name, _, value = _sized(file)[0].partition(b'=')
        fields[name.decode()] = value
    return fields


class _Sqlite3:
    """The first pages of an SQLite database. Attributes as in :class:`_Walked`."""

    def __init__(self, path: Path):
        self.path = path
        self.connections: dict[int, Connection] = {}
        try:
            for number, topic, type_name in self._rows('SELECT id, name, type FROM topics ORDER BY id'):
                self.connections[number] = Connection(number, topic, type_name, path)
        except sqlite3.Error:
            pass
        self.counts = Counter(record.connection for record in self.records())

    def _rows(self, query: str) -> Iterator[tuple]:
        database = sqlite3.connect(f'file:{self.path}?immutable=1', uri=True)
        try:
            # Makes SQLite read a database that is shorter than its header says; nothing is written.
            database.execute('PRAGMA writable_schema=ON')
            yield from database.execute(query)
        finally:
            database.close()

    def records(self) -> Iterator[Record]:
        """All whole messages in the order in which they were recorded: the index by time is lost."""
        try:
            for number, time, data in self._rows('SELECT topic_id, timestamp, data FROM messages ORDER BY id'):
                yield Record(time, number, data)
        except sqlite3.Error:
            return


_FORMATS: dict[str, Callable[[Path], _Walked | _Sqlite3]] = {'.mcap': _Mcap, '.bag': _Rosbag1, '.db3': _Sqlite3}
