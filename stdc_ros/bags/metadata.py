# SPDX-License-Identifier: Apache-2.0
"""The metadata of a rosbag2: the list of files in metadata.yaml, and the class table of segmented bags.

Topics, types and counts are read from the files themselves. So a metadata.yaml that is empty, damaged, of another
version or written by hand costs nothing but a note. rosbag2 keeps the same metadata in a record of an MCAP file.
"""

from __future__ import annotations

import struct
from pathlib import Path, PurePath
from typing import NamedTuple

import yaml

from stdc_core.classes import ClassTable
from stdc_core.io.text import one_line

NAME = 'metadata.yaml'

#: Key of the class table in the ``custom_data`` of the metadata; the value is JSON.
CLASSES_KEY = 'stdc.classes'

#: Largest metadata.yaml that is read, in bytes.
LARGEST = 10_000_000

#: Newest version of the format (rosbag2 of Kilted).
NEWEST_VERSION = 9

_STORAGES = ('mcap', 'sqlite3')


class BagMetadata(NamedTuple):
    """What a metadata.yaml says.

    Args:
        files: Names of the files of the bag, in the order of recording, without folders; empty if it does not tell.
        notes: Sentences about what is odd in it, for the user.
    """

    files: list[str]
    notes: list[str]


def read_metadata(folder: Path) -> BagMetadata:
    """Read the metadata.yaml of a rosbag2 folder.

    Raises:
        OSError: The file cannot be read.
    """
    path = folder / NAME
    size = path.stat().st_size
    if size > LARGEST:
        return BagMetadata([], [f'{NAME} has {size} bytes, expected at most {LARGEST}'])
    data = path.read_bytes()
    if not data.strip():
        return BagMetadata([], [f'{NAME} is empty'])
    try:
        # Nodes, not values: aliases are not expanded, which would make a small file a huge one.
        root = yaml.compose(data, getattr(yaml, 'CSafeLoader', yaml.SafeLoader))
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        return BagMetadata([], [f'{NAME} is not YAML: {one_line(error)}'])
    information = _get(root, 'rosbag2_bagfile_information')
    if not isinstance(information, yaml.MappingNode):
        return BagMetadata([], [f'{NAME} has no rosbag2_bagfile_information'])
    paths = _get(information, 'relative_file_paths')
    entries = paths.value if isinstance(paths, yaml.SequenceNode) else []
    files = [PurePath(entry.value).name for entry in entries if isinstance(entry, yaml.ScalarNode)]
    return BagMetadata([name for name in files if name], _odd(information))


def _odd(information: yaml.Node) -> list[str]:
    notes = []
    version, storage = (_text(_get(information, key)) for key in ('version', 'storage_identifier'))
    if not (version.isdecimal() and 1 <= int(version[:9]) <= NEWEST_VERSION):
        notes.append(f'{NAME} has version {one_line(repr(version), 40)}, expected 1 to {NEWEST_VERSION}')
    if storage not in _STORAGES:
        found = one_line(repr(storage), 40)
        notes.append(f'{NAME} has storage_identifier {found}, expected {" or ".join(_STORAGES)}')
    return notes


def _get(node: yaml.Node | None, key: str) -> yaml.Node | None:
    """Return the value of a key of a mapping; None if there is none."""
    if not isinstance(node, yaml.MappingNode):
        return None
    return next((value for name, value in node.value if name.value == key), None)


def _text(node: yaml.Node | None) -> str:
    return node.value if isinstance(node, yaml.ScalarNode) else ''


def read_classes(path: Path) -> ClassTable | None:
    """Read the class table that ``segment_bag`` has written into the metadata of a bag.

    Args:
        path: MCAP file, or folder of a rosbag2.

    Returns:
        Class table; None if the bag has none.

    Raises:
        OSError: The bag cannot be read.
        ValueError: The class table is damaged.
    """
    if path.is_dir():
        file = path / NAME
        found = file.read_bytes()[: LARGEST + 1] if file.is_file() else b''
    else:
        found = _mcap_metadata(path) if path.suffix == '.mcap' else b''
    if not found or len(found) > LARGEST:
        return None
    try:
        root = yaml.compose(found, getattr(yaml, 'CSafeLoader', yaml.SafeLoader))
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError):
        return None
    information = _get(root, 'rosbag2_bagfile_information') or root
    text = _text(_get(_get(information, 'custom_data'), CLASSES_KEY))
    return ClassTable.from_json(text) if text else None


def _mcap_metadata(path: Path) -> bytes:
    """Return the metadata that rosbag2 stores in an MCAP file (https://mcap.dev/spec, op 0x0C); empty if none."""
    with path.open('rb') as file:
        size = file.seek(0, 2)
        file.seek(8)
        while len(head := file.read(9)) == 9:
            opcode, length = struct.unpack('<BQ', head)
            if file.tell() + length > size:
                break
            if opcode != 0x0C:
                file.seek(length, 1)
                continue
            value = file.read(min(length, LARGEST))
            # A name, then a map of texts; each text has its length before it.
            key = struct.pack('<I', 19) + b'serialized_metadata'
            at = value.find(key)
            if value.startswith(struct.pack('<I', 7) + b'rosbag2') and 0 <= at <= len(value) - len(key) - 4:
                (length,) = struct.unpack_from('<I', value, at + len(key))
                return value[at + len(key) + 4 :][:length]
    return b''
