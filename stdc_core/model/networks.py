# SPDX-License-Identifier: Apache-2.0
"""Make a segmentation network by its name."""

from __future__ import annotations

import torch

from stdc_core.inference.model_file import NETWORK_NAMES, is_network
from stdc_core.model.bisenet import BiSeNetV1, BiSeNetV2
from stdc_core.model.segmentation import SegmentationNetwork, STDCSeg


def make_network(name: str, num_classes: int, detail_strides: tuple[int, ...] = (8,)) -> SegmentationNetwork:
    """Return a network with random weights.

    Args:
        name: Name of the network; see ``stdc_core.inference.model_file.is_network``.
        num_classes: Number of classes.
        detail_strides: Strides of the backbone features that get a detail head; strides that the backbone does not have
            are left out.

    Raises:
        ValueError: The name is unknown, or timm's network cannot be a backbone.
        ModuleNotFoundError: The backbone is from timm, which is not installed.
    """
    if not is_network(name):
        raise ValueError(f'unknown network {name!r}, expected {NETWORK_NAMES}')
    if name == 'bisenetv1':
        return BiSeNetV1(num_classes)
    if name == 'bisenetv2':
        return BiSeNetV2(num_classes)
    return STDCSeg(name, num_classes, detail_strides)


def outline(name: str, num_classes: int, detail_strides: tuple[int, ...] = (8,)) -> SegmentationNetwork:
    """Return a network without numbers, on the device ``meta``: names and shapes alone, whatever the network's size."""
    with torch.device('meta'):
        return make_network(name, num_classes, detail_strides)
