"""Files that appear complete or not at all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np


@contextmanager
def appearing(path: Path) -> Iterator[Path]:
    """A name beside ``path`` to write to: a file or a folder. It takes the place of ``path`` when the block ends.

    If the block ends with an exception, an interrupt among them, it is removed, and what was at ``path`` stays. Missing
    parent folders are made. The name keeps the suffix, by which OpenCV and FFmpeg choose the format.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f'.{path.stem}.{os.getpid()}.part{path.suffix}')
    retired = path.with_name(f'.{path.stem}.{os.getpid()}.old')
    try:
        yield partial
        if path.is_dir():  # which, unlike a file, must be out of the way first
            os.replace(path, retired)
        os.replace(partial, path)
    finally:
        shutil.rmtree(retired, ignore_errors=True)
        if partial.is_dir():
            shutil.rmtree(partial, ignore_errors=True)
        else:
            partial.unlink(missing_ok=True)


def write_png(path: Path, picture: np.ndarray) -> None:
    """Write uint8 ``[H, W]`` or BGR ``[H, W, 3]`` without loss; a file that is there is replaced at once or not at all.

    Raises:
        OSError: it cannot be written; the message names the file.
    """
    _, data = cv2.imencode('.png', picture)
    try:
        with appearing(path) as partial:
            partial.write_bytes(data)
    except OSError as error:
        raise OSError(f'{path}: could not be written ({error.strerror})') from error
