# SPDX-License-Identifier: Apache-2.0
"""Explain files that are not what their names say: renamed, packed, not downloaded."""

from __future__ import annotations

from pathlib import Path

from stdc_ros.bags.decompression import ZSTD_MAGIC
from stdc_ros.bags.record_scanner import MCAP_MAGIC, ROSBAG1_MAGIC
from stdc_ros.bags.truncated_bag import storage_suffix

#: Suffix by the first bytes of bag files.
_BAGS = {MCAP_MAGIC: '.mcap', ROSBAG1_MAGIC: '.bag', b'SQLite format 3\0': '.db3'}

#: Advice by the first bytes of other files.
_OTHERS = {
    b'version https://git-lfs': 'it is a pointer of Git LFS: run `git lfs pull`',
    b'\x1f\x8b': 'it is packed with gzip: unpack it first',
    b'PK\3\4': 'it is a zip archive: unpack it first',
    ZSTD_MAGIC: 'it is packed with zstd: add .zstd to its name',
    b'<': 'it is a web page or XML, probably a failed download',
}

_FIRST_BYTES = max(map(len, (*_BAGS, *_OTHERS)))


def explain_content(path: Path) -> str:
    """Return why a file cannot be the bag that its suffix names, and what to do; empty if its first bytes fit.

    Args:
        path: File with a suffix of a bag.

    Raises:
        OSError: The file cannot be read.
    """
    with path.open('rb') as file:
        begin = file.read(_FIRST_BYTES)
    if not begin:
        return 'it is empty'
    for magic, suffix in _BAGS.items():
        if begin.startswith(magic):
            return '' if suffix == storage_suffix(path) else f'its content is that of a {suffix} file: rename it'
    unpacked = path.suffix != '.zstd'
    return next((advice for magic, advice in _OTHERS.items() if begin.startswith(magic) and unpacked), '')
