# SPDX-License-Identifier: Apache-2.0
"""Evaluation on labels that stand for sets of classes: the score is of the labels, not of the classes."""

from __future__ import annotations

import dataclasses

import numpy as np

from stdc_core.classes import IGNORE, ClassTable
from stdc_core.data.folder import Sample, SegmentationFolder
from stdc_core.evaluation.evaluate import Predictor


class GroupedDataset:
    """Show a dataset whose labels stand for sets of classes as one whose classes are its labels.

    Args:
        dataset: Dataset with a ``labels.yaml`` in which an id means several classes.

    Attributes:
        classes: Table of the labels that may occur, each in the colour of its first class.
    """

    def __init__(self, dataset: SegmentationFolder):
        assert dataset.table is not None
        self._dataset = dataset
        meant = dataset.table.sets(dataset.classes)
        names: dict[frozenset[int], list[str]] = {}
        for number, each in meant.items():
            if each:
                names.setdefault(each, []).append(dataset.table.names[number])
        self._sets = list(names)
        colors = tuple(dataset.classes.colors[min(each)] for each in self._sets)
        self.classes = ClassTable(tuple(' or '.join(each) for each in names.values()), colors)
        # From a label to its group; what does not count stays 255.
        self._group = np.full(256, IGNORE, np.uint8)
        for group, each in enumerate(self._sets):
            count = len(dataset.classes)
            self._group[count + dataset.label_sets.index(each) if len(each) > 1 else min(each)] = group
        # The group of a class where the label is another: the smallest set, and of those the first. A class that no
        # label means is outside the table.
        self._home = np.full(256, len(self._sets), np.uint8)
        self._member = np.zeros((256, len(self._sets)), bool)
        for group in sorted(range(len(self._sets)), key=lambda group: -len(self._sets[group]) * 256 - group):
            self._home[list(self._sets[group])] = group
            self._member[list(self._sets[group]), group] = True

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, index: int) -> Sample:
        """Return a sample whose label holds groups. Raises ValueError as the dataset does."""
        sample = self._dataset[index]
        return sample._replace(label=self._group[sample.label])

    def regroup(self, mask: np.ndarray, label: np.ndarray) -> np.ndarray:
        """Return the group that each predicted class counts as.

        A class that the label may mean counts as that label; another one as the smallest group that it is in.

        Args:
            mask: uint8 ``[H, W]``, class ids of the network.
            label: uint8 ``[H, W]``, groups.

        Returns:
            uint8 ``[H, W]``.
        """
        known = label != IGNORE
        right = np.zeros(label.shape, bool)
        right[known] = self._member[mask[known], label[known]]
        return np.where(right, label, self._home[mask])


def grouped(predictor: Predictor, dataset: SegmentationFolder) -> tuple[Predictor, SegmentationFolder | GroupedDataset]:
    """Return what to evaluate: the same two, or both in groups if labels of the dataset stand for sets of classes.

    Raises:
        ValueError: The classes of the network and of the dataset differ.
    """
    if not dataset.label_sets:
        return predictor, dataset
    groups = GroupedDataset(dataset)
    return dataclasses.replace(predictor, classes=groups.classes, regroup=groups.regroup), groups
