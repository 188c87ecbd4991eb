# SPDX-License-Identifier: Apache-2.0
"""Subcommand ``stdc evaluate``: measure the mIoU of a network on a dataset."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``stdc evaluate``."""
    parser.add_argument('model', type=Path, nargs='?', help='a model.onnx, or weights (.safetensors) from stdc train')
    parser.add_argument(
        '--data',
        type=Path,
        required=True,
        nargs='+',
        help='folder, CamVid or Cityscapes dataset; several datasets give one table',
    )
    parser.add_argument('--split', default='val', help='split of the dataset (default: val)')
    parser.add_argument('--out', type=Path, help='new or empty folder for report.json, confusion.png and sheet.png')
    parser.add_argument(
        '--input-scale', type=float, metavar='S', help='input scale (default: as trained, less for large images)'
    )
    parser.add_argument(
        '--scales', type=float, nargs='+', default=[1.0], metavar='S', help='average over these scales (default: 1)'
    )
    parser.add_argument('--flip', action='store_true', help='average over the image and its mirror image')
    parser.add_argument('--limit', type=int, metavar='N', help='evaluate only N images, evenly spread')
    parser.add_argument('--threads', type=int, default=0, help='number of CPU threads (default: all cores)')
    parser.add_argument(
        '--device', choices=('auto', 'cpu', 'cuda'), default='auto', help='device for torch (default: auto)'
    )
    parser.add_argument(
        '--backend',
        default='auto',
        help='backend for a model.onnx: auto (default), onnxruntime, onnxruntime_cuda, openvino, tensorrt or '
        'tensorrt_rtx',
    )
    parser.add_argument('--precision', default='auto', help='precision: auto (default), fp32, bf16, fp16 or int8')
    parser.epilog = (
        'A model.onnx runs as in the node, without torch. Weights, several scales and mirror images run in torch, and '
        'so does a model.onnx with --device cuda.'
    )


def run(options: argparse.Namespace) -> None:
    """Evaluate the network, print the result and write the report.

    Raises:
        ValueError: An option, the model or the dataset cannot be used.
        OSError: A file cannot be read or written.
    """
    from stdc_core.commands.labelled_data import labelled_data
    from stdc_core.evaluation.evaluate import evaluate, evenly
    from stdc_core.evaluation.groups import grouped
    from stdc_core.evaluation.predictors import open_predictor
    from stdc_core.evaluation.report import check_folder, describe, summary, write_report
    from stdc_core.evaluation.table import table

    if options.limit is not None and options.limit < 1:
        raise ValueError(f'--limit: expected 1 or more, found {options.limit}')
    if options.model is None and len(options.data) > 1 and options.data[-1].is_file():
        # `--data FOLDER MODEL`: argparse has taken the model for another dataset.
        options.model = options.data.pop()
    if options.model is None:
        raise ValueError('the model is missing: `stdc evaluate MODEL --data FOLDER ...`')
    names = dataset_names(options.data)
    if options.out is not None:
        check_folder(options.out)
    predictor = open_predictor(
        options.model,
        options.input_scale,
        options.scales,
        options.flip,
        options.threads,
        options.device,
        options.backend,
        options.precision,
    )
    datasets = [labelled_data(data, options.split, predictor.classes) for data in options.data]
    evaluations = []
    for data, opened in zip(options.data, datasets, strict=True):
        used, dataset = grouped(predictor, opened)
        chosen = evenly(options.limit or len(dataset), len(dataset))
        evaluation = evaluate(used, dataset, chosen, progress=True)
        evaluations.append(evaluation)
        if text := evaluation.warning():
            print(f'warning: {opened}: {text}', file=sys.stderr)
        if len(datasets) == 1:
            print(summary(evaluation))
        of = f' of {len(dataset)}' if len(chosen) < len(dataset) else ''
        print(f'({len(chosen)}{of} images of {data}, split {options.split}; {describe(predictor)})')
        if options.out is not None:
            out = options.out / names[data] if len(datasets) > 1 else options.out
            write_report(out, evaluation, used, dataset, options.model, data, options.split)
            print(out)
    if len(datasets) > 1:
        print(table([names[data] for data in options.data], evaluations))


def dataset_names(paths: Sequence[Path]) -> dict[Path, str]:
    """Return a name for each dataset: that of its folder or, where two folders share a name, its path.

    Raises:
        ValueError: A path is given twice.
    """
    short = [path.resolve().name for path in paths]
    names = {path: name if short.count(name) == 1 else str(path) for path, name in zip(paths, short, strict=True)}
    if len(names) < len(paths):
        twice = next(path for path in paths if list(paths).count(path) > 1)
        raise ValueError(f'--data: expected different folders, found {twice} twice')
    return {path: name.strip('/').replace('/', '_') for path, name in names.items()}
