# SPDX-License-Identifier: Apache-2.0
"""Subcommand ``stdc explain``: draw heat maps, predicted details, masks and errors of networks (Figure 6)."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``stdc explain``."""
    parser.add_argument(
        'models', type=Path, nargs='+', metavar='MODEL', help='weights (.safetensors) from stdc train, or a model.onnx'
    )
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument(
        '--images',
        type=Path,
        nargs='+',
        help='images, and folders of images; labels are taken from a folder labels/ beside a folder images/',
    )
    source.add_argument('--data', type=Path, help='folder, CamVid or Cityscapes dataset, whose labels are compared')
    parser.add_argument('--split', default='val', help='split of the dataset (default: val)')
    parser.add_argument('--limit', type=int, default=8, metavar='N', help='draw at most N images (default: 8)')
    parser.add_argument('--out', type=Path, required=True, help='new or empty folder, for a PNG per image and a sheet')
    parser.add_argument('--input-scale', type=float, metavar='S', help='input scale (default: as trained)')
    parser.add_argument('--threads', type=int, default=0, help='number of CPU threads (default: all cores)')
    parser.epilog = (
        'Each image gets a row for each network: strength of the feature at stride 8 (stage 3), predicted details, '
        'mask and errors. Errors and the detail target need a label. A model.onnx has no detail head. With a network '
        'that was trained with detail guidance and one without, the sheet is Figure 6 of the paper.'
    )


def run(options: argparse.Namespace) -> None:
    """Draw the pictures, and print their paths.

    Raises:
        ValueError: An option, a model or an image cannot be used.
        OSError: A file cannot be read or written.
    """
    from stdc_core.commands.explain_networks import explain

    if options.limit < 1:
        raise ValueError(f'--limit: expected 1 or more, found {options.limit}')
    for path in explain(
        options.models,
        options.images,
        options.data,
        options.split,
        options.out,
        options.limit,
        options.input_scale,
        options.threads,
    ):
        print(path)
