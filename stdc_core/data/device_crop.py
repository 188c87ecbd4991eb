# SPDX-License-Identifier: Apache-2.0
"""Crop and relight batches of stored images on their device."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor


class Neighbours(NamedTuple):
    """Stored values around the pixels of a batch of crops.

    A map of a crop treats rows and columns separately, so that only the sum of their indices is as large as the crop.

    Args:
        upper, lower, nearest_row: Index of the first value of a row, int64 ``[B, h, 1]``.
        left, right, nearest_column: Index of a value in its row, int64 ``[B, 1, w]``.
        x, y: Weights of the right and of the lower neighbours, float32 ``[B, 1, 1, w]`` and ``[B, 1, h, 1]``.
    """

    upper: Tensor
    lower: Tensor
    nearest_row: Tensor
    left: Tensor
    right: Tensor
    nearest_column: Tensor
    x: Tensor
    y: Tensor

    @staticmethod
    def of(numbers: Tensor, size: tuple[int, int]) -> Neighbours:
        """Return the neighbours of the pixels of crops.

        Images are stored row by row with a border of one value. Coordinates outside an image are clamped to it.

        Args:
            numbers: Index of the first value of the image (of its border), height and width without the border, factor
                and offset of the map from columns of the crop to columns of the image, and the same for rows, float64
                ``[B, 7]``.
            size: (height, width) of the crops, pixels.
        """
        first, height, width, x_factor, x_offset, y_factor, y_offset = numbers.split(1, dim=1)
        left, right, nearest_column, x = _taps(x_factor, x_offset, width, size[1])
        upper, lower, nearest_row, y = _taps(y_factor, y_offset, height, size[0])
        first, stride = first.long(), width.long() + 2
        upper, lower, nearest_row = ((first + row * stride)[:, :, None] for row in (upper, lower, nearest_row))
        left, right, nearest_column = (column[:, None] for column in (left, right, nearest_column))
        x, y = x[:, None, None, :], y[:, None, :, None]
        return Neighbours(upper, lower, nearest_row, left, right, nearest_column, x, y)

    def interpolate(self, look_up: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        """Interpolate bilinearly.

        Args:
            look_up: Function from the indices of rows and columns to new values, float32 ``[B, C, h, w]``.

        Returns:
            float32 ``[B, C, h, w]``.
        """
        result = look_up(self.upper, self.left).lerp_(look_up(self.upper, self.right), self.x)
        return result.lerp_(look_up(self.lower, self.left).lerp_(look_up(self.lower, self.right), self.x), self.y)


def _taps(factor: Tensor, offset: Tensor, size: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Find the neighbours of the pixels of the crop in the image with its border, along one axis.

    Args:
        factor: Factor of the map from pixels of the crop to pixels of the image, float64 ``[B, 1]``.
        offset: Offset of this map, float64 ``[B, 1]``.
        size: Size of the image, float64 ``[B, 1]``.
        count: Number of pixels of the crop.

    Returns:
        Lower, upper and nearest neighbour, int64 ``[B, count]``, and the weight of the upper neighbour, float32.
    """
    position = torch.arange(count, dtype=factor.dtype, device=factor.device) * factor + offset
    lower = position.floor()
    # Shifted by one for the border.
    nearest = (position + 0.5).floor()

    def inside(at: Tensor) -> Tensor:
        return (at.clamp(min=-1).minimum(size) + 1).long()

    return inside(lower), inside(lower + 1), inside(nearest), (position - lower).float()


def relight_batch(image: Tensor, numbers: Tensor) -> Tensor:
    """Change the light of a batch.

    Args:
        image: float32 BGR ``[B, 3, h, w]``.
        numbers: Colour matrix and multiple of the mean of each sample, float32 ``[B, 10]``.

    Returns:
        uint8 BGR ``[B, h, w, 3]``.
    """
    count, _, height, width = image.shape
    flat = image.flatten(2)
    grey = flat.mean(dim=(1, 2)) * numbers[:, 9]
    with torch.autocast(image.device.type, enabled=False):
        flat = torch.baddbmm(grey[:, None, None], numbers[:, :9].view(count, 3, 3), flat)
    return flat.round_().clamp_(0, 255).to(torch.uint8).view(count, 3, height, width).permute(0, 2, 3, 1)


def to_device(numbers: np.ndarray, device: torch.device) -> Tensor:
    """Return an array on a device, copied there without waiting for it."""
    tensor = torch.from_numpy(numbers)
    if device.type == 'cuda':
        # A copy from pageable memory would wait for the device.
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)
