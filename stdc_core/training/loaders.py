# SPDX-License-Identifier: Apache-2.0
"""The batches of a training: from the device's own memory, or from processes that read and augment."""

from __future__ import annotations

import math
from collections.abc import Sequence

import cv2
import lightning
from torch.utils.data import DataLoader

from stdc_core.data.augment import Augmentation
from stdc_core.data.resident import ResidentDataset, ResidentLoader, Sizes, fits
from stdc_core.data.schedule import AugmentedSamples, BatchSchedule, Samples, ScheduleSampler, dataset_shares
from stdc_core.data.soft_targets import SoftTargets
from stdc_core.training.config import ConfigError, TrainConfig

# Share of the free memory that the images may take.
_SHARE = 1 / 3


def train_loader(
    config: TrainConfig,
    own: Sequence[Samples],
    extra: Sequence[Samples],
    shares: Sequence[float | None],
    sizes: Sequence[Sizes],
    start: int,
    trainer: lightning.Trainer,
    soft: SoftTargets | None = None,
) -> DataLoader | ResidentLoader:
    """Return the batches of one process of a run; they depend on the seed and the step alone.

    Args:
        config: Recipe of the run.
        own: Datasets of ``--data``.
        extra: Datasets of ``--extra``.
        shares: Share of the samples that each extra dataset supplies, 0 to 1. Those with None supply
            ``config.extra_share`` together, in proportion to their sizes.
        sizes: Image sizes of every dataset, own ones first.
        start: Step to begin with.
        trainer: Trainer that knows this process's device and rank.
        soft: Probabilities of a teacher for every image, or None.

    Raises:
        ConfigError: the batch cannot be divided among the processes, or leaves one of them too little.
    """
    rank, world, device = trainer.global_rank, trainer.world_size, trainer.strategy.root_device
    need_even_batches(config.batch_size, world)
    datasets = [*own, *extra]
    drawn = dataset_shares([len(d) for d in own], [len(d) for d in extra], shares, config.extra_share)
    schedule = BatchSchedule([len(d) for d in datasets], drawn, config.batch_size, config.seed)
    sampler = ScheduleSampler(schedule, config.steps, start, rank, world)
    augmentation = Augmentation(
        (config.crop_height, config.crop_width),
        (config.scale_min, config.scale_max),
        config.brightness,
        config.contrast,
        config.saturation,
        uniform=config.scale_draw == 'uniform',
        pad=config.pad_crops,
        pixels=math.prod(largest_size(sizes[: len(own)])) if config.equal_pixels else None,
    )
    on_gpu = device.type == 'cuda'
    if soft is not None and config.loader == 'resident':
        raise ConfigError('loader: resident does not hold the probabilities of a teacher; expected auto or workers')
    automatic = config.loader == 'auto' and soft is None and on_gpu
    if config.loader == 'resident' or (automatic and fits(sizes, device, _SHARE)):
        return ResidentLoader(ResidentDataset(datasets, sizes, device), augmentation, sampler)
    if config.workers:
        one_opencv_thread()
    # Workers are forked and share what is read before.
    samples = AugmentedSamples(datasets, augmentation, cache=fits(sizes, 'cpu', _SHARE / world), soft=soft)
    return DataLoader(
        samples,
        batch_sampler=sampler,
        num_workers=config.workers,
        pin_memory=on_gpu,
        multiprocessing_context='fork' if config.workers else None,
    )


def largest_size(sizes: Sequence[Sizes]) -> tuple[int, int]:
    """Return (height, width) of the image with the most pixels."""
    return max((size for each in sizes for size in each), key=math.prod)


def need_even_batches(batch_size: int, world: int) -> None:
    """Raise ConfigError unless a batch can be dealt out evenly to ``world`` devices, two or more images to each."""
    if batch_size % world:
        raise ConfigError(f'batch_size: expected a multiple of the {world} devices, found {batch_size}')
    if batch_size < 2 * world:
        # Global pooling leaves one value per image and channel, of which batch norm takes the variance.
        raise ConfigError(f'batch_size: expected 2 or more per device, found {batch_size} on {world}')


def need_image_for_each(images: int, source: object, world: int) -> None:
    """Raise ConfigError unless each of ``world`` devices has an image of ``source`` to validate on."""
    if images < world:
        raise ConfigError(f'{source}: expected an image or more for each of the {world} devices, found {images}')


def one_opencv_thread() -> None:
    """Keep OpenCV from spreading each small picture over every core: the workers do that already.

    For the process that is going to fork them: a worker that changes it itself may wait for threads that it lacks.
    """
    cv2.setNumThreads(1)
