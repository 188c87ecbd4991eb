# SPDX-License-Identifier: Apache-2.0
"""Bags without an end: the recorder was killed, the disk was full, the copy was cut off.

Such a bag has no index. All messages up to the cut are there, though, and are found by walking through the records.
"""

from __future__ import annotations

import re
import shutil
import sqlite3
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from rosbags.typesys import Stores, get_typestore

from stdc_ros.bags.decompression import unpack_file
from stdc_ros.bags.indexed_bag import TopicInfo, in_order, write_ahead_log
from stdc_ros.bags.record_scanner import FORMATS, Connection


class CutBagError(ValueError):
    """Not even the start can be read."""


class CutBag:
    """What is left of a bag; a context manager with the attributes and methods of ``WholeBag``.

    Args:
        files: in the order in which they were recorded, all ``.mcap``, all ``.db3`` or all ``.bag``; the first two
            also compressed, ``.mcap.zstd`` and ``.db3.zstd``.

    Raises:
        CutBagError: they hold no whole message.
        OSError: they cannot be read now, or there is no room to unpack them.
    """

    def __init__(self, files: list[Path]):
        self._unpacked: TemporaryDirectory | None = None
        self._whole = True  # what was unpacked
        try:
            self._open([self._plain(file) for file in files])
        except BaseException:
            self.__exit__()
            raise

    def _plain(self, file: Path) -> Path:
        """The file or, in a temporary folder, its content: unpacked, or with its log written into it."""
        with file.open('rb'):  # of what cannot be read, SQLite makes an error like those of what is damaged
            pass
        log = write_ahead_log(file)
        if file.suffix != '.zstd' and not log:
            return file
        self._unpacked = self._unpacked or TemporaryDirectory()
        plain = Path(self._unpacked.name, file.name.removesuffix('.zstd'))
        if file.suffix == '.zstd':
            self._whole &= unpack_file(file, plain)
            return plain
        self._whole = False
        for part in (file, log):
            shutil.copyfile(part, plain.with_name(part.name))
        database = sqlite3.connect(plain)
        try:
            database.execute('PRAGMA wal_checkpoint(TRUNCATE)')
        except sqlite3.Error:
            pass  # the database is damaged besides: what it holds without the log
        finally:
            database.close()
        return plain

    def __enter__(self) -> CutBag:
        return self

    def __exit__(self, *_: object) -> None:
        if self._unpacked:
            self._unpacked.cleanup()

    @property
    def ended(self) -> bool:
        """Its files are known to be whole."""
        return self._whole and all(file.ended for file in self._files)

    def _open(self, files: list[Path]) -> None:
        self._files = [FORMATS[file.suffix](file) for file in files]
        self.connections = [connection for file in self._files for connection in file.connections.values()]
        self.topics: dict[str, TopicInfo] = {}
        for file in self._files:
            for connection in file.connections.values():
                before = self.topics.get(connection.topic, TopicInfo(connection.msgtype, 0))
                kind = connection.msgtype if connection.msgtype == before.msgtype else ''
                self.topics[connection.topic] = TopicInfo(kind, before.msgcount + file.counts[connection.id])
        if not any(topic.msgcount for topic in self.topics.values()):
            raise CutBagError('and no whole message is left in it')
        ros1 = files[0].suffix == '.bag'
        types = get_typestore(Stores.ROS1_NOETIC if ros1 else Stores.ROS2_JAZZY)
        #: Message object from data and type name; standard types only.
        self.deserialize: Callable[[bytes, str], Any] = types.deserialize_ros1 if ros1 else types.deserialize_cdr

    def messages(self, connections: Collection[Connection]) -> Iterator[tuple[Connection, int, bytes]]:
        """Messages of these connections in the order of their times: connection, time in nanoseconds, data."""
        yield from in_order((file.begin, self._messages_of(file, connections)) for file in self._files)

    def _messages_of(self, file: Any, connections: Collection[Connection]) -> Iterator[tuple[Connection, int, bytes]]:
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
        files = storage_files(path)
    if len({_suffix(file) for file in files}) != 1:
        raise CutBagError('')
    return CutBag(files)


def storage_files(folder: Path) -> list[Path]:
    """The files of a rosbag2 in the order in which they were recorded: bag_10 comes after bag_9.

    A file that was being compressed when its recorder was killed is there twice; the plain one is the whole one.
    """
    files = [file for file in folder.iterdir() if _suffix(file) in ('.mcap', '.db3') and file.is_file()]
    files = [file for file in files if file.suffix != '.zstd' or file.with_suffix('') not in files]
    return sorted(files, key=lambda file: ([int(n) for n in re.findall(r'[0-9]{1,18}', file.name)], file.name))


def bag_name(file: Path) -> str:
    """What a file of a rosbag2 is called without its number: drive_0.mcap and drive_1.mcap.zstd are of one bag."""
    return re.sub(r'(_[0-9]+)?\.(mcap|db3)(\.zstd)?$', '', file.name)


def _suffix(file: Path) -> str:
    """Which of the formats."""
    return Path(file.stem).suffix if file.suffix == '.zstd' else file.suffix
