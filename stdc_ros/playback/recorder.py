# SPDX-License-Identifier: Apache-2.0
"""Records the images of some topics as they come, for the demo: messages to a file, what is known of them in memory."""

from __future__ import annotations

import struct
import tempfile
import threading
from functools import partial
from pathlib import Path
from typing import NamedTuple

from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import Image

from stdc_core.io.files import WriteError


class Entry(NamedTuple):
    """A recorded message: its stamp and when it came, both in nanoseconds, and where its data lies in the file."""

    topic: str
    stamp: int
    arrival: int
    offset: int
    size: int


class Recorder:
    """Keeps serialised images; a drive of any length, for they lie in a nameless file.

    If there is no room for them, nothing more is recorded, and :meth:`check` tells.

    Args:
        node: that subscribes, reliably.
        topics: to subscribe to; those of other sources may be added with :meth:`keep`.
        folder: where there is room for the file.
    """

    def __init__(self, node: Node, topics: list[str], folder: Path):
        self._node = node
        self._folder = folder
        self._problem: OSError | None = None
        self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115
        self._lock = threading.Lock()
        self.entries: list[Entry] = []
        quality = QoSProfile(depth=50, reliability=ReliabilityPolicy.RELIABLE)
        for topic in topics:
            node.create_subscription(Image, topic, partial(self._keep_image, topic), quality, raw=True)

    def _keep_image(self, topic: str, data: bytes) -> None:
        self.keep(topic, stamp_of(data), data)

    def keep(self, topic: str, stamp: int, data: bytes) -> None:
        """Record a message that came, or went out, just now. From any thread."""
        arrival = self._node.get_clock().now().nanoseconds
        with self._lock:
            if self._problem is not None:
                return
            try:
                offset = self._file.seek(0, 2)
                self._file.write(data)
            except OSError as error:  # in the executor's thread, which would end of it
                self._problem = error
                return
            self.entries.append(Entry(topic, stamp, arrival, offset, len(data)))

    def check(self) -> None:
        """Raises WriteError if something could not be recorded."""
        if self._problem is not None:
            raise WriteError(self._problem.errno, self._problem.strerror, str(self._folder))

    def of(self, topic: str) -> list[Entry]:
        """What was recorded of a topic, in the order in which it came."""
        return [entry for entry in self.entries if entry.topic == topic]

    def data(self, entry: Entry) -> bytes:
        """The serialised message."""
        with self._lock:
            self._file.seek(entry.offset)
            return self._file.read(entry.size)

    def close(self) -> None:
        """Give the room back."""
        self._file.close()


def stamp_of(data: bytes) -> int:
    """Stamp in nanoseconds of a serialised message that begins with a header."""
    # CDR: four bytes of which the second tells the byte order, then seconds and nanoseconds.
    seconds, nanoseconds = struct.unpack_from('<iI' if data[1] & 1 else '>iI', data, 4)
    return seconds * 10**9 + nanoseconds
