# SPDX-License-Identifier: Apache-2.0
"""Keep the probabilities of a teacher in the memory of the device, and crop them there in batches."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from stdc_core.data.device_crop import Neighbours
from stdc_core.data.soft_targets import STRIDE, SoftTargets


class ResidentSoftTargets:
    """Probabilities of every image of some datasets, in the memory of a device.

    They are stored like the images of ``ResidentDataset``: one after another, with a border of 0.

    Args:
        soft: Files of the probabilities.
        lengths: Number of images of each dataset.
        device: Device.

    Raises:
        FileNotFoundError, ValueError: As ``SoftTargets.read``.
    """

    def __init__(self, soft: SoftTargets, lengths: Sequence[int], device: torch.device | str):
        keys = [(number, index) for number, length in enumerate(lengths) for index in range(length)]
        self._places: list[list[tuple[int, int, int]]] = [[] for _ in lengths]
        end, shapes = 0, [soft.read(*key).shape for key in keys]
        for (number, _), (_, height, width) in zip(keys, shapes, strict=True):
            self._places[number].append((end, height, width))
            end += (height + 2) * (width + 2)
        self._cells = torch.zeros(end, soft.num_classes, dtype=torch.uint8, device=device)
        for number, index in tqdm(keys, 'reading probabilities', unit='image', disable=None):
            bordered = np.pad(soft.read(number, index).transpose(1, 2, 0), ((1, 1), (1, 1), (0, 0)))
            begin = self._places[number][index][0]
            cells = torch.from_numpy(bordered.reshape(-1, soft.num_classes))
            self._cells[begin : begin + len(cells)] = cells

    def numbers(self, dataset: int, index: int, image: np.ndarray) -> np.ndarray:
        """Return the place of the probabilities of an image, and the map to them from cells of a crop.

        Args:
            dataset: Number of the dataset.
            index: Number of the image in it.
            image: Height and width of the image, pixels, factor and offset of the map from columns of the crop to
                columns of the image, and the same for rows, float64 ``[6]``.

        Returns:
            Arguments of ``Neighbours.of``, float64 ``[7]``.
        """
        place = self._places[dataset][index]
        height, width, x_factor, x_offset, y_factor, y_offset = image
        rows, columns = place[1] / height, place[2] / width
        # Centres of pixels and of cells are at half-integers.
        middle = (STRIDE - 1) / 2
        x = [STRIDE * x_factor * columns, (middle * x_factor + x_offset + 0.5) * columns - 0.5]
        y = [STRIDE * y_factor * rows, (middle * y_factor + y_offset + 0.5) * rows - 0.5]
        return np.array([*place, *x, *y])

    def crop(self, numbers: Tensor, size: tuple[int, int]) -> Tensor:
        """Return the probabilities in the cells of a batch of crops.

        Args:
            numbers: Result of ``numbers`` for each crop, float64 ``[B, 7]`` on the device.
            size: (height, width) of the crops, pixels.

        Returns:
            uint8 ``[B, C, ceil(height / 4), ceil(width / 4)]``; 0 for all classes outside the image.
        """

        def look_up(rows: Tensor, columns: Tensor) -> Tensor:
            index = rows + columns
            found = self._cells.index_select(0, index.flatten()).view(*index.shape, -1).permute(0, 3, 1, 2)
            return found.to(torch.float32, memory_format=torch.contiguous_format)

        cells = (-(-size[0] // STRIDE), -(-size[1] // STRIDE))
        return Neighbours.of(numbers, cells).interpolate(look_up).round_().to(torch.uint8)
