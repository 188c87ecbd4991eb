# SPDX-License-Identifier: Apache-2.0
"""Recover truncated bags, left by a killed recorder, a full disk or an interrupted copy.

Such a bag has no index, but holds all messages up to the end of the file. They are found by scanning the records.
"""

from __future__ import annotations

import re
import shutil
import sqlite3
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

from stdc_ros.bags.decompression import unpack_file
from stdc_ros.bags.indexed_bag import Channel, RawMessage, merge_by_time, write_ahead_log
from stdc_ros.bags.record_scanner import McapScanner, RecordScanner, Rosbag1Scanner
from stdc_ros.bags.sqlite_scanner import Sqlite3Scanner

#: Scanner by the suffix of the file.
SCANNERS: dict[str, Callable[[Path], RecordScanner | Sqlite3Scanner]] = {
    '.mcap': McapScanner,
    '.bag': Rosbag1Scanner,
    '.db3': Sqlite3Scanner,
}


class NothingRecoveredError(ValueError):
    """No message can be read from a file."""


class TruncatedBag:
    """Reads a truncated bag; a context manager with the attributes and methods of ``IndexedBag``.

    Args:
        files: Files in the order of recording, all ``.mcap``, all ``.db3`` or all ``.bag``. The first two may be
            compressed (``.mcap.zstd``, ``.db3.zstd``).

    Attributes:
        complete: Whether the files are known to be complete.

    Raises:
        NothingRecoveredError: The files hold no complete message, or belong to different bags.
        OSError: The files cannot be read now, or the disk has no room to decompress them.
    """

    def __init__(self, files: list[Path]):
        if len({storage_suffix(file) for file in files}) != 1:
            raise NothingRecoveredError('')
        self._folder: TemporaryDirectory | None = None
        self._all_unpacked = True
        try:
            self._scanners = [SCANNERS[file.suffix](file) for file in [self._plain(file) for file in files]]
            self.channels: dict[Channel, int] = {}
            for scanner in self._scanners:
                for number, channel in scanner.channels.items():
                    self.channels[channel] = self.channels.get(channel, 0) + scanner.counts[number]
            if not any(self.channels.values()):
                raise NothingRecoveredError('and no whole message is left in it')
        except BaseException:
            self.__exit__()
            raise
        self.files = [scanner.path for scanner in self._scanners]

    def _plain(self, file: Path) -> Path:
        """Return the file, or a temporary copy that is decompressed or has its write-ahead log merged."""
        with file.open('rb'):  # raises OSError; SQLite would report an unreadable file as damaged
            pass
        log = write_ahead_log(file)
        if file.suffix != '.zstd' and not log:
            return file
        self._folder = self._folder or TemporaryDirectory()
        plain = Path(self._folder.name, file.name.removesuffix('.zstd'))
        if file.suffix == '.zstd':
            self._all_unpacked &= unpack_file(file, plain)
            return plain
        self._all_unpacked = False
        for part in filter(None, (file, log)):
            shutil.copyfile(part, plain.with_name(part.name))
        database = sqlite3.connect(plain)
        try:
            database.execute('PRAGMA wal_checkpoint(TRUNCATE)')
        except sqlite3.Error:
            pass  # the database is damaged as well and is read without the log
        finally:
            database.close()
        return plain

    def __enter__(self) -> TruncatedBag:
        return self

    def __exit__(self, *_: object) -> None:
        if self._folder:
            self._folder.cleanup()

    @property
    def complete(self) -> bool:
        """Whether the files are known to be complete."""
        return self._all_unpacked and all(scanner.complete for scanner in self._scanners)

    def messages(self, topics: Collection[str]) -> Iterator[RawMessage]:
        """Yield the messages of these topics in the order of their times."""
        yield from merge_by_time((scanner.begin, _messages(scanner, topics)) for scanner in self._scanners)


def _messages(scanner: RecordScanner | Sqlite3Scanner, topics: Collection[str]) -> Iterator[RawMessage]:
    wanted = {number: channel for number, channel in scanner.channels.items() if channel.topic in topics}
    for message in scanner.messages():
        if message.channel_id in wanted:
            yield RawMessage(wanted[message.channel_id], message.time, message.data)


def storage_files(folder: Path) -> list[Path]:
    """Return the files of a rosbag2 folder in the order of recording: bag_10 comes after bag_9.

    If the recorder was killed while it compressed a file, both forms exist, and the uncompressed one is complete.
    """
    files = [file for file in folder.iterdir() if storage_suffix(file) in ('.mcap', '.db3') and file.is_file()]
    files = [file for file in files if file.suffix != '.zstd' or file.with_suffix('') not in files]
    return sorted(files, key=lambda file: ([int(n) for n in re.findall(r'[0-9]{1,18}', file.name)], file.name))


def bag_name(file: Path) -> str:
    """Return the name of a rosbag2 file without its number: drive_0.mcap and drive_1.mcap.zstd belong to one bag."""
    return re.sub(r'(_[0-9]+)?\.(mcap|db3)(\.zstd)?$', '', file.name)


def storage_suffix(file: Path) -> str:
    """Return the suffix of the storage format, without the suffix of the compression."""
    return Path(file.stem).suffix if file.suffix == '.zstd' else file.suffix
