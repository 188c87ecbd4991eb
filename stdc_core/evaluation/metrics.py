# SPDX-License-Identifier: Apache-2.0
"""The confusion matrix and what is read from it. Needs neither torch nor ROS."""

from __future__ import annotations

import numpy as np


class ConfusionMatrix:
    """Counts of (true class, predicted class) pairs over all pixels of all images, in integers.

    Args:
        num_classes: number of classes C. Pixels whose label is C or more (the ignored id, say) are not counted; a
            counted pixel whose predicted id is C or more is wrong for its true class.
    """

    def __init__(self, num_classes: int):
        self.num_classes = num_classes
        # The last column holds predictions outside the table.
        self._counts = np.zeros((num_classes, num_classes + 1), np.int64)

    @classmethod
    def of(cls, counts: np.ndarray) -> ConfusionMatrix:
        """The matrix with these ``counts``, such as the sum of several."""
        matrix = cls(len(counts))
        matrix._counts += counts
        return matrix

    def update(self, prediction: np.ndarray, label: np.ndarray) -> None:
        """Add the pixels of one image or batch: two integer arrays of one shape.

        Raises:
            ValueError: the shapes differ.
        """
        if prediction.shape != label.shape:
            raise ValueError(f'prediction of shape {prediction.shape}, but label of shape {label.shape}')
        counted = label < self.num_classes
        true = label[counted].astype(np.int64)
        predicted = np.minimum(prediction[counted].astype(np.int64), self.num_classes)
        columns = self.num_classes + 1
        self._counts += np.bincount(true * columns + predicted, minlength=self._counts.size).reshape(-1, columns)

    @property
    def counts(self) -> np.ndarray:
        """int64 ``[C, C + 1]``: row true, column predicted, the last column for ids outside the table."""
        return self._counts.copy()

    def iou(self) -> np.ndarray:
        """Intersection over union per class, float64 ``[C]`` in 0 ... 1; NaN for one neither there nor predicted."""
        hit = np.diagonal(self._counts).astype(np.float64)
        union = self._counts.sum(axis=1) + self._counts[:, :-1].sum(axis=0) - hit
        return np.divide(hit, union, out=np.full(self.num_classes, np.nan), where=union > 0)

    def miou(self) -> float:
        """Mean of ``iou`` over the classes that have one; NaN if nothing was counted."""
        iou = self.iou()
        return float(np.nanmean(iou)) if np.isfinite(iou).any() else float('nan')

    def pixel_accuracy(self) -> float:
        """Share of the counted pixels that are right; NaN if nothing was counted."""
        total = self._counts.sum()
        return float(np.diagonal(self._counts).sum() / total) if total else float('nan')
