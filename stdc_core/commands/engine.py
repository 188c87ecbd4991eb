# SPDX-License-Identifier: Apache-2.0
"""Subcommand ``stdc engine``: build the engine of a model ahead of time."""

from __future__ import annotations

import argparse
from pathlib import Path

from stdc_core.commands.arguments import image_size
from stdc_core.io.signals import killed_by_signals


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
    parser.add_argument(
        '--backend',
        choices=('tensorrt', 'tensorrt_rtx'),
        default='tensorrt',
        help='tensorrt (default) builds for the GPU of this machine; tensorrt_rtx needs no GPU',
    )
    parser.add_argument(
        '--target',
        default='any',
        metavar='CC',
        help='compute capability that tensorrt_rtx builds for, such as 7.5 (default: any from 8.0 on)',
    )
    parser.epilog = 'The node and segment_bag take the engine from the cache.'


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
    if options.backend == 'tensorrt_rtx':
        _build_for_rtx(model, options)
        return
    if options.target != 'any':
        raise ValueError('--target is for --backend tensorrt_rtx: tensorrt builds for the GPU of this machine')
    segmenter = Segmenter.load(model, 0, options.input_scale, 'tensorrt', options.precision, max_batch=options.batch)
    with killed_by_signals():  # an interrupted build leaves no incomplete file in the cache
        segmenter.prepare(options.size, print)
    print(f'{model}: the engine for {segmenter.backend} on {segmenter.reason} is ready')


def _build_for_rtx(model: Path, options: argparse.Namespace) -> None:
    """Build for TensorRT for RTX, which needs no GPU.

    Raises:
        ValueError: An argument is out of its range, the model cannot be used, the library is missing, or the engine
            cannot be built.
        FileNotFoundError: The model does not exist.
    """
    from stdc_core.inference import BackendError, ModelError
    from stdc_core.inference.input_scale import InputScale, check_input_scale
    from stdc_core.inference.int8_file import read_model_for
    from stdc_core.inference.segmenter import check_size
    from stdc_core.inference.tensorrt.make_backend import RtxEngineBuilder
    from stdc_core.inference.tensorrt.rtx import parse_target

    target = parse_target(options.target)
    model, proto, info = read_model_for(model, options.precision)
    scale: InputScale = info.scale
    if options.input_scale is not None:
        check_input_scale(options.input_scale)
        scale = InputScale(options.input_scale)
    height, width = options.size
    check_size(height, width, scale.of((height, width)))
    try:
        builder = RtxEngineBuilder(proto, options.precision, options.batch, scale, target)
    except BackendError:
        raise
    except ValueError as error:
        raise ModelError(f'{model}: {error}') from error
    with killed_by_signals():
        builder.prepare(options.size, print)
    print(f'{model}: the engine for {builder.name} ({builder.reason}) is ready for GPUs: {options.target}')
