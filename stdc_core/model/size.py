# SPDX-License-Identifier: Apache-2.0
"""Count the parameters and the operations of a network."""

from __future__ import annotations

import copy

import torch
from torch import nn


def parameters(model: nn.Module) -> int:
    """Return the number of parameters that inference needs: all but those of auxiliary and detail heads."""
    training = ('aux8_head.', 'aux16_head.', 'detail_heads.')
    return sum(value.numel() for name, value in model.named_parameters() if not name.startswith(training))


def multiply_adds(model: nn.Module, height: int, width: int) -> int:
    """Return the multiply-adds of all convolutions and linear layers for one image.

    Batch norms, activations and poolings are left out: most published numbers leave them out, too. Nothing is computed:
    the network runs on the device ``meta``.

    Args:
        model: Network or classifier.
        height: Height of the image in pixels.
        width: Width of the image in pixels.
    """
    hollow = copy.deepcopy(model).to('meta').eval()
    total = 0

    def count(module: nn.Module, _inputs: object, output: torch.Tensor) -> None:
        nonlocal total
        assert isinstance(module, nn.Conv2d | nn.Linear)
        total += output.numel() * module.weight[0].numel()

    for module in hollow.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.register_forward_hook(count)
    with torch.inference_mode():
        hollow(torch.zeros(1, 3, height, width, device='meta'))
    return total
