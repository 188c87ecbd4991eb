# SPDX-License-Identifier: Apache-2.0
"""Record serialised images for the demo: the messages in a file, their stamps and arrival times in memory."""

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
    """Recorded message.

    Args:
        topic: Name of the topic.
        stamp: Stamp of the message, nanoseconds.
        arrival: Time of arrival, nanoseconds.
        offset: Position of its data in the file, bytes.
        size: Size of its data, bytes.
    """

    topic: str
    stamp: int
    arrival: int
    offset: int
    size: int


class Recorder:
    """Records serialised images in a temporary file without a name, so that a drive may have any length.

    When the file cannot be written any more, nothing more is recorded, and :meth:`check` raises the error.

    Args:
        node: Node that subscribes, reliably.
        topics: Image topics to subscribe to. Messages of other topics can be added with :meth:`keep`.
        folder: Folder for the file.

    Attributes:
        entries: Recorded messages in the order of arrival.
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
        """Record a message that has just arrived or been published. Any thread may call this.

        Args:
            topic: Name of the topic.
            stamp: Stamp of the message, nanoseconds.
            data: CDR bytes.
        """
        arrival = self._node.get_clock().now().nanoseconds
        with self._lock:
            if self._problem is not None:
                return
            try:
                offset = self._file.seek(0, 2)
                self._file.write(data)
            except OSError as error:  # kept for check(): raised here, it would end the thread of the executor
                self._problem = error
                return
            self.entries.append(Entry(topic, stamp, arrival, offset, len(data)))

    def check(self) -> None:
        """Check that everything was recorded.

        Raises:
            WriteError: A message could not be written to the file.
        """
        if self._problem is not None:
            raise WriteError(self._problem.errno, self._problem.strerror, str(self._folder))

    def entries_on(self, topic: str) -> list[Entry]:
        """Return the recorded messages of a topic in the order of arrival."""
        return [entry for entry in self.entries if entry.topic == topic]

    def data(self, entry: Entry) -> bytes:
        """Return the CDR bytes of a recorded message."""
        with self._lock:
            self._file.seek(entry.offset)
            return self._file.read(entry.size)

    def close(self) -> None:
        """Delete the recorded data."""
        self._file.close()


def stamp_of(data: bytes) -> int:
    """Return the stamp, in nanoseconds, of a serialised message that begins with a ``std_msgs/Header``."""
    # CDR: four bytes of which the second gives the byte order, then seconds and nanoseconds.
    seconds, nanoseconds = struct.unpack_from('<iI' if data[1] & 1 else '>iI', data, 4)
    return seconds * 10**9 + nanoseconds
