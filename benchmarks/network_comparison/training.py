# SPDX-License-Identifier: Apache-2.0
"""Train all networks by one recipe, once for each seed, and return their accuracy."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Sequence
from pathlib import Path

import torch

from stdc_core.classes import class_table
from stdc_core.model.weights import load_weights
from stdc_core.training.extra_data import ExtraData
from stdc_core.training.run_folder import RECORD, read_record
from stdc_core.training.train import WEIGHTS, resume, train
from stdc_core.training.train_config import RUN_KEYS, TrainConfig, load_config
from stdc_core.training.training_data import open_training_data

#: Schedule on a machine without a GPU, where the whole schedule of a recipe takes hours for each network.
SHORT_SCHEDULE = ['steps=300', 'val_every=300', 'warmup_steps=30']


def recipe(options: argparse.Namespace, name: str, seed: int) -> TrainConfig:
    """Return the configuration of one training. ``--set`` overrides everything but the network and the seed.

    Raises:
        ConfigError: A key of ``--config`` or ``--set`` is unknown, or its value is wrong.
        FileNotFoundError: ``--config`` does not exist.
    """
    changes = [] if options.extra else ['extra_share=0']
    if not torch.cuda.is_available() and not any(each.startswith('steps=') for each in options.set):
        changes += SHORT_SCHEDULE
    return load_config(options.config, [*changes, *options.set, f'backbone={name}', f'seed={seed}'])


def check_trainings(options: argparse.Namespace, names: Sequence[str]) -> None:
    """Check recipe, data and trainings of an earlier run, before anything is measured.

    Raises:
        ValueError: The recipe or the dataset cannot be used, or an earlier training had another recipe or dataset.
        FileNotFoundError: The recipe or a dataset does not exist.
    """
    for seed in range(options.seeds):
        for name in names:
            config, out = recipe(options, name, seed), run_folder(options, name, seed)
            if not config.val_split:
                raise ValueError('val_split: expected the split to measure the mIoU on, found none')
            if (out / RECORD).is_file():
                check_same(out, config, options.data, options.extra)
    extra = [ExtraData(path) for path in options.extra]
    open_training_data(config, class_table(config.classes), options.data, extra, has_teacher=False)


def check_same(out: Path, config: TrainConfig, data: Path, extra: Sequence[Path]) -> None:
    """Check that an earlier training has the same recipe and data.

    Raises:
        ValueError: Something differs. The message names it.
    """
    earlier, sources = read_record(out, TrainConfig, [], RUN_KEYS)
    found = dataclasses.asdict(earlier) | {'data': sources['data'], 'extra': sources['extra']}
    expected = dataclasses.asdict(config) | {
        'data': str(data.absolute()),
        'extra': [str(path.absolute()) for path in extra],
    }
    for key, value in expected.items():
        if key not in RUN_KEYS and found[key] != value:
            raise ValueError(
                f'{out}: trained with {key} {found[key]}, expected {value}; choose another --out or remove this folder'
            )


def run_folder(options: argparse.Namespace, name: str, seed: int) -> Path:
    """Return the folder of one training."""
    return options.out / 'trainings' / f'{name.replace("/", "_")}_seed{seed}'


def train_and_score(options: argparse.Namespace, name: str, seed: int) -> float:
    """Return the mIoU on val in percent of a network after the recipe; continue or read a training that exists."""
    out = run_folder(options, name, seed)
    if not (out / WEIGHTS).is_file():
        if (out / RECORD).is_file():
            resume(out)
        else:
            config = recipe(options, name, seed)
            train(config, options.data, out, options.extra)
    return 100 * float(load_weights(out / WEIGHTS)[2]['miou'].split()[0])
