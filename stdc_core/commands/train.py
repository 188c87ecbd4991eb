# SPDX-License-Identifier: Apache-2.0
"""Subcommand ``stdc train``: train a segmentation network."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from pathlib import Path

from stdc_core.commands.arguments import run_folder


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``stdc train``; the help ends with the keys of the configuration."""
    from stdc_core.training.config import explain
    from stdc_core.training.train_config import TrainConfig

    parser.add_argument('config', type=Path, nargs='?', help='YAML file with any of the keys below')
    parser.add_argument('--data', type=Path, help='dataset with train and val splits')
    parser.add_argument(
        '--extra',
        action='append',
        default=[],
        metavar='FOLDER[=SHARE]',
        help='further training data and its share of the samples, such as idd=0.3; may be repeated',
    )
    parser.add_argument(
        '--out',
        type=Path,
        help='folder to create for the run, with weights.safetensors '
        '(default: runs/ and the name of the configuration)',
    )
    parser.add_argument('--init', type=Path, help='initial weights: a network, a model.onnx or a backbone')
    parser.add_argument(
        '--teacher',
        type=Path,
        action='append',
        default=[],
        metavar='FILE',
        help='network to learn from: weights, a model.onnx or another ONNX file; may be repeated. '
        'Data of --extra may then lack labels',
    )
    parser.add_argument('--resume', action='store_true', help='continue the interrupted run in OUT')
    parser.add_argument(
        '--set', action='append', default=[], metavar='KEY=VALUE', help='override one key of the configuration'
    )
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = f'keys of the configuration, with their defaults:\n{explain(TrainConfig)}'


def run(options: argparse.Namespace) -> None:
    """Train a network, or resume a run, and print the result.

    Raises:
        ValueError: The options contradict each other, or a value is out of its range.
        OSError: A file cannot be read or written.
    """
    from lightning.pytorch.utilities import rank_zero_only

    from stdc_core.training.extra_data import ExtraData
    from stdc_core.training.train import resume, train
    from stdc_core.training.train_config import load_config

    say = rank_zero_only(print)

    if options.resume:
        if options.config or options.extra or options.init or options.teacher:
            raise ValueError('--resume takes the configuration, --extra, --init and --teacher from the run in --out')
        say(resume(run_folder(options), options.set, options.data))
        return
    if options.data is None:
        raise ValueError('--data is missing: the dataset to train on')
    config = load_config(options.config, options.set)
    asked = any(setting.partition('=')[0].strip() == 'extra_share' for setting in options.set)
    extra = [ExtraData.parse(text) for text in options.extra]
    if config.extra_share and all(each.share is not None for each in extra) and not asked:
        # The share of a recipe is for datasets without a share of their own.
        if not extra:
            say(
                f'warning: {options.config} takes {config.extra_share:g} of the samples from --extra, which is '
                'missing; training on --data alone (`stdc render FOLDER` makes such data)',
                file=sys.stderr,
            )
        config = dataclasses.replace(config, extra_share=0.0)
    say(train(config, options.data, run_folder(options), extra, options.init, teacher=options.teacher))
