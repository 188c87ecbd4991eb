# SPDX-License-Identifier: Apache-2.0
"""Claim the folder of a run, and keep in it what is needed to resume the run."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any

import yaml

from stdc_core.io.files import appearing
from stdc_core.io.text import one_line
from stdc_core.io.yaml_file import read_yaml
from stdc_core.training.config import ConfigError, make_config
from stdc_core.training.ranks import process_rank

#: File in the folder of a run with its configuration and sources.
RECORD = 'run.yaml'


def check_empty(out: Path, num_nodes: int = 1) -> None:
    """Check that a new run may use a folder.

    Args:
        out: Folder of the run. It may not exist yet.
        num_nodes: Number of machines of the run.

    Raises:
        FileExistsError: The folder is not empty, or is a file.
    """
    if out.exists() and not out.is_dir():
        raise FileExistsError(f'{out}: is a file, expected a folder to write to')
    # Only the first process looks: by the time that another one does, perhaps on another machine, the run has begun.
    machine = os.environ.get('NODE_RANK', os.environ.get('GROUP_RANK', '0')) if num_nodes > 1 else '0'
    if not process_rank() and machine == '0' and out.exists() and any(out.iterdir()):
        resumable = '; --resume continues the run in it' if (out / RECORD).is_file() else ''
        raise FileExistsError(f'{out} is not empty{resumable}; choose another folder or move it away')


def write_record(out: Path, config: Any, sources: dict[str, Any]) -> None:
    """Claim an empty folder for a run, and write its configuration and sources to ``run.yaml``.

    Args:
        out: Folder of the run.
        config: Configuration dataclass.
        sources: Paths that the run reads, as strings or lists of strings, and what else it needs to be resumed.

    Raises:
        FileExistsError: The folder is not empty.
    """
    check_empty(out, config.num_nodes)
    if not process_rank():
        record = {'config': dataclasses.asdict(config), **sources}
        with appearing(out / RECORD) as partial:
            partial.write_text(yaml.safe_dump(record, sort_keys=False))


def read_record(out: Path, cls: type, overrides: list[str], changeable: tuple[str, ...]) -> tuple[Any, dict[str, Any]]:
    """Return the configuration and the sources of the run in a folder, to resume it.

    Args:
        out: Folder of the run.
        cls: Dataclass of the configuration.
        overrides: ``key=value`` of keys that are ``changeable``.
        changeable: Keys that may change between two parts of a run.

    Raises:
        FileNotFoundError: There is no run in the folder.
        ConfigError: The record is damaged, or another key is overridden.
    """
    path = out / RECORD
    if not path.is_file():
        raise FileNotFoundError(f'{path}: no such file, so {out} contains no run to resume')
    try:
        record = read_yaml(path)
        stored = dict(record.pop('config'))
        sources = {'extra': [], 'init': '', 'teacher': [], **record}
        texts = (sources['data'], sources['init'], *sources['extra'], *sources['teacher'], *sources.get('classes', []))
        if not all(isinstance(text, str) for text in texts):
            raise TypeError('data, extra, init and classes: expected text')
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ConfigError(f'{path}: damaged ({one_line(error)})') from error
    for override in overrides:
        name = override.partition('=')[0]
        if name not in changeable:
            raise ConfigError(f'{name}: cannot change when a run is resumed; only {", ".join(changeable)} can')
    return make_config(cls, stored, str(path), overrides), sources
