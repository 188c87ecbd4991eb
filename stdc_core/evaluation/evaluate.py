# SPDX-License-Identifier: Apache-2.0
"""The evaluation protocol: every image of a dataset through a network, one confusion matrix over all pixels.

As in the paper (section 4.1): the image is scaled by the input scale and the logits are upsampled to the label's size,
both bilinear with aligned corners; each pixel takes its best class. Pixels labelled 255 are not counted. Needs neither
torch nor ROS.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from tqdm import tqdm

from stdc_core.classes import ClassTable
from stdc_core.data.folder import Sample
from stdc_core.evaluation.metrics import ConfusionMatrix


class Dataset(Protocol):
    """Images with labels, such as a ``SegmentationFolder``."""

    classes: ClassTable

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Sample: ...


@dataclass(frozen=True)
class Predictor:
    """A network ready to be evaluated; made by ``stdc_core.evaluation.predictors.open_predictor``.

    Args:
        mask: uint8 BGR ``[H, W, 3]`` to class ids, uint8 ``[H, W]``.
        classes: what the ids mean.
        name: such as ``stdc1-seg50``.
        protocol: how masks are computed, for the report: input scale, scales, flip, backend, device.
        regroup: Function from a mask and its label to what the mask counts as; None: its ids count as they are.
    """

    mask: Callable[[np.ndarray], np.ndarray]
    classes: ClassTable
    name: str
    protocol: dict[str, Any]
    regroup: Callable[[np.ndarray, np.ndarray], np.ndarray] | None = None


@dataclass(frozen=True)
class ImageScore:
    """One image: its index in the dataset, its name, and its scores in 0 ... 1, NaN where no pixel is labelled.

    ``miou`` is the mean over the classes that the image's label has: a few stray pixels of another class do not turn a
    good image into a bad one.
    """

    index: int
    name: str
    miou: float
    pixel_accuracy: float


@dataclass(frozen=True)
class Evaluation:
    """The confusion matrix over all images, and how each one did, in the dataset's order."""

    classes: ClassTable
    confusion: ConfusionMatrix
    images: list[ImageScore]


def evaluate(
    predictor: Predictor, dataset: Dataset, indices: Sequence[int] | None = None, progress: bool = False
) -> Evaluation:
    """Evaluate a network on a dataset.

    Args:
        indices: images to evaluate; None: all.
        progress: show a progress bar on a terminal.

    Raises:
        ValueError: the classes of the network and of the dataset differ, or an image or label cannot be used; the
            message names it.
    """
    if predictor.classes.names != dataset.classes.names:
        raise ValueError(
            f'the network knows the classes {", ".join(predictor.classes.names)}, '
            f'but the dataset {", ".join(dataset.classes.names)}'
        )
    total, images = ConfusionMatrix(len(predictor.classes)), []
    chosen = range(len(dataset)) if indices is None else indices
    for index in tqdm(chosen, unit='image', desc='evaluating', disable=None if progress else True):
        sample = dataset[index]
        own = ConfusionMatrix(len(predictor.classes))
        own.update(predict_sample(predictor, sample), sample.label)
        total = ConfusionMatrix.of(total.counts + own.counts)
        present = own.counts.sum(axis=1) > 0
        miou = float(own.iou()[present].mean()) if present.any() else float('nan')
        images.append(ImageScore(index, sample.name, miou, own.pixel_accuracy()))
    return Evaluation(predictor.classes, total, images)


def predict_sample(predictor: Predictor, sample: Sample) -> np.ndarray:
    """The mask of a sample's image, uint8 ``[H, W]``. Raises ValueError, naming the sample, if it is too small."""
    try:
        mask = predictor.mask(sample.image)
    except ValueError as error:
        raise ValueError(f'{sample.name}: {error}') from error
    return predictor.regroup(mask, sample.label) if predictor.regroup else mask


def evenly(count: int, length: int) -> list[int]:
    """``count`` indices, or all if there are fewer, evenly spread over ``range(length)``, ends included."""
    return np.linspace(0, length - 1, min(count, length)).round().astype(int).tolist()
