# SPDX-License-Identifier: Apache-2.0
"""Read and write videos with PyAV, where it is installed (extra ``video``). Frames are uint8 BGR ``[H, W, 3]``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from stdc_core.io.files import WriteError, appearing
from stdc_core.io.text import one_line

#: Frames per second of a video that does not name its rate.
DEFAULT_RATE = 25.0

#: Oldest usable release of PyAV. Earlier ones have an FFmpeg that shows grey for missing H.265 pictures, unmarked.
_OLDEST_PYAV = 16

_INSTALL = "pip install '.[video]' in the repository, or pip install 'av>=16'"


class PyavError(ValueError):
    """A file that PyAV cannot read as a video. The message names it."""


def has_pyav() -> bool:
    """Return whether PyAV can be used."""
    return not why_no_pyav()


def why_no_pyav() -> str:
    """Return why PyAV cannot be used, and how to install it: words after a subject. Return '' if it can be used."""
    if find_spec('av') is None:
        return f'needs PyAV: {_INSTALL}'
    try:
        found = version('av')
    except PackageNotFoundError:  # installed without metadata
        return ''
    if int(found.split('.')[0]) < _OLDEST_PYAV:
        return f'needs PyAV {_OLDEST_PYAV} or newer, found {found}: {_INSTALL}'
    return ''


class PyavReader:
    """Reads the frames of a video file in order, once; it is used like ``VideoReader``.

    Args:
        path: File.

    Attributes:
        expected: Number of frames that the file claims; 0 if it does not say.
        rate: Frames per second.

    Raises:
        PyavError: The file is not a video.
    """

    def __init__(self, path: Path):
        import av

        av.logging.set_level(av.logging.PANIC)
        try:
            self._container: Any = av.open(str(path))
        except (av.error.FFmpegError, OSError, ValueError) as error:
            raise PyavError(f'{path}: not a video that PyAV reads ({one_line(error)})') from error
        if not self._container.streams.video:
            self._container.close()
            raise PyavError(f'{path}: no video in it')
        self._stream = self._container.streams.video[0]
        self.rate = float(self._stream.average_rate or DEFAULT_RATE)
        self.expected = int(self._stream.frames)
        self._frames = 0

    def __iter__(self) -> Iterator[np.ndarray]:
        """Yield the frames, uint8 BGR ``[H, W, 3]``."""
        import av

        try:
            for frame in self._container.decode(self._stream):
                self._frames += 1
                turns = round(frame.rotation / 90) % 4
                yield np.ascontiguousarray(np.rot90(frame.to_ndarray(format='bgr24'), turns))
        except av.error.FFmpegError:
            return  # the rest is damaged; lost() counts it

    def lost(self) -> int:
        """Return the number of frames that the file claims but does not have; call it after the last frame."""
        return max(0, self.expected - self._frames)

    def close(self) -> None:
        """Close the file."""
        self._container.close()


@contextmanager
def mp4_writer(path: Path, size: tuple[int, int], rate: float) -> Iterator[Callable[[np.ndarray], None]]:
    """Write H.264 in MP4; yield a function that takes the next frame.

    The file appears complete when the block ends without an exception. H.264 needs even sizes: an odd last column or
    row is left out.

    Args:
        path: File, whose name ends in ``.mp4``.
        size: (height, width) of every frame.
        rate: Frames per second.

    Raises:
        OSError: The file cannot be written, or not at this size.
    """
    import av

    av.logging.set_level(av.logging.PANIC)
    height, width = size[0] // 2 * 2, size[1] // 2 * 2
    if min(height, width) < 2:
        raise OSError(f'{path}: frames of {size[1]} x {size[0]} pixels are too small for H.264')
    with appearing(path) as partial:
        try:
            with av.open(str(partial), 'w', format='mp4') as container:
                stream = container.add_stream('libx264', rate=Fraction(rate).limit_denominator(10**5))
                stream.width, stream.height, stream.pix_fmt = width, height, 'yuv420p'

                def write(frame: np.ndarray) -> None:
                    even = np.ascontiguousarray(frame[:height, :width])
                    container.mux(stream.encode(av.VideoFrame.from_ndarray(even, format='bgr24')))

                yield write
                container.mux(stream.encode(None))
        except av.error.FFmpegError as error:
            raise WriteError(error.errno, one_line(error.strerror or error), str(path)) from error
