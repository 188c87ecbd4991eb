# SPDX-License-Identifier: Apache-2.0
"""Files of bags without an index, walked through record by record up to the cut."""

from __future__ import annotations

import heapq
import sqlite3
import struct
from binascii import crc32
from collections import Counter
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import BinaryIO, NamedTuple

from rosbags.typesys.msg import normalize_msgtype

from stdc_ros.bags.decompression import LARGEST_CHUNK, unpack

MCAP_MAGIC = b'\x89MCAP0\r\n'
ROSBAG1_MAGIC = b'#ROSBAG V2.0\n'


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


#: What stands at one place of a file: a record or, of a chunk, all those in it. None at the end or at the cut.
Items = list[Connection | Record] | None


class _Walked:
    """A file that is walked through, record by record, up to the cut.

    ``connections`` by id; ``counts``: whole messages by id of the connection; ``ended``: it is known to be whole.
    """

    magic: bytes

    def __init__(self, path: Path):
        self.path = path
        self.ended = False
        self._damaged = False  # in the middle
        self.connections: dict[int, Connection] = {}
        self.counts: Counter[int] = Counter()
        self._inside = False  # a chunk, in which there are no others
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

    @property
    def begin(self) -> int:
        """Time of the first message, in nanoseconds; 0 without one."""
        return min(self._places, default=(0, 0))[0]

    def _parse(self, file: BinaryIO) -> Items:
        """What stands at the file's position, which is then behind it."""
        raise NotImplementedError

    def _parse_all(self, data: bytes) -> list[Connection | Record]:
        inner, found = BytesIO(data), []
        self._inside = True
        try:
            while (items := self._parse(inner)) is not None:
                found += items
        finally:
            self._inside = False
        self._damaged |= inner.tell() < len(data)
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


def _unpacked(compression: str, data: bytes, whole: bool, checksum: int = 0) -> bytes:
    """Content of a chunk, or of what is there of a cut one; none of a damaged one.

    Args:
        checksum: CRC32 of the content; 0: there is none.
    """
    try:
        content = unpack(compression, data, LARGEST_CHUNK)
    except (KeyError, ValueError):
        return b''
    return b'' if whole and checksum and crc32(content) != checksum else content


class _Mcap(_Walked):
    """https://mcap.dev/spec: opcode, length, content."""

    magic = MCAP_MAGIC

    def __init__(self, path: Path):
        self._schemas: dict[int, str] = {}
        super().__init__(path)
        with path.open('rb') as file:
            file.seek(-min(len(MCAP_MAGIC), path.stat().st_size), 2)
            self.ended &= file.read() == MCAP_MAGIC

    def _parse(self, file: BinaryIO) -> Items:
        head = file.read(9)
        if len(head) < 9:
            return None
        opcode, size = struct.unpack('<BQ', head)
        body = BytesIO(_read(file, size))
        whole = body.getbuffer().nbytes == size
        try:
            if opcode == 0x06 and not self._inside:  # chunk
                body.seek(16)
                unpacked_size, checksum = struct.unpack('<QI', body.read(12))
                compression = _text(body)
                (size,) = struct.unpack('<Q', body.read(8))
                packed = body.read()
                content = _unpacked(compression, packed[:size], len(packed) >= size, checksum)
                self._damaged |= len(content) != unpacked_size
                return self._parse_all(content)
            self._damaged |= not whole
            # Behind the end of the data stand the topics again, which may have been in a chunk that is damaged.
            if not whole or opcode == 0x02:  # footer
                self.ended = whole and not self._damaged
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
            if opcode == 5 and not self._inside:  # chunk
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
        self.ended = True
        self.connections: dict[int, Connection] = {}
        try:
            for number, topic, type_name in self._rows('SELECT id, name, type FROM topics ORDER BY id'):
                if isinstance(topic, str) and isinstance(type_name, str):
                    self.connections[number] = Connection(number, topic, type_name, path)
        except sqlite3.Error:
            self.ended = False
        self.counts = Counter(record.connection for record in self.records())

    #: See :class:`_Walked`: a look at all of them is needed to know.
    begin = 0

    def _rows(self, query: str) -> Iterator[tuple]:
        database = sqlite3.connect(f'{self.path.absolute().as_uri()}?immutable=1', uri=True)
        try:
            # Makes SQLite read a database that is shorter than its header says; nothing is written.
            database.execute('PRAGMA writable_schema=ON')
            (pages,), (size,) = (database.execute(f'PRAGMA {name}').fetchone() for name in ('page_count', 'page_size'))
            self.ended &= pages * size <= self.path.stat().st_size
            # Views and virtual tables would compute what somebody else wrote down.
            database.execute('PRAGMA trusted_schema=OFF')
            tables = database.execute("SELECT name FROM sqlite_master WHERE type='table' AND rootpage > 0").fetchall()
            if not {('topics',), ('messages',)} <= set(tables):
                return
            yield from database.execute(query)
        finally:
            database.close()

    def records(self) -> Iterator[Record]:
        """All whole messages in the order in which they were recorded: the index by time is lost."""
        try:
            for number, time, data in self._rows('SELECT topic_id, timestamp, data FROM messages ORDER BY id'):
                if isinstance(time, int) and isinstance(data, bytes):
                    yield Record(time, number, data)
        except sqlite3.Error:
            self.ended = False


#: By suffix.
FORMATS: dict[str, Callable[[Path], _Walked | _Sqlite3]] = {'.mcap': _Mcap, '.bag': _Rosbag1, '.db3': _Sqlite3}
