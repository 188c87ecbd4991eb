# SPDX-License-Identifier: Apache-2.0
"""Count the CPU cores that this process may use, quotas of containers included, and read the features of the CPU."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

_CGROUPS = Path('/sys/fs/cgroup')
_OWN_CGROUP = Path('/proc/self/cgroup')
_CPU_INFO = Path('/proc/cpuinfo')


def cores() -> int:
    """Return the number of CPU cores that this process may use, at least 1.

    This is the number of cores that the process may be scheduled on or, if that is smaller, the CPU quota of its
    cgroups, rounded up: ``docker run --cpus=1.5`` gives 2.
    """
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count() or 1
    return max(1, min([allowed, *map(math.ceil, _quotas())]))


def cpu_flags() -> frozenset[str]:
    """Return the features of the CPU as Linux names them, such as ``avx512_vnni``; none for a CPU that is not x86."""
    try:
        lines = _CPU_INFO.read_text(errors='replace').splitlines()
    except OSError:
        return frozenset()
    # "flags : fpu vme ...", the same for every core. CPUs that are not x86 have other keys, such as "Features".
    found = next((line for line in lines if line.split(':')[0].strip() == 'flags'), '')
    return frozenset(found.partition(':')[2].split())


def _quotas() -> Iterator[float]:
    """Yield the CPU quota in cores of each cgroup around this process that has one."""
    for folder in _folders():
        with suppress(OSError, ValueError, ZeroDivisionError):
            # cgroup v2: "max 100000" or "150000 100000", microseconds of CPU time in a period of microseconds.
            quota, period = (folder / 'cpu.max').read_text().split()
            if quota != 'max':
                yield int(quota) / int(period)
        with suppress(OSError, ValueError, ZeroDivisionError):
            # cgroup v1: -1 means no quota.
            quota_us = int((folder / 'cpu.cfs_quota_us').read_text())
            if quota_us > 0:
                yield quota_us / int((folder / 'cpu.cfs_period_us').read_text())


def _folders() -> Iterator[Path]:
    """Yield the folders of the cgroups of this process and of all cgroups above them."""
    try:
        lines = _OWN_CGROUP.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        # "0::/path" is version 2, "4:cpu,cpuacct:/path" version 1.
        _, controllers, path = (line.split(':', 2) + ['', ''])[:3]
        if controllers and 'cpu' not in controllers.split(','):
            continue
        top = _CGROUPS / controllers
        folder = top / path.lstrip('/')
        # In a container, its own cgroup may be at the top, whatever path the kernel reports.
        yield from {top, *(each for each in (folder, *folder.parents) if top in each.parents)}
