# SPDX-License-Identifier: Apache-2.0
"""Small datasets that live on the device and are augmented there, a batch at a time."""

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

#: Number of images of each (height, width), as ``DataReport`` has it.
Sizes = Mapping[tuple[int, int], int]

# A pixel is four bytes, blue, green, red and class id, so that one look-up of an int32 fetches them all.
_PIXEL_BYTES = 4


def resident_bytes(sizes: Sequence[Sizes]) -> int:
    """Device memory that `ResidentDataset` takes, in bytes, for datasets of these sizes."""
    return _PIXEL_BYTES * sum(count * _bordered(*size) for each in sizes for size, count in each.items())


def available_bytes(device: torch.device | str) -> int:
    """Return the free memory of a device in bytes.

    For the CPU, it is what Linux or the limit of the container leaves; on other systems, it is 0.
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
        # Cached files count as used, but give way.
        used = int((control / 'memory.current').read_text()) - int(_table(control / 'memory.stat')['inactive_file'])
        available = min(available, int(limit.read_text()) - used)
    return available


def _table(path: Path) -> dict[str, str]:
    return {words[0]: words[1] for words in map(str.split, path.read_text().splitlines())}


def fits(sizes: Sequence[Sizes], device: torch.device | str, share: float = 0.5) -> bool:
    """Whether datasets of these sizes take at most ``share`` (0 ... 1) of the memory that is free on the device."""
    return resident_bytes(sizes) <= share * available_bytes(device)


def _bordered(height: int, width: int) -> int:
    return (height + 2) * (width + 2)


class ResidentDataset:
    """Every sample of some datasets, decoded, in the memory of a device.

    The images lie one after the other, each in its own size, in a border one pixel wide of padding: grey without a
    class. A coordinate outside an image is moved into its border, and needs no other care.

    Args:
        datasets: their samples are read once, in threads.
        sizes: of their images, for each of them.
        device: where to.

    Attributes:
        pixels: int32 ``[P]`` on the device; the bytes of a pixel are blue, green, red and class id.
        places: for each dataset int64 ``[N, 3]``: index of an image's first pixel (of the border), height, width.
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
        """Device of the pixels."""
        return self.pixels.device


def _packed(image: np.ndarray, label: np.ndarray) -> Tensor:
    """An image and its label in their border, int32 ``[(H + 2) (W + 2)]``."""
    pixels = cv2.merge([image, label])
    pixels = cv2.copyMakeBorder(pixels, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=(*PADDING, IGNORE))
    return torch.from_numpy(pixels.reshape(-1).view(np.int32))


class BatchAugmentation:
    """`Augmentation`, done to a whole batch of a `ResidentDataset` on its device.

    A key leads to the same crop as in `AugmentedSamples`: the random numbers are the same, drawn on the CPU. Pixels
    differ by rounding alone; OpenCV interpolates with fewer bits and rounds before it changes the light.

    Args:
        augmentation: the crop's size and the ranges of the changes.
    """

    def __init__(self, augmentation: Augmentation):
        self.augmentation = augmentation

    @torch.no_grad()
    def __call__(self, data: ResidentDataset, keys: Sequence[SampleKey]) -> tuple[Tensor, Tensor]:
        """Crops of the samples that the keys name, on the data's device.

        Returns:
            uint8 BGR ``[B, h, w, 3]`` and uint8 ids ``[B, h, w]``, 255 outside the image.
        """
        numbers = torch.from_numpy(np.stack([self._numbers(data, key) for key in keys]))
        if data.device.type == 'cuda':
            # From pageable memory, the copy would wait for the device.
            numbers = numbers.pin_memory()
        numbers = numbers.to(data.device, non_blocking=True)
        image, label = _crop(data.pixels, numbers[:, :7], self.augmentation.crop)
        return _relight(image, numbers[:, 7:].float()), label

    def _numbers(self, data: ResidentDataset, key: tuple[int, int, int]) -> np.ndarray:
        """What the device needs to know of a sample, float64 ``[17]``.

        Its place (3); the maps from columns and from rows of the crop to those of the image, factor and offset each
        (4); the colour matrix, row by row (9); and what to add to every channel, as a multiple of the crop's mean (1).
        """
        dataset, index, seed = key
        place = data.places[dataset][index]
        rng = np.random.default_rng(seed)
        # In the order in which Augmentation draws.
        matrix = self.augmentation.placement(tuple(place[1:]), rng)
        look = self.augmentation
        colour, lift = draw_light(look.brightness, look.contrast, look.saturation, rng)
        (x_factor, _, x_offset), (_, y_factor, y_offset) = matrix
        inverse = [1 / x_factor, -x_offset / x_factor, 1 / y_factor, -y_offset / y_factor]
        return np.concatenate([place, inverse, colour.ravel(), [lift]])


def _crop(pixels: Tensor, numbers: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Bilinear image, float32 ``[B, 3, h, w]``, and nearest label, uint8 ``[B, h, w]``; ``numbers`` is ``[B, 7]``."""
    first, height, width, x_factor, x_offset, y_factor, y_offset = numbers.split(1, dim=1)
    # The map keeps rows rows and columns columns: coordinates are lists, and only their sum is as large as the crop.
    left, right, nearest_column, x = _taps(x_factor, x_offset, width, size[1])
    upper, lower, nearest_row, y = _taps(y_factor, y_offset, height, size[0])
    first, stride = first.long(), width.long() + 2
    upper, lower, nearest_row = ((first + rows * stride)[:, :, None] for rows in (upper, lower, nearest_row))
    left, right, nearest_column = (columns[:, None] for columns in (left, right, nearest_column))

    def look_up(rows: Tensor, columns: Tensor) -> Tensor:
        """uint8 ``[B, 4, h, w]``."""
        index = rows + columns
        return pixels.index_select(0, index.flatten()).view(torch.uint8).view(*index.shape, 4).permute(0, 3, 1, 2)

    def colours(rows: Tensor, columns: Tensor) -> Tensor:
        return look_up(rows, columns)[:, :3].to(torch.float32, memory_format=torch.contiguous_format)

    x, y = x[:, None, None, :], y[:, None, :, None]
    image = colours(upper, left).lerp_(colours(upper, right), x)
    image.lerp_(colours(lower, left).lerp_(colours(lower, right), x), y)
    return image, look_up(nearest_row, nearest_column)[:, 3].contiguous()


def _taps(factor: Tensor, offset: Tensor, size: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Along one axis, for each of ``count`` pixels of the crop: its neighbours in the bordered image.

    Args:
        factor, offset: float64 ``[B, 1]``, from a pixel of the crop to one of the image.
        size: ``[B, 1]``, the image's.

    Returns:
        Lower and upper neighbour and the nearest, int64 ``[B, count]``, and the upper one's weight, float32.
    """
    position = torch.arange(count, dtype=factor.dtype, device=factor.device) * factor + offset
    lower = position.floor()
    # Shifted by one for the border.
    nearest = (position + 0.5).floor()

    def inside(at: Tensor) -> Tensor:
        return (at.clamp(min=-1).minimum(size) + 1).long()

    return inside(lower), inside(lower + 1), inside(nearest), (position - lower).float()


def _relight(image: Tensor, numbers: Tensor) -> Tensor:
    """float32 ``[B, 3, h, w]`` to uint8 ``[B, h, w, 3]``; ``numbers`` is ``[B, 10]``."""
    count, _, height, width = image.shape
    flat = image.flatten(2)
    grey = flat.mean(dim=(1, 2)) * numbers[:, 9]
    with torch.autocast(image.device.type, enabled=False):
        flat = torch.baddbmm(grey[:, None, None], numbers[:, :9].view(count, 3, 3), flat)
    return flat.round_().clamp_(0, 255).to(torch.uint8).view(count, 3, height, width).permute(0, 2, 3, 1)


class ResidentLoader:
    """The batches of a run, in the place of a `DataLoader`: on the device, and the same as the `DataLoader`'s.

    Args:
        data: the samples.
        augmentation: what is done to them.
        sampler: which of them make up a batch.
    """

    def __init__(self, data: ResidentDataset, augmentation: Augmentation, sampler: ScheduleSampler):
        self.data = data
        self.sampler = sampler
        self._augment = BatchAugmentation(augmentation)

    def __len__(self) -> int:
        return len(self.sampler)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yields uint8 BGR ``[B, h, w, 3]`` and uint8 ids ``[B, h, w]``."""
        for keys in self.sampler:
            yield self._augment(self.data, keys)
