# SPDX-License-Identifier: Apache-2.0
"""Keep or release freed heap memory (glibc malloc). With another C library, these functions do nothing."""

from __future__ import annotations

import ctypes

#: Freed memory that the process keeps, bytes. A message with a 4K image has 25 MB, and several exist at a time.
KEPT = 128 << 20

# From <malloc.h>.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3

# Largest M_MMAP_THRESHOLD that every glibc accepts on 64-bit systems: DEFAULT_MMAP_THRESHOLD_MAX in malloc/malloc.c.
_MMAP_THRESHOLD = 32 << 20


def keep_freed_memory() -> bool:
    """Keep freed memory of images for the next ones, instead of giving it back to the system.

    Otherwise, the system maps the memory of each image again, page by page, which takes longer than all other work on
    its bytes.

    Returns:
        Whether the C library keeps freed memory from now on.
    """
    mallopt = getattr(ctypes.CDLL(None), 'mallopt', None)
    if mallopt is None:
        return False
    # Setting either threshold turns off the automatic adjustment of glibc. If the first one were refused and the second
    # one set, every image above 128 KB would be mapped separately from then on.
    return bool(mallopt(_M_MMAP_THRESHOLD, _MMAP_THRESHOLD) and mallopt(_M_TRIM_THRESHOLD, KEPT))


def give_back_freed_memory() -> None:
    """Give the memory that is free now back to the system."""
    trim = getattr(ctypes.CDLL(None), 'malloc_trim', None)
    if trim is not None:
        trim(0)
