"""Datasets as folders: ``ROOT/SPLIT/images/*`` and ``ROOT/SPLIT/labels/*.png`` of the same stem."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from stdc_core.classes import IGNORE, ClassTable

IMAGE_SUFFIXES = ('.jpg', '.jpeg', '.png', '.webp', '.bmp')


class Sample(NamedTuple):
    """``image`` uint8 ``[H, W, 3]`` BGR; ``label`` uint8 ``[H, W]`` ids, 255 ignored; ``name`` the file's stem."""

    image: np.ndarray
    label: np.ndarray
    name: str


class SegmentationFolder:
    """The images of one split in the order of their names, with their labels.

    Args:
        root: the dataset's folder.
        split: ``'train'``, ``'val'``, ...
        classes: what the ids mean; a label with another id (but for 255) is an error when it is read.

    Raises:
        FileNotFoundError: the folder, its images or the label of an image are missing; the message names them.
    """

    def __init__(self, root: str | Path, split: str, classes: ClassTable):
        self.classes = classes
        folder = Path(root) / split
        if not (folder / 'images').is_dir():
            raise FileNotFoundError(f'{folder}: expected a folder images/ with images and labels/ with label PNGs')
        self._images = sorted(p for p in (folder / 'images').iterdir() if p.suffix.lower() in IMAGE_SUFFIXES)
        if not self._images:
            raise FileNotFoundError(f'{folder / "images"}: no images ({", ".join(IMAGE_SUFFIXES)})')
        self._labels = [folder / 'labels' / f'{image.stem}.png' for image in self._images]
        missing = [label for label in self._labels if not label.is_file()]
        if missing:
            raise FileNotFoundError(
                f'{len(missing)} of {len(self._images)} images have no label, the first {missing[0]}'
            )

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> Sample:
        """Raises ValueError, naming the file, for one that is no image, of another size, or with an unknown id."""
        path, label = self._images[index], self.label(index)
        image = _read(path, cv2.IMREAD_COLOR)
        if label.shape != image.shape[:2]:
            raise ValueError(f'{self._labels[index]}: is {label.shape}, but its image is {image.shape[:2]}')
        return Sample(image, label, path.stem)

    def label(self, index: int) -> np.ndarray:
        """The label alone, uint8 ``[H, W]``. Raises ValueError as ``__getitem__`` does."""
        path = self._labels[index]
        label = _read(path, cv2.IMREAD_UNCHANGED)
        if label.ndim != 2 or label.dtype != np.uint8:
            raise ValueError(f'{path}: expected one channel of 8-bit class ids, found {label.dtype} {label.shape}')
        count = len(self.classes)
        present = np.flatnonzero(np.bincount(label.ravel(), minlength=256)).tolist()
        unknown = [number for number in present if number >= count and number != IGNORE]
        if unknown:
            raise ValueError(f'{path}: class ids {unknown} are not in the table of {count} classes')
        return label


def _read(path: Path, flags: int) -> np.ndarray:
    array = cv2.imread(str(path), flags)
    if array is None:
        raise ValueError(f'{path}: not an image that OpenCV reads')
    return array
