# SPDX-License-Identifier: Apache-2.0
"""Subcommand ``stdc blend``: blend the weights of two networks, one of which was trained from the other."""

from __future__ import annotations

import argparse
from pathlib import Path

from stdc_core.commands.arguments import check_suffix


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``stdc blend``."""
    parser.epilog = (
        'A network that was trained on new data forgets some of what it knew before. Its mean with the weights that '
        'it started from keeps most of both.'
    )
    parser.add_argument('weights', type=Path, help='weights (.safetensors) from stdc train')
    parser.add_argument('before', type=Path, help='weights or model.onnx that the training started from')
    parser.add_argument('out', type=Path, help='.safetensors to write')
    parser.add_argument(
        '--share', type=float, default=0.4, help='share of the weights before the training, 0 to 1 (default: 0.4)'
    )


def run(options: argparse.Namespace) -> None:
    """Blend the weights, and print what the result consists of.

    Raises:
        FileExistsError: The output exists.
        ValueError: The share or the weights cannot be used.
        OSError: A file cannot be read or written.
    """
    from stdc_core.model.blend import blend
    from stdc_core.model.weights import save_weights

    check_suffix(options.out, '.safetensors')
    if options.out.exists():
        raise FileExistsError(f'{options.out} exists; choose another name or move it away')
    model, classes, provenance = blend(options.weights, options.before, options.share)
    save_weights(model, options.out, classes, provenance)
    print(f'{options.out}: {provenance["blend"]}')
