# SPDX-License-Identifier: Apache-2.0
"""Write files that appear complete or not at all."""

from __future__ import annotations

import errno
import os
import re
import shutil
import socket
import sys
import tempfile
import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

# Errors that concern a disk, if they do not name a file. Others may be about a pipe.
_STORAGE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO)

# Folders in which this process has looked for leftovers of killed processes.
_searched: set[Path] = set()
_lock = threading.Lock()


class WriteError(OSError):
    """A file or folder that could not be written. The message names it and the reason."""

    def __str__(self) -> str:
        return f'{self.filename}: could not be written ({self.strerror})'


@contextmanager
def appearing(path: Path) -> Iterator[Path]:
    """Yield a name beside ``path``, for a file or folder that is moved to ``path`` when the block ends.

    If the block ends with an exception, including an interrupt, the file is removed, and an earlier one at ``path``
    stays. Missing parent folders are made. The name keeps the suffix, which tells OpenCV and FFmpeg the format.

    Args:
        path: Final place.

    Raises:
        WriteError: The disk is full, or there is no permission.
        IsADirectoryError: The block made a file, and ``path`` is a folder.

    Example:
        >>> with appearing(Path('report.json')) as partial:
        ...     partial.write_text('{}')
    """
    with unfinished(path) as partial:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield partial
        put_in_place(partial, path)


@contextmanager
def unfinished(path: Path) -> Iterator[Path]:
    """Yield a hidden name beside ``path``, for a file or folder that is removed when the block ends.

    A process that is killed leaves it behind. The next process on this machine that writes to the folder removes it.

    Args:
        path: Place of the finished file.

    Raises:
        WriteError: The disk is full or cannot be written to.
    """
    _remove_leftovers(path.parent)
    partial = path.with_name(f'.{path.stem}.{_process_name()}.part{path.suffix}')
    try:
        yield partial
    except OSError as error:
        if not _is_about(error, path, partial):
            raise
        raise WriteError(error.errno, error.strerror, str(path)) from error
    finally:
        _remove(partial)


def check_no_folder(path: Path) -> None:
    """Raise IsADirectoryError if ``path`` is a folder, which a file must not replace."""
    if path.is_dir():
        raise IsADirectoryError(f'{path}: is a folder, expected a file to write')


def check_writable(path: Path) -> None:
    """Raise WriteError if no file can be made at ``path``. Its parent folders need not exist yet."""
    folder = next(folder for folder in path.absolute().parents if folder.exists())
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise WriteError(error.errno, error.strerror, str(path)) from error


def put_in_place(made: Path, path: Path) -> None:
    """Move a file or a folder to ``path``, and replace what is there.

    Args:
        made: File or folder, in the same folder as ``path``.
        path: Final place.

    Raises:
        IsADirectoryError: A file would replace a folder.
    """
    if not made.is_dir():
        check_no_folder(path)
    retired = path.with_name(f'.{path.name}.{_process_name()}.old')
    if not path.is_dir():
        os.replace(made, path)
        return
    os.replace(path, retired)  # a folder cannot be replaced in one step, unlike a file
    try:
        os.replace(made, path)
    except OSError:
        os.replace(retired, path)
        raise
    _remove(retired)


def write_png(path: Path, picture: np.ndarray) -> None:
    """Write a picture without loss. An existing file is replaced at once or not at all.

    Args:
        path: File to write.
        picture: uint8 ``[H, W]`` or BGR ``[H, W, 3]``.

    Raises:
        WriteError: The disk is full, or there is no permission.
    """
    import cv2  # imported here, because a process that only builds engines does not need it

    _, data = cv2.imencode('.png', picture)
    with appearing(path) as partial:
        partial.write_bytes(data.tobytes())


def _is_about(error: OSError, path: Path, partial: Path) -> bool:
    """Return whether an error concerns the file at ``path`` or its unfinished one."""
    if error.filename is None:
        return error.errno in _STORAGE
    named = Path(str(error.filename))
    return named in (partial, path, *path.parents) or partial in named.parents


def _remove(path: Path) -> None:
    """Remove a file or a folder, if it exists."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    elif os.path.lexists(path):  # on a read-only disk, even unlinking a missing file is an error
        path.unlink(missing_ok=True)


def _process_name() -> str:
    """Return a name of this process for hidden files: a hash of its machine or container, and its number there."""
    spaces = Path('/proc/self/ns/pid')
    machine = f'{socket.gethostname()} {os.readlink(spaces) if spaces.exists() else ""}'
    return f'{zlib.crc32(machine.encode()):08x}-{os.getpid()}'


def _remove_leftovers(folder: Path) -> None:
    """Remove the unfinished files of killed processes from a folder, and put back folders that they were replacing.

    Each folder is searched only once, since it may contain very many files.
    """
    with _lock:
        if folder not in _searched:
            _searched.add(folder)
            _search(folder)


def _search(folder: Path) -> None:
    """Remove the leftovers in a folder; see ``_remove_leftovers``."""
    machine = _process_name().partition('-')[0]
    name = re.compile(rf'\.(.+)\.{machine}-(\d+)\.(part(?:\..+)?|old)')
    for path in list(folder.iterdir()) if folder.is_dir() else []:
        found = name.fullmatch(path.name)
        if found is None or _runs(int(found[2])):
            continue
        target = path.with_name(found[1])
        if found[3] == 'old' and not os.path.lexists(target):
            os.replace(path, target)
        else:
            _remove(path)


def _runs(process: int) -> bool:
    """Return whether another process has this number. In a container, a killed process may have had our number."""
    if process == os.getpid():
        return False
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def walk(top: Path, program: str) -> Iterator[tuple[Path, list[str], list[str]]]:
    """Walk a folder and all folders below it like ``os.walk``, and then those behind links, but none of them twice.

    Folders that cannot be listed are left out, with a message on stderr.

    Args:
        top: Folder.
        program: Name of the program, for messages.
    """

    def tell(error: OSError) -> None:
        print(f'{program}: {error.filename}: cannot be listed and is left out ({error.strerror})', file=sys.stderr)

    seen, tops = set(), [top]
    while tops:
        for folder, subfolders, names in os.walk(tops.pop(0), onerror=tell):
            here = Path(folder)
            if (real := here.resolve()) in seen:
                subfolders.clear()
                continue
            seen.add(real)
            subfolders.sort()
            yield here, subfolders, names
            tops += [here / name for name in subfolders if (here / name).is_symlink()]
