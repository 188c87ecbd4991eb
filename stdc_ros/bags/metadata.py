# SPDX-License-Identifier: Apache-2.0
"""The metadata.yaml of a rosbag2 folder, of which only the list of files is needed.

Topics, types and counts are read from the files themselves. So a metadata.yaml that is empty, damaged, of another
version or written by hand costs nothing but a note.
"""

from __future__ import annotations

from pathlib import Path, PurePath
from typing import NamedTuple

import yaml

from stdc_core.io.text import one_line

NAME = 'metadata.yaml'

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
