# SPDX-License-Identifier: Apache-2.0
"""Bags as their recorder left them when it ended: with an index."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from contextlib import ExitStack
from heapq import heappop, heappush
from pathlib import Path, PurePath
from typing import Any, NamedTuple

import yaml
from rosbags import rosbag1, rosbag2
from rosbags.typesys import Stores, get_typestore

from stdc_core.io.text import one_line
from stdc_ros.messages.cdr import TYPES

#: Largest metadata.yaml of a rosbag2, bytes.
LARGEST_METADATA = 10_000_000


class NoIndexError(ValueError):
    """A whole file in which messages cannot be looked up."""


class MissingFilesError(ValueError):
    """A bag that lacks some of its files."""


class TopicInfo(NamedTuple):
    """A topic: type of its messages, '' if there are several, and their number."""

    msgtype: str
    msgcount: int


class WholeBag:
    """The readers of a bag's files; a context manager.

    Messages are taken for what ROS defines under the name of their type. The definitions inside a bag are not looked
    at: ``rosbags`` would make Python code of them.

    Args:
        files: one ``.bag``, ``.mcap`` or ``.db3`` file, several of a rosbag2, or its folder.

    Raises:
        NoIndexError: an MCAP that lacks it, or a part of it.
        MissingFilesError: files of a folder are not there.
        all kinds of exceptions of ``rosbags``: damaged, or cut off.
    """

    def __init__(self, files: list[Path]):
        if any(file.suffix == '.zstd' for file in files):
            raise ValueError('it has no metadata.yaml')
        ros1 = files[0].suffix == '.bag'
        with ExitStack() as stack:
            for file in files:
                _check_metadata(file)
                _check_ended(file)
            readers = [stack.enter_context((rosbag1.Reader if ros1 else rosbag2.Reader)(file)) for file in files]
            # Of a .bag its reader; of a rosbag2 those of its files.
            storages = [reader if ros1 else reader.storage for reader in readers]
            self._files = [file for each in storages for file in getattr(each, 'storages', [each])]
            if not ros1:
                _check_index(self._files)
            connections = [connection for reader in readers for connection in reader.connections]
            self._stack = stack.pop_all()
        types = get_typestore(Stores.ROS1_NOETIC) if ros1 else TYPES
        self.deserialize = types.deserialize_ros1 if ros1 else types.deserialize_cdr
        self.connections: list[Any] = connections
        self.topics: dict[str, TopicInfo] = {}
        for connection in self.connections:
            before = self.topics.get(connection.topic, TopicInfo(connection.msgtype, 0))
            kind = connection.msgtype if connection.msgtype == before.msgtype else ''
            self.topics[connection.topic] = TopicInfo(kind, before.msgcount + connection.msgcount)

    def __enter__(self) -> WholeBag:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def messages(self, connections: Collection[Any]) -> Iterator[tuple[Any, int, bytes]]:
        """Messages of these connections in the order of their times: connection, time in nanoseconds, data."""
        # By name and type alone: QoS and hash, too, which the reader of a folder looks at, may differ between its
        # metadata.yaml and its files, where somebody has edited the one or rewritten the other.
        wanted = {(connection.topic, connection.msgtype): connection for connection in connections}
        streams = []
        for file in self._files:
            held = [connection for connection in file.connections if (connection.topic, connection.msgtype) in wanted]
            if held:  # of none, a reader gives the messages of all
                begin = getattr(file, 'metadata', file).start_time
                streams.append((begin, file.messages(held)))
        for own, time, data in in_order(streams):
            yield wanted[own.topic, own.msgtype], time, data

    @property
    def files(self) -> list[Path]:
        """Those that are read: of compressed ones, what was unpacked."""
        return [file.path for file in self._files]


def in_order(streams: Iterable[tuple[int, Iterator[tuple[Any, int, Any]]]]) -> Iterator[tuple[Any, int, Any]]:
    """Merge messages by their times, the second of each.

    A bag may have hundreds of files: each is begun when its time has come.

    Args:
        streams: each with a time that none of its messages is before.
    """
    later = sorted(enumerate(streams), key=lambda pair: (pair[1][0], pair[0]), reverse=True)
    heap: list[tuple[int, int, tuple[Any, int, Any], Iterator[tuple[Any, int, Any]]]] = []
    while later or heap:
        if later and (not heap or later[-1][1][0] <= heap[0][0]):
            number, (_, stream) = later.pop()
        else:
            _, number, message, stream = heappop(heap)
            yield message
        if (message := next(stream, None)) is not None:
            heappush(heap, (message[1], number, message, stream))


def write_ahead_log(database: Path) -> Path | None:
    """What SQLite keeps beside a database while it is written, if there is something in it; None of other files."""
    log = database.with_name(f'{database.name}-wal')
    return log if database.suffix == '.db3' and log.is_file() and log.stat().st_size else None


def _check_index(files: list[Any]) -> None:
    """Raise NoIndexError if messages cannot be looked up in one of the readers' files."""
    for file in files:
        chunks = getattr(file, 'chunks', None)  # of an MCAP
        if chunks is None:
            continue
        without = any(chunk.uncompressed_size and not chunk.message_index_offsets for chunk in chunks)
        if without or (not chunks and file.metadata.message_count):
            raise NoIndexError('its messages have no index')


def _check_ended(bag: Path) -> None:
    """Raise ValueError if messages are in a write-ahead log, where no reader looks for them."""
    for database in bag.glob('*.db3') if bag.is_dir() else (bag,):
        if log := write_ahead_log(database):
            raise ValueError(f'its recorder did not end: messages are in {log.name}')


def _check_metadata(bag: Path) -> None:
    """What the metadata.yaml of a folder must not be: huge, or by aliases a small file that stands for a huge one.

    Raises:
        ValueError: it is.
        MissingFilesError: it names files that are there, and others that are not. (If none is, they were renamed.)
    """
    path = bag / 'metadata.yaml'
    if not path.is_file():
        return
    if path.stat().st_size > LARGEST_METADATA:
        raise ValueError(f'{path.name} has {path.stat().st_size} bytes, expected at most {LARGEST_METADATA}')
    try:
        text, loader = path.read_text(), getattr(yaml, 'CSafeLoader', yaml.SafeLoader)
        if any(isinstance(token, yaml.AliasToken) for token in yaml.scan(text, loader)):
            raise ValueError(f'{path.name} has aliases')
        names = yaml.load(text, loader)['rosbag2_bagfile_information']['relative_file_paths']
        files = [bag / PurePath(name).name for name in names]
    except yaml.YAMLError as error:
        raise ValueError(f'{path.name}: {one_line(error)}') from error
    except (KeyError, TypeError):
        return  # of which the reader complains
    # Somebody may have unpacked some.
    plain = [file.with_suffix('') if file.suffix == '.zstd' else file for file in files]
    missing = [file.name for file, other in zip(files, plain, strict=True) if not (file.is_file() or other.is_file())]
    if 0 < len(missing) < len(files):
        raise MissingFilesError(
            f'{len(missing)} of the {len(files)} files that {path.name} names are not there, the first {missing[0]}'
        )
