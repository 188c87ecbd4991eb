# SPDX-License-Identifier: Apache-2.0
"""Subcommand ``stdc benchmark``: compare the speed of the segmenter and of PyTorch on this machine."""

from __future__ import annotations

import argparse
from pathlib import Path

from stdc_core.commands.arguments import image_size


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``stdc benchmark``."""
    parser.add_argument(
        'model', type=Path, nargs='?', help='a model.onnx or weights (.safetensors) (default: the shipped model)'
    )
    parser.add_argument(
        '--size', type=image_size, default=(1024, 2048), metavar='HxW', help='size of the image (default: 1024x2048)'
    )
    parser.add_argument(
        '--input-scale',
        type=float,
        default=0.5,
        help='input scale (default: 0.5, so that the network sees 512x1024)',
    )
    parser.add_argument('--threads', type=int, default=2, help='number of CPU threads of both sides (default: 2)')
    parser.add_argument('--int8', action='store_true', help='also time the network in int8')
    parser.add_argument('--runs', type=int, default=15, help='number of timed runs of each side (default: 15)')


def run(options: argparse.Namespace) -> None:
    """Time both sides, and print a table.

    Raises:
        ValueError: A number is out of its range.
        OSError: The model cannot be read.
    """
    from stdc_core.commands.benchmark_timing import benchmark

    benchmark(options.model, options.size, options.input_scale, options.threads, options.runs, options.int8)
