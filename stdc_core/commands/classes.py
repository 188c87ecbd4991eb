# SPDX-License-Identifier: Apache-2.0
"""Subcommand ``stdc classes``: print the class table of a segmented bag, a model or a dataset."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from stdc_core.classes import ClassTable, class_table
from stdc_core.io.arguments import expand_user
from stdc_core.io.text import one_line


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``stdc classes``."""
    parser.add_argument(
        'source',
        type=expand_user,
        help='segmented bag (.mcap or folder), model.onnx, weights (.safetensors), YAML file, camvid or cityscapes',
    )
    parser.epilog = 'The output is YAML, which the key `classes` of stdc train takes.'


def run(options: argparse.Namespace) -> None:
    """Print the class table as YAML, with the ids and the model in comments.

    Raises:
        ValueError: The source has no class table.
        OSError: The source cannot be read.
    """
    from stdc_core.io.terminal import print_result

    table, made_by = read_table(options.source)
    title = f'{options.source}: {made_by}' if made_by else str(options.source)
    lines = [f'# {one_line(title, 1000)}', 'classes:']
    for index, (name, color) in enumerate(zip(table.names, table.colors, strict=True)):
        # JSON in quotes is YAML as well, whatever the name is.
        lines.append(f'  - {{name: {json.dumps(name, ensure_ascii=False)}, color: {list(color)}}}  # {index}')
    print_result(lambda: print('\n'.join(lines)))


def read_table(source: Path) -> tuple[ClassTable, str]:
    """Return the class table of a bag, a model, weights, a YAML file or a known dataset, and what made it.

    Args:
        source: Path, or name of a known dataset.

    Returns:
        Class table, and a line about the model; '' for a dataset.

    Raises:
        ValueError: The source has no class table.
        OSError: The source cannot be read.
    """
    if source.is_dir() or source.suffix in ('.mcap', '.bag', '.db3'):
        return _of_bag(source)
    if source.suffix == '.onnx':
        from stdc_core.inference.model_file import read_model

        info = read_model(source)[1]
        return info.classes, info.summary
    if source.suffix == '.safetensors':
        from stdc_core.model.weights import load_weights

        _, table, provenance = load_weights(source)
        return table, f'trained on {provenance["data"]}' if 'data' in provenance else ''
    return class_table(source), ''


def _of_bag(path: Path) -> tuple[ClassTable, str]:
    from stdc_core.io.bag_metadata import CLASSES_KEY, MODEL_KEY, read_custom_data

    if not path.exists():
        raise FileNotFoundError(f'{path}: no such bag')
    custom = read_custom_data(path)
    if CLASSES_KEY not in custom:
        raise ValueError(f'{path}: no class table found; expected a bag that segment_bag wrote')
    try:
        return ClassTable.from_json(custom[CLASSES_KEY]), one_line(custom.get(MODEL_KEY, ''))
    except ValueError as error:
        raise ValueError(f'{path}: {error}') from error
