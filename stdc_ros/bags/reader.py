# SPDX-License-Identifier: Apache-2.0
"""Read bags without ROS: rosbag1, rosbag2 (sqlite3 and MCAP), complete or truncated."""

from __future__ import annotations

import errno
import tempfile
from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

from stdc_core.classes import ClassTable
from stdc_core.io.bag_metadata import CLASSES_KEY, NAME, read_custom_data
from stdc_core.io.text import one_line
from stdc_ros.bags.compressed_video import CodecError, VideoDecoder, VideoPacket, is_video_format, read_packet
from stdc_ros.bags.decompression import LARGEST_CHUNK, ZSTD_MAGIC, unpack
from stdc_ros.bags.file_content import explain_content
from stdc_ros.bags.indexed_bag import Channel, IndexedBag, RawMessage
from stdc_ros.bags.message import BagError, BagMessage, Topic
from stdc_ros.bags.message_types import CDR_ENCODINGS, COMPRESSED_IMAGE, ROS1_ENCODING, read_message, to_cdr
from stdc_ros.bags.metadata import read_metadata
from stdc_ros.bags.topic_selection import IMAGE_TYPES, VIDEO_TYPES, select_topics
from stdc_ros.bags.truncated_bag import NothingRecoveredError, TruncatedBag, bag_name, storage_files, storage_suffix

#: Suffixes of bag files.
SUFFIXES = ('.bag', '.mcap', '.db3')

# Number of names that an error lists.
_LISTED = 20

#: Errors of the machine and not of the bag; the next try may succeed.
_TEMPORARY_ERRORS = {
    *(errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.ENOTCONN, errno.EHOSTDOWN),
    *(errno.EACCES, errno.EPERM, errno.ENOENT, errno.EMFILE, errno.ENFILE, errno.ENOSPC, errno.EDQUOT),
}


class Bag:
    """Bag that is open for reading; a context manager.

    Example::

        with Bag('drive.mcap') as bag:
            for message in bag.messages(bag.select_topics()):
                picture = message.bgr()

    Args:
        path: ``.bag``, ``.mcap`` or ``.db3`` file, also with ``.zstd`` behind it, or the folder of a rosbag2.

    Attributes:
        topics: Topics by name.
        damage: Reason if the bag is truncated (its recorder was killed, the disk was full) or damaged; else ''.
        without_key_frames: Reason by topic why no video frame could be decoded; set at the end of ``messages``.
        notes: Sentences about unusual things that lose no message, such as a damaged metadata.yaml.

    Raises:
        BagError: The file does not exist, is not a bag, or no message can be read from it.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self.damage = ''
        self.notes: list[str] = []
        self.without_key_frames: dict[str, str] = {}
        self._stack = ExitStack()
        self._reader: IndexedBag | TruncatedBag = self._open()
        self.topics = _topics(self._reader.channels)

    def _open(self) -> IndexedBag | TruncatedBag:
        try:
            files, self.notes = _files(self.path)
            return self._stack.enter_context(IndexedBag(files))
        except BagError:
            raise
        except Exception as error:  # rosbags' readers raise all kinds of errors on damaged files
            self._raise_if_temporary(error)
            problem = _reason(error)
        try:
            reader = self._stack.enter_context(TruncatedBag(files))
        except NothingRecoveredError as error:
            advice = next(filter(None, map(explain_content, files)), '')
            reason = advice or f'{problem} {error}'.strip()
            raise BagError(f'{self.path}: cannot be read as a bag: {reason}') from error
        except OSError as error:
            self._raise_if_temporary(error)
            raise
        # No message is missing from complete files that lack an index or hold something that rosbags does not read.
        self.damage = '' if reader.complete else problem
        return reader

    def _raise_if_temporary(self, error: Exception) -> None:
        """Raise BagError for an error of the machine, so that the bag is not reported as damaged."""
        for each in (error, error.__cause__, error.__context__):
            if isinstance(each, OSError) and each.errno in _TEMPORARY_ERRORS:
                full = each.errno in (errno.ENOSPC, errno.EDQUOT)
                place = f', to unpack it in {tempfile.gettempdir()}' if full else ''
                raise BagError(f'{self.path}: cannot be read: {each.strerror or one_line(each)}{place}') from error

    def __enter__(self) -> Bag:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def image_topics(self) -> dict[str, Topic]:
        """Topics that hold images or video."""
        return {name: topic for name, topic in self.topics.items() if topic.type in IMAGE_TYPES}

    def select_topics(self, wanted: Collection[str] = (), all_topics: bool = False) -> list[str]:
        """Return the image topics to work on; see :func:`stdc_ros.bags.topic_selection.select_topics`."""
        return select_topics(self.path, self.topics, wanted, all_topics)

    def classes(self) -> ClassTable | None:
        """Return the class table of a segmented bag; None if it has none.

        Raises:
            BagError: The class table is damaged.
        """
        text = read_custom_data(self.path).get(CLASSES_KEY)
        try:
            return None if text is None else ClassTable.from_json(text)
        except ValueError as error:
            raise BagError(f'{self.path}: {error}') from error

    def messages(self, topics: Collection[str]) -> Iterator[BagMessage]:
        """Yield the messages of these topics in the order of their times.

        If damage is found, ``damage`` is set, and the complete messages after the damage follow. Video messages are
        decoded; a picture that refers to later ones may come a few messages late.

        Raises:
            BagError: The bag can no longer be read.
        """
        decoders: dict[str, VideoDecoder] = {}
        for message in self._undecoded(topics):
            if message.problem or not isinstance(message.message, VideoPacket):
                yield message
                continue
            decoder = decoders.setdefault(message.topic, VideoDecoder())
            for source, picture, problem in decoder.decode(message.message, message):
                yield source._replace(picture=picture, problem=problem)
        for name, decoder in decoders.items():
            for source, picture, problem in decoder.flush():
                yield source._replace(picture=picture, problem=problem)
            if decoder.pictures and not decoder.key_frames:
                self.without_key_frames[name] = (
                    f'{name} has no key frame in {decoder.pictures} video messages: its encoder makes them too rarely '
                    '(an endless group of pictures), and the recording began after the last one'
                )

    def _undecoded(self, topics: Collection[str]) -> Iterator[BagMessage]:
        """Yield the messages without decoding video."""
        last, delivered = 0, Counter[str]()  # time of the last message, and messages of that time by topic
        try:
            for raw in self._reader.messages(topics):
                if raw.time != last:
                    last, delivered = raw.time, Counter()
                delivered[raw.channel.topic] += 1
                yield _message(raw)
            return
        except Exception as error:  # see _open
            self._raise_if_temporary(error)
            self.damage = _reason(error)
        try:
            for raw in self._behind_damage(topics, last):
                if raw.time > last or delivered[raw.channel.topic] <= 0:
                    yield _message(raw)
                else:
                    delivered[raw.channel.topic] -= 1
        except OSError as error:
            self._raise_if_temporary(error)
            raise

    def _behind_damage(self, topics: Collection[str], last: int) -> Iterator[RawMessage]:
        """Yield complete messages from a time on, found by scanning the files instead of looking up their index."""
        if isinstance(self._reader, TruncatedBag) or any(file.suffix == '.db3' for file in self._reader.files):
            return
        with suppress(NothingRecoveredError), TruncatedBag(self._reader.files) as reader:
            yield from (raw for raw in reader.messages(topics) if raw.time >= last)


def may_be_topic(text: str) -> bool:
    """Return whether an argument after ``--topic NAME`` is another topic and not a bag."""
    return text.startswith('/') and not text.endswith(SUFFIXES) and not Path(text).exists()


def _topics(channels: dict[Channel, int]) -> dict[str, Topic]:
    """Return the topics by name; the counts of several channels of one topic are added."""
    topics: dict[str, Topic] = {}
    for channel, count in channels.items():
        type_name = channel.type
        if channel.encoding not in (*CDR_ENCODINGS, ROS1_ENCODING):
            type_name = f'{type_name} in {channel.encoding}'
        before = topics.get(channel.topic, Topic(type_name, 0))
        name = type_name if type_name == before.type else 'several types'
        topics[channel.topic] = Topic(name, before.message_count + count)
    return dict(sorted(topics.items()))


def _message(raw: RawMessage) -> BagMessage:
    topic, type_name, encoding = raw.channel
    message, problem = None, ''
    data: bytes | memoryview = raw.data
    try:
        if encoding in CDR_ENCODINGS and data[:4] == ZSTD_MAGIC:  # compressed message by message
            data = unpack('zstd', data, LARGEST_CHUNK)
        data = to_cdr(data, type_name, encoding)
        message = read_message(data, type_name)
        if type_name in VIDEO_TYPES or (type_name == COMPRESSED_IMAGE and is_video_format(message.format)):
            message = read_packet(message, type_name)
        message = _checked(raw.time, message, type_name)
    except CodecError as error:
        problem = str(error)
    except Exception as error:  # rosbags raises many kinds
        problem = f'not a message of type {type_name}: {_reason(error)}'
    return BagMessage(topic, raw.time, message, type_name, problem, data)


def _checked(time: int, message: Any, type_name: str) -> Any:
    if type_name in IMAGE_TYPES:
        stamp = message.header.stamp
        if not (0 <= time < 2**63 and -(2**31) <= stamp.sec + stamp.nanosec // 10**9 < 2**31):
            raise ValueError(f'times out of range: recorded at {time} ns, stamp {stamp.sec}.{stamp.nanosec:09}')
    return message


def _reason(error: Exception) -> str:
    """Return the message of a library's error in one line."""
    return one_line(error) or type(error).__name__


def _files(path: Path) -> tuple[list[Path], list[str]]:
    """Return the files of a bag in the order of recording, and notes about its metadata.yaml."""
    if not path.exists():
        raise BagError(f'{path}: no such bag')
    if not path.is_dir():
        if storage_suffix(path) not in SUFFIXES:
            raise BagError(f'{path}: expected a .bag, .mcap or .db3 file or the folder of a rosbag2')
        return [path], []
    names: list[str] = []
    notes: list[str] = []
    if (path / NAME).is_file():
        names, notes = read_metadata(path)
        # The user may have compressed or decompressed some of the files.
        found = [_stored(path / name) for name in names]
        missing = [name for name, file in zip(names, found, strict=True) if file is None]
        if 0 < len(missing) < len(names):
            raise BagError(
                f'{path}: {len(missing)} of the {len(names)} files that {NAME} names are missing, '
                f'the first is {one_line(missing[0], 80)}'
            )
        if names and not missing:
            return [file for file in found if file], notes
    files = storage_files(path)
    if not files:
        raise BagError(f'{path}: not the folder of a rosbag2: no .mcap or .db3 files in it')
    bags = sorted({bag_name(file) for file in files})
    if len(bags) > 1:
        listed = ', '.join(one_line(name, 80) for name in bags[:_LISTED])
        raise BagError(f'{path}: holds several bags ({listed}), expected one: give each a folder of its own')
    if names:
        notes.append(f'{NAME} names {one_line(names[0], 80)}, which is missing; {files[0].name} is read instead')
    return files, notes


def _stored(file: Path) -> Path | None:
    """Return the file or its uncompressed form; None if neither exists or it is not a bag file."""
    plain = file.with_suffix('') if file.suffix == '.zstd' else file
    return next((each for each in (file, plain) if each.is_file() and storage_suffix(each) in SUFFIXES), None)
