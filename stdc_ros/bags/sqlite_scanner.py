# SPDX-License-Identifier: Apache-2.0
"""Read a truncated or damaged SQLite database of rosbag2."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from stdc_ros.bags.indexed_bag import Channel
from stdc_ros.bags.message_types import ros2_type_name
from stdc_ros.bags.record_scanner import MessageRecord


class Sqlite3Scanner:
    """Scans the readable pages of a database; attributes as in ``RecordScanner``."""

    #: Time of the first message. It is unknown without reading all messages.
    begin = 0

    def __init__(self, path: Path):
        self.path = path
        self.complete = True
        self.channels: dict[int, Channel] = {}
        try:
            query = 'SELECT id, name, type, serialization_format FROM topics ORDER BY id'
            for number, *texts in self._rows(query):
                if all(isinstance(text, str) for text in texts):
                    topic, type_name, encoding = texts
                    self.channels[number] = Channel(topic, ros2_type_name(type_name), encoding)
        except sqlite3.Error:
            self.complete = False
        self.counts = Counter(message.channel_id for message in self.messages())

    def _rows(self, query: str) -> Iterator[tuple]:
        database = sqlite3.connect(f'{self.path.absolute().as_uri()}?immutable=1', uri=True)
        try:
            # Lets SQLite read a database that is shorter than its header says. Nothing is written.
            database.execute('PRAGMA writable_schema=ON')
            (pages,), (size,) = (database.execute(f'PRAGMA {name}').fetchone() for name in ('page_count', 'page_size'))
            self.complete &= pages * size <= self.path.stat().st_size
            # Views and virtual tables would run SQL from the file.
            database.execute('PRAGMA trusted_schema=OFF')
            tables = database.execute("SELECT name FROM sqlite_master WHERE type='table' AND rootpage > 0").fetchall()
            if not {('topics',), ('messages',)} <= set(tables):
                return
            yield from database.execute(query)
        finally:
            database.close()

    def messages(self) -> Iterator[MessageRecord]:
        """Yield all complete messages in the order of recording, because the index by time may be lost."""
        try:
            for number, time, data in self._rows('SELECT topic_id, timestamp, data FROM messages ORDER BY id'):
                if isinstance(time, int) and isinstance(data, bytes):
                    yield MessageRecord(time, number, data)
        except sqlite3.Error:
            self.complete = False
