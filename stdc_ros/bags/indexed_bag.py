# SPDX-License-Identifier: Apache-2.0
"""Read bags that have an index, which recorders write when they end normally. Uses rosbags."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from contextlib import ExitStack
from heapq import heappop, heappush
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from rosbags import rosbag1, rosbag2

from stdc_ros.bags.decompression import unpack_file
from stdc_ros.bags.message_types import ROS1_ENCODING, ros2_type_name


class NoIndexError(ValueError):
    """A complete file has no index of its messages."""


class Channel(NamedTuple):
    """Topic of one file.

    Args:
        topic: Name of the topic.
        type: Message type in the spelling of ROS 2.
        encoding: Message encoding that the recorder wrote, mostly ``cdr`` or ``ros1``.
    """

    topic: str
    type: str
    encoding: str


class RawMessage(NamedTuple):
    """Serialised message: its channel, time of recording in nanoseconds, and bytes."""

    channel: Channel
    time: int
    data: bytes


class IndexedBag:
    """Reads a bag through its index; a context manager.

    Args:
        files: Files of the bag in the order of recording: one ``.bag``, or ``.mcap`` and ``.db3`` files, each of
            which may be compressed (``.zstd``).

    Attributes:
        channels: Number of messages by channel.
        files: Files that are read: decompressed copies in place of compressed files.

    Raises:
        NoIndexError: An MCAP lacks the index or a part of it.
        Exception: A file is damaged or truncated (rosbags raises many kinds).
    """

    def __init__(self, files: list[Path]):
        with ExitStack() as stack:
            self.files = _unpacked(files, stack)
            self._readers = [stack.enter_context(_open(file)) for file in self.files]
            # A rosbag2 reader of one file wraps the reader of its storage.
            self._storages = [getattr(reader, 'storage', reader) for reader in self._readers]
            for storage in self._storages:
                _check_index(storage)
            self._stack = stack.pop_all()
        self.channels: dict[Channel, int] = {}
        for storage in self._storages:
            for connection in storage.connections:
                channel = _channel(connection)
                self.channels[channel] = self.channels.get(channel, 0) + connection.msgcount

    def __enter__(self) -> IndexedBag:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def messages(self, topics: Collection[str]) -> Iterator[RawMessage]:
        """Yield the messages of these topics in the order of their times."""
        streams = []
        for storage in self._storages:
            held = [connection for connection in storage.connections if connection.topic in topics]
            if held:  # for rosbags, an empty list means all connections
                begin = getattr(storage, 'metadata', storage).start_time
                streams.append((begin, _messages(storage, held)))
        yield from merge_by_time(streams)


def _messages(storage: Any, connections: list[Any]) -> Iterator[RawMessage]:
    channels = {connection.id: _channel(connection) for connection in connections}
    for connection, time, data in storage.messages(connections):
        yield RawMessage(channels[connection.id], time, data)


def _channel(connection: Any) -> Channel:
    encoding = getattr(connection.ext, 'serialization_format', ROS1_ENCODING)
    return Channel(connection.topic, ros2_type_name(connection.msgtype), encoding)


def _unpacked(files: list[Path], stack: ExitStack) -> list[Path]:
    plain = []
    for file in files:
        if log := write_ahead_log(file):
            raise ValueError(f'its recorder did not end: messages are in {log.name}')
        if file.suffix == '.zstd':
            folder = Path(stack.enter_context(TemporaryDirectory()))
            if not unpack_file(file, folder / file.stem):
                raise ValueError(f'{file.name} is truncated or damaged')
            file = folder / file.stem
        plain.append(file)
    return plain


def _open(file: Path) -> Any:
    return rosbag1.Reader(file) if file.suffix == '.bag' else rosbag2.Reader(file)


def merge_by_time(streams: Iterable[tuple[int, Iterator[RawMessage]]]) -> Iterator[RawMessage]:
    """Merge streams of messages by their times.

    A bag may have hundreds of files, so each stream is opened only when its first message is due.

    Args:
        streams: Pairs of a time and a stream, whose messages are all at that time or later.
    """
    later = sorted(enumerate(streams), key=lambda pair: (pair[1][0], pair[0]), reverse=True)
    heap: list[tuple[int, int, RawMessage, Iterator[RawMessage]]] = []
    while later or heap:
        if later and (not heap or later[-1][1][0] <= heap[0][0]):
            number, (_, stream) = later.pop()
        else:
            _, number, message, stream = heappop(heap)
            yield message
        if (following := next(stream, None)) is not None:
            heappush(heap, (following.time, number, following, stream))


def write_ahead_log(database: Path) -> Path | None:
    """Return the write-ahead log beside an SQLite database; None if it is empty or missing, and for other files."""
    log = database.with_name(f'{database.name}-wal')
    return log if database.suffix == '.db3' and log.is_file() and log.stat().st_size else None


def _check_index(storage: Any) -> None:
    """Raise NoIndexError if an MCAP has messages that its index does not list."""
    chunks = getattr(storage, 'chunks', None)  # only readers of MCAP have this attribute
    if not isinstance(chunks, list) or not hasattr(storage, 'metadata'):
        return
    without = any(chunk.uncompressed_size and not chunk.message_index_offsets for chunk in chunks)
    if without or (not chunks and storage.metadata.message_count):
        raise NoIndexError('its messages have no index')
