# SPDX-License-Identifier: Apache-2.0
"""Blend the weights of two networks (Wortsman et al., 2022, "Robust fine-tuning of zero-shot models")."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from stdc_core.classes import ClassTable
from stdc_core.model.deployed_graph import stored_class_offset
from stdc_core.model.segmentation import SegmentationNetwork
from stdc_core.model.stored_network import WeightsError
from stdc_core.model.weights import TRAINING_ONLY, load_weights


def blend(
    first: str | Path, second: str | Path, share: float
) -> tuple[SegmentationNetwork, ClassTable, dict[str, str]]:
    """Return the weighted mean of the weights of two networks, one of which was trained from the other.

    The statistics of batch norms and the class offsets of ``prior_correction`` are blended in the same way. Parts that
    only the first network has, such as the auxiliary heads if the second one is a ``model.onnx``, are taken from it.

    Args:
        first: Weights of ``stdc train``.
        second: Weights, or a ``model.onnx``, with the same backbone and classes.
        share: Share of the second network, 0 to 1.

    Returns:
        Network in float32 and evaluation mode, its classes, and the provenance of the first one, with an entry
        ``blend`` and without its mIoU.

    Raises:
        FileNotFoundError: A file does not exist.
        ValueError: The share is out of its range.
        WeightsError: A file is damaged, the first one is a ``model.onnx``, or the networks differ in backbone or
            classes.
    """
    if not 0 <= share <= 1:
        raise ValueError(f'share: expected 0 to 1, found {share:g}')
    if Path(first).suffix == '.onnx':
        raise WeightsError(f'{first}: a model.onnx without auxiliary heads, expected weights of `stdc train`')
    model, classes, provenance = load_weights(first)
    other, other_classes, other_provenance = load_weights(second)
    if other.name != model.name:
        raise WeightsError(f'{second}: found backbone {other.name}, expected {model.name} as in {first}')
    if other_classes.names != classes.names:
        found, expected = ', '.join(other_classes.names), ', '.join(classes.names)
        raise WeightsError(f'{second}: found the classes {found}, expected {expected} as in {first}')
    deployed = other.state_dict()
    if Path(second).suffix == '.onnx':
        deployed = {key: value for key, value in deployed.items() if not key.startswith(TRAINING_ONLY)}
    with torch.no_grad():
        for key, value in model.state_dict().items():
            if key in deployed and value.is_floating_point():
                value.lerp_(deployed[key], share)
    offsets = [stored_class_offset(p) for p in (provenance, other_provenance)]
    if any(offsets):
        pairs = zip(*(offset or [0.0] * len(classes) for offset in offsets), strict=True)
        provenance['class_offset'] = json.dumps([(1 - share) * a + share * b for a, b in pairs])
    provenance.pop('miou', None)  # measured on the first network, not on the blend
    provenance['blend'] = f'{1 - share:g} of {Path(first).name}, {share:g} of {Path(second).name}'
    return model, classes, provenance
