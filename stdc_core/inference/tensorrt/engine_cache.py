# SPDX-License-Identifier: Apache-2.0
"""Where TensorRT's engines are kept: they take minutes to build, and are good for one GPU and one version only."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from stdc_core.io.files import appearing

#: Begins each file; then come the SHA-256 of what follows, and that.
MAGIC = b'STDCENG1'
_HEAD = len(MAGIC) + 32


class DamagedError(ValueError):
    """A kept file that is not as it was written; the message names it and says what is wrong."""


def cache_folder() -> Path:
    """``$STDC_CACHE_DIR``, or ``stdc_ros`` in the user's cache folder (``$XDG_CACHE_HOME`` or ``~/.cache``).

    Of a user without a home, such as a mere number in a container: ``stdc_ros-NUMBER`` among the temporary files.
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
    """What an engine is good for, as a name: the network and every condition it was built under.

    Args:
        network: the ONNX file that it is built from.
        conditions: such as version, GPU, precision and shape; whatever JSON can hold.
    """
    text = json.dumps(conditions, sort_keys=True)
    return hashlib.sha256(hashlib.sha256(network).digest() + text.encode()).hexdigest()[:24]


class EngineCache:
    """A folder of engines and timing caches, shared by all processes of a user.

    A file is there complete or not at all, and what has changed since it was written is told from what has not.

    Args:
        folder: None: :func:`cache_folder`.
    """

    def __init__(self, folder: Path | None = None):
        self.folder = cache_folder() if folder is None else folder

    def path(self, name: str) -> Path:
        """Of a file, such as ``KEY.engine``."""
        return self.folder / name

    def read(self, name: str) -> bytes | None:
        """What was written under a name; None: nothing.

        Raises:
            DamagedError: it is not what was written.
            OSError: it cannot be read.
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
        """Forget a file, if it is there. Raises OSError."""
        self.path(name).unlink(missing_ok=True)

    @contextmanager
    def building(self, key: str) -> Iterator[bool]:
        """Wait until no other process builds the engine of this key, and be the one that does.

        The lock goes with the process that holds it, however that ends. Gives whether there is a lock: in a folder that
        cannot be written to, or on a disk of the network that has no locks, each process builds for itself.
        """
        try:
            self._make_folder()
            file = open(self.path(f'{key}.lock'), 'w')  # noqa: SIM115  (the lock is held for as long as it is open)
        except OSError:
            yield False
            return
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX)
                locked = True
            except OSError:
                locked = False
            yield locked

    def _make_folder(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._check_owner()

    def _check_owner(self) -> None:
        """Raises PermissionError for a folder among the temporary files that somebody else made or may write to."""
        if self.folder.name != _temporary_name() or not os.path.lexists(self.folder):
            return
        found = self.folder.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or stat.S_IMODE(found.st_mode) & 0o077:
            raise PermissionError(errno.EPERM, 'expected a folder that only this user may use', str(self.folder))
