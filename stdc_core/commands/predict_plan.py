# SPDX-License-Identifier: Apache-2.0
"""Find the inputs of ``stdc predict``, name their outputs, and check both before anything is written.

The names of an input and an output make the name of a file in the folder to write to:

    street.jpg    street_mask.png                 class ids, 8 bits
                  street_color.png                class colours
                  street_overlay.png              class colours over the image
                  street_confidence.png           probability of the class in the mask, 0 to 1 as 0 to 255
    drive.mp4     drive_mask/000000.png ...       a PNG for each frame, since video compression would change ids
                  drive_color.webm
                  drive_overlay.webm              VP8 with the number and rate of frames of the input
                  drive_confidence/000000.png ...

Files in a folder keep their place: ``pictures/north/street.jpg``, found in the input ``pictures``, becomes
``north/street_mask.png``.
"""

from __future__ import annotations

import itertools
import os
import re
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import cv2

from stdc_core.data.folder import IMAGE_SUFFIXES
from stdc_core.io.files import walk
from stdc_core.io.video import VideoError, open_video

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
    '.gif',
)

#: Name of each output, and whether it is a folder of PNGs for a video.
OUTPUTS = {'mask': True, 'color': False, 'overlay': False, 'confidence': True}

# Number of files that an error names.
_NAMED = 8

# Number of bytes that OpenCV needs to recognise a format; the signatures of its formats are shorter.
_HEAD = 4096


class PredictError(ValueError):
    """Inputs or outputs that cannot be used. The message names all of them, or the first ones and their number."""


class Job(NamedTuple):
    """Input with its outputs.

    Args:
        source: File of the input.
        video: Whether the input is a video.
        targets: File or folder of each output, by name.
        frames: Number of frames that a video claims; 1 for an image.
    """

    source: Path
    video: bool
    targets: dict[str, Path]
    frames: int

    def is_folder(self, output: str) -> bool:
        """Return whether an output is a folder of PNGs."""
        return self.video and OUTPUTS[output]


def plan(inputs: Sequence[Path], out: Path, outputs: Sequence[str], video_format: str = 'webm') -> list[Job]:
    """Find the inputs, and name their outputs. Nothing is written.

    Args:
        inputs: Images, videos, and folders to search for both, subfolders included.
        out: Folder to write to.
        outputs: Names in :data:`OUTPUTS`.
        video_format: Suffix of videos to write, without the dot.

    Raises:
        PredictError: An input does not exist, contains neither images nor videos, or is the folder to write to. Or two
            inputs have one output, an output is inside another one, or an output is an input or contains one.
    """
    missing = [f'{path}: no such file or folder' for path in inputs if not path.exists()]
    if missing:
        raise PredictError(listed(missing))
    if out.exists() and not out.is_dir():
        raise PredictError(f'{out}: is a file, expected a folder to write to')
    # Links and nested folders can make one file several inputs, whose outputs have different names.
    jobs: dict[tuple[Path, ...], Job] = {}
    makers: dict[Path, Path] = {}
    for source, relative in (pair for path in inputs for pair in _found(path, out)):
        job = _job(source, out / relative.parent / relative.stem, outputs, video_format)
        key = (source.resolve(), *job.targets.values())
        if key in jobs:
            continue  # given twice
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
            what = 'is' if place in sources else 'contains'
            raise PredictError(f'{target}: the output of {source} {what} an input as well; choose another --out')
    return list(jobs.values())


def check_targets(jobs: Sequence[Job], overwrite: bool) -> None:
    """Check that outputs may be written.

    Args:
        jobs: Inputs with their outputs.
        overwrite: Whether outputs that exist may be replaced.

    Raises:
        PredictError: An output exists, or is not one that ``stdc predict`` has written.
    """
    existing = [
        (target, job.is_folder(name)) for job in jobs for name, target in job.targets.items() if os.path.lexists(target)
    ]
    if existing and not overwrite:
        raise PredictError(listed([f'{target}: exists already' for target, _ in existing], '(--overwrite replaces)'))
    for target, folder in existing:
        strange = target.is_dir() != folder
        if folder and not strange:
            strange = any(not re.fullmatch(r'\d{6,}\.png', path.name) for path in target.iterdir())
        if strange:
            raise PredictError(f'{target}: exists already and is not an earlier output, so it is not overwritten')


def listed(problems: Sequence[str], advice: str = '') -> str:
    """Return the first problems and the number of the others, in lines, and then the advice."""
    more = [f'and {len(problems) - _NAMED} more'] if len(problems) > _NAMED else []
    return '\n'.join([*problems[:_NAMED], *more, *filter(None, [advice])])


def _same_place(one: Path, other: Path, target: Path) -> PredictError:
    """Return the error for two inputs whose outputs have one place."""
    return PredictError(
        f'{one} and {other} would both be written to {target}; rename one, or use another --out for one of them'
    )


def _found(path: Path, out: Path) -> Iterator[tuple[Path, Path]]:
    """Yield the files of an input, each with the path that names its outputs, relative to the folder to write to.

    Raises:
        PredictError: The input contains neither images nor videos, or is the folder to write to.
    """
    if not path.is_dir():
        yield path, Path(path.name)
        return
    if path.resolve() == out.resolve():
        raise PredictError(f'{path}: is both the input and --out; choose another --out')
    count = 0
    for folder, subfolders, names in walk(path, 'stdc predict'):
        # Hidden folders, and the outputs of earlier runs, are left out.
        subfolders[:] = [
            name for name in subfolders if not name.startswith('.') and (folder / name).resolve() != out.resolve()
        ]
        for name in sorted(names):
            source = folder / name
            if source.suffix.lower() in (*_IMAGES, *VIDEO_SUFFIXES) and not name.startswith('.'):
                count += 1
                yield source, source.relative_to(path)
    if not count:
        raise PredictError(f'{path}: contains no images or videos ({", ".join((*_IMAGES, *VIDEO_SUFFIXES))})')


def _job(source: Path, stem: Path, outputs: Sequence[str], video_format: str) -> Job:
    """Return an input with its outputs, whose names begin with ``stem``."""
    suffix = source.suffix.lower()
    video = suffix in VIDEO_SUFFIXES or (suffix not in _IMAGES and not _begins_as_image(source))
    if video and suffix == '.gif':
        video = _is_animated(source)

    def target(name: str) -> Path:
        ending = '.png' if not video else '' if OUTPUTS[name] else f'.{video_format}'
        return stem.with_name(f'{stem.name}_{name}{ending}')

    frames = 1
    if video:
        try:
            with closing(open_video(source)) as reader:
                frames = reader.expected
        except VideoError:
            frames = 0  # the error is reported when the video is to be segmented
    return Job(source, video, {name: target(name) for name in outputs}, frames)


def _is_animated(source: Path) -> bool:
    """Return whether a GIF has several frames."""
    try:
        with closing(open_video(source)) as reader:
            return len(list(itertools.islice(reader, 2))) > 1
    except VideoError:
        return False


def _begins_as_image(source: Path) -> bool:
    """Return whether a file begins like an image that OpenCV reads; false for a file that cannot be read."""
    # OpenCV gets a copy with another name, since it crashes on a name that is not UTF-8.
    with tempfile.NamedTemporaryFile() as head:
        try:
            with open(source, 'rb') as file:
                head.write(file.read(_HEAD))
        except OSError:
            return False
        head.flush()
        return cv2.haveImageReader(head.name)
