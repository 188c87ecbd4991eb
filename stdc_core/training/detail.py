# SPDX-License-Identifier: Apache-2.0
"""Detail guidance: the binary detail target and its loss (paper section 3.3, Figure 5, Equations 4 and 5)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from stdc_core.classes import IGNORE

# Laplacian responses above this are edges, and so are pixels whose fused pyramid is above it (section 3.3).
THRESHOLD = 0.1
# Stride of each level of the Laplacian pyramid, and its weight in the 1 x 1 fusion. The weights are constants: trained,
# they fade to zero.
PYRAMID = {1: 0.6, 2: 0.3, 4: 0.1}


def detail_target(label: Tensor, ignore_index: int = IGNORE) -> Tensor:
    """Binary detail ground truth from a label image (Detail Aggregation Module).

    At strides 1, 2 and 4, a pixel is an edge where the Laplacian of the class ids, ``8 c`` minus its eight neighbours,
    is above 0.1; the three maps are enlarged (nearest), weighted and thresholded again. A neighbour that is ignored or
    outside the image counts as equal to the centre, and an ignored centre is no edge: neither makes a false one.

    Args:
        label: integer ``[N, H, W]`` class ids.
        ignore_index: id of the pixels without a class.

    Returns:
        float32 ``[N, 1, H, W]`` of 0 and 1.
    """
    # Under autocast the convolutions would round the sums of large ids to eight bits, which moves edges.
    with torch.no_grad(), torch.autocast(label.device.type, enabled=False):
        return _detail_target(label, ignore_index)


def _detail_target(label: Tensor, ignore_index: int) -> Tensor:
    ids = label.unsqueeze(1).float()
    known = (label != ignore_index).unsqueeze(1).float()
    ids = ids * known
    # One kernel sums the eight neighbours, of the ids and of the mask that says which of them are known.
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
    # The weakest weight equals the threshold: an edge at stride 4 alone is not one. The margin is for float32 sums.
    return (fused > THRESHOLD + 1e-6).float()


def dice_loss(probability: Tensor, target: Tensor, smooth: float = 1.0) -> Tensor:
    """Dice loss with squared sums (Equation 5), the mean over the batch.

    Args:
        probability: float ``[N, ...]`` in 0 ... 1.
        target: of the same shape, 0 or 1.
        smooth: Laplace smoothing.
    """
    p, g = probability.flatten(1), target.flatten(1)
    ratio = (2 * (p * g).sum(1) + smooth) / (p.square().sum(1) + g.square().sum(1) + smooth)
    return (1 - ratio).mean()


def detail_loss(logits: Tensor, target: Tensor, known: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Return the binary cross-entropy and Dice loss of a detail head (Equation 4 is their sum).

    Args:
        logits: float ``[N, 1, h, w]``, upsampled to the target's size (bilinear, aligned corners).
        target: float ``[N, 1, H, W]`` of 0 and 1, from ``detail_target``.
        known: bool ``[N, 1, H, W]``, pixels that count; None: all. A label that leaves the class open leaves open where
            edges are, too.

    Returns:
        Two scalars.
    """
    logits = F.interpolate(logits.float(), size=target.shape[2:], mode='bilinear', align_corners=True)
    if known is None:
        return F.binary_cross_entropy_with_logits(logits, target), dice_loss(logits.sigmoid(), target)
    counted = known.to(logits.dtype)
    entropy = F.binary_cross_entropy_with_logits(logits, target, counted, reduction='sum') / counted.sum().clamp(min=1)
    return entropy, dice_loss(logits.sigmoid() * counted, target * counted)
