# SPDX-License-Identifier: Apache-2.0
"""Images with labels: the interface of every dataset, and the plain layout ``ROOT/SPLIT/images`` and ``.../labels``."""

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
    """One image with its label.

    Args:
        image: uint8 ``[H, W, 3]`` BGR.
        label: uint8 ``[H, W]``: class ids, then the numbers of ``SegmentationFolder.label_sets``; 255 is ignored.
        name: Name of the image.
    """

    image: np.ndarray
    label: np.ndarray
    name: str


class SegmentationFolder:
    """The images of one split in the order of their names, with their labels.

    Here they are ``ROOT/SPLIT/images/*`` and, of the same stem, ``ROOT/SPLIT/labels/*.png``, greyscale PNGs of class
    ids. Subclasses are other layouts: they say which files there are and what a label's pixels mean. A file
    ``ROOT/labels.yaml`` says that the ids mean other classes, or sets of classes (see ``LabelTable``).

    Args:
        root: the dataset's folder.
        split: ``'train'``, ``'val'``, ...
        classes: what the ids mean; a label with another id (but for 255) is an error when it is read.
        require_labels: without, images whose label is missing are no error until the label is read, so that
            ``stdc_core.data.check`` can list them with everything else.

    Attributes:
        root, split, classes: as given.
        table: Table of ``ROOT/labels.yaml``, or None.
        unlabelled: Whether there are no labels, so that every pixel is 255 (see ``allow_no_labels``).
        label_sets: Sets of two or more classes that labels may stand for. Label ``len(classes) + k`` is set ``k``.
        warnings: what is odd about the files found, one sentence each.

    Raises:
        FileNotFoundError: the folder, its images or labels of images are missing; the message names them.
    """

    #: Where the files of this layout are.
    looks_for = 'ROOT/SPLIT/images/* and ROOT/SPLIT/labels/*.png of the same stem'

    def __init__(self, root: str | Path, split: str, classes: ClassTable, require_labels: bool = True):
        self.root, self.split, self.classes = Path(root), split, classes
        self.warnings: list[str] = []
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
            )

    def allow_no_labels(self) -> None:
        """Take a dataset without a folder of labels for one in which no pixel has a class."""
        self.unlabelled = not any(label.parent.is_dir() for _, label in self._files)

    def use_label_sets(self, sets: tuple[frozenset[int], ...]) -> None:
        """Number the sets of classes as all datasets of a training do.

        Args:
            sets: Sets of all datasets, those of this one among them.

        Raises:
            ValueError: There are more sets than labels have numbers.
        """
        if len(self.classes) + len(sets) > UNKNOWN:
            raise ValueError(
                f'{self}: {len(self.classes)} classes and {len(sets)} sets of them, expected at most {UNKNOWN} together'
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
        """Raises ValueError, naming the file, for one that is no image, of another size, or with an unknown id."""
        image, label = self.image(index), self.label(index)
        if label.shape != image.shape[:2]:
            raise LabelError(f'{self._files[index][1]}: is {label.shape}, but its image is {image.shape[:2]}')
        return Sample(image, label, self.name(index))

    def __str__(self) -> str:
        return f'{self.root}/{self.split}'

    @classmethod
    def fits(cls, root: Path, split: str) -> bool:
        """Whether ``root`` has this layout and the split."""
        return (root / split / 'images').is_dir()

    def files(self, index: int) -> tuple[Path, Path]:
        """Paths of the image and the label."""
        return self._files[index]

    def name(self, index: int) -> str:
        """The image's name: its file's stem."""
        return self._files[index][0].stem

    def image(self, index: int) -> np.ndarray:
        """The image alone, uint8 ``[H, W, 3]`` BGR. Raises ValueError, naming the file, for one that is no image."""
        return read_image(self._files[index][0])

    def label(self, index: int) -> np.ndarray:
        """The label alone, uint8 ``[H, W]``. Raises ValueError as ``__getitem__`` does."""
        return self.label_and_counts(index)[0]

    def label_and_counts(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """The label, and its pixels per id, int64 ``[256]``. Raises ValueError as ``__getitem__`` does."""
        path = self._files[index][1]
        if self.unlabelled:
            label = np.full(self.image(index).shape[:2], IGNORE, np.uint8)
            return label, np.bincount(label.ravel(), minlength=256)
        try:
            label = self._ids(path)
        except FileNotFoundError:
            raise FileNotFoundError(f'{path}: no such label, of the image {self._files[index][0]}') from None
        return label, count_ids(label, len(self.classes) + len(self.label_sets), path)

    def missing_labels(self) -> list[Path]:
        """The labels that should be there and are not."""
        return [] if self.unlabelled else [label for _, label in self._files if not label.is_file()]

    def _find(self) -> list[tuple[Path, Path]]:
        """Image and label of each sample, in the order of the names. Raises FileNotFoundError where there is none."""
        folder = self.root / self.split
        if not (folder / 'images').is_dir():
            raise FileNotFoundError(f'{folder}: expected a folder images/ with images and labels/ with label PNGs')
        images = pictures(folder / 'images')
        if not images:
            raise FileNotFoundError(f'{folder / "images"}: no images ({", ".join(IMAGE_SUFFIXES)})')
        labels = folder / (self.table.folder if self.table else 'labels')
        pairs = [(image, labels / f'{image.stem}.png') for image in images]
        lonely = sorted({p.name for p in pictures(labels)} - {label.name for _, label in pairs})
        if lonely:
            self.warnings.append(f'{labels}: {len(lonely)} files have no image, the first {some(lonely, 3)}')
        return pairs

    def _ids(self, path: Path) -> np.ndarray:
        """Read a label as uint8 ``[H, W]`` ids; ids that the table lacks are found later."""
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


def pictures(folder: Path) -> list[Path]:
    """The images in a folder by name, without hidden ones; none if there is no such folder."""
    if not folder.is_dir():
        return []
    return sorted(p for p in folder.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES and not p.name.startswith('.'))
