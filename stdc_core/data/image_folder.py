# SPDX-License-Identifier: Apache-2.0
"""Read and crop images for classification from ``ROOT/SPLIT/CLASS/*``, the layout of ImageNet."""

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
    """Images of one split with the numbers of their classes, class by class.

    Args:
        root: Folder of the dataset.
        split: ``'train'`` or ``'val'``.
        classes: Names of the classes in the order of their numbers. None takes the folders of this split, sorted,
            without hidden ones.

    Raises:
        FileNotFoundError: The split, its class folders or their images are missing. The message names them.
        ValueError: The split has a folder for a class that is not among ``classes``.
    """

    def __init__(self, root: str | Path, split: str, classes: Sequence[str] | None = None):
        self.split = split
        self._folder = Path(root) / split
        if not self._folder.is_dir():
            raise FileNotFoundError(f'{self._folder}: not found; expected a folder with one folder of images per class')
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
        # Arrays, because reading a list of a million objects would write to their reference counts, and the workers
        # would then no longer share its memory.
        self._names = np.array(names)
        self._labels = np.array(labels, np.int32)

    def __len__(self) -> int:
        return len(self._labels)

    def path(self, index: int) -> Path:
        """Return the file of an image."""
        return self._folder / self.classes[self._labels[index]] / os.fsdecode(bytes(self._names[index]))

    def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
        """Return an image, uint8 BGR ``[H, W, 3]``, and the number of its class.

        Raises:
            ValueError: The file is not an image. The message names it.
        """
        return read_image(self.path(index)), int(self._labels[index])


def _images(folder: Path) -> list[bytes]:
    """Return the names of the images in a folder, sorted, without hidden ones."""
    with os.scandir(folder) as entries:
        names = (entry.name for entry in entries if not entry.name.startswith('.'))
        return sorted(os.fsencode(name) for name in names if name.lower().endswith(IMAGE_SUFFIXES))


@dataclass(frozen=True)
class RandomCrop:
    """Takes a random part of an image for training, scales it to one size, and mirrors and relights it at random.

    Args:
        size: Height and width of the result, pixels.
        area_min: Smallest share of the area of the image to take; the largest is 1.
        jitter: Largest relative change of each of brightness, contrast and saturation, 0 to 1.
    """

    size: int = 224
    area_min: float = 0.08
    jitter: float = 0.4

    def __call__(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Return a random part of an image.

        Args:
            image: uint8 BGR ``[H, W, 3]``.
            rng: Source of the random numbers.

        Returns:
            uint8 BGR ``[size, size, 3]``.
        """
        top, left, height, width = self._part(image.shape[0], image.shape[1], rng)
        image = _resize(image[top : top + height, left : left + width], self.size, self.size)
        if rng.random() < 0.5:
            image = image[:, ::-1]
        return relight(image, *draw_light(self.jitter, self.jitter, self.jitter, rng))

    def _part(self, height: int, width: int, rng: np.random.Generator) -> tuple[int, int, int, int]:
        """Draw a part of an image whose ratio of width to height is 3/4 to 4/3.

        Args:
            height: Height of the image, pixels.
            width: Width of the image, pixels.
            rng: Source of the random numbers.

        Returns:
            Top, left, height and width, pixels. If no drawn part fits into the image, this is its middle.
        """
        for _ in range(10):
            area = height * width * rng.uniform(self.area_min, 1)
            ratio = np.exp(rng.uniform(np.log(3 / 4), np.log(4 / 3)))
            h, w = round(np.sqrt(area / ratio)), round(np.sqrt(area * ratio))
            if 0 < h <= height and 0 < w <= width:
                return int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1)), h, w
        h, w = min(height, max(1, width * 4 // 3)), min(width, max(1, height * 4 // 3))
        return (height - h) // 2, (width - w) // 2, h, w


def centre_crop(image: np.ndarray, size: int = 224) -> np.ndarray:
    """Return the middle of an image for validation.

    The image is first scaled so that its short side is 8/7 of ``size``: 256 pixels for 224.

    Args:
        image: uint8 BGR ``[H, W, 3]``.
        size: Height and width of the result, pixels.

    Returns:
        uint8 BGR ``[size, size, 3]``.
    """
    short = round(size * 8 / 7)
    factor = short / min(image.shape[:2])
    height, width = (max(short, round(side * factor)) for side in image.shape[:2])
    image = _resize(image, height, width)
    top, left = (height - size) // 2, (width - size) // 2
    return np.ascontiguousarray(image[top : top + size, left : left + size])


def _resize(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Scale an image: by area averages if it gets smaller, else bilinear."""
    shrinks = height * width < image.shape[0] * image.shape[1]
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
