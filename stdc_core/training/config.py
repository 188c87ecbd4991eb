# SPDX-License-Identifier: Apache-2.0
"""Define configurations as tables of typed keys, which YAML files set and the command line overrides and explains.

pydantic would replace only ``check_values`` and ``_typed``, about forty lines. It lacks the hint for a misspelt key,
the text for ``--help``, ``key=value`` overrides and ``1e-3`` as YAML reads it. Its errors span several lines, and it is
one more compiled package to install.
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
    """A configuration that cannot be used. The message names the file and the key."""


def key(
    default: Any,
    explanation: str,
    choices: Sequence[str] = (),
    minimum: float | None = None,
    maximum: float | None = None,
    above: float | None = None,
) -> Any:
    """Define a field of a configuration.

    Args:
        default: Default value, which also sets the type.
        explanation: Text for ``--help``.
        choices: Allowed values; empty allows all.
        minimum: Smallest allowed value.
        maximum: Largest allowed value.
        above: Limit that the value must exceed.
    """
    limits = {'choices': tuple(choices), 'minimum': minimum, 'maximum': maximum, 'above': above}
    return dataclasses.field(default=default, metadata={'explanation': explanation, **limits})


Config = TypeVar('Config')

#: Largest seed: NumPy takes 32 bits.
LARGEST_SEED = 2**32 - 1


def check_values(config: Any) -> None:
    """Check every field of a configuration against its limits.

    Args:
        config: Dataclass whose fields are made by ``key``.

    Raises:
        ConfigError: A value is out of its limits. The message names the key, what was found and what was expected.
    """
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
    """Read a configuration from a YAML file, then apply overrides.

    Args:
        cls: Dataclass whose fields are made by ``key``.
        path: YAML file; None takes the defaults.
        overrides: ``key=value`` of keys to change.

    Raises:
        FileNotFoundError: The file does not exist.
        ConfigError: A key is unknown, or a value has the wrong type or is out of its limits.
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
    """Make a configuration from values that were read, then apply overrides.

    Args:
        cls: Dataclass whose fields are made by ``key``.
        loaded: Value of each key.
        source: Name of the file that they were read from, for errors.
        overrides: ``key=value`` of keys to change.

    Raises:
        ConfigError: As ``read_config``.
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
    """Return a value as the type of its field, if the conversion loses nothing.

    Args:
        cls: Dataclass of the configuration.
        name: Name of the field.
        value: Value as YAML gives it.
        source: File or option, for errors.

    Raises:
        ConfigError: The field does not exist, or has another type.
    """
    types = {field.name: type(field.default) for field in dataclasses.fields(cls)}
    if name not in types:
        near = difflib.get_close_matches(one_line(name), types, n=1)
        hint = f'did you mean {near[0]!r}?' if near else f'expected one of {", ".join(types)}'
        raise ConfigError(f'{source}: unknown key {one_line(name)!r}; {hint}')
    wanted = types[name]
    if wanted is float and isinstance(value, int | str) and not isinstance(value, bool):
        # YAML reads 1e-3, without a dot, as text.
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
    """Return the text for ``--help`` that explains every key with its default. Inherited keys come last.

    Args:
        cls: Dataclass whose fields are made by ``key``.
    """
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
    """Keys of every configuration: the hardware that a training runs on."""

    precision: str = key(
        'auto',
        'precision of the arithmetic; auto takes bf16-mixed where the hardware has bfloat16 instructions, and 16-mixed '
        'on other GPUs',
        choices=('auto', 'bf16-mixed', '16-mixed', '32-true'),
    )
    accelerator: str = key('auto', 'hardware; auto takes a GPU where there is one', choices=('auto', 'cpu', 'gpu'))
    devices: int = key(0, 'number of devices per machine; 0: every GPU, or one process on the CPU', minimum=0)
    num_nodes: int = key(1, 'number of machines', minimum=1)

    def __post_init__(self) -> None:
        check_values(self)
