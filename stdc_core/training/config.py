# SPDX-License-Identifier: Apache-2.0
"""Typed configurations: one table of keys, read from YAML, overridden and explained on the command line.

pydantic was weighed and not taken. It would save ``check_values`` and ``_typed``, some forty lines. It would not give
the near match for a misspelt key, the ``--help`` text, ``key=value`` overrides or ``1e-3`` as YAML reads it, and its
errors span several lines. It would add a compiled package to what a user installs.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from stdc_core.io.text import one_line
from stdc_core.io.yaml_file import parse_yaml, read_yaml


class ConfigError(ValueError):
    """A configuration that cannot be used; the message names the file and the key."""


def key(
    default: Any,
    explanation: str,
    choices: Sequence[str] = (),
    minimum: float | None = None,
    maximum: float | None = None,
    above: float | None = None,
) -> Any:
    """A field of a configuration with what ``--help`` says of it and the values it takes.

    Args:
        minimum, maximum: both allowed; above: not allowed itself.
    """
    limits = {'choices': tuple(choices), 'minimum': minimum, 'maximum': maximum, 'above': above}
    return dataclasses.field(default=default, metadata={'explanation': explanation, **limits})


Config = TypeVar('Config')

#: NumPy takes seeds of 32 bits.
LARGEST_SEED = 2**32 - 1


def check_values(config: Any) -> None:
    """Hold every field to its limits. Raises ConfigError, naming the key, what was found and what was expected."""
    for field in dataclasses.fields(config):
        value, limits = getattr(config, field.name), field.metadata
        if isinstance(value, float) and not math.isfinite(value):
            raise ConfigError(f'{field.name}: expected a number, found {value}')
        if limits['choices'] and value not in limits['choices']:
            raise ConfigError(
                f'{field.name}: expected one of {", ".join(limits["choices"])}, found {one_line(value)!r}'
            )
        if limits['minimum'] is not None and value < limits['minimum']:
            raise ConfigError(f'{field.name}: expected {limits["minimum"]} or more, found {value}')
        if limits['above'] is not None and value <= limits['above']:
            raise ConfigError(f'{field.name}: expected more than {limits["above"]}, found {value}')
        if limits['maximum'] is not None and value > limits['maximum']:
            raise ConfigError(f'{field.name}: expected at most {limits["maximum"]}, found {value}')


def read_config(cls: type[Config], path: str | Path | None, overrides: Sequence[str] = ()) -> Config:
    """Read a YAML file (none: the defaults), then apply ``key=value`` overrides.

    Args:
        cls: a dataclass whose fields are made by ``key``.

    Raises:
        FileNotFoundError: there is no such file.
        ConfigError: a key is unknown or a value of the wrong type or range.
    """
    loaded: dict[str, Any] = {}
    if path is not None:
        try:
            loaded = read_yaml(path) or {}
        except ValueError as error:
            raise ConfigError(str(error)) from error
        if not isinstance(loaded, dict):
            raise ConfigError(f'{path}: expected "key: value" lines, found {type(loaded).__name__}')
    return make_config(cls, loaded, str(path), overrides)


def make_config(cls: type[Config], loaded: dict[str, Any], source: str, overrides: Sequence[str] = ()) -> Config:
    """A configuration of the values that were read from ``source``, then ``key=value`` overrides.

    Raises:
        ConfigError: as ``read_config``.
    """
    values = {name: _typed(cls, name, value, source) for name, value in loaded.items()}
    for override in overrides:
        name, equals, value = override.partition('=')
        if not equals:
            raise ConfigError(f'{override!r}: expected key=value')
        try:
            values[name] = _typed(cls, name, parse_yaml(value, one_line(override)), '--set')
        except ValueError as error:
            raise ConfigError(str(error)) from error
    try:
        return cls(**values)
    except ConfigError as error:
        raise ConfigError(f'{source}: {error}' if loaded else str(error)) from error


def _typed(cls: type, name: str, value: Any, source: str) -> Any:
    """The value as the field's type, where that loses nothing."""
    types = {field.name: type(field.default) for field in dataclasses.fields(cls)}
    if name not in types:
        near = difflib.get_close_matches(one_line(name), types, n=1)
        hint = f'did you mean {near[0]!r}?' if near else f'expected one of {", ".join(types)}'
        raise ConfigError(f'{source}: unknown key {one_line(name)!r}; {hint}')
    wanted = types[name]
    if wanted is float and isinstance(value, int | str) and not isinstance(value, bool):
        # YAML takes 1e-3, without a dot, for text.
        try:
            return float(value)
        except (ValueError, OverflowError):
            pass
    if wanted is str and value is None:
        return ''
    if type(value) is not wanted:
        raise ConfigError(f'{source}: {name}: expected {wanted.__name__}, found {one_line(repr(value))}')
    return value


def explain(cls: type) -> str:
    """Every key of a configuration with its default and its meaning, for ``--help``; inherited ones come last."""
    lines = []
    for field in sorted(dataclasses.fields(cls), key=lambda field: field.name not in cls.__annotations__):
        choices = f' ({" | ".join(field.metadata["choices"])})' if field.metadata['choices'] else ''
        lines.append(f'  {field.name}: {field.default or repr(field.default)}')
        lines += textwrap.wrap(
            field.metadata['explanation'] + choices, 78, initial_indent='      ', subsequent_indent='      '
        )
    return '\n'.join(lines)


@dataclass(frozen=True)
class MachineConfig:
    """What a training runs on: the keys that every configuration has."""

    precision: str = key(
        'auto',
        'arithmetic; auto takes bf16-mixed where the hardware has bfloat16 instructions, 16-mixed on other GPUs',
        choices=('auto', 'bf16-mixed', '16-mixed', '32-true'),
    )
    accelerator: str = key('auto', 'auto takes a GPU where there is one', choices=('auto', 'cpu', 'gpu'))
    devices: int = key(0, 'devices per machine; 0: every GPU, or one process on the CPU', minimum=0)
    num_nodes: int = key(1, 'machines', minimum=1)

    def __post_init__(self) -> None:
        check_values(self)


@dataclass(frozen=True)
class TrainConfig(MachineConfig):
    """What a segmentation training does. ``stdc train --help`` prints this table."""

    # The network and its data.
    backbone: str = key('stdc1', 'network', choices=('stdc1', 'stdc2'))
    classes: str = key('camvid', "class table: 'camvid', 'cityscapes' or a YAML file of your own")
    train_split: str = key('train', "splits to train on, joined by '+'")
    val_split: str = key('val', 'split to validate on; empty: no validation')
    absent_classes: str = key(
        'refuse',
        'what to do if a class occurs nowhere in the data while 255 does, as in masks of 0 and 255 where 255 is the '
        'object',
        choices=('refuse', 'allow'),
    )
    extra_share: float = key(
        0.0,
        'share of the samples drawn from all --extra data that has no share of its own (--extra FOLDER=SHARE)',
        minimum=0,
        maximum=1,
    )
    equal_pixels: bool = key(
        True,
        'images of all cameras are brought to the number of pixels of the largest image of --data before they are '
        'enlarged at random; false: images keep their size',
    )
    input_scale: float = key(
        1.0, 'in validation the network sees images at this scale: 0.5 and 0.75 are Seg50 and Seg75', above=0, maximum=4
    )
    # Augmentation.
    crop_height: int = key(256, 'height of the training crops, pixels', minimum=32)
    crop_width: int = key(320, 'width of the training crops, pixels', minimum=32)
    scale_min: float = key(0.5, 'smallest random enlargement of an image before it is cropped', above=0)
    scale_max: float = key(2.0, 'largest random enlargement', above=0)
    scale_draw: str = key('log', 'the enlargement is drawn uniformly, or its logarithm is', choices=('log', 'uniform'))
    pad_crops: bool = key(
        True,
        'what a crop reaches beyond a small image is grey and without a class; false: the image is enlarged until it '
        'covers the crop, as in the reference implementation',
    )
    brightness: float = key(0.3, 'largest relative change of the brightness', minimum=0, maximum=1)
    contrast: float = key(0.3, 'largest relative change of the contrast', minimum=0, maximum=1)
    saturation: float = key(0.3, 'largest relative change of the saturation', minimum=0, maximum=1)
    # Schedule.
    steps: int = key(6000, 'optimiser steps', minimum=1)
    batch_size: int = key(8, 'crops per step, over all devices together', minimum=1)
    optimizer: str = key('adamw', 'optimiser', choices=('adamw', 'sgd'))
    learning_rate: float = key(1e-3, 'peak learning rate', above=0)
    head_rate: float = key(
        1.0, 'factor of the learning rate of heads and feature fusion; the reference implementation has 10', above=0
    )
    momentum: float = key(0.9, 'momentum of sgd', minimum=0, maximum=1)
    weight_decay: float = key(0.02, 'weight decay of convolutions; batch norms and biases have none', minimum=0)
    schedule: str = key('cosine', 'how the learning rate falls', choices=('cosine', 'poly'))
    poly_power: float = key(0.9, 'power of the poly schedule', above=0)
    warmup_steps: int = key(200, 'steps over which the learning rate rises linearly', minimum=0)
    ema_decay: float = key(
        0.998, 'decay per step of the average of the weights that is validated and saved; 0: none', minimum=0, maximum=1
    )
    # Losses.
    aux_weight: float = key(1.0, 'weight of each of the two auxiliary heads (section 4.2)', minimum=0)
    detail_weight: float = key(1.0, 'weight of the detail loss (Equation 4); 0 trains without', minimum=0)
    ohem_threshold: float = key(
        0.7,
        'pixels whose class has at most this probability are hard, the others do not count; 1: all count',
        above=0,
        maximum=1,
    )
    class_balance: float = key(0.5, 'class weights are the inverse frequency to this power; 0: all alike', minimum=0)
    prior_correction: float = key(
        0.0,
        'share of the class weights that is taken back when the network is used: they teach rare classes sooner, but '
        'make them be taken for more than they are',
        minimum=0,
        maximum=1,
    )
    teacher_weight: float = key(1.0, 'weight of the loss against --teacher', minimum=0)
    teacher_confidence: float = key(
        0.0, 'pixels where the largest probability of the teacher is less than this do not count', minimum=0, maximum=1
    )
    teacher_hard_weight: float = key(
        3.0, 'weight of the half of the pixels that is harder, against the teacher; the easier half has 1', above=0
    )
    loss_stride: int = key(
        1,
        'losses take every n-th pixel of a crop in each direction; 1 as in the paper, more is faster on a CPU and all '
        'that a label has where crops are enlarged',
        minimum=1,
    )
    aux_stride: int = key(1, 'the same for the auxiliary losses', minimum=1)
    # The run.
    val_every: int = key(500, 'steps between validations', minimum=1)
    checkpoint_every: int = key(500, 'steps between checkpoints that --resume takes up', minimum=1)
    seed: int = key(0, 'seed of weights, order and augmentation', minimum=0, maximum=LARGEST_SEED)
    loader: str = key(
        'auto',
        'resident keeps the images on the device and augments them there in batches; workers reads and augments them '
        'in other processes; auto takes resident on a GPU if a third of its memory holds them',
        choices=('auto', 'resident', 'workers'),
    )
    workers: int = key(1, 'processes that read and augment, per device; 0: none but the trainer', minimum=0)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.scale_min > self.scale_max:
            raise ConfigError(f'expected scale_min <= scale_max, found {self.scale_min} and {self.scale_max}')
        if not self.train_split or '' in self.train_split.split('+'):
            raise ConfigError(f"train_split: expected split names joined by '+', found {self.train_split!r}")


def load_config(path: str | Path | None, overrides: Sequence[str] = ()) -> TrainConfig:
    """``read_config`` for ``TrainConfig``."""
    return read_config(TrainConfig, path, overrides)


#: Keys that a resumed run may change. None of them moves the curve, but for the number of devices, each of which has
#: hard pixels of its own.
RUN_KEYS = ('workers', 'devices', 'num_nodes', 'accelerator', 'loader', 'checkpoint_every')
