# SPDX-License-Identifier: Apache-2.0
"""Report an evaluation: a table for the terminal, numbers in JSON, and two pictures."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

import numpy as np

from stdc_core.evaluation.confusion_picture import confusion_picture
from stdc_core.evaluation.evaluate import Dataset, Evaluation, ImageScore, Predictor, evenly, predict_sample
from stdc_core.evaluation.sheet import Row, sheet
from stdc_core.io.files import appearing, check_writable, unfinished, write_png

#: Number of images in the sheet: spread evenly over the dataset, and the worst ones of the others.
SPREAD, WORST = 6, 3

_REPORT = 'report.json'


def summary(evaluation: Evaluation) -> str:
    """Return the IoU of each class, mIoU and pixel accuracy, as lines of text."""
    confusion, names = evaluation.confusion, evaluation.classes.names
    width = max(16, *map(len, names))
    lines = [
        f'{name:>{width}} {_percent(iou):>8}{"" if math.isfinite(iou) else "   (neither labelled nor predicted)"}'
        for name, iou in zip(names, confusion.iou(), strict=True)
    ]
    lines.append(f'{"mIoU":>{width}} {_percent(confusion.miou()):>8}')
    lines.append(f'{"pixel accuracy":>{width}} {_percent(confusion.pixel_accuracy()):>8}')
    return '\n'.join(lines)


def describe(predictor: Predictor) -> str:
    """Return the protocol in words, such as ``stdc1-seg50, input scale 0.5, onnxruntime``."""
    protocol = predictor.protocol
    limit = f' up to {protocol["full_scale_pixels"]} pixels' if protocol['full_scale_pixels'] else ''
    parts = [predictor.name, f'input scale {protocol["input_scale"]:g}{limit}']
    if protocol['scales'] != [1.0]:
        parts.append('scales ' + ' '.join(f'{scale:g}' for scale in protocol['scales']))
    if protocol['flip']:
        parts.append('flipped')
    return ', '.join([*parts, protocol['backend']])


def report(evaluation: Evaluation, predictor: Predictor, model: Path, data: Path, split: str, size: int) -> dict:
    """Return the content of ``report.json``. Shares are 0 to 1, and null where nothing was counted.

    Args:
        evaluation: Result.
        predictor: Network.
        model: File of the network.
        data: Folder of the dataset.
        split: Split of the dataset.
        size: Number of images in the dataset; fewer may have been evaluated.
    """
    confusion = evaluation.confusion
    counts = confusion.counts
    labelled, predicted = counts.sum(axis=1), counts.sum(axis=0)[:-1]
    hits = np.diagonal(counts)
    classes = [
        {
            'name': name,
            'iou': _number(iou),
            'recall': _ratio(hits[index], labelled[index]),
            'precision': _ratio(hits[index], predicted[index]),
            'pixels': int(labelled[index]),
        }
        for index, (name, iou) in enumerate(zip(evaluation.classes.names, confusion.iou(), strict=True))
    ]
    return {
        'miou': _number(confusion.miou()),
        'pixel_accuracy': _number(confusion.pixel_accuracy()),
        'classes': classes,
        'model': {'file': str(model), 'name': predictor.name},
        'dataset': {'path': str(data), 'split': split, 'images': size},
        'protocol': {
            **predictor.protocol,
            'resampling': 'image by the input scale and logits to the label: bilinear, aligned corners',
            'images': len(evaluation.images),
            'pixels': int(counts.sum()),
        },
        'confusion': {
            'rows': 'true class',
            'columns': [*evaluation.classes.names, 'ids outside the table'],
            'counts': counts.tolist(),
        },
        'images': [
            {'name': image.name, 'miou': _number(image.miou), 'pixel_accuracy': _number(image.pixel_accuracy)}
            for image in evaluation.images
        ],
    }


def check_folder(out: Path) -> None:
    """Check that a report can be written to a folder, which may be empty or not exist yet.

    Args:
        out: Folder.

    Raises:
        FileExistsError: The folder is not empty, or is a file.
        WriteError: The folder cannot be written to, or made.
    """
    if out.exists() and not out.is_dir():
        raise FileExistsError(f'{out}: is a file, expected a folder to write to')
    if out.is_dir():
        with unfinished(out / _REPORT) as partial:  # removes what a killed process has left
            if any(out.iterdir()):
                raise FileExistsError(f'{out} is not empty; choose another folder or move it away')
            partial.touch()
    else:
        check_writable(out)


def write_report(
    out: Path, evaluation: Evaluation, predictor: Predictor, dataset: Dataset, model: Path, data: Path, split: str
) -> None:
    """Write ``report.json``, ``confusion.png`` and ``sheet.png``. A new folder appears with all three or not at all.

    An empty folder is kept, since it may be a mount point or the working directory of a shell. The complete files are
    then moved into it, ``report.json`` last.

    Args:
        out: Folder, empty or not there yet.
        evaluation: Result.
        predictor: Network, which segments the images of the sheet again.
        dataset: Labelled images.
        model: File of the network.
        data: Folder of the dataset.
        split: Split of the dataset.

    Raises:
        FileExistsError: The folder is not empty.
        OSError: The files cannot be written.
    """
    check_folder(out)
    content = report(evaluation, predictor, model, data, split, len(dataset))
    number = f'{len(evaluation.images)} image{"s" if len(evaluation.images) != 1 else ""}'
    title = f'{data.resolve().name}/{split}: mIoU {_percent(evaluation.confusion.miou())}'
    subtitle = f'{describe(predictor)}, {number}, pixel accuracy {_percent(evaluation.confusion.pixel_accuracy())}'
    there = out.is_dir()
    with unfinished(out / _REPORT) if there else appearing(out.resolve()) as folder:
        folder.mkdir()
        picture = confusion_picture(evaluation.confusion, evaluation.classes, title, subtitle)
        write_png(folder / 'confusion.png', picture)
        groups = [
            (heading, [_row(predictor, dataset, image) for image in images]) for heading, images in chosen(evaluation)
        ]
        write_png(folder / 'sheet.png', sheet(groups, evaluation.classes, title, subtitle))
        (folder / _REPORT).write_text(json.dumps(content, indent=1) + '\n')
        for name in ('confusion.png', 'sheet.png', _REPORT) if there else ():
            os.replace(folder / name, out / name)


def chosen(evaluation: Evaluation) -> list[tuple[str, list[ImageScore]]]:
    """Choose the images of the sheet.

    Returns:
        Groups of a heading and images: those spread evenly, in the order of the dataset, and the worst, worst first.
    """
    images = evaluation.images
    if len(images) <= SPREAD + WORST:
        return [('', images)]
    spread = [images[index] for index in evenly(SPREAD, len(images))]
    others = [image for image in images if image not in spread and math.isfinite(image.miou)]
    worst = sorted(others, key=lambda image: image.miou)[:WORST]
    return [(f'Spread evenly over the {len(images)} images', spread), ('The lowest mIoU of the others', worst)]


def _row(predictor: Predictor, dataset: Dataset, image: ImageScore) -> Row:
    """Segment an image again, for a row of the sheet."""
    sample = dataset[image.index]
    score = f'mIoU {_percent(image.miou)},  pixel accuracy {_percent(image.pixel_accuracy)}'
    return Row(sample.image, sample.label, predict_sample(predictor, sample), sample.name, score)


def _percent(value: float) -> str:
    """Return a share in percent, or a dash for NaN."""
    return f'{100 * value:.2f} %' if math.isfinite(value) else '-'


def _number(value: float) -> float | None:
    """Return a number for JSON, or None for NaN."""
    return float(value) if math.isfinite(value) else None


def _ratio(part: Any, whole: Any) -> float | None:
    """Return a ratio for JSON, or None if the whole is 0."""
    return float(part / whole) if whole else None
