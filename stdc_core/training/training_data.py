# SPDX-License-Identifier: Apache-2.0
"""Open and check the datasets of a training."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from stdc_core.classes import ClassTable
from stdc_core.data.check import check, check_all_classes, raise_problems, shared_images
from stdc_core.data.datasets import open_dataset
from stdc_core.data.folder import SegmentationFolder
from stdc_core.data.resident import Sizes
from stdc_core.training.extra_data import ExtraData
from stdc_core.training.ranks import process_rank
from stdc_core.training.train_config import TrainConfig


@dataclass(frozen=True)
class TrainingData:
    """Datasets of a training. All of them number the sets of classes that labels stand for alike.

    Args:
        own: Training splits of ``--data``.
        extra: Datasets of ``--extra``.
        val: Validation split, or None.
        label_sets: Sets of classes that labels stand for: label ``C + k`` is set ``k``.
    """

    own: list[SegmentationFolder]
    extra: list[SegmentationFolder]
    val: SegmentationFolder | None
    label_sets: tuple[frozenset[int], ...]

    def check(self, progress: bool, refuse_absent: bool, has_teacher: bool = False) -> tuple[np.ndarray, list[Sizes]]:
        """Check all datasets, and print warnings.

        Args:
            progress: Whether to show progress bars.
            refuse_absent: Whether a class without any pixel, in the data to train on or to validate on, is an error
                where 255 occurs.
            has_teacher: Whether a teacher takes part. It teaches classes that the labels to train on lack.

        Returns:
            Pixels of each class in ``own``, int64 ``[C]``, and image sizes of each dataset in ``own`` and ``extra``.

        Raises:
            DataError: A dataset cannot be used. The message lists the files.
        """
        first = not process_rank()
        validated = [self.val] if self.val is not None else []
        reports = [check(dataset, progress=progress and first) for dataset in (*self.own, *self.extra, *validated)]
        raise_problems(*reports)
        trained = reports[: len(self.own) + len(self.extra)]
        if refuse_absent and not has_teacher:
            check_all_classes(trained)
        if refuse_absent and validated:
            check_all_classes(reports[-1:])
        if first:
            warnings = [warning for report in reports for warning in report.warnings]
            warnings += [text for dataset in self.own for other in validated for text in shared_images(dataset, other)]
            for warning in warnings:
                print(f'warning: {warning}', file=sys.stderr)
        counts = np.sum([report.counts for report in reports[: len(self.own)]], axis=0)
        return counts, [report.sizes for report in trained]


def open_training_data(
    config: TrainConfig, classes: ClassTable, data: Path, extra: Sequence[ExtraData], has_teacher: bool
) -> TrainingData:
    """Open the datasets of a training. Missing labels are left to ``TrainingData.check``, which lists all problems.

    Args:
        config: Configuration that names the splits.
        classes: Classes to train.
        data: Dataset of ``--data``.
        extra: Datasets of ``--extra``.
        has_teacher: Whether a teacher takes part, so that extra data may lack labels.

    Raises:
        FileNotFoundError: A dataset or split does not exist.
        ValueError: A dataset does not fit the class table.
    """

    def opened(path: Path, split: str) -> SegmentationFolder:
        return open_dataset(path, split, classes, require_labels=False)

    own = [opened(data, split) for split in config.train_split.split('+')]
    others = [opened(each.path, 'train') for each in extra]
    val = opened(data, config.val_split) if config.val_split else None
    if has_teacher:
        for dataset in others:
            dataset.allow_no_labels()
    datasets = [*own, *others, *([val] if val else [])]
    label_sets = tuple(dict.fromkeys(each for dataset in datasets for each in dataset.label_sets))
    for dataset in datasets:
        dataset.use_label_sets(label_sets)
    return TrainingData(own, others, val, label_sets)


def class_weights(counts: np.ndarray, power: float) -> Tensor:
    """Return the class weights of the cross-entropy: inverse frequency to a power, 1 for the average pixel.

    Args:
        counts: Pixels of each class, int64 ``[C]``.
        power: Power of the inverse frequency; 0 makes all weights 1.

    Returns:
        float32 ``[C]``.
    """
    frequency = np.maximum(counts / max(counts.sum(), 1), 1e-4)
    weight = frequency**-power
    return torch.from_numpy(weight / (weight * frequency).sum()).float()


class ImagesAndLabels(Dataset):
    """Whole images of a folder with their labels, for validation.

    Args:
        folder: Dataset.
    """

    def __init__(self, folder: SegmentationFolder):
        self._folder = folder

    def __len__(self) -> int:
        return len(self._folder)

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Return image, uint8 BGR ``[H, W, 3]``, and label, uint8 ``[H, W]``."""
        sample = self._folder[index]
        return sample.image, sample.label
