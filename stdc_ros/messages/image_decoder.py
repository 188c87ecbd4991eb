# SPDX-License-Identifier: Apache-2.0
"""OpenCV's decoders of JPEG and PNG, and what the libraries below them find wrong with a picture.

libjpeg fills what is missing with grey and tells of it only on stderr, as libpng does, with a line for each picture: a
loose cable would fill the log, and pictures that are half grey would pass for good ones.
"""

from __future__ import annotations

import os
import re
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from typing import BinaryIO

import cv2
import numpy as np

#: The beginnings of what libjpeg (jerror.h, its warnings) and libpng write.
_TOLD = re.compile(
    'Corrupt JPEG data|Premature end of JPEG|Inconsistent progression|Warning: unknown JFIF|Invalid SOS parameters|'
    'Unknown Adobe color|Application transferred|libpng (?:error|warning)'
)

#: That pixels are missing or made up. What else they tell is harmless, such as bytes behind the end of a picture.
_DAMAGE = re.compile(
    'premature end|Premature end|bad Huffman|bad arithmetic|instead of RST|Inconsistent progression|libpng error'
)

_PNG = b'\x89PNG\r\n\x1a\n'

_lock = threading.Lock()


class DecoderError(ValueError):
    """A picture that cannot be decoded, or not all of it; the message is the decoder's."""


def is_grey_16_bit_png(data: bytes) -> bool:
    """Whether a PNG has one channel of 16 bits; False for a JPEG."""
    return data.startswith(_PNG) and data[24:26] == bytes((16, 0))


def decode_picture(data: bytes, unchanged: bool = False) -> np.ndarray:
    """Decode a JPEG or PNG. The orientation in EXIF is not applied.

    Args:
        data: Bytes of the file.
        unchanged: Whether to keep the number of channels and the 16 bits of a PNG.

    Returns:
        uint8 BGR ``[H, W, 3]``. If ``unchanged``, uint8 or uint16: grey ``[H, W]``, BGR or BGRA ``[H, W, C]``.

    Raises:
        DecoderError: The data is damaged.
    """
    told: list[str] = []
    flags = cv2.IMREAD_UNCHANGED if unchanged else cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
    try:
        with _stderr_of_decoders(told):
            image = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error as error:
        raise DecoderError(str(error)) from error
    damage = next((line for line in told if _DAMAGE.search(line)), '')
    if image is None or damage:
        raise DecoderError(damage or 'it cannot be decoded')
    return image


@contextmanager
def _stderr_of_decoders(told: list[str]) -> Iterator[None]:
    """Add the lines that decoders write to stderr to ``told``. Those of others go on to where stderr leads."""
    with _lock:
        try:
            stderr = os.dup(2)
        except OSError:  # there is none
            yield
            return
        kept = _file().fileno()
        os.dup2(kept, 2)
        try:
            yield
        finally:
            try:
                os.dup2(stderr, 2)
                # The position is that of both descriptors.
                written = os.lseek(kept, 0, os.SEEK_CUR)
                if written:
                    lines = os.pread(kept, written, 0).decode(errors='replace').splitlines(keepends=True)
                    told += [line.strip() for line in lines if _TOLD.match(line)]
                    os.ftruncate(kept, 0)
                    os.lseek(kept, 0, os.SEEK_SET)
                    with suppress(OSError):  # stderr leads to a full disk or a closed pipe
                        for line in lines:
                            if not _TOLD.match(line):
                                os.write(stderr, line.encode())
            finally:
                os.close(stderr)


@lru_cache(maxsize=1)
def _file() -> BinaryIO:
    return tempfile.TemporaryFile()
