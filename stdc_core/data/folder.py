# SPDX-License-Identifier: Apache-2.0
"""Read images with labels: the interface of all datasets, and the layout ``ROOT/SPLIT/images`` with ``.../labels``."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from stdc_core.classes import IGNORE, ClassTable
from stdc_core.data.label_table import LABEL_TABLE, LabelTable
from stdc_core.data.reading import UNKNOWN, LabelError, count_ids, read_ids, read_image, some

IMAGE_SUFFIXES = ('.jpg', '.jpeg', '.png', '.webp', '.bmp')


class Sample(NamedTuple):
    """Image with its label.

    Args:
        image: uint8 BGR ``[H, W, 3]``.
        label: uint8 ``[H, W]``: class ids, then numbers of ``SegmentationFolder.label_sets``; 255 is ignored.
        name: Name of the image.
    """

    image: np.ndarray
    label: np.ndarray
    name: str


class SegmentationFolder:
    """Images of one split with their labels, in the order of the image names.

    The images are ``ROOT/SPLIT/images/*``, and their labels ``ROOT/SPLIT/labels/*.png`` with the same stem: greyscale
    PNGs of class ids. A file ``ROOT/labels.yaml`` may give the ids other meanings (see ``LabelTable``). Subclasses read
    other layouts: they find the files and turn the pixels of a label into class ids.

    Args:
        root: Folder of the dataset.
        split: ``'train'``, ``'val'`` or another split.
        classes: Classes of the label ids. A label with another id, except 255, is an error when it is read.
        require_labels: Whether a missing label is an error now. If false, it is an error when the label is read, so
            that ``stdc_core.data.check`` can list all problems.

    Attributes:
        root: Folder of the dataset.
        split: Split.
        classes: Classes of the label ids.
        table: Table of ``ROOT/labels.yaml``, or None.
        unlabelled: Whether the split has no labels, so that every pixel is 255 (see ``allow_no_labels``).
        label_sets: Sets of two or more classes that labels stand for. Label ``len(classes) + k`` is set ``k``.
        warnings: Findings about the files, each a sentence.
        found_instead: What is in the folder of labels, if images lack a label; else empty.

    Raises:
        FileNotFoundError: The folder, its images or labels are missing. The message names them.
        ValueError: ``labels.yaml`` is not a label table.
    """

    #: Description of the files of this layout.
    looks_for = 'ROOT/SPLIT/images/* and ROOT/SPLIT/labels/*.png of the same stem'

    def __init__(self, root: str | Path, split: str, classes: ClassTable, require_labels: bool = True):
        self.root, self.split, self.classes = Path(root), split, classes
        self.warnings: list[str] = []
        self.found_instead = ''
        self.unlabelled = False
        self.table: LabelTable | None = None
        self.label_sets: tuple[frozenset[int], ...] = ()
        if (self.root / LABEL_TABLE).is_file():
            if type(self)._ids is SegmentationFolder._ids:
                self.table = LabelTable.from_yaml(self.root / LABEL_TABLE)
                meant = self.table.sets(classes)
                self.use_label_sets(tuple(dict.fromkeys(each for each in meant.values() if len(each) > 1)))
            else:
                self.warnings.append(f'{self.root / LABEL_TABLE}: not used, because this layout has its own ids')
        self._files = self._find()
        missing = self.missing_labels()
        if missing and require_labels:
            raise FileNotFoundError(
                f'{self}: {len(missing)} of {len(self)} images have no label, the first {some(missing)}'
                + (f'; {self.found_instead}' if self.found_instead else '')
            )

    def allow_no_labels(self) -> None:
        """Read a split without a folder of labels as one whose pixels are all 255."""
        self.unlabelled = not any(label.parent.is_dir() for _, label in self._files)

    def use_label_sets(self, sets: tuple[frozenset[int], ...]) -> None:
        """Set the numbers of the sets of classes, so that all datasets of a training have the same numbers.

        Args:
            sets: Sets of all datasets, including those of this one.

        Raises:
            ValueError: There are too many sets for labels of 8 bits.
        """
        if len(self.classes) + len(sets) > UNKNOWN:
            raise ValueError(
                f'{self}: found {len(self.classes)} classes and {len(sets)} sets of classes, '
                f'expected at most {UNKNOWN} together'
            )
        self.label_sets = sets
        if self.table is None:
            return
        numbers = {each: len(self.classes) + index for index, each in enumerate(sets)}
        self._lut = np.full(256, UNKNOWN, np.uint8)
        self._lut[IGNORE] = IGNORE
        for number, meant in self.table.sets(self.classes).items():
            self._lut[number] = numbers[meant] if len(meant) > 1 else next(iter(meant), IGNORE)

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: int) -> Sample:
        """Return a sample.

        Args:
            index: Index of the image, from 0.

        Raises:
            FileNotFoundError: The label does not exist.
            ValueError: A file is not an image, or the label has another size or an unknown id. The message names the
                file.
        """
        image, label = self.image(index), self.label(index)
        if label.shape != image.shape[:2]:
            raise LabelError(wrong_size(self._files[index][1], label.shape, image.shape[:2]))
        return Sample(image, label, self.name(index))

    def __str__(self) -> str:
        return f'{self.root}/{self.split}'

    @classmethod
    def fits(cls, root: Path, split: str) -> bool:
        """Return whether the folder ``root`` has this layout and the split."""
        return (root / split / 'images').is_dir()

    def files(self, index: int) -> tuple[Path, Path]:
        """Return the paths of an image and its label."""
        return self._files[index]

    def name(self, index: int) -> str:
        """Return the name of an image: its file name without suffix."""
        return self._files[index][0].stem

    def image(self, index: int) -> np.ndarray:
        """Return an image without its label, uint8 BGR ``[H, W, 3]``. Raises ValueError if the file is not an image."""
        return read_image(self._files[index][0])

    def label(self, index: int) -> np.ndarray:
        """Return a label without its image, uint8 ``[H, W]``. Raises the errors of ``__getitem__``."""
        return self.label_and_counts(index)[0]

    def label_and_counts(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Return a label and its number of pixels of each id.

        Args:
            index: Index of the image, from 0.

        Returns:
            uint8 ``[H, W]`` and int64 ``[256]``.

        Raises:
            FileNotFoundError: The label does not exist.
            ValueError: The label is not an image of ids, or has an unknown id. The message names the file.
        """
        path = self._files[index][1]
        if self.unlabelled:
            label = np.full(self.image(index).shape[:2], IGNORE, np.uint8)
            return label, np.bincount(label.ravel(), minlength=256)
        try:
            label = self._ids(path)
        except FileNotFoundError:
            raise FileNotFoundError(f'{path}: no such label, expected one for {self._files[index][0]}') from None
        # Without a table, an id above the classes would be taken for a set of another dataset.
        sets = len(self.label_sets) if self.table is not None else 0
        return label, count_ids(label, len(self.classes) + sets, path)

    def missing_labels(self) -> list[Path]:
        """Return the paths of labels that do not exist."""
        return [] if self.unlabelled else [label for _, label in self._files if not label.is_file()]

    def _find(self) -> list[tuple[Path, Path]]:
        """Return image and label of each sample, in the order of the names.

        Raises:
            FileNotFoundError: There are no images.
        """
        folder = self.root / self.split
        if not (folder / 'images').is_dir():
            raise FileNotFoundError(f'{folder}: expected a folder images/ with images and labels/ with label PNGs')
        images = pictures(folder / 'images')
        if not images:
            raise FileNotFoundError(f'{folder / "images"}: no images ({", ".join(IMAGE_SUFFIXES)})')
        labels = folder / (self.table.folder if self.table else 'labels')
        names = {path.stem: path for path in pictures(labels) if path.suffix.lower() == '.png'}  # .PNG as well
        pairs = [(image, names.get(image.stem, labels / f'{image.stem}.png')) for image in images]
        if any(image.stem not in names for image in images):
            self.found_instead = _found_instead(labels, {label.name for _, label in pairs})
        lonely = sorted({p.name for p in pictures(labels)} - {label.name for _, label in pairs})
        if lonely:
            self.warnings.append(f'{labels}: {len(lonely)} files have no image, the first {some(lonely, 3)}')
        return pairs

    def _ids(self, path: Path) -> np.ndarray:
        """Read a label as ids, uint8 ``[H, W]``. The caller checks that the class table has them.

        Raises:
            LabelError: The file is not an image of ids, or ``labels.yaml`` lacks an id.
        """
        ids = read_ids(path)
        if self.table is None:
            return ids
        label = cv2.LUT(ids, self._lut)
        if (label == UNKNOWN).any():
            counts = np.bincount(ids.ravel(), minlength=256)
            found = [int(number) for number in np.flatnonzero(counts) if self._lut[number] == UNKNOWN]
            unknown = {number: int(counts[number]) for number in found}
            raise LabelError(f'{path}: ids {list(unknown)} are not in {self.table.path}', unknown)
        return label


def wrong_size(label: Path, found: tuple[int, ...], expected: tuple[int, ...]) -> str:
    """Return the error for a label that is not as large as its image.

    Args:
        label: File of the label.
        found: (height, width) of the label, pixels.
        expected: (height, width) of the image, pixels.
    """
    turned = ', which is read upright, as its EXIF data says' if found == expected[::-1] else ''
    return f'{label}: found size {found}, expected that of its image, {expected}{turned}'


def _found_instead(labels: Path, expected: set[str]) -> str:
    """Return which files of a folder of labels have other names than the expected ones, for an error."""
    if not labels.is_dir():
        beside = sorted(path.name for path in labels.parent.iterdir() if path.is_dir())
        return f'{labels}: no such folder, found {some(beside, 5)}'
    others = sorted(path.name for path in labels.iterdir() if path.name not in expected and path.name[0] != '.')
    return f'{labels}: expected a PNG with the name of each image, found {some(others, 3)}' if others else ''


def pictures(folder: Path) -> list[Path]:
    """Return the images in a folder, sorted, without hidden ones; an empty list if the folder does not exist."""
    if not folder.is_dir():
        return []
    return sorted(p for p in folder.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES and not p.name.startswith('.'))
