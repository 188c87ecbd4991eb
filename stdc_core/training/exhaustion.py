# SPDX-License-Identifier: Apache-2.0
"""Say in one line what a training ran out of (memory, processes, open files), and what helps."""

from __future__ import annotations

import errno
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from stdc_core.io.memory_error import HOST_MEMORY, is_gpu_memory_error
from stdc_core.io.text import one_line

_SHARED_MEMORY = Path('/dev/shm')

#: Free bytes of a file system that count as none.
_NOTHING = 1 << 20

_FILES = re.compile(r'Too many open files|received \d+ items of ancdata')
_SHARED = re.compile('Bus error|shared memory|unable to write to file </torch_')
_WORKER = re.compile(r'DataLoader worker \(pid.*?\) (is killed by signal: [\w ]+|exited unexpectedly)')
_PROCESSES = re.compile("can't start new thread|Resource temporarily unavailable")

#: Errors of a disk or of network storage, after which a run can be resumed.
_STORAGE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.ESTALE, errno.ETIMEDOUT)


class ExhaustedError(OSError):
    """A training that ran out of memory, processes or open files. The message says which, and what helps."""


@contextmanager
def explain_exhaustion(out: Path, record: str) -> Iterator[None]:
    """Turn errors in the block that mean that something ran out into one line.

    Args:
        out: Folder of the run.
        record: Name of the file in it that is needed to resume the run.

    Raises:
        ExhaustedError: Memory, processes, open files or the disk ran out, or a worker was lost.
    """
    try:
        yield
    except ValueError:  # a mistake of the user, such as a damaged image
        raise
    except Exception as error:  # OpenCV's and ONNX Runtime's errors have no base that tells
        # Lightning may fail a second time while it cleans up.
        found = next((text for each in _chain(error) if (text := what_ran_out(each))), None)
        if found is None and isinstance(error, OSError) and error.errno in _STORAGE:
            found = str(error)
        if found is None:
            raise
        again = f'; `--resume --out {out}` continues the run' if (out / record).is_file() else ''
        _ignore_failed_loaders()
        raise ExhaustedError(found + again) from error


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error and those during whose handling it was raised."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _ignore_failed_loaders() -> None:
    """Do not print the errors of loaders that could not be started, when they are deleted."""
    before = sys.unraisablehook

    def hook(unraisable: Any) -> None:
        if '_MultiProcessingDataLoaderIter' not in repr(unraisable.object):
            before(unraisable)

    sys.unraisablehook = hook


def what_ran_out(error: BaseException) -> str | None:
    """Return what ran out and what helps, or None if the error has another cause.

    Args:
        error: Error of a training. PyTorch puts the traceback of a worker into the message.
    """
    text = str(error)
    number = error.errno if isinstance(error, OSError) else None
    if is_gpu_memory_error(error):
        wanted = re.search(r'Tried to allocate ([\d.]+ \w+)', text)
        amount = f' ({wanted[1]} more were needed)' if wanted else ''
        return f'the memory of the GPU ran out{amount}; use a smaller batch_size, crop_height or crop_width'
    if number in (errno.EMFILE, errno.ENFILE) or _FILES.search(text):
        return 'too many files are open; raise the limit with `ulimit -n 4096`, or use `--set workers=0`'
    no_memory = isinstance(error, MemoryError) or number == errno.ENOMEM or 'Cannot allocate memory' in text
    # A lock between processes is a file there, which the error does not name.
    lock = number == errno.ENOSPC and isinstance(error, OSError) and error.filename is None and _is_full(_SHARED_MEMORY)
    if lock or (_SHARED.search(text) and not no_memory):
        return (
            f'shared memory ran out (/dev/shm{_size(_SHARED_MEMORY)}); give the container more with `--shm-size=1g`, '
            'or do without worker processes with `--set workers=0`'
        )
    killed = _WORKER.search(text)
    # PyTorch does not name the worker if it ends while its batch is being received.
    cut_off = isinstance(error, ConnectionError) or (isinstance(error, EOFError) and not text)
    if killed or cut_off:
        how = killed[1].removeprefix('is ').strip() if killed else 'the connection to it broke'
        if how.endswith('Killed'):
            how = 'killed, as the kernel does to free memory'
        return (
            f'a worker process ended ({how}); use `--set workers=0` or fewer workers, a smaller batch, '
            'or give the container more memory'
        )
    if no_memory or HOST_MEMORY.search(text):
        wanted = re.search(r'allocate (\d+) bytes', text)
        amount = f' ({int(wanted[1]) / 1e6:.0f} MB more were needed)' if wanted else ''
        return f'memory ran out{amount}; use a smaller batch_size, smaller crops or `--set workers=0`'
    if number == errno.EAGAIN or _PROCESSES.search(text):
        return (
            f'no process or thread can be started ({one_line(error)}); raise the limit (`ulimit -u`, `--pids-limit`) '
            'or use `--set workers=0`'
        )
    return None


def _is_full(folder: Path) -> bool:
    """Return whether a file system has no free bytes."""
    try:
        found = os.statvfs(folder)
    except OSError:
        return False
    return found.f_bavail * found.f_frsize < _NOTHING


def _size(folder: Path) -> str:
    """Return the size of a file system in words, or an empty string if there is none."""
    try:
        found = os.statvfs(folder)
    except (OSError, AttributeError):
        return ''
    return f' has {found.f_blocks * found.f_frsize / 1e6:.0f} MB'
