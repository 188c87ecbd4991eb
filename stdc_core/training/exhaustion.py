# SPDX-License-Identifier: Apache-2.0
"""Say in one line what a training ran out of (memory, processes, open files), and what helps."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from stdc_core.io.text import one_line

_SHARED_MEMORY = Path('/dev/shm')


class ExhaustedError(OSError):
    """A training that ran out of memory, processes or open files. The message says which, and what helps."""


@contextmanager
def explain_exhaustion(out: Path, record: str) -> Iterator[None]:
    """Turn errors in the block that mean that something ran out into one line.

    Args:
        out: Folder of the run.
        record: Name of the file in it that is needed to resume the run.

    Raises:
        ExhaustedError: Memory, processes or open files ran out, or a worker was lost.
    """
    try:
        yield
    except (RuntimeError, MemoryError, OSError, EOFError) as error:
        found = what_ran_out(error)
        if found is None:
            raise
        again = f'; `--resume --out {out}` continues the run' if (out / record).is_file() else ''
        raise ExhaustedError(found + again) from error


def what_ran_out(error: BaseException) -> str | None:
    """Return what ran out and what helps, or None if the error has another cause.

    Args:
        error: Error of a training. PyTorch puts the traceback of a worker into the message.
    """
    text = str(error)
    if isinstance(error, torch.OutOfMemoryError) or 'CUDA out of memory' in text:
        wanted = re.search(r'Tried to allocate ([\d.]+ \w+)', text)
        amount = f' ({wanted[1]} more were needed)' if wanted else ''
        return f'the memory of the GPU ran out{amount}; use a smaller batch_size, crop_height or crop_width'
    if 'Bus error' in text or 'shared memory' in text or 'unable to write to file </torch_' in text:
        return (
            f'shared memory ran out (/dev/shm{_size(_SHARED_MEMORY)}); give the container more with `--shm-size=1g`, '
            'or do without worker processes with `--set workers=0`'
        )
    if 'Too many open files' in text:
        return 'too many files are open; raise the limit with `ulimit -n 4096`, or use `--set workers=0`'
    killed = re.search(r'DataLoader worker \(pid.*\) (is killed by signal: \w+|exited unexpectedly)', text)
    # PyTorch does not name the worker if it ends while its batch is being received.
    cut_off = isinstance(error, (ConnectionError, EOFError))
    if killed or cut_off:
        how = killed[1].removeprefix('is ') if killed else 'the connection to it broke'
        if how.endswith('Killed'):
            how = 'killed, as the kernel does to free memory'
        return (
            f'a worker process ended ({how}); use `--set workers=0` or fewer workers, a smaller batch, '
            'or give the container more memory'
        )
    no_memory = isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == errno.ENOMEM)
    if no_memory or re.search("can't allocate memory|Failed to allocate|MemoryError", text):
        wanted = re.search(r'allocate (\d+) bytes', text)
        amount = f' ({int(wanted[1]) / 1e6:.0f} MB more were needed)' if wanted else ''
        return f'memory ran out{amount}; use a smaller batch_size, smaller crops or `--set workers=0`'
    if "can't start new thread" in text:
        return f'no thread can be started ({one_line(text)}); raise the process limit (`ulimit -u`, `--pids-limit`)'
    return None


def _size(folder: Path) -> str:
    """Return the size of a file system in words, or an empty string if there is none."""
    try:
        found = os.statvfs(folder)
    except (OSError, AttributeError):
        return ''
    return f' has {found.f_blocks * found.f_frsize / 1e6:.0f} MB'
