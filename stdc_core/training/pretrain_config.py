# SPDX-License-Identifier: Apache-2.0
"""The configuration of a pretraining."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from stdc_core.training.config import LARGEST_SEED, ConfigError, MachineConfig, key

#: Keys that a resumed run may change: none of them moves the curve.
RUN_KEYS = ('workers', 'devices', 'num_nodes', 'accelerator', 'checkpoint_every')


@dataclass(frozen=True)
class PretrainConfig(MachineConfig):
    """What a pretraining does. ``stdc pretrain --help`` prints this table."""

    backbone: str = key('stdc1', 'network', choices=('stdc1', 'stdc2'))
    # Augmentation.
    image_size: int = key(224, 'height and width of what the network sees, pixels', minimum=32)
    area_min: float = key(0.08, "smallest share of an image's area that a random crop takes", above=0, maximum=1)
    jitter: float = key(0.4, 'largest relative change of brightness, contrast and saturation', minimum=0, maximum=1)
    # Schedule.
    epochs: int = key(300, 'times that every image is seen', minimum=1)
    warmup_epochs: int = key(
        5, 'epochs over which the learning rate rises linearly; then it falls as a cosine', minimum=0
    )
    batch_size: int = key(64, 'images per step, over all devices together', minimum=1)
    learning_rate: float = key(0.1, 'peak learning rate of SGD', above=0)
    momentum: float = key(0.9, 'momentum of SGD', minimum=0, maximum=1)
    weight_decay: float = key(1e-4, 'weight decay of weights; batch norms have none', minimum=0)
    label_smoothing: float = key(0.1, 'probability that the targets give to all classes alike', minimum=0, maximum=1)
    dropout: float = key(0.2, 'probability of dropping a feature before the last layer', minimum=0, maximum=1)
    ema_decay: float = key(
        0.9999,
        'decay per step of the average of the weights that is validated and saved; 0: none',
        minimum=0,
        maximum=1,
    )
    # The run.
    val_epochs: int = key(1, 'epochs between validations', minimum=1)
    checkpoint_every: int = key(2000, 'steps between checkpoints that --resume takes up', minimum=1)
    seed: int = key(0, 'seed of weights, order, augmentation and dropout', minimum=0, maximum=LARGEST_SEED)
    workers: int = key(8, 'processes that read and augment, per device; 0: none but the trainer', minimum=0)

    def in_steps(self, images: int) -> PretrainPlan:
        """Return the same with ``steps``, ``warmup_steps`` and ``val_every``, counted in batches of ``images`` images.

        Raises:
            ConfigError: there are fewer images than a batch has.
        """
        epoch = images // self.batch_size
        if not epoch:
            raise ConfigError(f'batch_size: {self.batch_size}, but there are {images} images to train on')
        counts = {'steps': self.epochs, 'warmup_steps': self.warmup_epochs, 'val_every': self.val_epochs}
        return PretrainPlan(**dataclasses.asdict(self) | {name: count * epoch for name, count in counts.items()})


@dataclass(frozen=True)
class PretrainPlan(PretrainConfig):
    """A pretraining counted in steps, as the trainer takes it."""

    steps: int = key(1, 'optimiser steps', minimum=1)
    warmup_steps: int = key(0, 'steps over which the learning rate rises linearly', minimum=0)
    val_every: int = key(1, 'steps between validations', minimum=1)
    schedule: str = key('cosine', 'how the learning rate falls', choices=('cosine',))
    poly_power: float = key(0.9, 'power of the poly schedule, which is not used', above=0)
