# SPDX-License-Identifier: Apache-2.0
"""Write a rosbag2 in MCAP. An interrupted write leaves no bag."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rosbags.interfaces import Qos, QosDurability, QosHistory, QosLiveliness, QosReliability, QosTime
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer

from stdc_core.classes import ClassTable
from stdc_core.io.bag_metadata import CLASSES_KEY, MODEL_KEY
from stdc_core.io.files import WriteError, put_in_place, unfinished
from stdc_ros.bags.message import BagError
from stdc_ros.bags.message_types import BAG_TYPES

_FOREVER = QosTime(2147483647, 4294967295)

#: QoS of a latched topic: players repeat its last message to late subscribers.
LATCHED = Qos(
    QosHistory.KEEP_LAST,
    1,
    QosReliability.RELIABLE,
    QosDurability.TRANSIENT_LOCAL,
    _FOREVER,
    _FOREVER,
    QosLiveliness.AUTOMATIC,
    _FOREVER,
    False,
)


class BagWriter:
    """Writes messages to a rosbag2 in MCAP, compressed with zstd; created by :func:`write_bag`."""

    def __init__(self, writer: Writer):
        self._writer = writer
        self._connections: dict[str, Any] = {}

    def add_topic(self, topic: str, type_name: str, latched: bool = False) -> None:
        """Add a topic. Topics appear in the bag in the order in which they are added.

        Args:
            topic: Name of the topic.
            type_name: Message type of :data:`BAG_TYPES`.
            latched: Whether players publish it with ``transient_local`` durability.
        """
        self._connections[topic] = self._writer.add_connection(
            topic, type_name, typestore=BAG_TYPES, offered_qos_profiles=[LATCHED] if latched else []
        )

    def set_classes(self, classes: ClassTable, model: str) -> None:
        """Write the class table of the masks into the metadata; :meth:`Bag.classes` and ``stdc classes`` read it back.

        Args:
            classes: Class table.
            model: Line about the model that made the masks.
        """
        self._writer.set_custom_data(CLASSES_KEY, classes.to_json())
        self._writer.set_custom_data(MODEL_KEY, model)

    def write(self, topic: str, time: int, message: Any) -> None:
        """Write a message.

        Args:
            topic: Topic added with :meth:`add_topic`.
            time: Time of recording in nanoseconds.
            message: Message object of :data:`BAG_TYPES`.
        """
        self.write_cdr(topic, time, BAG_TYPES.serialize_cdr(message, message.__msgtype__))

    def write_cdr(self, topic: str, time: int, data: bytes | memoryview) -> None:
        """Write the CDR bytes of a message."""
        self._writer.write(self._connections[topic], time, data)


@contextmanager
def write_bag(path: str | Path, overwrite: bool = False) -> Iterator[BagWriter]:
    """Write a new bag: one MCAP file if the name ends in ``.mcap``, else a rosbag2 folder with ``NAME/NAME_0.mcap``.

    The bag appears when the block ends without an exception; otherwise nothing is left. The same messages give the same
    bytes, in folders of the same name.

    Args:
        path: File or folder.
        overwrite: Whether to replace an existing bag when the block ends.

    Raises:
        BagError: The path exists already, its folder is missing or not writable, or the disk is full.
    """
    path = Path(path)
    check_target(path, overwrite)
    try:
        with unfinished(path) as hidden:
            hidden.mkdir(mode=0o700)
            # The writer names the file after its folder and writes that name into it; a single file always gets the
            # same. `ros2 bag reindex` finds the files of a folder only if their names end in a number.
            single = path.suffix == '.mcap'
            made = hidden / ('bag' if single else f'{path.name}_0')
            writer = Writer(made, version=8, storage_plugin=StoragePlugin.MCAP)
            writer.set_compression(CompressionMode.STORAGE, CompressionFormat.ZSTD)
            with writer:
                yield BagWriter(writer)
            check_target(path, overwrite)  # again: another program may have written one meanwhile
            put_in_place(made / 'bag.mcap' if single else made, path)
    except WriteError as error:
        raise BagError(f'{path}: cannot be written: {error.strerror}') from error


def check_target(path: Path, overwrite: bool) -> None:
    """Check that a bag can be written to a path.

    Raises:
        BagError: The path exists, and ``overwrite`` is false or it is not a bag.
    """
    if not path.exists():
        return
    if not overwrite:
        raise BagError(f'{path}: exists already; --overwrite replaces it')
    is_bag = (path / 'metadata.yaml').is_file() if path.suffix != '.mcap' else path.is_file()
    if not is_bag:
        raise BagError(f'{path}: exists already and is not a bag, so it is not overwritten')
