# SPDX-License-Identifier: Apache-2.0
"""Describe the network inside a deployed graph, so that a GPU backend can cut it out of the graph."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass

from stdc_core.io.text import one_line

#: Key of the description in the metadata of a model file, since format 2.
METADATA_KEY = 'stdc.network'

#: Mean and standard deviation of ImageNet, RGB, 0 to 1. Every network of format 1 was exported with them.
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

_LONGEST_NAME = 500
_MOST_CLASSES = 255


@dataclass(frozen=True)
class NetworkDescription:
    """Description that a backend needs to run the network of a deployed graph without the rest of the graph.

    Args:
        mean: Mean of the R, G and B values, 0 to 1, to subtract from an image.
        std: Standard deviation of the R, G and B values, above 0, to divide an image by.
        classes: Number of classes, which is the number of logits of a pixel.
        planes: Name of the input tensor of the network: normalised RGB, float32 ``[N, 3, h, w]``.
        logits: Name of the output tensor of the network: float32 ``[N, classes, ceil(h / 8), ceil(w / 8)]``.
    """

    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    classes: int
    planes: str
    logits: str

    def to_json(self) -> str:
        """Return the description as text for the metadata of a model file."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> NetworkDescription:
        """Read a description from the metadata of a model file.

        Args:
            text: Text that :meth:`to_json` wrote.

        Raises:
            ValueError: The text is not JSON, or a value is missing or has another type or range.
        """
        try:
            found = json.loads(text)
        except RecursionError as error:
            raise ValueError('network: nested too deeply') from error
        names = set(cls.__dataclass_fields__)
        if not isinstance(found, dict) or set(found) != names:
            shown = sorted(found) if isinstance(found, dict) else type(found).__name__
            raise ValueError(f'network: expected the keys {", ".join(sorted(names))}, found {one_line(shown, 100)}')
        classes = found['classes']
        if type(classes) is not int or not 1 <= classes <= _MOST_CLASSES:
            raise ValueError(f'network: classes: expected 1 to {_MOST_CLASSES}, found {one_line(classes, 20)}')
        for key in ('planes', 'logits'):
            if not isinstance(found[key], str) or not 0 < len(found[key]) <= _LONGEST_NAME:
                raise ValueError(f'network: {key}: expected the name of a tensor, found {one_line(found[key], 40)}')
        mean, std = _three(found['mean'], 'mean'), _three(found['std'], 'std')
        if min(std) <= 0:
            raise ValueError(f'network: std: expected numbers above 0, found {min(std)}')
        return cls(mean, std, classes, found['planes'], found['logits'])


def _three(values: object, key: str) -> tuple[float, float, float]:
    """Return three finite numbers. Raises ValueError for anything else."""
    if isinstance(values, list) and len(values) == 3 and all(type(value) in (int, float) for value in values):
        first, second, third = (float(value) for value in values)
        if all(map(math.isfinite, (first, second, third))):
            return first, second, third
    raise ValueError(f'network: {key}: expected three finite numbers, found {one_line(values, 60)}')
