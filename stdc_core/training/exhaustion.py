# SPDX-License-Identifier: Apache-2.0
"""Tell in one line what a training ran out of, and what helps."""

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
    """A training that ran out of memory or of processes; the message says of what, and what helps."""


@contextmanager
def exhaustion_told(out: Path, record: str) -> Iterator[None]:
    """Turn errors of a training that ran out of something into one line.

    Args:
        out: Folder of the run.
        record: File in it by which a run can be resumed.

    Raises:
        ExhaustedError: The body ran out of memory or lost a process that reads.
    """
    try:
        yield
    except (RuntimeError, MemoryError, OSError) as error:
        found = what_ran_out(error)
        if found is None:
            raise
        again = f'; `--resume --out {out}` continues the run' if (out / record).is_file() else ''
        raise ExhaustedError(found + again) from error


def what_ran_out(error: BaseException) -> str | None:
    """Return what ran out and what helps, or None if the error is another one."""
    # PyTorch puts the traceback of a process that reads in the message.
    text = str(error)
    if isinstance(error, torch.OutOfMemoryError) or 'CUDA out of memory' in text:
        wanted = re.search(r'Tried to allocate ([\d.]+ \w+)', text)
        amount = f', {wanted[1]} more were wanted' if wanted else ''
        return f'the memory of the GPU ran out{amount}; use a smaller batch_size, crop_height or crop_width'
    if 'Bus error' in text or 'shared memory' in text or 'unable to write to file </torch_' in text:
        return (
            f'shared memory ran out (/dev/shm{_size(_SHARED_MEMORY)}); give the container more with `--shm-size=1g`, '
            'or read in the trainer with `--set workers=0`'
        )
    if 'Too many open files' in text:
        return 'open files ran out; raise the limit with `ulimit -n 4096`, or use `--set workers=0`'
    killed = re.search(r'DataLoader worker \(pid.*\) (is killed by signal: \w+|exited unexpectedly)', text)
    if killed:
        how = killed[1].removeprefix('is ')
        if how.endswith('Killed'):
            how = 'killed, as the kernel does to free memory'
        return (
            f'a process that reads images was lost ({how}); use `--set workers=0` or fewer workers, a smaller batch, '
            'or give the container more memory'
        )
    no_memory = isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == errno.ENOMEM)
    if no_memory or re.search("can't allocate memory|Failed to allocate|MemoryError", text):
        wanted = re.search(r'allocate (\d+) bytes', text)
        amount = f', {int(wanted[1]) / 1e6:.0f} MB more were wanted' if wanted else ''
        return f'memory ran out{amount}; use a smaller batch_size, smaller crops or `--set workers=0`'
    if "can't start new thread" in text:
        return f'threads ran out ({one_line(text)}); raise the limit of processes (`ulimit -u`, `--pids-limit`)'
    return None


def _size(folder: Path) -> str:
    """Return the size of a file system in words, or nothing where there is none."""
    try:
        found = os.statvfs(folder)
    except (OSError, AttributeError):
        return ''
    return f' has {found.f_blocks * found.f_frsize / 1e6:.0f} MB'
