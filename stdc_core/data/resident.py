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
from stdc_core.data.device_crop import Neighbours, relight_batch, to_device
from stdc_core.data.resident_soft_targets import ResidentSoftTargets
from stdc_core.data.schedule import SampleKey, Samples, ScheduleSampler, read_all
from stdc_core.data.soft_targets import SoftTargets

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


def fits(sizes: Sequence[Sizes], device: torch.device | str, share: float = 0.5, probabilities: int = 0) -> bool:
    """Return whether datasets fit into a share of the free memory of a device.

    Args:
        sizes: Image sizes of each dataset.
        device: Device.
        share: Share of the free memory, 0 to 1.
        probabilities: Memory of the probabilities of a teacher, bytes.
    """
    return resident_bytes(sizes) + probabilities <= share * available_bytes(device)


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
        soft: Probabilities of a teacher for every sample, or None.

    Attributes:
        pixels: Pixels on the device, int32 ``[P]``; the bytes of a pixel are blue, green, red and class id.
        places: Table of each dataset, int64 ``[N, 3]``: index of the first pixel of an image (of its border), height
            and width.
        soft: Probabilities on the device, or None.
    """

    def __init__(
        self,
        datasets: Sequence[Samples],
        sizes: Sequence[Sizes],
        device: torch.device | str = 'cpu',
        soft: SoftTargets | None = None,
    ):
        self.pixels = torch.empty(resident_bytes(sizes) // _PIXEL_BYTES, dtype=torch.int32, device=device)
        places: list[list[tuple[int, int, int]]] = [[] for _ in datasets]
        end = 0
        for number, sample in read_all(datasets):
            begin, (height, width) = end, sample.label.shape
            end += _bordered(height, width)
            self.pixels[begin:end] = _packed(sample.image, sample.label)
            places[number].append((begin, height, width))
        self.places = [np.array(rows, np.int64).reshape(-1, 3) for rows in places]
        self.soft = ResidentSoftTargets(soft, [len(rows) for rows in places], device) if soft is not None else None

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
    def __call__(self, data: ResidentDataset, keys: Sequence[SampleKey]) -> tuple[Tensor, ...]:
        """Return random crops of samples.

        Args:
            data: Samples.
            keys: Keys of the samples of the batch.

        Returns:
            uint8 BGR ``[B, h, w, 3]``, uint8 ids ``[B, h, w]``, 255 outside the image, and, with a teacher, its
            probabilities, uint8 ``[B, C, ceil(h/4), ceil(w/4)]``. They are on the device of ``data``.
        """
        drawn = [self._numbers(data, key) for key in keys]
        numbers = to_device(np.stack(drawn), data.device)
        image, label = _crop(data.pixels, numbers[:, :7], self.augmentation.crop)
        image = relight_batch(image, numbers[:, 7:].float())
        if data.soft is None:
            return image, label
        maps = [data.soft.numbers(key[0], key[1], each[1:7]) for key, each in zip(keys, drawn, strict=True)]
        return image, label, data.soft.crop(to_device(np.stack(maps), data.device), self.augmentation.crop)

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
        numbers: Place and maps of each sample, see ``Neighbours.of``.
        size: (height, width) of the crops, pixels.

    Returns:
        float32 ``[B, 3, h, w]`` and uint8 ``[B, h, w]``.
    """
    around = Neighbours.of(numbers, size)

    def look_up(rows: Tensor, columns: Tensor) -> Tensor:
        """Return the bytes of the pixels in these rows and columns, uint8 ``[B, 4, h, w]``."""
        index = rows + columns
        return pixels.index_select(0, index.flatten()).view(torch.uint8).view(*index.shape, 4).permute(0, 3, 1, 2)

    def colours(rows: Tensor, columns: Tensor) -> Tensor:
        return look_up(rows, columns)[:, :3].to(torch.float32, memory_format=torch.contiguous_format)

    label = look_up(around.nearest_row, around.nearest_column)[:, 3].contiguous()
    return around.interpolate(colours), label


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

    def __iter__(self) -> Iterator[tuple[Tensor, ...]]:
        """Yield the batches of ``BatchAugmentation``."""
        for keys in self.sampler:
            yield self._augment(self.data, keys)
