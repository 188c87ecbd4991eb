# SPDX-License-Identifier: Apache-2.0
"""Subcommand ``stdc pretrain``: train a backbone as an image classifier."""

from __future__ import annotations

import argparse
from pathlib import Path

from stdc_core.commands.arguments import run_folder


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``stdc pretrain``; the help ends with the keys of the configuration."""
    from stdc_core.training.config import explain
    from stdc_core.training.pretrain_config import PretrainConfig

    parser.add_argument('config', type=Path, nargs='?', help='YAML file with any of the keys below')
    parser.add_argument('--data', type=Path, help='folder with train/CLASS/* and val/CLASS/*, such as ImageNet')
    parser.add_argument(
        '--out',
        type=Path,
        help='folder to create for the run, with classifier.safetensors '
        '(default: runs/ and the name of the configuration)',
    )
    parser.add_argument('--resume', action='store_true', help='continue the interrupted run in OUT')
    parser.add_argument(
        '--set', action='append', default=[], metavar='KEY=VALUE', help='override one key of the configuration'
    )
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = f'keys of the configuration, with their defaults:\n{explain(PretrainConfig)}'


def run(options: argparse.Namespace) -> None:
    """Train a classifier, or resume a run, and print the result.

    Raises:
        ValueError: The options contradict each other, or a value is out of its range.
        OSError: A file cannot be read or written.
    """
    from lightning.pytorch.utilities import rank_zero_only

    from stdc_core.training.config import read_config
    from stdc_core.training.pretrain import pretrain, resume
    from stdc_core.training.pretrain_config import PretrainConfig

    say = rank_zero_only(print)

    if options.resume:
        if options.config:
            raise ValueError('--resume takes the configuration from the run in --out')
        say(resume(run_folder(options), options.set, options.data))
        return
    if options.data is None:
        raise ValueError('--data is missing: the folder of images to train on')
    say(pretrain(read_config(PretrainConfig, options.config, options.set), options.data, run_folder(options)))
