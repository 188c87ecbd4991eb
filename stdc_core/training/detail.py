# SPDX-License-Identifier: Apache-2.0
"""Compute the binary detail target and its loss (paper section 3.3, Figure 5, Equations 4 and 5)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from stdc_core.classes import IGNORE

# Threshold for edges: of the Laplacian responses, and of the fused pyramid (section 3.3).
THRESHOLD = 0.1
# Stride of each level of the Laplacian pyramid, and its weight in the 1 x 1 fusion. The weights are constant, since
# trained weights fade to zero.
PYRAMID = {1: 0.6, 2: 0.3, 4: 0.1}


def detail_target(label: Tensor, ignore_index: int = IGNORE) -> Tensor:
    """Return the binary detail ground truth of label images (Detail Aggregation Module).

    At strides 1, 2 and 4, a pixel is an edge where the Laplacian of the class ids, ``8 c`` minus its eight neighbours,
    is above 0.1. The three maps are enlarged (nearest), weighted, added and thresholded again. Ignored pixels and the
    border of the image make no edges: a neighbour that is ignored or outside the image counts as equal to the centre,
    and an ignored centre is not an edge.

    Args:
        label: Class ids, integer ``[N, H, W]``.
        ignore_index: Id of pixels without a class.

    Returns:
        float32 ``[N, 1, H, W]`` of 0 and 1.
    """
    # Under autocast, the convolutions would round the sums of large ids to eight bits, and edges would move.
    with torch.no_grad(), torch.autocast(label.device.type, enabled=False):
        return _detail_target(label, ignore_index)


def _detail_target(label: Tensor, ignore_index: int) -> Tensor:
    """Compute ``detail_target`` in float32."""
    ids = label.unsqueeze(1).float()
    known = (label != ignore_index).unsqueeze(1).float()
    ids = ids * known
    # Sums the eight neighbours: of the ids, and of the mask that says which ids are known.
    kernel = torch.ones(1, 1, 3, 3, device=label.device)
    kernel[..., 1, 1] = 0
    fused = torch.zeros_like(ids)
    for stride, weight in PYRAMID.items():
        neighbours = F.conv2d(ids, kernel, stride=stride, padding=1)
        known_neighbours = F.conv2d(known, kernel, stride=stride, padding=1)
        centre = ids[..., ::stride, ::stride]
        laplacian = known_neighbours * centre - neighbours
        edge = (laplacian > THRESHOLD).float() * known[..., ::stride, ::stride]
        fused += weight * F.interpolate(edge, size=ids.shape[2:], mode='nearest')
    # The smallest weight equals the threshold: an edge only at stride 4 does not count. The margin allows for rounding.
    return (fused > THRESHOLD + 1e-6).float()


def dice_loss(probability: Tensor, target: Tensor, smooth: float = 1.0) -> Tensor:
    """Return the Dice loss with squared sums (Equation 5), averaged over the batch.

    Args:
        probability: float ``[N, ...]``, 0 to 1.
        target: float of the same shape, 0 or 1.
        smooth: Term of the Laplace smoothing.

    Returns:
        Scalar.
    """
    p, g = probability.flatten(1), target.flatten(1)
    ratio = (2 * (p * g).sum(1) + smooth) / (p.square().sum(1) + g.square().sum(1) + smooth)
    return (1 - ratio).mean()


def detail_loss(logits: Tensor, target: Tensor, known: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Return the binary cross-entropy and the Dice loss of a detail head; Equation 4 is their sum.

    The logits are upsampled to the size of the target (bilinear, aligned corners).

    Args:
        logits: float ``[N, 1, h, w]``.
        target: float ``[N, 1, H, W]`` of 0 and 1, from ``detail_target``.
        known: Pixels that count, bool ``[N, 1, H, W]``; None counts all. Where a label stands for several classes, the
            edges are not known.

    Returns:
        Two scalars.
    """
    logits = F.interpolate(logits.float(), size=target.shape[2:], mode='bilinear', align_corners=True)
    if known is None:
        return F.binary_cross_entropy_with_logits(logits, target), dice_loss(logits.sigmoid(), target)
    counted = known.to(logits.dtype)
    entropy = F.binary_cross_entropy_with_logits(logits, target, counted, reduction='sum') / counted.sum().clamp(min=1)
    return entropy, dice_loss(logits.sigmoid() * counted, target * counted)
