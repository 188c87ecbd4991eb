# SPDX-License-Identifier: Apache-2.0
"""Evaluate on labels that stand for sets of classes, with scores for each label instead of each class."""

from __future__ import annotations

import dataclasses

import numpy as np

from stdc_core.classes import IGNORE, LONGEST_NAME, ClassTable
from stdc_core.data.folder import Sample, SegmentationFolder
from stdc_core.evaluation.evaluate import Predictor
from stdc_core.io.text import one_line


class GroupedDataset:
    """Dataset whose classes are groups: the labels of another dataset, which stand for sets of classes.

    Args:
        dataset: Dataset with a ``labels.yaml`` in which an id stands for several classes.

    Attributes:
        classes: Table of the groups, each in the colour of its first class. A group of one class has its name, another
            one that of its labels.
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
        self.classes = ClassTable(_group_names(names, dataset.classes), colors)
        # Group of each label; 255 for labels that do not count.
        self._group = np.full(256, IGNORE, np.uint8)
        for group, each in enumerate(self._sets):
            count = len(dataset.classes)
            self._group[count + dataset.label_sets.index(each) if len(each) > 1 else min(each)] = group
        # Group that a class counts as where the label is another one: its smallest set, and the first one of several.
        # A class that is in no set counts as an id outside the table.
        self._home = np.full(256, len(self._sets), np.uint8)
        self._member = np.zeros((256, len(self._sets)), bool)
        for group in sorted(range(len(self._sets)), key=lambda group: -len(self._sets[group]) * 256 - group):
            self._home[list(self._sets[group])] = group
            self._member[list(self._sets[group]), group] = True

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, index: int) -> Sample:
        """Return a sample with groups as label. Raises the errors of the dataset."""
        sample = self._dataset[index]
        return sample._replace(label=self._group[sample.label])

    def regroup(self, mask: np.ndarray, label: np.ndarray) -> np.ndarray:
        """Return the group that each predicted class counts as.

        A class that is in the group of the label counts as that group. Another class counts as the smallest group that
        it is in.

        Args:
            mask: Class ids of the network, uint8 ``[H, W]``.
            label: Groups, uint8 ``[H, W]``.

        Returns:
            Groups, uint8 ``[H, W]``.
        """
        known = label != IGNORE
        right = np.zeros(label.shape, bool)
        right[known] = self._member[mask[known], label[known]]
        return np.where(right, label, self._home[mask])


def _group_names(labels: dict[frozenset[int], list[str]], classes: ClassTable) -> tuple[str, ...]:
    """Return a name for each group, unique and short enough for a class table.

    Args:
        labels: Names of the labels of each group.
        classes: Classes in the groups.
    """
    names: list[str] = []
    for each, group in labels.items():
        texts = [' or '.join(group), ' or '.join(classes.names[number] for number in sorted(each))]
        if len(each) == 1:
            texts.reverse()
        fitting = [short for text in texts if (short := one_line(text, LONGEST_NAME)) not in names]
        names.append(fitting[0] if fitting else f'group {len(names)}')
    return tuple(names)


def grouped(predictor: Predictor, dataset: SegmentationFolder) -> tuple[Predictor, SegmentationFolder | GroupedDataset]:
    """Return the network and the dataset to evaluate: in groups, if labels stand for sets of classes.

    Args:
        predictor: Network.
        dataset: Labelled images.

    Returns:
        Both in groups, or both as they are.
    """
    if not dataset.label_sets:
        return predictor, dataset
    groups = GroupedDataset(dataset)
    return dataclasses.replace(predictor, classes=groups.classes, regroup=groups.regroup), groups
