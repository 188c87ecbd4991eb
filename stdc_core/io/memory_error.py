# SPDX-License-Identifier: Apache-2.0
"""Recognise the errors of many libraries that mean that memory ran out."""

from __future__ import annotations

import re

_GPU_MEMORY = re.compile(
    'CUDA out of memory|CUDA error: out of memory|(CUDNN|CUBLAS)_STATUS_(ALLOC_FAILED|NOT_INITIALIZED)'
)
HOST_MEMORY = re.compile(
    "[Cc]an(no|')t allocate memory|[Ff]ailed to allocate|Insufficient memory|MemoryError|bad_alloc"
)


def is_gpu_memory_error(error: BaseException) -> bool:
    """Return whether an error of any library means that the memory of the GPU ran out."""
    return type(error).__name__ == 'OutOfMemoryError' or _GPU_MEMORY.search(str(error)) is not None


def memory_error(error: BaseException) -> str | None:
    """Return one line for an error that means that memory ran out, or None for another error.

    Args:
        error: Error of any library.
    """
    if is_gpu_memory_error(error):
        return 'the memory of the GPU ran out; use smaller images, or end other programs on it'
    if isinstance(error, MemoryError) or HOST_MEMORY.search(str(error)):
        return 'memory ran out; use smaller images or fewer processes, or end other programs'
    return None
