# SPDX-License-Identifier: Apache-2.0
"""Read and crop the class probabilities that a teacher has written to disk."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

#: Side of a cell in crops of probabilities, pixels of the crop.
STRIDE = 4


class SoftTargets:
    """Probabilities for every image of some datasets, in files.

    Args:
        folder: Folder with a file for each image: uint8 ``[C, h, w]``, 0 to 1 as 0 to 255.
        num_classes: Number of classes C.
    """

    def __init__(self, folder: Path, num_classes: int):
        self.folder, self.num_classes = folder, num_classes

    def path(self, dataset: int, index: int) -> Path:
        """Return the file of image ``index`` of dataset number ``dataset``."""
        return self.folder / str(dataset) / f'{index:06d}.npy'

    def read(self, dataset: int, index: int) -> np.ndarray:
        """Return the probabilities of an image, uint8 ``[C, h, w]``, mapped from the file.

        Args:
            dataset: Number of the dataset.
            index: Number of the image in it.

        Raises:
            FileNotFoundError: The file does not exist.
            ValueError: The file does not contain such probabilities.
        """
        path = self.path(dataset, index)
        cells = np.load(path, mmap_mode='r')
        if cells.dtype != np.uint8 or cells.ndim != 3 or len(cells) != self.num_classes:
            raise ValueError(f'{path}: expected uint8 [{self.num_classes}, h, w], found {cells.dtype} {cells.shape}')
        return cells

    def nbytes(self, lengths: Sequence[int]) -> int:
        """Return the size of all files in bytes, for the number of images of each dataset."""
        return sum(self.path(number, i).stat().st_size for number, length in enumerate(lengths) for i in range(length))

    def crop(
        self, dataset: int, index: int, size: tuple[int, int], matrix: np.ndarray, crop: tuple[int, int]
    ) -> np.ndarray:
        """Return the probabilities in the cells of a crop.

        Args:
            dataset: Number of the dataset.
            index: Number of the image in it.
            size: (height, width) of the image, pixels.
            matrix: Affine map ``[2, 3]`` from pixels of the image to pixels of the crop.
            crop: (height, width) of the crop, pixels.

        Returns:
            uint8 ``[C, ceil(height / 4), ceil(width / 4)]``; 0 for all classes outside the image.

        Raises:
            FileNotFoundError, ValueError: As ``read``.
        """
        cells = self.read(dataset, index)
        # Maps cells of the file to pixels of the image, then to pixels and to cells of the crop. Centres are at
        # half-integers.
        into = _scaling(size[1] / cells.shape[2], size[0] / cells.shape[1])
        out_of = _scaling(1 / STRIDE, 1 / STRIDE)
        whole = out_of @ np.vstack([matrix, [0, 0, 1]]) @ into
        width, height = -(-crop[1] // STRIDE), -(-crop[0] // STRIDE)
        return np.stack([cv2.warpAffine(plane, whole[:2], (width, height), flags=cv2.INTER_LINEAR) for plane in cells])


def _scaling(x: float, y: float) -> np.ndarray:
    """Return the map ``[3, 3]`` that scales about the corner of the picture, for coordinates of pixel centres."""
    return np.array([[x, 0, x / 2 - 0.5], [0, y, y / 2 - 0.5], [0, 0, 1]])
