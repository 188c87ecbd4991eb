# SPDX-License-Identifier: Apache-2.0
"""Train a network by the recipe that all compared networks share, and return its accuracy."""

from __future__ import annotations

import argparse

from stdc_core.model.weights import load_weights
from stdc_core.training.run_folder import RECORD
from stdc_core.training.train import WEIGHTS, resume, train
from stdc_core.training.train_config import load_config


def train_and_score(options: argparse.Namespace, name: str, seed: int) -> float:
    """Return the mIoU on val in percent of a network after the recipe; continue or read a run that exists."""
    out = options.out / 'trainings' / f'{name.replace("/", "_")}_seed{seed}'
    if not (out / WEIGHTS).is_file():
        if (out / RECORD).is_file():
            resume(out)
        else:
            config = load_config(options.config, [*options.set, f'backbone={name}', f'seed={seed}'])
            train(config, options.data, out, options.extra if config.extra_share else [])
    return 100 * float(load_weights(out / WEIGHTS)[2]['miou'].split()[0])
