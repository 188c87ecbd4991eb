"""The training configuration: one typed table, read from YAML, overridden from the command line."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from stdc_core.classes import CLASS_TABLES
from stdc_core.model.stdc import STAGE_BLOCKS


class ConfigError(ValueError):
    """A configuration that cannot be used; the message names the file and the key."""


@dataclass(frozen=True)
class TrainConfig:
    """What a training run does. Sizes in pixels, probabilities and shares in 0 ... 1."""

    backbone: str = 'stdc1'
    classes: str = 'camvid'
    crop_height: int = 256
    crop_width: int = 320
    scale_min: float = 0.5
    scale_max: float = 2.0
    batch_size: int = 8
    steps: int = 6000
    learning_rate: float = 1e-3
    weight_decay: float = 0.02
    warmup_steps: int = 200
    #: Weight of each of the two auxiliary heads (section 4.2).
    aux_weight: float = 1.0
    #: The auxiliary losses take every n-th pixel in each direction: 1 as in the paper; more is faster on a CPU.
    aux_stride: int = 1
    #: Weight of the detail loss (Equation 4); 0 trains without detail guidance.
    detail_weight: float = 1.0
    #: Hard pixels have a true-class probability below this; 1 takes every pixel.
    ohem_threshold: float = 0.7
    #: Class weights are the inverse frequency to this power; 0 weighs all alike.
    class_balance: float = 0.5
    #: Decay per step of the average of the weights that is validated and saved.
    ema_decay: float = 0.998
    #: Share of the samples drawn from the folders given as extra data.
    extra_share: float = 0.0
    val_every: int = 500
    seed: int = 0
    workers: int = 1
    #: Lightning's name of the arithmetic: '32-true', 'bf16-mixed' or '16-mixed'.
    precision: str = 'bf16-mixed'

    def __post_init__(self) -> None:
        for key, allowed in (('backbone', STAGE_BLOCKS), ('classes', CLASS_TABLES)):
            if getattr(self, key) not in allowed:
                raise ConfigError(f'{key}: expected one of {", ".join(allowed)}, found {getattr(self, key)!r}')
        for key in ('crop_height', 'crop_width', 'batch_size', 'steps', 'val_every', 'aux_stride'):
            if getattr(self, key) < 1:
                raise ConfigError(f'{key}: expected 1 or more, found {getattr(self, key)}')
        if not 0 < self.scale_min <= self.scale_max:
            raise ConfigError(f'expected 0 < scale_min <= scale_max, found {self.scale_min} and {self.scale_max}')


def _parse(text: str, source: str | Path) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f'{source}: not YAML ({" ".join(str(error).split())})') from error


def load_config(path: str | Path | None, overrides: list[str]) -> TrainConfig:
    """Read a YAML file (none: the defaults), then apply ``key=value`` overrides.

    Raises:
        ConfigError: a key is unknown or a value of the wrong type or range.
    """
    values: dict[str, Any] = {}
    if path is not None:
        loaded = _parse(Path(path).read_text(), path) or {}
        if not isinstance(loaded, dict):
            raise ConfigError(f'{path}: expected "key: value" lines, found {type(loaded).__name__}')
        values.update(loaded)
    for override in overrides:
        key, equals, value = override.partition('=')
        if not equals:
            raise ConfigError(f'{override!r}: expected key=value')
        values[key] = _parse(value, override)
    fields = {field.name: type(field.default) for field in dataclasses.fields(TrainConfig)}
    for key, value in values.items():
        if key not in fields:
            raise ConfigError(f'{path or "--set"}: unknown key {key!r}, expected one of {", ".join(fields)}')
        if fields[key] is float and isinstance(value, int) and not isinstance(value, bool):
            values[key] = float(value)
        elif type(value) is not fields[key]:
            raise ConfigError(f'{path or "--set"}: {key}: expected {fields[key].__name__}, found {value!r}')
    return TrainConfig(**values)
