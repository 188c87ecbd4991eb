# SPDX-License-Identifier: Apache-2.0
"""Remove the shared memory that killed processes leave behind.

Fast DDS does not remove it, and the segments that ``config/fastdds.xml`` sets up are large.
"""

from __future__ import annotations

import fcntl
import os
import re
import time
from pathlib import Path

#: Folder of shared memory on Linux.
FOLDER = Path('/dev/shm')

#: Least age of a segment to remove, in seconds. Its process may not have locked a younger one yet.
YOUNG = 10.0

# Lock file beside a segment, which its process holds while it lives. Names of Fast DDS 2 and 3.
_LOCK = re.compile(r'(fastrtps|fastdds)_[0-9a-f]{16}_el')


def remove_dead_segments() -> None:
    """Remove the Fast DDS segments of this user's processes that have ended.

    ``fastdds shm clean`` does the same, but is not installed everywhere.
    """
    for lock in list(FOLDER.iterdir()) if FOLDER.is_dir() else []:
        if not _LOCK.fullmatch(lock.name):
            continue
        try:
            _remove_if_dead(lock)
        except OSError:  # locked by its process, or just removed by another process
            continue


def _remove_if_dead(lock: Path) -> None:
    state = lock.stat()
    if state.st_uid != os.geteuid() or time.time() - state.st_mtime < YOUNG:
        return
    with lock.open('rb') as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        lock.with_name(lock.name.removesuffix('_el')).unlink(missing_ok=True)
        lock.unlink(missing_ok=True)
