# SPDX-License-Identifier: Apache-2.0
"""Unpacking of what bags compress: chunks, messages, files. Never more than there may be."""

from __future__ import annotations

import bz2
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lz4.frame import LZ4FrameDecompressor

try:
    from compression import zstd  # Python 3.14
except ImportError:
    from backports import zstd

ZSTD_MAGIC = b'\x28\xb5\x2f\xfd'

#: Largest content of a chunk or a message, bytes: a few kB can claim to be any number of them.
LARGEST_CHUNK = 1 << 30

_PIECE = 1 << 20
_UNPACKERS: dict[str, Any] = {'lz4': LZ4FrameDecompressor, 'zstd': zstd.ZstdDecompressor, 'bz2': bz2.BZ2Decompressor}


def unpack(compression: str, data: bytes | memoryview, limit: int) -> bytes:
    """Content of compressed data, or of as much of it as is there.

    Args:
        compression: ``'lz4'``, ``'zstd'``, ``'bz2'``, or none: ``''`` or ``'none'``.
        limit: bytes.

    Raises:
        ValueError: it is more than that, or damaged.
        KeyError: another compression.
    """
    if compression in ('', 'none'):
        return bytes(data)
    found, size = [], 0
    while data:
        unpacker = _UNPACKERS[compression]()
        try:
            found.append(unpacker.decompress(data, limit - size + 1))
        except Exception as error:  # each library has its own
            raise ValueError(f'{compression}: {error}') from error
        size += len(found[-1])
        if size > limit:
            raise ValueError(f'{compression}: more than {limit} bytes')
        if not unpacker.eof:  # cut off
            break
        data = unpacker.unused_data
    return b''.join(found)


def unpack_file(source: Path, target: Path) -> bool:
    """Write the content of a file compressed with zstd, up to where it is cut off or damaged.

    Returns:
        whether it is whole.
    """
    unpacker = zstd.ZstdDecompressor()
    with source.open('rb') as file, target.open('wb') as out:
        for piece in _pieces(unpacker, iter(lambda: file.read(_PIECE), b'')):
            out.write(piece)
    return unpacker.eof


def _pieces(unpacker: Any, compressed: Iterator[bytes]) -> Iterator[bytes]:
    for data in compressed:
        while data or not unpacker.needs_input:
            try:
                yield unpacker.decompress(data, _PIECE)
            except (zstd.ZstdError, EOFError):
                return
            data = b''
            if unpacker.eof:
                return
