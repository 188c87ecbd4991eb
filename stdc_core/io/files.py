# SPDX-License-Identifier: Apache-2.0
"""Files that appear complete or not at all."""

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

# Of an error without a file's name: that it is about what is written, and not, say, about a pipe.
_STORAGE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO)

# Folders in which this process has looked for what killed ones left.
_searched: set[Path] = set()
_lock = threading.Lock()


class WriteError(OSError):
    """What could not be written; the message names it, and why."""

    def __str__(self) -> str:
        return f'{self.filename}: could not be written ({self.strerror})'


@contextmanager
def appearing(path: Path) -> Iterator[Path]:
    """A name beside ``path`` to write to: a file or a folder. It takes the place of ``path`` when the block ends.

    If the block ends with an exception, an interrupt among them, it is removed, and what was at ``path`` stays. Missing
    parent folders are made. The name keeps the suffix, by which OpenCV and FFmpeg choose the format.

    Raises:
        WriteError: there is no room, or no permission.
        IsADirectoryError: a file was made, and ``path`` is a folder.
    """
    with unfinished(path) as partial:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield partial
        put_in_place(partial, path)


@contextmanager
def unfinished(path: Path) -> Iterator[Path]:
    """A hidden name beside ``path`` for what is not complete yet, a file or a folder; removed with the block.

    A process that is killed leaves it behind. The next one that writes to the same folder, on the same machine, removes
    it.

    Raises:
        WriteError: the block met a full disk, or one that cannot be written to.
    """
    _remove_leftovers(path.parent)
    partial = path.with_name(f'.{path.stem}.{_me()}.part{path.suffix}')
    try:
        yield partial
    except OSError as error:
        if not _is_about(error, path, partial):
            raise
        raise WriteError(error.errno, error.strerror, str(path)) from error
    finally:
        _remove(partial)


def check_no_folder(path: Path) -> None:
    """Raises IsADirectoryError if there is a folder at ``path``, which a file must not replace."""
    if path.is_dir():
        raise IsADirectoryError(f'{path}: is a folder, expected a file to write')


def check_writable(path: Path) -> None:
    """Raise WriteError if nothing can be made at ``path``, whose missing parent folders will be made with it."""
    folder = next(folder for folder in path.absolute().parents if folder.exists())
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise WriteError(error.errno, error.strerror, str(path)) from error


def put_in_place(made: Path, path: Path) -> None:
    """Move a file or a folder to ``path``, in the same folder, in place of what is there.

    Raises:
        IsADirectoryError: a file would replace a folder.
    """
    if not made.is_dir():
        check_no_folder(path)
    retired = path.with_name(f'.{path.name}.{_me()}.old')
    if not path.is_dir():
        os.replace(made, path)
        return
    os.replace(path, retired)  # a folder, unlike a file, must be out of the way first
    try:
        os.replace(made, path)
    except OSError:
        os.replace(retired, path)
        raise
    _remove(retired)


def write_png(path: Path, picture: np.ndarray) -> None:
    """Write uint8 ``[H, W]`` or BGR ``[H, W, 3]`` without loss; a file that is there is replaced at once or not at all.

    Raises:
        WriteError: there is no room, or no permission.
    """
    import cv2  # late: a process that only builds engines does not need it

    _, data = cv2.imencode('.png', picture)
    with appearing(path) as partial:
        partial.write_bytes(data.tobytes())


def _is_about(error: OSError, path: Path, partial: Path) -> bool:
    if error.filename is None:
        return error.errno in _STORAGE
    named = Path(str(error.filename))
    return named in (partial, path, *path.parents) or partial in named.parents


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    elif os.path.lexists(path):  # where it never was, on a disk that cannot be written to, unlinking is an error
        path.unlink(missing_ok=True)


def _me() -> str:
    """This process, in hidden names: its machine or container, and its number there."""
    spaces = Path('/proc/self/ns/pid')
    machine = f'{socket.gethostname()} {os.readlink(spaces) if spaces.exists() else ""}'
    return f'{zlib.crc32(machine.encode()):08x}-{os.getpid()}'


def _remove_leftovers(folder: Path) -> None:
    """Remove what killed processes left in a folder; what one was about to replace is put back.

    Once per folder, which may hold very many files.
    """
    with _lock:
        if folder not in _searched:
            _searched.add(folder)
            _search(folder)


def _search(folder: Path) -> None:
    machine = _me().partition('-')[0]
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
    """Return whether another process has this number; in a container, an earlier one may have had ours."""
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
    """A folder and all below it, as of ``os.walk``; then those behind links, but none twice.

    Args:
        program: says on stderr which folders cannot be listed; they are left out.
    """

    def tell(error: OSError) -> None:
        print(f'{program}: {error.filename}: is left out: {error.strerror}', file=sys.stderr)

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
