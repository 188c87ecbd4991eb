# SPDX-License-Identifier: Apache-2.0
"""Subcommand ``stdc import``: convert a checkpoint of the reference implementation to weights."""

from __future__ import annotations

import argparse
from pathlib import Path

from stdc_core.commands.arguments import check_suffix


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``stdc import``."""
    parser.add_argument('checkpoint', type=Path, help='.pth of a segmentation network, or .tar of a classifier')
    parser.add_argument('out', type=Path, help='.safetensors to write')
    parser.add_argument(
        '--classes',
        default='cityscapes',
        help='classes of a segmentation network: cityscapes (default), camvid or a YAML file',
    )


def run(options: argparse.Namespace) -> None:
    """Convert the checkpoint, and print the name of the network.

    Raises:
        FileExistsError: The output exists.
        ValueError: The checkpoint or the classes cannot be used.
        OSError: A file cannot be read or written.
    """
    from stdc_core.classes import class_table
    from stdc_core.model.reference import import_reference
    from stdc_core.model.stdc import STDCClassifier
    from stdc_core.model.weights import save_classifier, save_weights

    check_suffix(options.out, '.safetensors')
    if options.out.exists():
        raise FileExistsError(f'{options.out} exists; choose another name or move it away')
    classes = class_table(options.classes)
    model = import_reference(options.checkpoint, classes)
    provenance = {'imported from': options.checkpoint.name}
    if isinstance(model, STDCClassifier):
        count = model.fc2.out_features
        save_classifier(model, options.out, [str(number) for number in range(count)], provenance)
        print(f'{options.out}: {model.backbone.name}, classifier of {count} classes')
    else:
        save_weights(model, options.out, classes, provenance)
        print(f'{options.out}: {model.backbone.name}, {len(classes)} classes')
