# SPDX-License-Identifier: Apache-2.0
"""Define the configuration of a segmentation training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from stdc_core.inference.model_file import NETWORK_NAMES, is_network
from stdc_core.io.text import one_line
from stdc_core.training.config import LARGEST_SEED, ConfigError, MachineConfig, key, read_config


@dataclass(frozen=True)
class TrainConfig(MachineConfig):
    """Keys of a segmentation training. ``stdc train --help`` prints this table."""

    # The network and its data.
    backbone: str = key(
        'stdc1',
        'network: stdc1, stdc2, bisenetv1, bisenetv2, or timm/NAME for the STDC decoder on a backbone from timm (extra '
        'compare)',
    )
    backbone_weights: str = key(
        '',
        'initial weights of a backbone timm/NAME: pretrained takes those of ImageNet from the Hugging Face hub; else '
        'the path of a .safetensors file of such weights; empty: random weights',
    )
    classes: str = key('camvid', "class table: 'camvid', 'cityscapes' or a YAML file of your own")
    train_split: str = key('train', "splits to train on, joined by '+'")
    val_split: str = key('val', 'split to validate on; empty: no validation')
    absent_classes: str = key(
        'refuse',
        'what to do if a class never occurs in the data but 255 does, as in masks where 0 is the background and 255 '
        'the object',
        choices=('refuse', 'allow'),
    )
    extra_share: float = key(
        0.0,
        'share of the samples to draw from all --extra data without a share of its own (--extra FOLDER=SHARE)',
        minimum=0,
        maximum=1,
    )
    equal_pixels: bool = key(
        True,
        'whether images are scaled to the number of pixels of the largest image of --data before their random '
        'enlargement, so that all cameras count alike; false: images keep their size',
    )
    input_scale: float = key(
        1.0,
        'scale at which the network sees images in validation: 0.5 and 0.75 are Seg50 and Seg75',
        above=0,
        maximum=4,
    )
    # Augmentation.
    crop_height: int = key(256, 'height of the training crops, pixels', minimum=32)
    crop_width: int = key(320, 'width of the training crops, pixels', minimum=32)
    scale_min: float = key(0.5, 'smallest random enlargement of an image before it is cropped', above=0)
    scale_max: float = key(2.0, 'largest random enlargement of an image before it is cropped', above=0)
    scale_draw: str = key(
        'log',
        'distribution of the random enlargement: uniform, or log for a uniform logarithm',
        choices=('log', 'uniform'),
    )
    pad_crops: bool = key(
        True,
        'whether a crop may extend beyond a small image, with grey pixels without a class; false: the image is '
        'enlarged until it covers the crop, as in the reference implementation',
    )
    brightness: float = key(0.3, 'largest relative change of the brightness', minimum=0, maximum=1)
    contrast: float = key(0.3, 'largest relative change of the contrast', minimum=0, maximum=1)
    saturation: float = key(0.3, 'largest relative change of the saturation', minimum=0, maximum=1)
    # Schedule.
    steps: int = key(6000, 'number of optimiser steps', minimum=1)
    batch_size: int = key(8, 'number of crops per step, on all devices together', minimum=1)
    optimizer: str = key('adamw', 'optimiser', choices=('adamw', 'sgd'))
    learning_rate: float = key(1e-3, 'peak learning rate', above=0)
    head_rate: float = key(
        1.0,
        'factor on the learning rate of the heads and the feature fusion; the reference implementation has 10',
        above=0,
    )
    momentum: float = key(0.9, 'momentum of sgd', minimum=0, maximum=1)
    weight_decay: float = key(0.02, 'weight decay of convolutions; batch norms and biases have none', minimum=0)
    schedule: str = key('cosine', 'decay of the learning rate', choices=('cosine', 'poly'))
    poly_power: float = key(0.9, 'power of the poly schedule', above=0)
    warmup_steps: int = key(200, 'number of steps over which the learning rate rises linearly', minimum=0)
    ema_decay: float = key(
        0.998,
        'decay per step of the moving average of the weights, which is validated and saved; 0: no average',
        minimum=0,
        maximum=1,
    )
    # Losses.
    aux_weight: float = key(1.0, 'weight of each of the two auxiliary heads (section 4.2)', minimum=0)
    detail_weight: float = key(1.0, 'weight of the detail loss (Equation 4); 0: no detail loss', minimum=0)
    ohem_threshold: float = key(
        0.7,
        'largest probability of its class at which a pixel is hard; other pixels do not count; 1: all pixels count',
        above=0,
        maximum=1,
    )
    class_balance: float = key(
        0.5, 'power of the inverse class frequency that makes the class weights; 0: equal weights', minimum=0
    )
    prior_correction: float = key(
        0.0,
        'share of the class weights to undo when the network is used: class weights help to learn rare classes, but '
        'the network then predicts them too often',
        minimum=0,
        maximum=1,
    )
    teacher_weight: float = key(1.0, 'weight of the loss against --teacher', minimum=0)
    teacher_confidence: float = key(
        0.0,
        'smallest probability of the best class of the teacher; pixels with a smaller one do not count',
        minimum=0,
        maximum=1,
    )
    teacher_hard_weight: float = key(
        3.0,
        'weight of the harder half of the pixels in the loss against the teacher; the easier half has weight 1',
        above=0,
    )
    loss_stride: int = key(
        1,
        'distance of the pixels that the losses take from a crop, in each direction; 1 takes all, as in the paper; '
        'more is faster on a CPU, and loses nothing where crops are enlarged',
        minimum=1,
    )
    aux_stride: int = key(1, 'the same for the auxiliary losses', minimum=1)
    # The run.
    val_every: int = key(500, 'number of steps between validations', minimum=1)
    checkpoint_every: int = key(500, 'number of steps between checkpoints, from which --resume continues', minimum=1)
    seed: int = key(0, 'seed of weights, order and augmentation', minimum=0, maximum=LARGEST_SEED)
    loader: str = key(
        'auto',
        'where images are kept: resident keeps them on the device and augments them there in batches; workers reads '
        'and augments them in other processes; auto takes resident on a GPU if they fit into a third of its memory, '
        'with the probabilities of a teacher',
        choices=('auto', 'resident', 'workers'),
    )
    workers: int = key(
        1, 'number of processes per device that read and augment images; 0: the training process does it', minimum=0
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if not is_network(self.backbone):
            raise ConfigError(f'backbone: expected {NETWORK_NAMES}, found {one_line(self.backbone, 80)!r}')
        if self.backbone_weights and not self.backbone.startswith('timm/'):
            raise ConfigError(
                f'backbone_weights: for a backbone timm/NAME only, found backbone {self.backbone}; use --init instead'
            )
        if self.scale_min > self.scale_max:
            raise ConfigError(f'expected scale_min <= scale_max, found {self.scale_min} and {self.scale_max}')
        if not self.train_split or '' in self.train_split.split('+'):
            raise ConfigError(f"train_split: expected split names joined by '+', found {self.train_split!r}")


def load_config(path: str | Path | None, overrides: Sequence[str] = ()) -> TrainConfig:
    """Read a ``TrainConfig``; arguments and errors are those of ``read_config``."""
    return read_config(TrainConfig, path, overrides)


#: Keys that a resumed run may change. They do not change the result, except for the number of devices: each device
#: selects hard pixels for itself.
RUN_KEYS = ('workers', 'devices', 'num_nodes', 'accelerator', 'loader', 'checkpoint_every')
