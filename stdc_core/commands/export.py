# SPDX-License-Identifier: Apache-2.0
"""Subcommand ``stdc export``: convert weights to a model.onnx that describes itself."""

from __future__ import annotations

import argparse
from pathlib import Path

from stdc_core.commands.arguments import check_suffix


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``stdc export``."""
    parser.add_argument('weights', type=Path, help='weights (.safetensors) from stdc train, or a model.onnx')
    parser.add_argument('out', type=Path, help='model.onnx to write')
    parser.add_argument(
        '--input-scale', type=float, metavar='S', help='0.5 is Seg50, 0.75 is Seg75 (default: as trained)'
    )
    parser.add_argument('--overwrite', action='store_true', help='replace OUT if it exists')


def run(options: argparse.Namespace) -> None:
    """Export the weights, and print the name of the network.

    Raises:
        ValueError: The weights or an option cannot be used.
        OSError: A file cannot be read or written.
    """
    from stdc_core.export.onnx import export

    check_suffix(options.out, '.onnx')
    info = export(options.weights, options.out, options.input_scale, options.overwrite)
    print(f'{options.out}: {info.name}, {len(info.classes)} classes')
