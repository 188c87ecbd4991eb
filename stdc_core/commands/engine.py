# SPDX-License-Identifier: Apache-2.0
"""Subcommand ``stdc engine``: build the TensorRT engine of a model ahead of time."""

from __future__ import annotations

import argparse
from pathlib import Path

from stdc_core.commands.arguments import image_size


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``stdc engine``."""
    parser.add_argument('model', type=Path, nargs='?', help='a model.onnx (default: the shipped model)')
    parser.add_argument(
        '--size', type=image_size, required=True, metavar='HxW', help='size of the images, such as 1080x1920'
    )
    parser.add_argument('--precision', default='auto', help='precision: auto (default), fp32, fp16 or int8')
    parser.add_argument(
        '--input-scale', type=float, metavar='S', help='input scale (default: that of the model, less for large images)'
    )
    parser.add_argument('--batch', type=int, default=1, metavar='N', help='number of cameras of the node (default: 1)')
    parser.epilog = 'The engine is for the GPU of this machine. The node and segment_bag take it from the cache.'


def run(options: argparse.Namespace) -> None:
    """Build the engine, or find it in the cache.

    Raises:
        ValueError: The model or an option cannot be used, or TensorRT or the GPU is missing.
        OSError: A file cannot be read or written.
    """
    from stdc_core.inference import DEFAULT_MODEL, Segmenter

    if options.batch < 1:
        raise ValueError(f'--batch: expected 1 or more, found {options.batch}')
    model = options.model or DEFAULT_MODEL
    segmenter = Segmenter.load(model, 0, options.input_scale, 'tensorrt', options.precision, max_batch=options.batch)
    segmenter.prepare(options.size, print)
    print(f'{model}: the engine for {segmenter.backend} on {segmenter.reason} is ready')
