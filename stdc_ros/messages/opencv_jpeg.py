# SPDX-License-Identifier: Apache-2.0
"""Decode JPEG with OpenCV where simplejpeg is not installed.

OpenCV does not report libjpeg's warnings, which go to stderr. While a picture is decoded, the stderr of the process is
redirected to a file. The warnings are read from it, and all other lines are passed on.
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

from stdc_ros.messages.decoder_error import DecoderError

#: Beginnings of libjpeg's warnings (jerror.h).
_WARNING = re.compile(
    'Corrupt JPEG data|Premature end of JPEG|Inconsistent progression|Warning: unknown JFIF|Invalid SOS parameters|'
    'Unknown Adobe color|Application transferred'
)

_lock = threading.Lock()


def decode_by_opencv(data: bytes, strict: bool = True) -> np.ndarray:
    """Decode a JPEG; the orientation in EXIF is not applied.

    Args:
        data: JPEG.
        strict: Whether a warning of libjpeg is an error.

    Returns:
        uint8 BGR ``[H, W, 3]``.

    Raises:
        DecoderError: OpenCV cannot decode the data, or libjpeg warned about it and ``strict`` is set.
    """
    warnings: list[str] = []
    try:
        with _stderr_of_libjpeg(warnings):
            image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    except cv2.error as error:
        raise DecoderError(str(error)) from error
    if image is None or (strict and warnings):
        raise DecoderError(warnings[0] if warnings else 'it cannot be decoded')
    return image


@contextmanager
def _stderr_of_libjpeg(warnings: list[str]) -> Iterator[None]:
    """Append the lines that libjpeg writes to stderr to ``warnings``; pass all other lines on."""
    with _lock:
        try:
            stderr = os.dup(2)
        except OSError:  # stderr is closed
            yield
            return
        kept = _file().fileno()
        os.dup2(kept, 2)
        try:
            yield
        finally:
            try:
                os.dup2(stderr, 2)
                # Both descriptors share one position.
                written = os.lseek(kept, 0, os.SEEK_CUR)
                if written:
                    lines = os.pread(kept, written, 0).decode(errors='replace').splitlines(keepends=True)
                    warnings += [line.strip() for line in lines if _WARNING.match(line)]
                    os.ftruncate(kept, 0)
                    os.lseek(kept, 0, os.SEEK_SET)
                    with suppress(OSError):  # stderr may be a file on a full disk, or a closed pipe
                        for line in lines:
                            if not _WARNING.match(line):
                                os.write(stderr, line.encode())
            finally:
                os.close(stderr)


@lru_cache(maxsize=1)
def _file() -> BinaryIO:
    return tempfile.TemporaryFile()
