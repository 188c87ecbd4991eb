# SPDX-License-Identifier: Apache-2.0
"""Make the loader of the training batches: from memory of the device, or with worker processes."""

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
from stdc_core.training.config import ConfigError
from stdc_core.training.train_config import TrainConfig

# Largest share of the free memory that the images may take.
_SHARE = 1 / 3


def make_schedule(
    config: TrainConfig,
    own: Sequence[Samples],
    extra: Sequence[Samples],
    shares: Sequence[float | None],
    world: int,
) -> BatchSchedule:
    """Return the samples of each batch of a run.

    Args:
        config: Recipe of the run.
        own: Datasets of ``--data``.
        extra: Datasets of ``--extra``.
        shares: Share of the samples that each extra dataset supplies, 0 to 1. Those with None supply
            ``config.extra_share`` together, in proportion to their sizes.
        world: Number of processes.

    Raises:
        ConfigError: The batch cannot be divided evenly among the processes, or is too small for them.
        ValueError: The shares do not fit together.
    """
    check_even_batches(config.batch_size, world)
    datasets = [*own, *extra]
    drawn = dataset_shares([len(d) for d in own], [len(d) for d in extra], shares, config.extra_share)
    return BatchSchedule([len(d) for d in datasets], drawn, config.batch_size, config.seed)


def train_loader(
    config: TrainConfig,
    schedule: BatchSchedule,
    datasets: Sequence[Samples],
    sizes: Sequence[Sizes],
    largest: tuple[int, int],
    start: int,
    trainer: lightning.Trainer,
    soft: SoftTargets | None = None,
) -> DataLoader | ResidentLoader:
    """Return the loader of the batches of one process. The batches depend only on the seed and the step.

    Args:
        config: Recipe of the run.
        schedule: Samples of each batch.
        datasets: Datasets of the schedule.
        sizes: Image sizes of every dataset.
        largest: (height, width) of the largest image of ``--data``, pixels.
        start: Step to begin with.
        trainer: Trainer, which knows the device and the rank of this process.
        soft: Probabilities of a teacher, whose files exist for every image, or None.
    """
    rank, world, device = trainer.global_rank, trainer.world_size, trainer.strategy.root_device
    sampler = ScheduleSampler(schedule, config.steps, start, rank, world)
    augmentation = Augmentation(
        (config.crop_height, config.crop_width),
        (config.scale_min, config.scale_max),
        config.brightness,
        config.contrast,
        config.saturation,
        uniform=config.scale_draw == 'uniform',
        pad=config.pad_crops,
        pixels=math.prod(largest) if config.equal_pixels else None,
    )
    on_gpu = device.type == 'cuda'
    probabilities = soft.nbytes([len(each) for each in datasets]) if soft is not None else 0
    automatic = config.loader == 'auto' and on_gpu and fits(sizes, device, _SHARE, probabilities)
    if config.loader == 'resident' or automatic:
        return ResidentLoader(ResidentDataset(datasets, sizes, device, soft), augmentation, sampler)
    if config.workers:
        one_opencv_thread()
    # Workers are forked, and share the images that were read before.
    samples = AugmentedSamples(datasets, augmentation, cache=fits(sizes, 'cpu', _SHARE / world), soft=soft)
    return DataLoader(
        samples,
        batch_sampler=sampler,
        num_workers=config.workers,
        pin_memory=on_gpu,
        multiprocessing_context='fork' if config.workers else None,
    )


def largest_size(sizes: Sequence[Sizes]) -> tuple[int, int]:
    """Return the (height, width) in pixels of the largest image.

    Args:
        sizes: Image sizes of each dataset.
    """
    return max((size for each in sizes for size in each), key=math.prod)


def check_even_batches(batch_size: int, world: int) -> None:
    """Check that a batch can be divided evenly among the devices, with two or more images for each.

    Args:
        batch_size: Number of images in a batch.
        world: Number of devices.

    Raises:
        ConfigError: The batch cannot be divided in this way.
    """
    if batch_size % world:
        raise ConfigError(f'batch_size: expected a multiple of the {world} devices, found {batch_size}')
    if batch_size < 2 * world:
        # Behind global pooling, batch norm takes the variance of one value per image.
        raise ConfigError(f'batch_size: expected 2 or more per device, found {batch_size} on {world}')


def check_image_for_each(images: int, source: object, world: int) -> None:
    """Check that each device has an image to validate on.

    Args:
        images: Number of images.
        source: Dataset, for errors.
        world: Number of devices.

    Raises:
        ConfigError: There are fewer images than devices.
    """
    if images < world:
        raise ConfigError(f'{source}: expected at least one image for each of the {world} devices, found {images}')


def one_opencv_thread() -> None:
    """Let OpenCV use one thread for each image, since worker processes already use all cores.

    Call it before the workers are forked. A worker that sets the number itself may wait for threads that it lacks.
    """
    cv2.setNumThreads(1)
