# SPDX-License-Identifier: Apache-2.0
"""What the C library does with freed memory. Does nothing where that is not glibc."""

from __future__ import annotations

import ctypes

#: Bytes. A message with a 4K image is 25 MB, and some are on their way at once.
KEPT = 128 << 20

# From <malloc.h>.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3


def keep_freed_memory() -> None:
    """Keep what images of some megabytes leave behind for the next ones, instead of giving it back to the system.

    Else each image's memory is mapped anew, page by page, which takes longer than all else that is done with its bytes.
    """
    mallopt = getattr(ctypes.CDLL(None), 'mallopt', None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, KEPT // 2)
        mallopt(_M_TRIM_THRESHOLD, KEPT)


def give_back_freed_memory() -> None:
    """Give back to the system what is free now."""
    trim = getattr(ctypes.CDLL(None), 'malloc_trim', None)
    if trim is not None:
        trim(0)
