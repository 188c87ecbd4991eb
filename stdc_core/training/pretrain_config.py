# SPDX-License-Identifier: Apache-2.0
"""Define the configuration of a pretraining."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from stdc_core.training.config import LARGEST_SEED, ConfigError, MachineConfig, key

#: Keys that a resumed run may change, because they do not change the result.
RUN_KEYS = ('workers', 'devices', 'num_nodes', 'accelerator', 'checkpoint_every')


@dataclass(frozen=True)
class PretrainConfig(MachineConfig):
    """Keys of a pretraining. ``stdc pretrain --help`` prints this table."""

    backbone: str = key('stdc1', 'network', choices=('stdc1', 'stdc2'))
    # Augmentation.
    image_size: int = key(224, 'height and width of the images that the network sees, pixels', minimum=32)
    area_min: float = key(0.08, 'smallest share of the area of an image in a random crop', above=0, maximum=1)
    jitter: float = key(0.4, 'largest relative change of brightness, contrast and saturation', minimum=0, maximum=1)
    # Schedule.
    epochs: int = key(300, 'number of times that every image is seen', minimum=1)
    warmup_epochs: int = key(
        5,
        'number of epochs over which the learning rate rises linearly, before its cosine decay',
        minimum=0,
    )
    batch_size: int = key(64, 'number of images per step, on all devices together', minimum=1)
    learning_rate: float = key(0.1, 'peak learning rate of SGD', above=0)
    momentum: float = key(0.9, 'momentum of SGD', minimum=0, maximum=1)
    weight_decay: float = key(1e-4, 'weight decay of convolutions and linear layers; batch norms have none', minimum=0)
    label_smoothing: float = key(0.1, 'probability that a target spreads evenly over all classes', minimum=0, maximum=1)
    dropout: float = key(0.2, 'probability of dropping a feature before the last layer', minimum=0, maximum=1)
    ema_decay: float = key(
        0.9999,
        'decay per step of the moving average of the weights, which is validated and saved; 0: no average',
        minimum=0,
        maximum=1,
    )
    # The run.
    val_epochs: int = key(1, 'number of epochs between validations', minimum=1)
    checkpoint_every: int = key(2000, 'number of steps between checkpoints, from which --resume continues', minimum=1)
    seed: int = key(0, 'seed of weights, order, augmentation and dropout', minimum=0, maximum=LARGEST_SEED)
    workers: int = key(
        8, 'number of processes per device that read and augment images; 0: the training process does it', minimum=0
    )

    def in_steps(self, images: int) -> PretrainPlan:
        """Return the same configuration with its epochs counted in steps.

        Args:
            images: Number of images in an epoch.

        Raises:
            ConfigError: There are fewer images than a batch has.
        """
        epoch = images // self.batch_size
        if not epoch:
            raise ConfigError(
                f'batch_size: found {self.batch_size}, expected at most {images}, the number of images to train on'
            )
        counts = {'steps': self.epochs, 'warmup_steps': self.warmup_epochs, 'val_every': self.val_epochs}
        return PretrainPlan(**dataclasses.asdict(self) | {name: count * epoch for name, count in counts.items()})


@dataclass(frozen=True)
class PretrainPlan(PretrainConfig):
    """Pretraining counted in steps, for the trainer."""

    steps: int = key(1, 'number of optimiser steps', minimum=1)
    warmup_steps: int = key(0, 'number of steps over which the learning rate rises linearly', minimum=0)
    val_every: int = key(1, 'number of steps between validations', minimum=1)
    schedule: str = key('cosine', 'decay of the learning rate', choices=('cosine',))
    poly_power: float = key(0.9, 'power of the poly schedule, which is not used', above=0)
