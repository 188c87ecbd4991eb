# SPDX-License-Identifier: Apache-2.0
"""Evaluate a network on a dataset, with one confusion matrix over the pixels of all images.

The protocol is that of the paper (section 4.1): the image is scaled by the input scale, the logits are upsampled to the
size of the label, both bilinear with aligned corners, and each pixel gets the class with the largest logit. Pixels
labelled 255 do not count. Needs neither torch nor ROS.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from tqdm import tqdm

from stdc_core.classes import IGNORE, ClassTable
from stdc_core.data.folder import Sample
from stdc_core.data.reading import some
from stdc_core.evaluation.metrics import ConfusionMatrix


class Dataset(Protocol):
    """Images with labels, such as a ``SegmentationFolder``."""

    classes: ClassTable

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Sample: ...


@dataclass(frozen=True)
class Predictor:
    """Network to evaluate, from ``stdc_core.evaluation.predictors.open_predictor``.

    Args:
        mask: Function from an image, uint8 BGR ``[H, W, 3]``, to class ids, uint8 ``[H, W]``.
        classes: Classes of the ids.
        name: Name, such as ``stdc1-seg50``.
        protocol: Settings for the report: input scale, scales, flip, backend, device.
        regroup: Function from a mask and its label to the mask that counts; None if the mask counts as it is.
    """

    mask: Callable[[np.ndarray], np.ndarray]
    classes: ClassTable
    name: str
    protocol: dict[str, Any]
    regroup: Callable[[np.ndarray, np.ndarray], np.ndarray] | None = None


@dataclass(frozen=True)
class ImageScore:
    """Scores of one image, 0 to 1, or NaN if no pixel is labelled.

    Args:
        index: Index of the image in the dataset.
        name: Name of the image.
        miou: Mean IoU of the classes in the label of the image. Other classes do not count, so that a few stray pixels
            of one cannot spoil the score.
        pixel_accuracy: Share of the labelled pixels whose class is correct.
    """

    index: int
    name: str
    miou: float
    pixel_accuracy: float


@dataclass(frozen=True)
class Evaluation:
    """Result of an evaluation.

    Args:
        classes: Classes of the network.
        confusion: Confusion matrix over all images.
        images: Scores of each image, in the order of the dataset.
        ignored: Number of pixels that are labelled 255.
    """

    classes: ClassTable
    confusion: ConfusionMatrix
    images: list[ImageScore]
    ignored: int = 0

    def warning(self) -> str:
        """Return a warning if no pixel of the labels is of some class while 255 occurs; else an empty string."""
        labelled = self.confusion.counts.sum(axis=1)
        absent = [name for name, count in zip(self.classes.names, labelled, strict=True) if not count]
        if not absent or not self.ignored:
            return ''
        share = self.ignored / (self.ignored + int(labelled.sum()))
        return f'no pixel is {some(absent)}; {100 * share:.1f} % of the pixels are 255, which stands for no class'


def evaluate(
    predictor: Predictor, dataset: Dataset, indices: Sequence[int] | None = None, progress: bool = False
) -> Evaluation:
    """Evaluate a network on a dataset.

    Args:
        predictor: Network.
        dataset: Labelled images.
        indices: Indices of the images to evaluate; None evaluates all.
        progress: Whether to show a progress bar on a terminal.

    Raises:
        ValueError: The network and the dataset have different classes, or an image or label cannot be used. The
            message names it.
    """
    if predictor.classes.names != dataset.classes.names:
        raise ValueError(
            f'the network has the classes {", ".join(predictor.classes.names)}, '
            f'but the dataset has {", ".join(dataset.classes.names)}'
        )
    total, images, ignored = ConfusionMatrix(len(predictor.classes)), [], 0
    chosen = range(len(dataset)) if indices is None else indices
    for index in tqdm(chosen, unit='image', desc='evaluating', disable=None if progress else True):
        sample = dataset[index]
        own = ConfusionMatrix(len(predictor.classes))
        own.update(predict_sample(predictor, sample), sample.label)
        total = ConfusionMatrix.of(total.counts + own.counts)
        ignored += int((sample.label == IGNORE).sum())
        present = own.counts.sum(axis=1) > 0
        miou = float(own.iou()[present].mean()) if present.any() else float('nan')
        images.append(ImageScore(index, sample.name, miou, own.pixel_accuracy()))
    return Evaluation(predictor.classes, total, images, ignored)


def predict_sample(predictor: Predictor, sample: Sample) -> np.ndarray:
    """Return the mask of a sample, uint8 ``[H, W]``, as it counts.

    Args:
        predictor: Network.
        sample: Image with its label.

    Raises:
        ValueError: The network does not take the image. The message names the sample.
    """
    try:
        mask = predictor.mask(sample.image)
    except ValueError as error:
        raise ValueError(f'{sample.name}: {error}') from error
    return predictor.regroup(mask, sample.label) if predictor.regroup else mask


def evenly(count: int, length: int) -> list[int]:
    """Return indices spread evenly over a sequence, first and last included.

    Args:
        count: Number of indices; all indices, if the sequence is shorter.
        length: Length of the sequence.

    Example:
        >>> evenly(3, 11)
        [0, 5, 10]
    """
    return np.linspace(0, length - 1, min(count, length)).round().astype(int).tolist()
