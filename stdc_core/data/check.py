# SPDX-License-Identifier: Apache-2.0
"""Find everything that is wrong with a dataset before a training begins."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from tqdm import tqdm

from stdc_core.classes import IGNORE, ClassTable
from stdc_core.data.folder import SegmentationFolder, wrong_size
from stdc_core.data.reading import LabelError, some
from stdc_core.io.cpu import cores

# Number of problems to list.
_LISTED = 100


class DataError(ValueError):
    """Data that cannot be used for training or evaluation. The message lists the files."""


@dataclass
class DataReport:
    """Result of ``check``.

    Args:
        dataset: Name of the dataset, ``ROOT/SPLIT``.
        classes: Class table of the dataset.
        images: Number of images.
        checked: Number of images that were read.
        counts: Pixels of each class in the labels that could be read, int64 ``[C]``.
        ignored: Number of pixels labelled 255.
        coarse: Number of pixels labelled with a set of classes.
        absent: Names of the classes that no pixel has or may have.
        sizes: Number of images of each (height, width) in pixels.
        problems: Problems that make the dataset unusable, each a sentence with a file name, in the order of the images.
        warnings: Other findings, each a sentence.
    """

    dataset: str
    classes: ClassTable
    images: int
    checked: int
    counts: np.ndarray
    ignored: int = 0
    coarse: int = 0
    absent: list[str] = field(default_factory=list)
    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def ignored_share(self) -> float:
        """Return the share of the pixels that are 255, 0 to 1."""
        return self.ignored / max(1, int(self.counts.sum()) + self.ignored + self.coarse)

    def listed(self) -> str:
        """Return the number of problems, and the first 100 of them, in lines."""
        lines = self.problems[:_LISTED]
        if len(self.problems) > _LISTED:
            lines.append(f'and {len(self.problems) - _LISTED} more')
        plural = 's' if len(self.problems) > 1 else ''
        return '\n  '.join([f'{self.dataset}: {len(self.problems)} problem{plural}', *lines])

    def __str__(self) -> str:
        """Return the image sizes and the share of each class, in lines for a terminal."""
        sizes = [f'{count} of {height}x{width}' for (height, width), count in self.sizes.most_common()]
        total = max(1, int(self.counts.sum()) + self.ignored + self.coarse)
        rows = [*zip(self.classes.names, self.counts.tolist(), strict=True), ('(ignored)', self.ignored)]
        if self.coarse:
            rows.append(('(one of several)', self.coarse))
        shares = [f'{name:>16} {100 * count / total:6.2f} %' for name, count in rows]
        read = f', {self.checked} read' if self.checked < self.images else ''
        return '\n'.join([f'{self.dataset}: {self.images} images{read}: {some(sizes, 5) or "none"}', *shares])


@dataclass
class _Pair:
    """Findings on one image and its label.

    Args:
        problems: Problems, each a sentence.
        counts: Pixels of each id, int64 ``[256]``, if the label could be read.
        unknown: Number of pixels of each unknown id.
        size: (height, width) of the image in pixels, if it could be read.
    """

    problems: list[str] = field(default_factory=list)
    counts: np.ndarray | None = None
    unknown: dict[int, int] = field(default_factory=dict)
    size: tuple[int, int] | None = None


def raise_problems(*reports: DataReport) -> None:
    """Raise DataError with the lists of problems, if there are any.

    Args:
        reports: Reports of ``check``.
    """
    bad = [report.listed() for report in reports if report.problems]
    if bad:
        raise DataError('\n'.join(bad))


def check_all_classes(reports: Sequence[DataReport]) -> None:
    """Check that every class occurs in the data, if 255 does.

    Annotation tools write masks of 0 and 255, where 255 is the object. Here 255 stands for no class, and a network
    that is trained on such masks would learn only the background.

    Args:
        reports: Reports of all the data to train on, or of the data to validate on.

    Raises:
        DataError: A class occurs nowhere, and 255 does.
    """
    absent = [name for name in reports[0].absent if all(name in report.absent for report in reports)]
    blamed = next((report for report in reports if report.ignored), None)
    if absent and blamed:
        classes = [f'{blamed.classes.names.index(name)} for {name}' for name in absent]
        raise DataError(
            f'{blamed.dataset}: {_percent(blamed.ignored_share())} of the pixels are 255, which stands for no class, '
            f'and no pixel is {some(absent)}. If 255 marks the object, as annotation tools write it, give those pixels '
            f'its id ({some(classes, 3)}). If your data really lacks the class, use `--set absent_classes=allow`'
        )


def check(dataset: SegmentationFolder, limit: int | None = None, progress: bool = True, threads: int = 0) -> DataReport:
    """Read every image and label once, and collect what is wrong.

    Problems are a missing label, a file that cannot be read, a label whose size is not that of its image, a class id or
    colour that the table lacks, and a dataset without a labelled pixel. Warnings are classes that never occur, single
    labels without a labelled pixel, images of the same name, and the warnings of the dataset.

    Args:
        dataset: Dataset, opened with ``require_labels=False``, so that missing labels are listed, too.
        limit: Largest number of images to read, spread evenly; None reads all. All missing labels are found even so.
        progress: Whether to show a progress bar on a terminal.
        threads: Number of threads; 0 takes every core that this process may use.
    """
    chosen = list(range(len(dataset)))
    if limit is not None and limit < len(dataset):
        chosen = np.linspace(0, len(dataset) - 1, max(1, limit)).astype(int).tolist()
    counts = np.zeros(256, np.int64)
    unknown: dict[int, Counter[str]] = {}
    unlabelled = []
    report = DataReport(str(dataset), dataset.classes, len(dataset), len(chosen), counts[: len(dataset.classes)])
    if len(chosen) < len(dataset):
        report.problems += [f'{path}: no such label' for path in _missing(dataset, set(chosen))]
    for index, pair in zip(chosen, _read_all(dataset, chosen, progress, threads), strict=True):
        report.problems += pair.problems
        if pair.size:
            report.sizes[pair.size] += 1
        for number, pixels in pair.unknown.items():
            unknown.setdefault(number, Counter()).update(labels=1, pixels=pixels)
        if pair.counts is not None:
            counts += pair.counts
            if not pair.counts[:IGNORE].any() and not dataset.unlabelled:
                unlabelled.append(dataset.files(index)[1])
    if dataset.found_instead:
        first = next((n for n, text in enumerate(report.problems) if 'no such label' in text), None)
        if first is not None:
            report.problems[first] += f'; {dataset.found_instead}'
    report.ignored = int(counts[IGNORE])
    report.coarse = int(counts[len(dataset.classes) : IGNORE].sum())

    if unknown:
        ids = [f'{number} ({c["labels"]} labels, {c["pixels"]} pixels)' for number, c in sorted(unknown.items())]
        report.problems.insert(0, f'class ids that the table of {len(dataset.classes)} classes lacks: {some(ids)}')
    if not counts[:IGNORE].any() and not report.problems and not dataset.unlabelled:
        report.problems.append(f'{dataset}: none of {report.checked} labels has a labelled pixel')
    report.warnings += dataset.warnings
    report.warnings += _warnings(dataset, report, counts, unlabelled)
    return report


def shared_images(first: SegmentationFolder, second: SegmentationFolder) -> list[str]:
    """Return warnings if two splits share images: the same bytes, or the same name.

    A network looks better than it is on images that it was trained on. Only files of equal length are read.

    Args:
        first: Split to train on.
        second: Split to validate on.
    """
    warnings = []
    paths = [[dataset.files(index)[0] for index in range(len(dataset))] for dataset in (first, second)]
    lengths = [{path: path.stat().st_size for path in group} for group in paths]
    both = set(lengths[0].values()) & set(lengths[1].values())
    hashes = [{_hash(p): p for p, length in group.items() if length in both} for group in lengths]
    same = [str(hashes[1][key]) for key in hashes[0] if key in hashes[1]]
    if same:
        warnings.append(f'{len(same)} images of {second} are in {first} as well, the first {some(sorted(same), 3)}')
    names = [{dataset.name(index) for index in range(len(dataset))} for dataset in (first, second)]
    alike = sorted(names[0] & names[1])
    if alike and len(alike) != len(same):
        warnings.append(f'{len(alike)} images have the same name in {first} and {second}, the first {some(alike, 3)}')
    return warnings


def _read_all(dataset: SegmentationFolder, chosen: list[int], progress: bool, threads: int) -> Iterator[_Pair]:
    """Yield the findings on the chosen images, in their order."""
    # OpenCV releases Python's lock while it decodes, so threads are enough.
    pool = ThreadPoolExecutor(threads or cores())
    try:
        pairs = pool.map(lambda index: _read(dataset, index), chosen)
        silent = None if progress else True
        yield from tqdm(pairs, f'checking {dataset.split}', len(chosen), unit='image', disable=silent, leave=False)
    finally:
        # An interrupt does not wait for queued images.
        pool.shutdown(cancel_futures=True)


def _read(dataset: SegmentationFolder, index: int) -> _Pair:
    """Return the findings on one image and its label."""
    pair, shape = _Pair(), None
    path = dataset.files(index)[1]
    try:
        pair.size = dataset.image(index).shape[:2]
    except (ValueError, OSError) as error:
        pair.problems.append(str(error))
    try:
        label, pair.counts = dataset.label_and_counts(index)
        shape = label.shape
    except (ValueError, OSError) as error:
        pair.problems.append(str(error))
        pair.unknown = error.unknown if isinstance(error, LabelError) else {}
    if pair.size and shape and shape != pair.size:
        pair.problems.append(wrong_size(path, shape, pair.size))
    return pair


def _missing(dataset: SegmentationFolder, chosen: set[int]) -> list[Path]:
    """Return the missing labels of all images that are not going to be read."""
    return [
        dataset.files(index)[1]
        for index in range(len(dataset))
        if index not in chosen and not dataset.files(index)[1].is_file()
    ]


def _warnings(dataset: SegmentationFolder, report: DataReport, counts: np.ndarray, unlabelled: list[Path]) -> list[str]:
    """Return warnings about a dataset, and set the absent classes of its report if all images were read.

    Args:
        dataset: Dataset.
        report: Report with the counts of the pixels.
        counts: Pixels of each id, also those of sets of classes, int64 ``[256]``.
        unlabelled: Labels without a labelled pixel.
    """
    warnings = []
    if unlabelled:
        warnings.append(f'{dataset}: {len(unlabelled)} labels have no labelled pixel, the first {some(unlabelled, 3)}')
    # In a training, `label_sets` has the sets of all datasets. Only the pixels tell which of them this one uses.
    sets = enumerate(dataset.label_sets, len(dataset.classes))
    possible = {member for number, members in sets if counts[number] for member in members}
    absent = [
        name
        for number, (name, count) in enumerate(zip(report.classes.names, report.counts, strict=True))
        if not count and number not in possible
    ]
    if report.checked == report.images:
        report.absent = absent
    if absent and report.checked == report.images and report.counts.any():
        void = f'; {_percent(report.ignored_share())} of the pixels are 255, which stands for no class'
        warnings.append(f'{dataset}: no pixel is {some(absent)}{void if report.ignored else ""}')
    names = Counter(dataset.name(index) for index in range(len(dataset)))
    twice = sorted(name for name, count in names.items() if count > 1)
    if twice:
        warnings.append(f'{dataset}: {len(twice)} names belong to several images, the first {some(twice, 3)}')
    return warnings


def _percent(share: float) -> str:
    """Return a share of 0 to 1 in percent, in words."""
    return f'{100 * share:.1f} %'


def _hash(path: Path) -> bytes:
    """Return a hash of the bytes of a file."""
    return hashlib.blake2b(path.read_bytes()).digest()
