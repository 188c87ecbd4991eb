# SPDX-License-Identifier: Apache-2.0
"""Segment the images and videos of ``stdc predict`` into files."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from stdc_core.commands.predict_plan import OUTPUTS, Job, PredictError, check_targets, listed, plan
from stdc_core.data.reading import decode
from stdc_core.inference import Segmentation, Segmenter, SizeError
from stdc_core.io.files import appearing, write_png
from stdc_core.io.picture_header import SIGNATURES, PictureError, read_picture
from stdc_core.io.video import open_video, webm_writer
from stdc_core.io.video_pyav import mp4_writer, why_no_pyav
from stdc_core.pictures.overlay import colorize, overlay

#: Formats of videos to write.
VIDEO_FORMATS = ('webm', 'mp4')

#: Function from an image, uint8 BGR ``[H, W, 3]``, to the picture of each output, by name.
Pictures = Callable[[np.ndarray], dict[str, np.ndarray]]


class Result(NamedTuple):
    """Result of ``predict``.

    Args:
        inputs: Number of inputs that were segmented.
        frames: Number of their frames; an image counts as one.
        warnings: Warnings for the user, each a sentence.
    """

    inputs: int
    frames: int
    warnings: list[str]


def predict(
    segmenter: Segmenter,
    inputs: Sequence[Path],
    out: Path,
    *,
    outputs: Sequence[str] = ('mask', 'overlay'),
    opacity: float = 0.5,
    overwrite: bool = False,
    progress: bool = False,
    video_format: str = 'webm',
) -> Result:
    """Segment images and videos into files below ``out``, with the names that ``predict_plan`` describes.

    An input that cannot be read does not stop the others, and is reported at the end. Every file appears complete or
    not at all.

    Args:
        segmenter: Segmenter.
        inputs: Images, videos, and folders to search for both, subfolders included.
        out: Folder to write to; it is made if it does not exist.
        outputs: Names in ``OUTPUTS``.
        opacity: Weight of the class colours in the overlay, 0 to 1.
        overwrite: Whether to replace outputs that exist.
        progress: Whether to show a progress bar on a terminal.
        video_format: Format of videos, ``webm`` (VP8) or ``mp4`` (H.264, needs PyAV).

    Raises:
        PredictError: Before anything is written: an argument, an input or an output cannot be used. At the end: inputs
            could not be read.
        OSError: An output cannot be written.
    """
    if not 0 <= opacity <= 1:
        raise PredictError(f'overlay opacity: expected 0 to 1, found {opacity}')
    outputs = list(dict.fromkeys(outputs))
    if not outputs or not OUTPUTS.keys() >= set(outputs):
        raise PredictError(f'outputs: expected some of {", ".join(OUTPUTS)}, found {", ".join(outputs) or "none"}')
    if video_format not in VIDEO_FORMATS:
        raise PredictError(f'video format: expected {" or ".join(VIDEO_FORMATS)}, found {video_format}')
    if video_format == 'mp4' and (problem := why_no_pyav()):
        raise PredictError(f'MP4 {problem}')
    jobs = plan(inputs, out, outputs, video_format)
    check_targets(jobs, overwrite)

    def pictures(image: np.ndarray) -> dict[str, np.ndarray]:
        result = segmenter(image, confidence='confidence' in outputs)
        return {name: _picture(name, image, result, segmenter, opacity) for name in outputs}

    unread, warnings, done, frames = [], [], 0, 0
    shown = None if progress else True  # tqdm takes None for "on a terminal only"
    with tqdm(total=sum(job.frames for job in jobs), unit='frame', desc='segmenting', disable=shown) as bar:
        for job in jobs:
            try:
                if job.video:
                    count, lost = _segment_video(job, pictures, bar)
                    if lost:
                        said = f'the first {count} of {count + lost} frames are segmented'
                        warnings.append(f'{job.source}: cut off or damaged; {said}')
                else:
                    count = _segment_image(job, segmenter, pictures, bar)
                done += 1
                frames += count
            except ValueError as error:
                unread.append(str(error))
    if unread:
        rest = f'\nThe other {done} of {len(jobs)} inputs are segmented.' if done else ''
        raise PredictError(listed(unread) + rest)
    return Result(done, frames, warnings)


def _picture(name: str, image: np.ndarray, result: Segmentation, segmenter: Segmenter, opacity: float) -> np.ndarray:
    """Return the picture of an output, uint8 ``[H, W]`` or BGR ``[H, W, 3]``."""
    if name == 'color':
        return colorize(result.mask, segmenter.info.classes)
    if name == 'overlay':
        return overlay(image, result.mask, segmenter.info.classes, opacity)
    if name == 'confidence':
        assert result.confidence is not None, 'the segmenter computes it, because it is among the outputs'
        return result.confidence
    return result.mask


def _segment_image(job: Job, segmenter: Segmenter, pictures: Pictures, bar: tqdm) -> int:
    """Segment an image, and return the number of frames, 1.

    Raises:
        ValueError: The image cannot be read, or its size is not one that the network takes. The message names it.
        OSError: An output cannot be written.
    """
    try:
        data = job.source.read_bytes()
        if data.startswith(SIGNATURES):
            # OpenCV allocates the claimed size, and fills missing parts with grey.
            claimed = read_picture(data)
            segmenter.check_size(claimed.height, claimed.width)
    except OSError as error:
        raise PredictError(f'{job.source}: cannot be read ({error.strerror})') from error
    except PictureError as error:
        raise PredictError(f'{job.source}: {error}, expected a whole picture') from error
    except SizeError as error:
        raise PredictError(f'{job.source}: {error}') from error
    image = decode(job.source, data)
    for name, picture in _named(job, pictures, image).items():
        write_png(job.targets[name], picture)
    bar.update()
    return 1


def _segment_video(job: Job, pictures: Pictures, bar: tqdm) -> tuple[int, int]:
    """Segment a video.

    Returns:
        Number of frames that were segmented, and of frames that are lost.

    Raises:
        ValueError: The video cannot be read, or its size is not one that the network takes. The message names it.
        OSError: An output cannot be written.
    """
    count = 0
    with closing(open_video(job.source)) as reader, ExitStack() as stack:
        sinks: dict[str, Callable[[np.ndarray], None]] = {}
        for image in reader:
            named = _named(job, pictures, image)
            # Folders are opened first and so appear last, after a WebM file, which may turn out to be unusable.
            for name in sorted(named, key=job.is_folder, reverse=True):
                if name not in sinks:
                    sinks[name] = stack.enter_context(_sink(job, name, image.shape[:2], reader.rate))
                sinks[name](named[name])
            count += 1
            bar.update()
        if not count:
            raise PredictError(f'{job.source}: no frame of this video can be read')
        return count, reader.lost()


def _named(job: Job, pictures: Pictures, image: np.ndarray) -> dict[str, np.ndarray]:
    """Return the pictures of an image. Raises PredictError, which names the input, if it cannot be segmented."""
    try:
        return pictures(image)
    except ValueError as error:
        raise PredictError(f'{job.source}: {error}') from error


@contextmanager
def _sink(job: Job, output: str, size: tuple[int, int], rate: float) -> Iterator[Callable[[np.ndarray], None]]:
    """Open an output of a video, and yield a function that takes the next frame.

    Args:
        job: Video.
        output: Name of the output: a video, or a folder of numbered PNGs.
        size: (height, width) of the frames, pixels.
        rate: Frames per second.

    Raises:
        OSError: The output cannot be written.
    """
    if not job.is_folder(output):
        target = job.targets[output]
        with (mp4_writer if target.suffix == '.mp4' else webm_writer)(target, size, rate) as write:
            yield write
        return
    with appearing(job.targets[output]) as partial:
        partial.mkdir()
        number = itertools.count()
        yield lambda picture: write_png(partial / f'{next(number):06d}.png', picture)
