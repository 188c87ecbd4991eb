# SPDX-License-Identifier: Apache-2.0
"""Subcommand ``stdc quantize``: convert a model.onnx to int8, calibrated on the user's images."""

from __future__ import annotations

import argparse
from pathlib import Path

from stdc_core.commands.arguments import check_suffix

LISTS = {'--images': lambda text: not text.endswith('.onnx')}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``stdc quantize``."""
    parser.add_argument('model', type=Path, help='model.onnx from stdc export')
    parser.add_argument(
        'out', type=Path, nargs='?', help='model.onnx to write (default: MODEL.int8.onnx, where precision int8 looks)'
    )
    parser.add_argument(
        '--images', type=Path, action='append', required=True, help='images, or folders to search for them'
    )
    parser.add_argument('--data', type=Path, help='labelled dataset, to measure the mIoU before and after')
    parser.add_argument('--split', default='val', help='split of the dataset (default: val)')
    parser.add_argument(
        '--max-loss',
        type=float,
        metavar='P',
        help='largest loss in points of mIoU (default: 0.5); without --data, largest share of changed labels '
        'in %% (default: 1)',
    )
    parser.add_argument('--threads', type=int, default=0, help='number of CPU threads (default: all cores)')
    parser.add_argument('--overwrite', action='store_true', help='replace OUT if it exists')


def run(options: argparse.Namespace) -> None:
    """Quantise the model, and print the changes of labels, mIoU and file size.

    Raises:
        ValueError: The model, the images or the dataset cannot be used.
        OSError: A file cannot be read or written.
    """
    from stdc_core.commands.labelled_data import labelled_data
    from stdc_core.export.calibration_images import find_images
    from stdc_core.export.quantize import quantize
    from stdc_core.inference.int8_file import int8_path
    from stdc_core.inference.model_file import read_model

    if options.out is not None:
        check_suffix(options.out, '.onnx')
    classes = read_model(options.model)[1].classes
    data = labelled_data(options.data, options.split, classes) if options.data else None
    out = options.out or int8_path(options.model)
    report = quantize(
        options.model,
        out,
        find_images(options.images),
        data,
        options.max_loss,
        options.threads,
        options.overwrite,
    )
    print(f'calibrated on {report.images} images; {report.changed:.2f} % of labels changed')
    if data is not None and report.miou is not None:
        before, after = report.miou
        print(f'mIoU {before:.2f} % before, {after:.2f} % after, on {len(data)} images of {options.data}')
    if report.kept:
        print(f'kept in float: {", ".join(report.kept)}; % of labels changed with only this block in float:')
        for block, changed in sorted(report.blocks.items(), key=lambda item: item[1]):
            print(f'  {block:<20} {changed:.2f}')
    print(f'{out}: {report.size[1] / 1e6:.1f} MB, before {report.size[0] / 1e6:.1f} MB')
