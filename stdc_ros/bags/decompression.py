# SPDX-License-Identifier: Apache-2.0
"""Decompress the chunks, messages and files of bags, up to a size limit."""

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

#: Largest decompressed size of a chunk or a message, bytes. A damaged or hostile bag can hold a few kB that decompress
#: to many GB.
LARGEST_CHUNK = 1 << 30

#: Bytes of a file that are read and decompressed at a time.
_PIECE = 1 << 20

_UNPACKERS: dict[str, Any] = {'lz4': LZ4FrameDecompressor, 'zstd': zstd.ZstdDecompressor, 'bz2': bz2.BZ2Decompressor}


def unpack(compression: str, data: bytes | memoryview, limit: int) -> bytes:
    """Decompress data. If the data is cut off, return what comes before the cut.

    Args:
        compression: Name ``'lz4'``, ``'zstd'`` or ``'bz2'``; ``''`` or ``'none'`` for data that is not compressed.
        data: Compressed bytes, of one or several streams.
        limit: Largest size of the decompressed data, bytes.

    Raises:
        ValueError: The data is damaged, or decompresses to more than the limit.
        KeyError: The compression has another name.
    """
    if compression in ('', 'none'):
        return bytes(data)
    found, size = [], 0
    while data:
        unpacker = _UNPACKERS[compression]()
        try:
            found.append(unpacker.decompress(data, limit - size + 1))
        except Exception as error:  # each library raises its own class
            raise ValueError(f'{compression}: {error}') from error
        size += len(found[-1])
        if size > limit:
            raise ValueError(f'{compression}: decompresses to more than {limit} bytes')
        if not unpacker.eof:  # cut off
            break
        data = unpacker.unused_data
    return b''.join(found)


def unpack_file(source: Path, target: Path) -> bool:
    """Decompress a zstd file, up to where it is cut off or damaged.

    Args:
        source: Compressed file.
        target: File to write.

    Returns:
        Whether the file is complete and undamaged.

    Raises:
        OSError: A file cannot be read or written.
    """
    unpacker = zstd.ZstdDecompressor()
    with source.open('rb') as file, target.open('wb') as out:
        for piece in _pieces(unpacker, iter(lambda: file.read(_PIECE), b'')):
            out.write(piece)
    return unpacker.eof


def _pieces(unpacker: Any, compressed: Iterator[bytes]) -> Iterator[bytes]:
    """Yield decompressed data until the stream ends or the decompressor fails."""
    for data in compressed:
        while data or not unpacker.needs_input:
            try:
                yield unpacker.decompress(data, _PIECE)
            except (zstd.ZstdError, EOFError):
                return
            data = b''
            if unpacker.eof:
                return
