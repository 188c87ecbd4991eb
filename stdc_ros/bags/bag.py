# SPDX-License-Identifier: Apache-2.0
"""Images out of bags, and bags of images: rosbag1, rosbag2 (sqlite3 and MCAP), without ROS."""

from __future__ import annotations

import errno
import re
import tempfile
from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer

from stdc_core.io.files import WriteError, put_in_place, unfinished
from stdc_core.io.text import one_line
from stdc_ros.bags.decompression import LARGEST_CHUNK, ZSTD_MAGIC, unpack
from stdc_ros.bags.indexed_bag import MissingFilesError, NoIndexError, WholeBag
from stdc_ros.bags.truncated_bag import CutBag, CutBagError, bag_name, open_cut_bag, storage_files
from stdc_ros.messages.cdr import COMPRESSED_IMAGE, IMAGE, TYPES
from stdc_ros.messages.images import ImageError, compressed_to_bgr, image_to_bgr

# How many topics an error names.
_NAMED = 20

_CONVERT = {IMAGE: image_to_bgr, COMPRESSED_IMAGE: compressed_to_bgr}

# Errors that say something of the machine, not of the bag.
_OF_THE_MOMENT = {
    *(errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.ENOTCONN, errno.EHOSTDOWN),
    *(errno.EACCES, errno.EPERM, errno.ENOENT, errno.EMFILE, errno.ENFILE, errno.ENOSPC, errno.EDQUOT),
}

# What images are called in an MCAP with messages of ROS 1. Of a .bag, the readers tell the names of ROS 2.
_OF_ROS1 = {name.replace('/msg/', '/') for name in _CONVERT}


class BagError(ValueError):
    """A bag that cannot be used; the message names the file or topic, what was found and what was expected."""


class Topic(NamedTuple):
    """A topic of a bag: the type of its messages and how many there are."""

    type: str
    count: int


class BagMessage(NamedTuple):
    """A message of a bag. ``time`` is when it was recorded, in nanoseconds; ``type`` such as :data:`IMAGE`.

    Of one whose bytes are not what its type says, ``message`` is None, ``problem`` says why, and every method raises
    ImageError.
    """

    topic: str
    time: int
    message: Any
    type: str
    problem: str = ''

    @property
    def stamp(self) -> int:
        """Stamp in the header of an image message, in nanoseconds."""
        if self.problem:
            raise ImageError(self.problem)
        stamp = self.message.header.stamp
        return stamp.sec * 10**9 + stamp.nanosec

    def header(self) -> Any:
        """The header of an image message as one of ROS 2: that of ROS 1 has a counter besides."""
        return make_header(self.stamp, self.message.header.frame_id)

    def bgr(self) -> np.ndarray:
        """The picture of an image message, uint8 ``[H, W, 3]`` BGR.

        Raises:
            ImageError: it cannot be decoded.
        """
        if self.problem:
            raise ImageError(self.problem)
        return _CONVERT[self.type](self.message)


def make_header(stamp: int, frame_id: str) -> Any:
    """A ``std_msgs/Header`` of :data:`TYPES`; the stamp in nanoseconds."""
    seconds, nanoseconds = divmod(stamp, 10**9)
    time = TYPES.types['builtin_interfaces/msg/Time'](sec=seconds, nanosec=nanoseconds)
    return TYPES.types['std_msgs/msg/Header'](stamp=time, frame_id=frame_id)


class Bag:
    """A bag, open for reading; a context manager.

    Args:
        path: ``.bag``, ``.mcap`` or ``.db3`` file, or the folder of a rosbag2.

    Attributes:
        topics: by name, all of them.
        cut: what is wrong, if the bag was cut off (its recorder was killed, the disk was full) or is damaged; else ''.

    Raises:
        BagError: no such file, not a bag, or nothing can be read from it.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self.cut = ''
        self._stack = ExitStack()
        self._reader: WholeBag | CutBag = self._open()
        self.topics = {
            name: Topic(info.msgtype or 'of several types', info.msgcount)
            for name, info in sorted(self._reader.topics.items())
        }

    def _open(self) -> WholeBag | CutBag:
        files = _files(self.path)
        try:
            return self._stack.enter_context(WholeBag(files))
        except MissingFilesError as error:
            raise BagError(f'{self.path}: {error}') from error
        except Exception as error:  # rosbags' readers raise all kinds of errors on damaged files
            self._raise_if_of_the_moment(error)
            problem, no_index = _said(error), isinstance(error, NoIndexError)
        try:
            reader = self._stack.enter_context(open_cut_bag(self.path, files))
        except CutBagError as error:
            raise BagError(f'{self.path}: cannot be read as a bag: {problem} {error}'.strip()) from error
        except OSError as error:
            self._raise_if_of_the_moment(error)
            raise
        # A file that is whole has what rosbags does not read, such as definitions in another language.
        alone = not (self.path / 'metadata.yaml').is_file()
        self.cut = '' if reader.ended and (no_index or alone) else problem
        return reader

    def _raise_if_of_the_moment(self, error: Exception) -> None:
        """Raise BagError for what may be gone the next time: nobody is to take the bag for a damaged one."""
        for each in (error, error.__cause__, error.__context__):
            if isinstance(each, OSError) and each.errno in _OF_THE_MOMENT:
                full = each.errno in (errno.ENOSPC, errno.EDQUOT)
                place = f', to unpack it in {tempfile.gettempdir()}' if full else ''
                raise BagError(f'{self.path}: cannot be read: {each.strerror or one_line(each)}{place}') from error

    def __enter__(self) -> Bag:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def image_topics(self) -> dict[str, Topic]:
        """Those of raw and of compressed images."""
        return {name: topic for name, topic in self.topics.items() if topic.type in _CONVERT}

    def choose(self, wanted: Collection[str] = (), every: bool = False) -> list[str]:
        """The image topics to work on.

        Args:
            wanted: by name. If there are none, the bag must have one image topic.
            every: all that the bag has.

        Raises:
            BagError: no such topic, not one of images, none at all or of ROS 1 in an MCAP, or several to choose from.
        """
        held = self.image_topics
        listed = ', '.join(
            f'{one_line(name, 80)} ({topic.type.split("/")[-1]}, {topic.count})' for name, topic in held.items()
        )
        if not held:
            names = [f'{one_line(name, 80)} ({one_line(topic.type, 80)})' for name, topic in self.topics.items()]
            found = ', '.join(names[:_NAMED]) + (f' and {len(names) - _NAMED} more' if len(names) > _NAMED else '')
            problem = 'no topic with images'
            if any(topic.type in _OF_ROS1 for topic in self.topics.values()):
                problem = 'messages of ROS 1, which are read from a .bag alone, expected the .bag that they come from'
            raise BagError(f'{self.path}: {problem}; the bag holds {found or "nothing"}')
        for name in wanted:
            if name not in self.topics:
                raise BagError(f'{self.path}: no topic {name}; its image topics are {listed}')
            if name not in held:
                found = one_line(self.topics[name].type, 80)
                raise BagError(f'{self.path}: {name} holds {found}, expected images; its image topics are {listed}')
        chosen = list(dict.fromkeys(wanted)) or (list(held) if every or len(held) == 1 else [])
        for name in chosen:
            if not re.fullmatch(r'[\w/~.-]+', name):
                raise BagError(f'{self.path}: a topic is called {one_line(repr(name), 80)}, expected a name of ROS')
        if chosen:
            return chosen
        raise BagError(f'{self.path}: several image topics, say which is meant: {listed}')

    def messages(self, topics: Collection[str]) -> Iterator[BagMessage]:
        """Messages of these topics in the order of their times, one at a time.

        If the bag turns out to be damaged, ``cut`` says so, and the messages that are whole behind that follow.

        Raises:
            BagError: it cannot be read any more.
        """
        last, delivered = 0, Counter[str]()  # those of this time
        try:
            for message in self._messages(self._reader, topics):
                if message.time != last:
                    last, delivered = message.time, Counter()
                delivered[message.topic] += 1
                yield message
            return
        except Exception as error:  # see _open
            self._raise_if_of_the_moment(error)
            self.cut = _said(error)
        try:
            for message in self._behind_damage(topics, last):
                if message.time > last or delivered[message.topic] <= 0:
                    yield message
                else:
                    delivered[message.topic] -= 1
        except OSError as error:
            self._raise_if_of_the_moment(error)
            raise

    def _behind_damage(self, topics: Collection[str], last: int) -> Iterator[BagMessage]:
        """Whole messages from a time on, where walking through the files may find more than looking them up."""
        if isinstance(self._reader, CutBag) or any(file.suffix == '.db3' for file in self._reader.files):
            return
        with suppress(CutBagError), CutBag(self._reader.files) as reader:
            yield from (message for message in self._messages(reader, topics) if message.time >= last)

    def _messages(self, reader: WholeBag | CutBag, topics: Collection[str]) -> Iterator[BagMessage]:
        connections = [connection for connection in reader.connections if connection.topic in topics]
        for connection, time, data in reader.messages(connections):
            message, problem = None, ''
            try:
                message = self._message(time, data, connection.msgtype)
            except Exception as error:  # see _open
                problem = f'not a message of type {connection.msgtype}: {_said(error)}'
            yield BagMessage(connection.topic, time, message, connection.msgtype, problem)

    def _message(self, time: int, data: bytes, message_type: str) -> Any:
        if data[:4] == ZSTD_MAGIC:  # a rosbag2 compressed message by message, which metadata.yaml alone says
            data = unpack('zstd', data, LARGEST_CHUNK)
        message = self._reader.deserialize(data, message_type)
        if message_type in _CONVERT:
            stamp = message.header.stamp
            if not (0 <= time < 2**63 and -(2**31) <= stamp.sec + stamp.nanosec // 10**9 < 2**31):
                raise ValueError(f'times out of range: recorded at {time} ns, stamp {stamp.sec}.{stamp.nanosec:09}')
        return message


def _said(error: Exception) -> str:
    """One line of what a library raised."""
    return one_line(error) or type(error).__name__


def _files(path: Path) -> list[Path]:
    """What to hand to the reader: the path, or the files of a folder whose recorder could not write metadata.yaml."""
    if not path.exists():
        raise BagError(f'{path}: no such bag')
    if not path.is_dir():
        if path.suffix not in ('.bag', '.mcap', '.db3'):
            raise BagError(f'{path}: expected a .bag, .mcap or .db3 file or the folder of a rosbag2')
        return [path]
    if (path / 'metadata.yaml').is_file():
        return [path]
    files = storage_files(path)
    names = sorted({bag_name(file) for file in files})
    if len(names) > 1:
        listed = ', '.join(one_line(name, 80) for name in names[:_NAMED])
        raise BagError(f'{path}: holds several bags ({listed}), expected one: give each a folder of its own')
    if not files:
        raise BagError(f'{path}: not the folder of a rosbag2: neither metadata.yaml nor .mcap or .db3 files in it')
    return files


class BagWriter:
    """Writes messages to a rosbag2 in MCAP, compressed with zstd; made by :func:`write_bag`."""

    def __init__(self, writer: Writer):
        self._writer = writer
        self._connections: dict[str, Any] = {}

    def add_topic(self, topic: str, type_name: str) -> None:
        """Topics appear in the bag in the order in which they are added."""
        self._connections[topic] = self._writer.add_connection(topic, type_name, typestore=TYPES)

    def write(self, topic: str, time: int, message: Any) -> None:
        """Write a message of :data:`TYPES`; ``time`` in nanoseconds."""
        self.write_cdr(topic, time, TYPES.serialize_cdr(message, message.__msgtype__))

    def write_cdr(self, topic: str, time: int, data: bytes | memoryview) -> None:
        """Write a message that is serialised already."""
        self._writer.write(self._connections[topic], time, data)


@contextmanager
def write_bag(path: str | Path, overwrite: bool = False) -> Iterator[BagWriter]:
    """A new bag at ``path``: one MCAP file if the name ends in ``.mcap``, else the folder of a rosbag2.

    It appears there when the block ends without an exception, and then complete; otherwise nothing appears. The same
    messages make the same bytes.

    Args:
        overwrite: a bag that is there already is replaced, at the end.

    Raises:
        BagError: there is something already, the folder for it is missing or not writable, or the disk is full.
    """
    path = Path(path)
    check_target(path, overwrite)
    try:
        with unfinished(path) as hidden:
            hidden.mkdir(mode=0o700)
            # The writer names the file after the folder, and the file holds its name.
            writer = Writer(hidden / 'bag', version=8, storage_plugin=StoragePlugin.MCAP)
            writer.set_compression(CompressionMode.STORAGE, CompressionFormat.ZSTD)
            with writer:
                yield BagWriter(writer)
            made = hidden / 'bag'
            check_target(path, overwrite)  # again: another program may have made one meanwhile
            put_in_place(made / 'bag.mcap' if path.suffix == '.mcap' else made, path)
    except WriteError as error:
        raise BagError(f'{path}: cannot be written: {error.strerror}') from error


def check_target(path: Path, overwrite: bool) -> None:
    """Is there room for a bag at this path?

    Raises:
        BagError: something is there, and it is not to be replaced, or it is not a bag.
    """
    if not path.exists():
        return
    if not overwrite:
        raise BagError(f'{path}: exists already; --overwrite replaces it')
    is_bag = (path / 'metadata.yaml').is_file() if path.suffix != '.mcap' else path.is_file()
    if not is_bag:
        raise BagError(f'{path}: exists already and is not a bag, so it is not overwritten')
