# SPDX-License-Identifier: Apache-2.0
"""Read the list of files in the metadata.yaml of a rosbag2.

Topics, types and counts are read from the bag files themselves. A metadata.yaml that is empty, damaged, written by hand
or has another version therefore leads only to a note.
"""

from __future__ import annotations

from pathlib import Path, PurePath
from typing import NamedTuple

import yaml

from stdc_core.io.bag_metadata import LARGEST, NAME, get_node, parse_metadata
from stdc_core.io.text import one_line

#: Newest version of the format (rosbag2 of Kilted).
NEWEST_VERSION = 9

_STORAGES = ('mcap', 'sqlite3')


class BagMetadata(NamedTuple):
    """Content of a metadata.yaml.

    Args:
        files: Names of the files of the bag without folders, in the order of recording; empty if they are not listed.
        notes: Sentences for the user about unusual values.
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
        root = parse_metadata(data)
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        return BagMetadata([], [f'{NAME} is not YAML: {one_line(error)}'])
    information = get_node(root, 'rosbag2_bagfile_information')
    if not isinstance(information, yaml.MappingNode):
        return BagMetadata([], [f'{NAME} has no rosbag2_bagfile_information'])
    paths = get_node(information, 'relative_file_paths')
    entries = paths.value if isinstance(paths, yaml.SequenceNode) else []
    files = [PurePath(entry.value).name for entry in entries if isinstance(entry, yaml.ScalarNode)]
    notes = _odd(information)
    names = list(dict.fromkeys(name for name in files if name))
    if len(names) < len(files):
        notes.append(f'{NAME} lists {len(files)} files, but {len(names)} different names')
    return BagMetadata(names, notes)


def _odd(information: yaml.Node) -> list[str]:
    notes = []
    version, storage = (_text(get_node(information, key)) for key in ('version', 'storage_identifier'))
    if not (version.isdecimal() and 1 <= int(version[:9]) <= NEWEST_VERSION):
        notes.append(f'{NAME} has version {one_line(repr(version), 40)}, expected 1 to {NEWEST_VERSION}')
    if storage not in _STORAGES:
        found = one_line(repr(storage), 40)
        notes.append(f'{NAME} has storage_identifier {found}, expected {" or ".join(_STORAGES)}')
    return notes


def _text(node: yaml.Node | None) -> str:
    return node.value if isinstance(node, yaml.ScalarNode) else ''
