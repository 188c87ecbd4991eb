# SPDX-License-Identifier: Apache-2.0
"""Write the tables, the plot and the numbers of the comparison."""

from __future__ import annotations

import argparse
import dataclasses
import json
import platform
import statistics
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import onnxruntime
import torch

from network_comparison.measuring import Row
from network_comparison.published import NETWORKS, PUBLISHED_CLASSIFIERS, PUBLISHED_NETWORKS, SCALES, STDC
from network_comparison.training import recipe
from stdc_core.io.files import write_png
from stdc_core.pictures.drawing import Color
from stdc_core.pictures.scatter import Point, scatter

#: Colours of the points of STDC and of the other networks.
_STDC_COLOR: Color = (40, 40, 220)
_OTHER_COLOR: Color = (200, 120, 40)


def write(options: argparse.Namespace, networks: Sequence[Row], classifiers: Sequence[Row]) -> None:
    """Write ``compare.json``, ``compare.md`` and, if an accuracy is known, ``compare.png``."""
    found = {'networks': networks, 'classifiers': classifiers}
    text = json.dumps({key: [dataclasses.asdict(row) for row in rows] for key, rows in found.items()}, indent=1)
    (options.out / 'compare.json').write_text(text)
    measured = any(row.miou for row in networks)
    parts = [machine(options), network_table(networks, options.size)]
    parts += [accuracy(options, max(len(row.miou) for row in networks))] if measured else []
    (options.out / 'compare.md').write_text('\n'.join([*parts, classifier_table(classifiers)]))
    if points := plot_points(networks):
        label = f'mIoU in %, {validated_on(options)}' if measured else 'mIoU in %, Cityscapes val, as published'
        write_png(options.out / 'compare.png', scatter(points, 'Speed and accuracy', 'frames/s, measured here', label))


def machine(options: argparse.Namespace) -> str:
    """Return one line about the machine, the versions and the runs."""
    cpu = platform.processor() or platform.machine()
    with suppress(OSError, StopIteration):
        lines = Path('/proc/cpuinfo').read_text().splitlines()
        cpu = next(line.split(':')[1].strip() for line in lines if line.startswith('model name'))
    gpu = f', {torch.cuda.get_device_name()}' if torch.cuda.is_available() else ''
    return (
        f'{time.strftime("%Y-%m-%d")}, {cpu}{gpu}, {options.threads} threads, torch {torch.__version__}, '
        f'onnxruntime {onnxruntime.__version__}, image {options.size[0]} x {options.size[1]}, '
        f'medians of {options.runs} interleaved runs, random weights\n'
    )


def accuracy(options: argparse.Namespace, seeds: int) -> str:
    """Return one line that says how the mIoU was measured."""
    config = recipe(options, 'stdc2', 0)
    return (
        f'mIoU on {validated_on(options)} at input scale {config.input_scale:g}, after {config.steps} steps of '
        f'{options.config.name}: mean (lowest to highest) of {seeds} seeds. Published mIoU: Cityscapes val.\n'
    )


def validated_on(options: argparse.Namespace) -> str:
    """Return the name of the dataset and the split that the mIoU is measured on."""
    return f'{options.data.name}/{recipe(options, "stdc2", 0).val_split}'


def network_table(rows: Sequence[Row], size: tuple[int, int]) -> str:
    """Return the table of networks in Markdown. Ratios of frames per second are to STDC2 on the same backend."""
    titles = ['network', 'sees', 'backend', 'parameters, M', 'multiply-adds, G', 'memory, MB', 'ms', 'frames/s']
    titles += ['to STDC2', 'mIoU in %', 'published frames/s', 'published to STDC2', 'published mIoU in %']
    reference = {(row.scale, row.backend): row.seconds for row in rows if row.network == 'stdc2'}
    lines = []
    for row in rows:
        published, base = PUBLISHED_NETWORKS.get((row.network, row.scale)), PUBLISHED_NETWORKS['stdc2', row.scale]
        cells = [
            NETWORKS[row.network],
            f'{round(size[0] * row.scale)} x {round(size[1] * row.scale)}',
            row.backend,
            f'{row.parameters / 1e6:.2f}',
            f'{row.multiply_adds / 1e9:.2f}',
            '' if row.memory is None else f'{row.memory / 1e6:.0f}',
            f'{1e3 * row.seconds:.1f}',
            f'{1 / row.seconds:.2f}',
            f'{reference[row.scale, row.backend] / row.seconds:.2f}',
            spread(row.miou),
        ]
        if published:
            cells += [f'{published.fps}', f'{published.fps / base.fps:.2f}', f'{published.miou}']
        else:
            cells += [''] * 3
        lines.append(cells)
    return markdown(titles, lines)


def classifier_table(rows: Sequence[Row]) -> str:
    """Return the table of ImageNet classifiers in Markdown, with a line above it."""
    titles = ['classifier', 'parameters, M', 'published', 'multiply-adds, M', 'published', 'ms', 'images/s', 'to STDC2']
    titles += ['published images/s', 'published to STDC2', 'published top-1 in %']
    reference = next((row.seconds for row in rows if row.network == 'stdc2'), float('nan'))
    lines = []
    for row in rows:
        published, base = PUBLISHED_CLASSIFIERS[row.network], PUBLISHED_CLASSIFIERS['stdc2']
        lines.append(
            [
                NETWORKS[row.network],
                f'{row.parameters / 1e6:.2f}',
                f'{published.parameters}',
                f'{row.multiply_adds / 1e6:.0f}',
                f'{published.multiply_adds}',
                f'{1e3 * row.seconds:.1f}',
                f'{1 / row.seconds:.1f}',
                f'{reference / row.seconds:.2f}',
                f'{published.fps}',
                f'{published.fps / base.fps:.2f}',
                f'{published.top1}',
            ]
        )
    return f'Image classifiers at 224 x 224 (Table 5), with ONNX Runtime:\n\n{markdown(titles, lines)}'


def markdown(titles: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """Return a table in Markdown."""
    return ''.join(f'| {" | ".join(cells)} |\n' for cells in [titles, ['---'] * len(titles), *lines])


def spread(scores: Sequence[float]) -> str:
    """Return the mean, and the lowest and highest of several scores."""
    if not scores:
        return ''
    mean = f'{statistics.mean(scores):.1f}'
    return mean if len(scores) == 1 else f'{mean} ({min(scores):.1f} to {max(scores):.1f})'


def plot_points(rows: Sequence[Row]) -> list[Point]:
    """Return the points of the plot: measured accuracy if there is any, else that of the papers."""
    measured = any(row.miou for row in rows)
    points = []
    for row in rows:
        published = PUBLISHED_NETWORKS.get((row.network, row.scale))
        accuracy = statistics.mean(row.miou) if row.miou else published.miou if published and not measured else None
        # Trainings validate at one input scale, which is not the scale of the time.
        if accuracy is None or (measured and row.scale != SCALES[0]):
            continue
        name = NETWORKS[row.network] + ('' if measured else f' {row.scale:g}')
        if row.backend != rows[0].backend:
            name += f', {row.backend}'
        points.append(Point(1 / row.seconds, accuracy, name, _STDC_COLOR if row.network in STDC else _OTHER_COLOR))
    return points
