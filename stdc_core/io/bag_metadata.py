# SPDX-License-Identifier: Apache-2.0
"""Read what ``segment_bag`` writes into the metadata of a bag, without ROS and without a bag library.

rosbag2 keeps texts of programs under ``custom_data``: in metadata.yaml, and in a Metadata record of an MCAP file
(https://mcap.dev/spec, op 0x0C) named ``rosbag2``.
"""

from __future__ import annotations

import struct
from pathlib import Path

import yaml

#: Keys in ``custom_data``: class table as JSON, and a line about the model.
CLASSES_KEY = 'stdc.classes'
MODEL_KEY = 'stdc.model'

#: Name of the metadata file in the folder of a rosbag2.
NAME = 'metadata.yaml'

#: Largest metadata that is read, in bytes.
LARGEST = 10_000_000

_METADATA_RECORD = 0x0C


def read_custom_data(path: Path) -> dict[str, str]:
    """Return the texts that programs have written into the metadata of a bag.

    Args:
        path: MCAP file, or folder of a rosbag2. Where its metadata.yaml is missing or lacks these texts, they are read
            from the MCAP files.

    Returns:
        Texts by key; empty if the bag has none, or is of another format.

    Raises:
        OSError: The bag cannot be read.
    """
    if not path.is_dir():
        return _custom_data(_mcap_metadata(path)) if path.suffix == '.mcap' else {}
    file = path / NAME
    found = _custom_data(file.read_bytes()) if file.is_file() and file.stat().st_size <= LARGEST else {}
    for part in sorted(path.glob('*.mcap')):
        found = found or _custom_data(_mcap_metadata(part))
    return found


def parse_metadata(data: bytes) -> yaml.Node | None:
    """Return the root node of a metadata in YAML; None if it is empty.

    Nodes, not values: aliases are not expanded, which would make a small file a huge one.

    Raises:
        yaml.YAMLError, UnicodeDecodeError, RecursionError: The data is not YAML.
    """
    return yaml.compose(data, getattr(yaml, 'CSafeLoader', yaml.SafeLoader))


def get_node(node: yaml.Node | None, key: str) -> yaml.Node | None:
    """Return the value of a key of a mapping; None if there is no such key or the node is not a mapping."""
    if not isinstance(node, yaml.MappingNode):
        return None
    return next((value for name, value in node.value if name.value == key), None)


def _custom_data(data: bytes) -> dict[str, str]:
    try:
        root = parse_metadata(data)
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError):
        return {}
    custom = get_node(get_node(root, 'rosbag2_bagfile_information') or root, 'custom_data')
    if not isinstance(custom, yaml.MappingNode):
        return {}
    return {
        key.value: value.value
        for key, value in custom.value
        if isinstance(key, yaml.ScalarNode) and isinstance(value, yaml.ScalarNode)
    }


def _mcap_metadata(path: Path) -> bytes:
    """Return the metadata that rosbag2 stores in an MCAP file; empty if it has none."""
    with path.open('rb') as file:
        size = file.seek(0, 2)
        file.seek(8)
        while len(head := file.read(9)) == 9:
            opcode, length = struct.unpack('<BQ', head)
            if file.tell() + length > size:
                break
            if opcode != _METADATA_RECORD:
                file.seek(length, 1)
                continue
            after = file.tell() + length
            value = file.read(min(length, LARGEST))
            # A name, then a map of texts; each text has its length before it.
            key = struct.pack('<I', 19) + b'serialized_metadata'
            at = value.find(key)
            if value.startswith(struct.pack('<I', 7) + b'rosbag2') and 0 <= at <= len(value) - len(key) - 4:
                (length,) = struct.unpack_from('<I', value, at + len(key))
                return value[at + len(key) + 4 :][:length]
            file.seek(after)
    return b''
