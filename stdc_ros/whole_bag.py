"""Bags as their recorder left them when it ended: with an index."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import ExitStack
from heapq import merge
from pathlib import Path, PurePath
from typing import Any, NamedTuple

import yaml
from rosbags import rosbag1, rosbag2
from rosbags.typesys import Stores, get_typestore

from stdc_core.one_line import one_line
from stdc_ros.wire import TYPES

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
            for reader in readers:
                _prepare(reader)
            self._pairs = [(reader, list(reader.connections)) for reader in readers]
            self._stack = stack.pop_all()
        types = get_typestore(Stores.ROS1_NOETIC) if ros1 else TYPES
        self.deserialize = types.deserialize_ros1 if ros1 else types.deserialize_cdr
        self.connections: list[Any] = [connection for _, connections in self._pairs for connection in connections]
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
        wanted = {id(connection) for connection in connections}
        chosen = [(reader, [c for c in held if id(c) in wanted]) for reader, held in self._pairs]
        # Of no connections, a reader gives the messages of all.
        streams = [reader.messages(connections=held) for reader, held in chosen if held]
        yield from merge(*streams, key=lambda message: message[1])


def write_ahead_log(database: Path) -> Path | None:
    """What SQLite keeps beside a database while it is written, if there is something in it; None of other files."""
    log = database.with_name(f'{database.name}-wal')
    return log if database.suffix == '.db3' and log.is_file() and log.stat().st_size else None


def _prepare(reader: Any) -> None:
    """Let a reader find the messages of each topic in each file. Raises NoIndexError if it could not.

    That of a folder looks for topics of the QoS and the hash that metadata.yaml tells. A file that tells others, where
    somebody has edited the one or rewritten the other, would be empty to it.
    """
    storage = getattr(reader, 'storage', None)
    files = getattr(storage, 'storages', [storage])
    told = {(connection.topic, connection.msgtype): connection for connection in reader.connections}
    for file in files:
        chunks = getattr(file, 'chunks', None)  # of an MCAP
        # A chunk without messages ends at 0.
        indexed = chunks and all(chunk.message_index_offsets or not chunk.message_end_time for chunk in chunks)
        if chunks is not None and not indexed and file.metadata.message_count:
            raise NoIndexError('its messages have no index')
        if file is not storage:
            file.connections[:] = [
                own._replace(ext=as_told.ext, digest=as_told.digest)
                if (as_told := told.get((own.topic, own.msgtype)))
                else own
                for own in file.connections
            ]


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
    missing = [file.name for file in files if not file.is_file()]
    if 0 < len(missing) < len(files):
        raise MissingFilesError(
            f'{len(missing)} of the {len(files)} files that {path.name} names are not there, the first {missing[0]}'
        )
