# SPDX-License-Identifier: Apache-2.0
"""Count a confusion matrix, and compute IoU and accuracy from it. Needs neither torch nor ROS."""

from __future__ import annotations

import numpy as np


class ConfusionMatrix:
    """Number of pixels of each pair of true and predicted class, over any number of images.

    A pixel whose label is C or more, such as the ignored id, does not count. A pixel whose predicted id is C or more
    counts as wrong.

    Args:
        num_classes: Number of classes C.

    Example:
        >>> matrix = ConfusionMatrix(2)
        >>> matrix.update(np.array([0, 1, 1]), np.array([0, 0, 1]))
        >>> matrix.iou().tolist(), matrix.miou()
        ([0.5, 0.5], 0.5)
    """

    def __init__(self, num_classes: int):
        self.num_classes = num_classes
        # The last column counts predictions outside the table.
        self._counts = np.zeros((num_classes, num_classes + 1), np.int64)

    @classmethod
    def of(cls, counts: np.ndarray) -> ConfusionMatrix:
        """Return a matrix with given counts, such as the sum of several matrices.

        Args:
            counts: int64 ``[C, C + 1]``.
        """
        matrix = cls(len(counts))
        matrix._counts += counts
        return matrix

    def update(self, prediction: np.ndarray, label: np.ndarray) -> None:
        """Add the pixels of an image or a batch.

        Args:
            prediction: Predicted ids, integers.
            label: True ids, integers of the same shape.

        Raises:
            ValueError: The shapes differ.
        """
        if prediction.shape != label.shape:
            raise ValueError(f'prediction: expected the shape of the label, {label.shape}, found {prediction.shape}')
        counted = label < self.num_classes
        true = label[counted].astype(np.int64)
        predicted = np.minimum(prediction[counted].astype(np.int64), self.num_classes)
        columns = self.num_classes + 1
        self._counts += np.bincount(true * columns + predicted, minlength=self._counts.size).reshape(-1, columns)

    @property
    def counts(self) -> np.ndarray:
        """Return the counts, int64 ``[C, C + 1]``: a row for each true class; the last column is for unknown ids."""
        return self._counts.copy()

    def iou(self) -> np.ndarray:
        """Return the intersection over union of each class.

        Returns:
            float64 ``[C]``, 0 to 1; NaN for a class that is neither labelled nor predicted.
        """
        hit = np.diagonal(self._counts).astype(np.float64)
        union = self._counts.sum(axis=1) + self._counts[:, :-1].sum(axis=0) - hit
        return np.divide(hit, union, out=np.full(self.num_classes, np.nan), where=union > 0)

    def miou(self) -> float:
        """Return the mean IoU of the classes that have one; NaN if nothing was counted."""
        iou = self.iou()
        return float(np.nanmean(iou)) if np.isfinite(iou).any() else float('nan')

    def pixel_accuracy(self) -> float:
        """Return the share of the counted pixels whose class is correct; NaN if nothing was counted."""
        total = self._counts.sum()
        return float(np.diagonal(self._counts).sum() / total) if total else float('nan')
