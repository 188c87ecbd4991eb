# SPDX-License-Identifier: Apache-2.0
"""Keep small datasets in the memory of the device, and augment them there in batches."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

from stdc_core.classes import IGNORE
from stdc_core.data.augment import PADDING, Augmentation, draw_light
from stdc_core.data.schedule import SampleKey, Samples, ScheduleSampler, read_all

#: Number of images of each (height, width) in pixels, as in ``DataReport``.
Sizes = Mapping[tuple[int, int], int]

# A pixel has four bytes, blue, green, red and class id, which are looked up together as one int32.
_PIXEL_BYTES = 4


def resident_bytes(sizes: Sequence[Sizes]) -> int:
    """Return the memory in bytes that ``ResidentDataset`` takes for datasets with these image sizes."""
    return _PIXEL_BYTES * sum(count * _bordered(*size) for each in sizes for size, count in each.items())


def available_bytes(device: torch.device | str) -> int:
    """Return the free memory of a device in bytes.

    For the CPU, this is the smaller one of what Linux and the memory limit of the container leave. On systems other
    than Linux, it is 0.
    """
    device = torch.device(device)
    if device.type == 'cuda':
        return torch.cuda.mem_get_info(device)[0]
    meminfo, control = Path('/proc/meminfo'), Path('/sys/fs/cgroup')
    if not meminfo.is_file():
        return 0
    available = int(_table(meminfo)['MemAvailable:']) * 1024
    limit = control / 'memory.max'
    if limit.is_file() and limit.read_text().strip() != 'max':
        # The count of used memory includes cached files, which the kernel drops when memory is needed.
        used = int((control / 'memory.current').read_text()) - int(_table(control / 'memory.stat')['inactive_file'])
        available = min(available, int(limit.read_text()) - used)
    return available


def _table(path: Path) -> dict[str, str]:
    """Read the names and values in the lines of a kernel file."""
    return {words[0]: words[1] for words in map(str.split, path.read_text().splitlines())}


def fits(sizes: Sequence[Sizes], device: torch.device | str, share: float = 0.5) -> bool:
    """Return whether datasets fit into a share of the free memory of a device.

    Args:
        sizes: Image sizes of each dataset.
        device: Device.
        share: Share of the free memory, 0 to 1.
    """
    return resident_bytes(sizes) <= share * available_bytes(device)


def _bordered(height: int, width: int) -> int:
    """Return the number of pixels of an image with its border."""
    return (height + 2) * (width + 2)


class ResidentDataset:
    """All samples of some datasets, decoded, in the memory of a device.

    The images are stored one after another, each at its own size, with a border of one grey pixel without a class.
    Coordinates outside an image are clamped to its border.

    Args:
        datasets: Datasets to read.
        sizes: Image sizes of each dataset.
        device: Device.

    Attributes:
        pixels: Pixels on the device, int32 ``[P]``; the bytes of a pixel are blue, green, red and class id.
        places: Table of each dataset, int64 ``[N, 3]``: index of the first pixel of an image (of its border), height
            and width.
    """

    def __init__(self, datasets: Sequence[Samples], sizes: Sequence[Sizes], device: torch.device | str = 'cpu'):
        self.pixels = torch.empty(resident_bytes(sizes) // _PIXEL_BYTES, dtype=torch.int32, device=device)
        places: list[list[tuple[int, int, int]]] = [[] for _ in datasets]
        end = 0
        for number, sample in read_all(datasets):
            begin, (height, width) = end, sample.label.shape
            end += _bordered(height, width)
            self.pixels[begin:end] = _packed(sample.image, sample.label)
            places[number].append((begin, height, width))
        self.places = [np.array(rows, np.int64).reshape(-1, 3) for rows in places]

    @property
    def device(self) -> torch.device:
        """Return the device of the pixels."""
        return self.pixels.device


def _packed(image: np.ndarray, label: np.ndarray) -> Tensor:
    """Return an image and its label with their border, int32 ``[(H + 2) * (W + 2)]``."""
    pixels = cv2.merge([image, label])
    pixels = cv2.copyMakeBorder(pixels, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=(*PADDING, IGNORE))
    return torch.from_numpy(pixels.reshape(-1).view(np.int32))


class BatchAugmentation:
    """Applies ``Augmentation`` to a batch of a ``ResidentDataset`` on its device.

    A key gives the same crop as in ``AugmentedSamples``, because the random numbers are the same, drawn on the CPU.
    Pixels differ only by rounding: OpenCV interpolates with fewer bits, and rounds before it changes the light.

    Args:
        augmentation: Size of the crop and ranges of the changes.
    """

    def __init__(self, augmentation: Augmentation):
        self.augmentation = augmentation

    @torch.no_grad()
    def __call__(self, data: ResidentDataset, keys: Sequence[SampleKey]) -> tuple[Tensor, Tensor]:
        """Return random crops of samples.

        Args:
            data: Samples.
            keys: Keys of the samples of the batch.

        Returns:
            uint8 BGR ``[B, h, w, 3]`` and uint8 ids ``[B, h, w]``, 255 outside the image, on the device of ``data``.
        """
        numbers = torch.from_numpy(np.stack([self._numbers(data, key) for key in keys]))
        if data.device.type == 'cuda':
            # A copy from pageable memory would wait for the device.
            numbers = numbers.pin_memory()
        numbers = numbers.to(data.device, non_blocking=True)
        image, label = _crop(data.pixels, numbers[:, :7], self.augmentation.crop)
        return _relight(image, numbers[:, 7:].float()), label

    def _numbers(self, data: ResidentDataset, key: tuple[int, int, int]) -> np.ndarray:
        """Return the parameters of a crop for the device, float64 ``[17]``.

        They are the place of the image (3), factor and offset of the map from columns of the crop to columns of the
        image, the same for rows (4), the colour matrix row by row (9), and the multiple of the mean of the crop to add
        to every channel (1).
        """
        dataset, index, seed = key
        place = data.places[dataset][index]
        rng = np.random.default_rng(seed)
        # Random numbers are drawn in the order of Augmentation.
        matrix = self.augmentation.placement(tuple(place[1:]), rng)
        look = self.augmentation
        colour, lift = draw_light(look.brightness, look.contrast, look.saturation, rng)
        (x_factor, _, x_offset), (_, y_factor, y_offset) = matrix
        inverse = [1 / x_factor, -x_offset / x_factor, 1 / y_factor, -y_offset / y_factor]
        return np.concatenate([place, inverse, colour.ravel(), [lift]])


def _crop(pixels: Tensor, numbers: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Crop a batch: the image bilinearly, the label by the nearest pixel.

    Args:
        pixels: Pixels of ``ResidentDataset``.
        numbers: Place and maps of each sample, float64 ``[B, 7]``.
        size: (height, width) of the crops, pixels.

    Returns:
        float32 ``[B, 3, h, w]`` and uint8 ``[B, h, w]``.
    """
    first, height, width, x_factor, x_offset, y_factor, y_offset = numbers.split(1, dim=1)
    # The map treats rows and columns separately, so that only the sum of their indices is as large as the crop.
    left, right, nearest_column, x = _taps(x_factor, x_offset, width, size[1])
    upper, lower, nearest_row, y = _taps(y_factor, y_offset, height, size[0])
    first, stride = first.long(), width.long() + 2
    upper, lower, nearest_row = ((first + rows * stride)[:, :, None] for rows in (upper, lower, nearest_row))
    left, right, nearest_column = (columns[:, None] for columns in (left, right, nearest_column))

    def look_up(rows: Tensor, columns: Tensor) -> Tensor:
        """Return the bytes of the pixels in these rows and columns, uint8 ``[B, 4, h, w]``."""
        index = rows + columns
        return pixels.index_select(0, index.flatten()).view(torch.uint8).view(*index.shape, 4).permute(0, 3, 1, 2)

    def colours(rows: Tensor, columns: Tensor) -> Tensor:
        return look_up(rows, columns)[:, :3].to(torch.float32, memory_format=torch.contiguous_format)

    x, y = x[:, None, None, :], y[:, None, :, None]
    image = colours(upper, left).lerp_(colours(upper, right), x)
    image.lerp_(colours(lower, left).lerp_(colours(lower, right), x), y)
    return image, look_up(nearest_row, nearest_column)[:, 3].contiguous()


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


def _relight(image: Tensor, numbers: Tensor) -> Tensor:
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


class ResidentLoader:
    """Loads the same batches as a ``DataLoader`` over ``AugmentedSamples``, on the device.

    Args:
        data: Samples.
        augmentation: Random changes of the samples.
        sampler: Sampler that supplies the keys of each batch.
    """

    def __init__(self, data: ResidentDataset, augmentation: Augmentation, sampler: ScheduleSampler):
        self.data = data
        self.sampler = sampler
        self._augment = BatchAugmentation(augmentation)

    def __len__(self) -> int:
        return len(self.sampler)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the batches: uint8 BGR ``[B, h, w, 3]`` and uint8 ids ``[B, h, w]``."""
        for keys in self.sampler:
            yield self._augment(self.data, keys)
