# SPDX-License-Identifier: Apache-2.0
"""``stdc predict``: images, folders of images and videos, segmented into files.

An input's name and the output make the name of a file below the folder that is written to:

    street.jpg    street_mask.png                 class ids, 8 bit
                  street_color.png                class colours
                  street_overlay.png              class colours over the image
                  street_confidence.png           probability of the class in the mask, 0 ... 1 as 0 ... 255
    drive.mp4     drive_mask/000000.png ...       one PNG per frame, as ids do not survive a video's compression
                  drive_color.webm
                  drive_overlay.webm              VP8, as many frames and as fast as the input
                  drive_confidence/000000.png ...

What lies in a folder keeps its place: ``pictures/north/street.jpg``, found in the input ``pictures``, makes
``north/street_mask.png``.
"""

from __future__ import annotations

import itertools
import os
import re
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from tqdm import tqdm

from stdc_core.data.folder import IMAGE_SUFFIXES
from stdc_core.data.reading import decode
from stdc_core.inference import Segmentation, Segmenter, SizeError
from stdc_core.io.files import appearing, walk, write_png
from stdc_core.io.picture_header import SIGNATURES, PictureError, read_picture
from stdc_core.io.video import VideoError, open_video, webm_writer
from stdc_core.io.video_pyav import has_pyav, mp4_writer
from stdc_core.pictures.overlay import colorize, overlay

_IMAGES = (*IMAGE_SUFFIXES, '.tif', '.tiff', '.ppm', '.pgm')
VIDEO_SUFFIXES = (
    '.mp4',
    '.m4v',
    '.mov',
    '.avi',
    '.mkv',
    '.webm',
    '.mpg',
    '.mpeg',
    '.ts',
    '.wmv',
    '.flv',
    '.ogv',
    '.3gp',
)

#: Formats that videos are written in.
VIDEO_FORMATS = ('webm', 'mp4')

#: Name of each output, and whether a video of it is a folder of PNGs.
OUTPUTS = {'mask': True, 'color': False, 'overlay': False, 'confidence': True}

# How many of a long list an error names.
_NAMED = 8

# Bytes that tell OpenCV what a file is; its formats' signatures are shorter.
_HEAD = 4096


class PredictError(ValueError):
    """Inputs or outputs that cannot be used; the message names them all, or the first and how many there are."""


class Job(NamedTuple):
    """One input: its file, its outputs by name, and for a video how many frames it claims to have."""

    source: Path
    video: bool
    targets: dict[str, Path]
    frames: int

    def is_folder(self, output: str) -> bool:
        """Is this output a folder of PNGs?"""
        return self.video and OUTPUTS[output]


class Result(NamedTuple):
    """What was done: inputs segmented, their frames (1 per image), and what the user should be told."""

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
    """Segment images and videos into files below ``out``; the names are those of this module's docstring.

    An input that cannot be read does not stop the others: it is told of in the end. Every file appears complete or not
    at all.

    Args:
        inputs: images, videos, and folders, which are searched for both in all depths.
        out: folder, made if it is missing.
        outputs: names of :data:`OUTPUTS`.
        opacity: weight of the class colours in the overlay, 0 to 1.
        overwrite: replace outputs that are there already.
        progress: show a progress bar on a terminal.
        video_format: Format of videos, ``webm`` (VP8) or ``mp4`` (H.264, needs PyAV).

    Raises:
        PredictError: before anything is written: an input is missing, outputs exist or would overwrite each other or
            an input, ``opacity`` or an output's name is not one of those above. In the end: inputs could not be read.
        OSError: an output cannot be written.
    """
    if not 0 <= opacity <= 1:
        raise PredictError(f'overlay opacity: expected 0 to 1, found {opacity}')
    outputs = list(dict.fromkeys(outputs))
    if not outputs or not OUTPUTS.keys() >= set(outputs):
        raise PredictError(f'outputs: expected some of {", ".join(OUTPUTS)}, found {", ".join(outputs) or "none"}')
    if video_format not in VIDEO_FORMATS:
        raise PredictError(f'video format: expected {" or ".join(VIDEO_FORMATS)}, found {video_format}')
    if video_format == 'mp4' and not has_pyav():
        raise PredictError("MP4 needs PyAV: pip install '.[video]' in the repository, or pip install av")
    jobs = plan(inputs, out, outputs, video_format)
    _check_targets(jobs, overwrite)

    def pictures(image: np.ndarray) -> dict[str, np.ndarray]:
        result = segmenter(image, confidence='confidence' in outputs)
        return {name: _picture(name, image, result, segmenter, opacity) for name in outputs}

    unread, warnings, done, frames = [], [], 0, 0
    shown = None if progress else True  # None: on a terminal
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
        raise PredictError(_listed(unread) + rest)
    return Result(done, frames, warnings)


def plan(inputs: Sequence[Path], out: Path, outputs: Sequence[str], video_format: str = 'webm') -> list[Job]:
    """What is read and what is written; writes nothing.

    Raises:
        PredictError: an input is missing, holds neither images nor videos, or is where the outputs go; two inputs have
            the same output, or one inside the other's, or an output is an input or holds one.
    """
    missing = [f'{path}: no such file or folder' for path in inputs if not path.exists()]
    if missing:
        raise PredictError(_listed(missing))
    if out.exists() and not out.is_dir():
        raise PredictError(f'{out}: is a file, expected a folder to write to')
    # One file may be several inputs, by links and by folders in folders, whose outputs have names of their own.
    jobs: dict[tuple[Path, ...], Job] = {}
    makers: dict[Path, Path] = {}
    for source, relative in (pair for path in inputs for pair in _found(path, out)):
        job = _job(source, out / relative.parent / relative.stem, outputs, video_format)
        key = (source.resolve(), *job.targets.values())
        if key in jobs:
            continue  # named twice
        for target in job.targets.values():
            other = makers.setdefault(target, source)
            if other != source:
                raise _same_place(other, source, target)
        jobs[key] = job
    sources = {source for source, *_ in jobs}
    holders = {folder for source in sources for folder in source.parents}
    for target, source in makers.items():
        if around := next((folder for folder in target.parents if folder in makers), None):
            raise _same_place(makers[around], source, around)
        place = target.resolve()
        if place in sources or place in holders:
            what = 'is' if place in sources else 'holds'
            raise PredictError(f'{target}: the output of {source} {what} an input as well; choose another --out')
    return list(jobs.values())


def _same_place(one: Path, other: Path, target: Path) -> PredictError:
    return PredictError(f'{one} and {other} would both be written to {target}; rename one, or say another --out for it')


def _found(path: Path, out: Path) -> Iterator[tuple[Path, Path]]:
    """Files of an input, and what their outputs are named after, relative to the folder that is written to."""
    if not path.is_dir():
        yield path, Path(path.name)
        return
    if path.resolve() == out.resolve():
        raise PredictError(f'{path}: is read and written to; choose another --out')
    count = 0
    for folder, subfolders, names in walk(path, 'stdc predict'):
        # Neither what is hidden nor what an earlier run wrote.
        subfolders[:] = [
            name for name in subfolders if not name.startswith('.') and (folder / name).resolve() != out.resolve()
        ]
        for name in sorted(names):
            source = folder / name
            if source.suffix.lower() in (*_IMAGES, *VIDEO_SUFFIXES) and not name.startswith('.'):
                count += 1
                yield source, source.relative_to(path)
    if not count:
        raise PredictError(f'{path}: holds no images or videos ({", ".join((*_IMAGES, *VIDEO_SUFFIXES))})')


def _job(source: Path, stem: Path, outputs: Sequence[str], video_format: str) -> Job:
    suffix = source.suffix.lower()
    video = suffix in VIDEO_SUFFIXES or (suffix not in _IMAGES and not _begins_as_image(source))

    def target(name: str) -> Path:
        ending = '.png' if not video else '' if OUTPUTS[name] else f'.{video_format}'
        return stem.with_name(f'{stem.name}_{name}{ending}')

    frames = 1
    if video:
        try:
            with closing(open_video(source)) as reader:
                frames = reader.expected
        except VideoError:
            frames = 0  # told when its turn comes
    return Job(source, video, {name: target(name) for name in outputs}, frames)


def _begins_as_image(source: Path) -> bool:
    """Is it of a format whose images OpenCV reads? One that cannot be read is none."""
    # In a file of another name: of one that is not UTF-8, OpenCV crashes.
    with tempfile.NamedTemporaryFile() as head:
        try:
            with open(source, 'rb') as file:
                head.write(file.read(_HEAD))
        except OSError:
            return False
        head.flush()
        return cv2.haveImageReader(head.name)


def _check_targets(jobs: Sequence[Job], overwrite: bool) -> None:
    existing = [
        (target, job.is_folder(name)) for job in jobs for name, target in job.targets.items() if os.path.lexists(target)
    ]
    if existing and not overwrite:
        raise PredictError(_listed([f'{target}: exists already' for target, _ in existing], '(--overwrite replaces)'))
    for target, folder in existing:
        strange = target.is_dir() != folder
        if folder and not strange:
            strange = any(not re.fullmatch(r'\d{6,}\.png', path.name) for path in target.iterdir())
        if strange:
            raise PredictError(f'{target}: exists already and is not what is written there, so it is not overwritten')


def _listed(problems: Sequence[str], advice: str = '') -> str:
    more = [f'and {len(problems) - _NAMED} more'] if len(problems) > _NAMED else []
    return '\n'.join([*problems[:_NAMED], *more, *filter(None, [advice])])


def _picture(name: str, image: np.ndarray, result: Segmentation, segmenter: Segmenter, opacity: float) -> np.ndarray:
    if name == 'color':
        return colorize(result.mask, segmenter.info.classes)
    if name == 'overlay':
        return overlay(image, result.mask, segmenter.info.classes, opacity)
    if name == 'confidence':
        assert result.confidence is not None, 'the segmenter computes it, because it is among the outputs'
        return result.confidence
    return result.mask


Pictures = Callable[[np.ndarray], dict[str, np.ndarray]]


def _segment_image(job: Job, segmenter: Segmenter, pictures: Pictures, bar: tqdm) -> int:
    try:
        data = job.source.read_bytes()
        if data.startswith(SIGNATURES):
            claimed = read_picture(data)  # OpenCV fills up with grey what is missing
            segmenter.check_size(claimed.height, claimed.width)  # and allocates what is claimed
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
    """Returns the number of frames that there were, and of those that are lost."""
    count = 0
    with closing(open_video(job.source)) as reader, ExitStack() as stack:
        sinks: dict[str, Callable[[np.ndarray], None]] = {}
        for image in reader:
            named = _named(job, pictures, image)
            # Folders first, so that they appear last: a WebM file may turn out in the end to be none.
            for name in sorted(named, key=job.is_folder, reverse=True):
                if name not in sinks:
                    sinks[name] = stack.enter_context(_sink(job, name, image.shape[:2], reader.rate))
                sinks[name](named[name])
            count += 1
            bar.update()
        if not count:
            raise PredictError(f'{job.source}: a video without a frame that can be read')
        return count, reader.lost()


def _named(job: Job, pictures: Pictures, image: np.ndarray) -> dict[str, np.ndarray]:
    try:
        return pictures(image)
    except ValueError as error:
        raise PredictError(f'{job.source}: {error}') from error


@contextmanager
def _sink(job: Job, output: str, size: tuple[int, int], rate: float) -> Iterator[Callable[[np.ndarray], None]]:
    """Takes the frames of one output of a video: a WebM file, or a folder of numbered PNGs."""
    if not job.is_folder(output):
        target = job.targets[output]
        with (mp4_writer if target.suffix == '.mp4' else webm_writer)(target, size, rate) as write:
            yield write
        return
    with appearing(job.targets[output]) as partial:
        partial.mkdir()
        number = itertools.count()
        yield lambda picture: write_png(partial / f'{next(number):06d}.png', picture)
