# SPDX-License-Identifier: Apache-2.0
"""Read and check command-line arguments that several subcommands share."""

from __future__ import annotations

import argparse
from pathlib import Path


def image_size(text: str) -> tuple[int, int]:
    """Return (height, width) in pixels from ``HEIGHTxWIDTH``.

    Raises:
        argparse.ArgumentTypeError: The text has another form, or a side is 0.
    """
    height, _, width = text.partition('x')
    if not (height.isdigit() and width.isdigit() and int(height) and int(width)):
        raise argparse.ArgumentTypeError(f'expected HEIGHTxWIDTH in pixels, such as 360x480, found {text!r}')
    return int(height), int(width)


def run_folder(options: argparse.Namespace) -> Path:
    """Return the folder of a training run: ``--out``, or runs/ and the name of the configuration.

    Raises:
        ValueError: Both ``--out`` and the configuration are missing.
    """
    if options.out is None and options.config is None:
        raise ValueError('--out is missing: the folder of the run')
    return options.out or Path('runs', options.config.stem)


def check_suffix(out: Path, suffix: str) -> None:
    """Check the name of a network to write. Other commands tell the format of a network by its suffix.

    Args:
        out: File to write. A folder passes, since it has an error of its own.
        suffix: Suffix of the format, such as ``.onnx``.

    Raises:
        ValueError: The name has another suffix.
    """
    if out.suffix != suffix and not out.is_dir():
        raise ValueError(f'{out}: expected a file name that ends with {suffix}, found {out.name}')
