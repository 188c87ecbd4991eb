# SPDX-License-Identifier: Apache-2.0
"""What killed processes leave in shared memory: Fast DDS does not remove it, and the profile's segments are large."""

from __future__ import annotations

import fcntl
import os
import re
import time
from pathlib import Path

#: Where Linux keeps it.
FOLDER = Path('/dev/shm')

#: Seconds. A segment that is younger may not be locked yet by the process that makes it.
YOUNG = 10.0

# Beside a segment lies a file that its process holds locked while it lives. Fast DDS 2, and 3.
_LOCK = re.compile(r'(fastrtps|fastdds)_[0-9a-f]{16}_el')


def remove_dead_segments() -> None:
    """Remove the segments of Fast DDS that belonged to processes of this user which have ended.

    As ``fastdds shm clean`` does, which is not everywhere where Fast DDS is.
    """
    for lock in list(FOLDER.iterdir()) if FOLDER.is_dir() else []:
        if not _LOCK.fullmatch(lock.name):
            continue
        try:
            _remove_if_dead(lock)
        except OSError:  # locked, so it is alive; or another process has just removed it
            continue


def _remove_if_dead(lock: Path) -> None:
    state = lock.stat()
    if state.st_uid != os.geteuid() or time.time() - state.st_mtime < YOUNG:
        return
    with lock.open('rb') as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        lock.with_name(lock.name.removesuffix('_el')).unlink(missing_ok=True)
        lock.unlink(missing_ok=True)
