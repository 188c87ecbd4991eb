# SPDX-License-Identifier: Apache-2.0
"""Images for classification: ``ROOT/SPLIT/CLASS/*``, as ImageNet is laid out, and how they become network input."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from stdc_core.data.augment import draw_light, relight
from stdc_core.data.folder import IMAGE_SUFFIXES
from stdc_core.data.reading import read_image


class ImageFolder:
    """The images of one split, class by class, with the class as a number.

    Args:
        root: the dataset's folder.
        split: ``'train'`` or ``'val'``.
        classes: names of the classes in the order of their numbers; None: the folders of this split, sorted; hidden
            ones are none.

    Raises:
        FileNotFoundError: the split, its class folders or their images are missing; the message names them.
        ValueError: there is a folder of a class that is not among ``classes``.
    """

    def __init__(self, root: str | Path, split: str, classes: Sequence[str] | None = None):
        self.split = split
        self._folder = Path(root) / split
        if not self._folder.is_dir():
            raise FileNotFoundError(f'{self._folder}: not there; expected a folder with one folder of images per class')
        entries = (entry for entry in self._folder.iterdir() if not entry.name.startswith('.'))
        found = sorted(entry.name for entry in entries if entry.is_dir())
        if not found:
            raise FileNotFoundError(f'{self._folder}: expected one folder of images per class, found none')
        self.classes = tuple(found if classes is None else classes)
        unknown = [name for name in found if name not in set(self.classes)]
        if unknown:
            raise ValueError(
                f'{self._folder / unknown[0]}: not one of the {len(self.classes)} classes of the other split'
                + (f'; and {len(unknown) - 1} more' if len(unknown) > 1 else '')
            )
        names: list[bytes] = []
        labels: list[int] = []
        for label, name in enumerate(self.classes):
            images = _images(self._folder / name) if name in set(found) else []
            if not images and classes is None:
                raise FileNotFoundError(f'{self._folder / name}: no images ({", ".join(IMAGE_SUFFIXES)})')
            names += images
            labels += [label] * len(images)
        if not names:
            raise FileNotFoundError(f'{self._folder}: no images ({", ".join(IMAGE_SUFFIXES)})')
        # Two arrays instead of a million objects, whose reference counts would unshare the memory of the workers.
        self._names = np.array(names)
        self._labels = np.array(labels, np.int32)

    def __len__(self) -> int:
        return len(self._labels)

    def path(self, index: int) -> Path:
        """The file of an image."""
        return self._folder / self.classes[self._labels[index]] / os.fsdecode(bytes(self._names[index]))

    def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
        """Image, uint8 ``[H, W, 3]`` BGR, and class. Raises ValueError, naming the file, for one that is no image."""
        return read_image(self.path(index)), int(self._labels[index])


def _images(folder: Path) -> list[bytes]:
    with os.scandir(folder) as entries:
        names = (entry.name for entry in entries if not entry.name.startswith('.'))
        return sorted(os.fsencode(name) for name in names if name.lower().endswith(IMAGE_SUFFIXES))


@dataclass(frozen=True)
class RandomCrop:
    """What training sees of an image: a random part of it, enlarged to one size, mirrored and relit.

    Args:
        size: height and width of the result, pixels.
        area_min: smallest share of the image's area that is taken; the largest is 1.
        jitter: largest relative change of each of brightness, contrast and saturation.
    """

    size: int = 224
    area_min: float = 0.08
    jitter: float = 0.4

    def __call__(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """uint8 BGR ``[H, W, 3]`` to ``[size, size, 3]``."""
        top, left, height, width = self._part(image.shape[0], image.shape[1], rng)
        image = _resize(image[top : top + height, left : left + width], self.size, self.size)
        if rng.random() < 0.5:
            image = image[:, ::-1]
        return relight(image, *draw_light(self.jitter, self.jitter, self.jitter, rng))

    def _part(self, height: int, width: int, rng: np.random.Generator) -> tuple[int, int, int, int]:
        """Top, left, height and width of a part whose sides are as 3 : 4 to 4 : 3; the middle if none fits."""
        for _ in range(10):
            area = height * width * rng.uniform(self.area_min, 1)
            ratio = np.exp(rng.uniform(np.log(3 / 4), np.log(4 / 3)))
            h, w = round(np.sqrt(area / ratio)), round(np.sqrt(area * ratio))
            if 0 < h <= height and 0 < w <= width:
                return int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1)), h, w
        h, w = min(height, max(1, width * 4 // 3)), min(width, max(1, height * 4 // 3))
        return (height - h) // 2, (width - w) // 2, h, w


def centre_crop(image: np.ndarray, size: int = 224) -> np.ndarray:
    """What validation sees: the middle of the image, whose short side is first made 8/7 of ``size`` (256 for 224).

    uint8 ``[H, W, 3]`` to ``[size, size, 3]``.
    """
    short = round(size * 8 / 7)
    factor = short / min(image.shape[:2])
    height, width = (max(short, round(side * factor)) for side in image.shape[:2])
    image = _resize(image, height, width)
    top, left = (height - size) // 2, (width - size) // 2
    return np.ascontiguousarray(image[top : top + size, left : left + size])


def _resize(image: np.ndarray, height: int, width: int) -> np.ndarray:
    shrinks = height * width < image.shape[0] * image.shape[1]
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
