# SPDX-License-Identifier: Apache-2.0
"""Read and write videos with OpenCV's FFmpeg. Frames are uint8 BGR ``[H, W, 3]``."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import cached_property
from pathlib import Path

import cv2
import numpy as np

from stdc_core.io.files import appearing
from stdc_core.io.text import one_line
from stdc_core.io.video_pyav import PyavError, PyavReader, has_pyav

#: Frames per second of a video without a rate, or with an impossible one.
DEFAULT_RATE = 25.0
_HIGHEST_RATE = 1000.0


class VideoError(ValueError):
    """A file that cannot be read as a video. The message names it."""


@contextmanager
def quiet_stderr() -> Iterator[None]:
    """Redirect the stderr of the process to /dev/null in the block.

    OpenCV and FFmpeg print messages there that do not help a user, and no log level turns all of them off in all
    versions of OpenCV. Use it only in programs that do nothing else meanwhile: other threads lose their messages, too.
    """
    kept = os.dup(2)
    try:
        with open(os.devnull, 'wb') as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def _full_name(path: Path) -> str:
    """Return the absolute path for OpenCV.

    FFmpeg would take the beginning of ``12:00.webm`` for a protocol, and OpenCV crashes on a name that is not UTF-8.

    Raises:
        VideoError: The path is not UTF-8.
    """
    name = os.path.abspath(path)
    try:
        name.encode()
    except UnicodeEncodeError as error:
        raise VideoError(f'{one_line(path)}: its path is not UTF-8, which OpenCV needs; rename it') from error
    return name


class VideoReader:
    """Reads the frames of a video file in order, once, turned upright.

    Args:
        path: File.

    Attributes:
        expected: Number of frames that the file claims, which may be an estimate; 0 if it does not say.

    Raises:
        VideoError: The file cannot be read, or OpenCV cannot open it.
    """

    def __init__(self, path: Path):
        self._name = _full_name(path)
        try:
            with open(path, 'rb'):
                pass
        except OSError as error:
            raise VideoError(f'{path}: cannot be read ({error.strerror})') from error
        with quiet_stderr():
            self._capture = cv2.VideoCapture(self._name)
        if not self._capture.isOpened():
            raise VideoError(f'{path}: neither an image nor a video that OpenCV reads')
        stated = self._capture.get(cv2.CAP_PROP_FPS)
        self._stated = stated if stated > 0 else DEFAULT_RATE
        self.expected = max(0, int(self._capture.get(cv2.CAP_PROP_FRAME_COUNT)))
        self._frames, self._last = 0, 0.0  # number of frames read so far, and time of the last one in seconds

    @cached_property
    def rate(self) -> float:
        """Return the number of frames per second: as the file states it, or the average if the timestamps give less.

        WebM and Matroska files with a variable rate state the highest one, or 1000, the rate of their clock. This reads
        the whole file, without decoding it.
        """
        frames, last = 0, 0.0
        with quiet_stderr():
            packets = cv2.VideoCapture(self._name, cv2.CAP_FFMPEG, [cv2.CAP_PROP_FORMAT, -1])
            while packets.grab():
                frames += 1
                last = max(last, packets.get(cv2.CAP_PROP_POS_MSEC) / 1000)
            packets.release()
        # Timestamps are rounded to milliseconds, which the comparison allows for.
        rate = (frames - 1) / last if frames > 1 and 0.98 * last - 0.001 > (frames - 1) / self._stated else self._stated
        return rate if rate <= _HIGHEST_RATE else DEFAULT_RATE

    def lost(self) -> int:
        """Return the number of frames that the file claims but does not have; call it after the last frame.

        Where the claimed number follows from a wrong rate, the time of the last frame decides.
        """
        seconds = self._last * self._frames / max(1, self._frames - 1)  # includes the duration of the last frame
        if max(self._frames, seconds * self._stated) >= 0.98 * self.expected - 1:  # the claim may be an estimate
            return 0
        return max(1, round(self.expected * self.rate / self._stated) - self._frames)

    def __iter__(self) -> Iterator[np.ndarray]:
        """Yield the frames, uint8 BGR ``[H, W, 3]``."""
        while True:
            # FFmpeg prints details of damaged data; the caller counts lost frames instead.
            with quiet_stderr():
                there, frame = self._capture.read()
            if not there:
                return
            self._frames += 1
            self._last = max(self._last, self._capture.get(cv2.CAP_PROP_POS_MSEC) / 1000)
            yield frame

    def readable(self) -> bool:
        """Return whether a first frame can be read. The position stays at the beginning."""
        with quiet_stderr():
            capture = cv2.VideoCapture(self._name)
            there, _ = capture.read()
            capture.release()
        return there

    def close(self) -> None:
        """Close the file."""
        self._capture.release()


def open_video(path: Path) -> VideoReader | PyavReader:
    """Open a video with OpenCV or, if OpenCV cannot read a frame of it, with PyAV where that is installed.

    OpenCV comes first because the demo and most installations do not have PyAV, so that all machines read a video in
    the same way.

    Args:
        path: File.

    Raises:
        VideoError: The file cannot be read as a video.
    """
    _full_name(path)  # a name that is not UTF-8 would otherwise fail later, when the output is written
    try:
        reader = VideoReader(path)
        if not has_pyav() or reader.readable():
            return reader
        reader.close()
    except VideoError:
        if not has_pyav() or not path.is_file():
            raise
    try:
        return PyavReader(path)
    except PyavError as error:
        raise VideoError(f'{path}: neither an image nor a video that OpenCV or PyAV reads') from error


@contextmanager
def webm_writer(path: Path, size: tuple[int, int], rate: float) -> Iterator[Callable[[np.ndarray], None]]:
    """Write VP8 in WebM, which browsers and players support, and yield a function that takes the next frame.

    The file appears complete when the block ends without an exception. VP8 needs even sizes: an odd last column or row
    is left out.

    Args:
        path: File, whose name ends in ``.webm``.
        size: (height, width) of every frame, pixels.
        rate: Frames per second.

    Raises:
        OSError: The path is not UTF-8, OpenCV has no VP8 encoder, or the file cannot be written, not at this size, or
            not with all frames (disk full).
    """
    height, width = size
    try:
        _full_name(path)
    except VideoError as error:
        raise OSError(str(error)) from error
    with appearing(path) as partial:
        with quiet_stderr():
            fourcc = cv2.VideoWriter.fourcc(*'VP80')
            writer = cv2.VideoWriter(_full_name(partial), cv2.CAP_FFMPEG, fourcc, rate, (width, height))
        if not writer.isOpened():
            raise OSError(f'{path}: this OpenCV cannot write {width} x {height} VP8 video there')
        count = 0

        def write(frame: np.ndarray) -> None:
            nonlocal count
            writer.write(frame)
            count += 1

        try:
            yield write
        finally:
            writer.release()
        # OpenCV does not report a full disk, and a file that is cut off may still claim all frames, so it is read back.
        try:
            with closing(VideoReader(partial)) as written:
                found = sum(1 for _ in written)
        except VideoError as error:
            raise OSError(
                f'{path}: not one of {count} frames of {width} x {height} pixels can be read back; '
                'are they too small for VP8, or is the disk full?'
            ) from error
        if found < count:
            raise OSError(f'{path}: only {found} of {count} frames could be written; is the disk full?')
