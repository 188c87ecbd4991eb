# SPDX-License-Identifier: Apache-2.0
"""Videos in and out, through OpenCV's FFmpeg. Frames are uint8 ``[H, W, 3]`` BGR."""

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

#: Frames per second of a video that does not tell, or tells what cannot be.
DEFAULT_RATE = 25.0
_HIGHEST_RATE = 1000.0


class VideoError(ValueError):
    """A file that cannot be read as a video; the message names it."""


@contextmanager
def quiet_stderr() -> Iterator[None]:
    """OpenCV and FFmpeg print to the process's stderr, past Python and every log level, what is no user's concern."""
    kept = os.dup(2)
    try:
        with open(os.devnull, 'wb') as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def _full_name(path: Path) -> str:
    """What OpenCV is given: FFmpeg takes ``12:00.webm`` for a protocol, and a name that is not UTF-8 is a crash."""
    name = os.path.abspath(path)
    try:
        name.encode()
    except UnicodeEncodeError as error:
        raise VideoError(f'{one_line(path)}: its path is not UTF-8, as OpenCV wants that of a video') from error
    return name


class VideoReader:
    """The frames of a video file, upright, in order; to be gone through once.

    Attributes:
        expected: number of frames by the file's own account, which may be an estimate; 0 if it gives none.

    Raises:
        VideoError: it cannot be read, or OpenCV cannot open it.
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
        self._frames, self._last = 0, 0.0  # read so far, and the latest one's time in seconds

    @cached_property
    def rate(self) -> float:
        """Frames per second: as the file states it, or on average where its timestamps say that they are fewer.

        Of a variable rate, WebM and Matroska state the highest, or their clock's, 1000. Goes through the file, without
        decoding it.
        """
        frames, last = 0, 0.0
        with quiet_stderr():
            packets = cv2.VideoCapture(self._name, cv2.CAP_FFMPEG, [cv2.CAP_PROP_FORMAT, -1])
            while packets.grab():
                frames += 1
                last = max(last, packets.get(cv2.CAP_PROP_POS_MSEC) / 1000)
            packets.release()
        # Times are rounded to milliseconds.
        rate = (frames - 1) / last if frames > 1 and 0.98 * last - 0.001 > (frames - 1) / self._stated else self._stated
        return rate if rate <= _HIGHEST_RATE else DEFAULT_RATE

    def lost(self) -> int:
        """Asked after the last frame: how many more there would be by the file's own account; 0 if it is whole.

        Where that counts frames at a rate that is none, the time that was reached decides.
        """
        seconds = self._last * self._frames / max(1, self._frames - 1)  # with what the last one lasts
        if max(self._frames, seconds * self._stated) >= 0.98 * self.expected - 1:  # it may be an estimate
            return 0
        return max(1, round(self.expected * self.rate / self._stated) - self._frames)

    def __iter__(self) -> Iterator[np.ndarray]:
        while True:
            # Of a file that is cut off, FFmpeg prints what is wrong with the bytes; the caller counts frames.
            with quiet_stderr():
                there, frame = self._capture.read()
            if not there:
                return
            self._frames += 1
            self._last = max(self._last, self._capture.get(cv2.CAP_PROP_POS_MSEC) / 1000)
            yield frame

    def readable(self) -> bool:
        """Return whether a first frame can be read; the position stays at the beginning."""
        with quiet_stderr():
            capture = cv2.VideoCapture(self._name)
            there, _ = capture.read()
            capture.release()
        return there

    def close(self) -> None:
        """Close the file."""
        self._capture.release()


def open_video(path: Path) -> VideoReader | PyavReader:
    """Open a video with OpenCV or, if that cannot read a frame of it, with PyAV where it is installed.

    OpenCV goes first because the demo and most installations have no PyAV: all machines then treat a video alike.

    Raises:
        VideoError: The file cannot be read as a video.
    """
    _full_name(path)  # a name that is not UTF-8 would fail later, when the output is written
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
    """Writes VP8 in WebM, which browsers and players alike play; gives a function that takes the next frame.

    The file appears when the block ends without an exception, and then complete. VP8 wants even sizes: of an odd width
    or height, the last column or row is left out.

    Args:
        path: the file; its name ends in ``.webm``.
        size: (height, width) of every frame.
        rate: frames per second.

    Raises:
        OSError: the path is not UTF-8, OpenCV has no VP8 encoder, or cannot write there, or not at this size, or not
            all frames (disk full).
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
        # OpenCV does not tell when the disk is full, and a file that is cut off may still tell its whole length.
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
