# SPDX-License-Identifier: Apache-2.0
"""Open the dataset of ``--data``, for the subcommands that compare a network with labels."""

from __future__ import annotations

import sys
from pathlib import Path

from stdc_core.classes import ClassTable
from stdc_core.data.datasets import open_dataset
from stdc_core.data.folder import SegmentationFolder


def labelled_data(root: Path, split: str, classes: ClassTable) -> SegmentationFolder:
    """Return a dataset, and print the warnings about its files.

    Args:
        root: Folder of the dataset.
        split: Split of the dataset.
        classes: Classes of the network.

    Raises:
        FileNotFoundError, ValueError: See ``stdc_core.data.datasets.open_dataset``.
    """
    dataset = open_dataset(root, split, classes)
    for text in dataset.warnings:
        print(f'warning: {text}', file=sys.stderr)
    return dataset
