# SPDX-License-Identifier: Apache-2.0
"""Keep engines on disk: TensorRT takes minutes to build one."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO

from stdc_core.io.files import appearing

#: First bytes of each file. The SHA-256 of the data follows, then the data.
MAGIC = b'STDCENG1'
_HEAD = len(MAGIC) + 32


class DamagedError(ValueError):
    """A file in the cache that changed after it was written. The message names it and says what is wrong."""


def cache_folder() -> Path:
    """Return ``$STDC_CACHE_DIR``, or ``stdc_ros`` in the user's cache folder (``$XDG_CACHE_HOME`` or ``~/.cache``).

    A user without a home, such as one with only a number in a container, gets ``stdc_ros-NUMBER`` in the folder for
    temporary files.
    """
    own = os.environ.get('STDC_CACHE_DIR')
    if own:
        return Path(own)
    try:
        return Path(os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache') / 'stdc_ros'
    except RuntimeError:
        return Path(tempfile.gettempdir()) / _temporary_name()


def _temporary_name() -> str:
    return f'stdc_ros-{os.getuid()}'


def key_of(network: bytes, **conditions: object) -> str:
    """Return a name for an engine, from the network and every condition that it is built under.

    Args:
        network: ONNX file that the engine is built from.
        conditions: Conditions such as version, GPU, precision and shape; anything that JSON can hold.
    """
    text = json.dumps(conditions, sort_keys=True)
    return hashlib.sha256(hashlib.sha256(network).digest() + text.encode()).hexdigest()[:24]


class EngineCache:
    """A folder of engines, timing caches and compiled kernels, shared by all processes of a user.

    A file appears complete or not at all. A file that was changed or damaged later is recognised.

    Args:
        folder: Path of the folder; None takes :func:`cache_folder`.
    """

    def __init__(self, folder: Path | None = None):
        self.folder = cache_folder() if folder is None else folder

    def path(self, name: str) -> Path:
        """Return the path of a file, such as ``KEY.engine``."""
        return self.folder / name

    def read(self, name: str) -> bytes | None:
        """Return the data that was written under a name, or None if there is none.

        Raises:
            DamagedError: The file is not as it was written.
            OSError: The file cannot be read.
        """
        path = self.path(name)
        self._check_owner()
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            return None
        if data[: len(MAGIC)] != MAGIC:
            raise DamagedError(f'{path}: expected to begin with {MAGIC!r}, found {data[: len(MAGIC)]!r}')
        if hashlib.sha256(data[_HEAD:]).digest() != data[len(MAGIC) : _HEAD]:
            raise DamagedError(f'{path}: of {len(data)} bytes, which are not those that were written')
        return data[_HEAD:]

    def write(self, name: str, data: bytes) -> None:
        """Keep data under a name. Raises OSError."""
        self._make_folder()
        with appearing(self.path(name)) as partial, open(partial, 'wb') as file:
            file.write(MAGIC + hashlib.sha256(data).digest() + data)
            file.flush()
            os.fsync(file.fileno())  # else a power cut may leave the name without the contents

    def remove(self, name: str) -> None:
        """Remove a file, if it exists. Raises OSError."""
        self.path(name).unlink(missing_ok=True)

    @contextmanager
    def building(self, key: str) -> Iterator[bool]:
        """Wait until no other process builds the engine of this key, then hold its lock.

        The lock ends with the process that holds it, however that ends, and leaves no file behind. In a folder that
        cannot be written to, or on a network disk without locks, each process builds for itself.

        Args:
            key: Name of what is built.

        Yields:
            Whether there is a lock.
        """
        path = self.path(f'{key}.lock')
        try:
            self._make_folder()
            file = _locked(path)
        except OSError:
            yield False
            return
        with file:
            try:
                yield True
            finally:
                # Still locked: who waits for this file sees that it is gone, and takes the next one.
                with suppress(OSError):
                    path.unlink(missing_ok=True)

    def _make_folder(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._check_owner()

    def _check_owner(self) -> None:
        """Raise PermissionError for a folder among the temporary files that another user made or may write to."""
        if self.folder.name != _temporary_name() or not os.path.lexists(self.folder):
            return
        found = self.folder.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or stat.S_IMODE(found.st_mode) & 0o077:
            raise PermissionError(errno.EPERM, 'expected a folder that only this user may use', str(self.folder))


def _locked(path: Path) -> TextIO:
    """Open and lock a file, and wait for its lock.

    Raises:
        OSError: The file cannot be opened, or the disk has no locks.
    """
    while True:
        file = open(path, 'w')  # noqa: SIM115  (the lock is held for as long as the file is open
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
            # Whoever held the lock before may have removed the file: then another one may have locked a new file.
            with suppress(FileNotFoundError):
                if os.path.samestat(path.stat(), os.fstat(file.fileno())):
                    return file
        except OSError:
            file.close()
            path.unlink(missing_ok=True)
            raise
        file.close()
