# SPDX-License-Identifier: Apache-2.0
"""Pixel losses over ``[N, C, H, W]`` logits and ``[N, H, W]`` labels."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from stdc_core.classes import IGNORE


def ohem_cross_entropy(
    logits: Tensor,
    label: Tensor,
    threshold: float = 0.7,
    min_kept: int | None = None,
    weight: Tensor | None = None,
    ignore_index: int = IGNORE,
) -> Tensor:
    """Cross-entropy over the hard pixels alone: online hard example mining (section 4.2).

    Pixels whose true class has at most the probability ``threshold`` are hard. Where they are fewer than ``min_kept``,
    the ``min_kept`` hardest count instead, or as many as are labelled. Ignored pixels are never among them; a batch
    without a labelled pixel has loss 0.

    Args:
        logits: float ``[N, C, H, W]``.
        label: int64 ``[N, H, W]``.
        threshold: probability above 0, the paper's 0.7; with 1 every pixel is hard.
        min_kept: pixels that always count; by default a sixteenth of all, as the paper's recipe has it.
        weight: float ``[C]``, class weights applied to the loss that is averaged. Hardness is judged without them.
        ignore_index: label of the pixels that do not count.

    Returns:
        A scalar.
    """
    loss = F.cross_entropy(logits, label, ignore_index=ignore_index, reduction='none').flatten()
    flat_label = label.flatten()
    labelled = flat_label != ignore_index
    loss, flat_label = loss[labelled], flat_label[labelled]
    if min_kept is None:
        min_kept = label.numel() // 16
    min_kept = min(max(min_kept, 1), loss.numel())
    if not min_kept:
        return logits.sum() * 0.0
    hard = loss >= -math.log(threshold)
    if hard.sum() > min_kept:
        loss, flat_label = loss[hard], flat_label[hard]
    else:
        loss, index = loss.topk(min_kept)
        flat_label = flat_label[index]
    if weight is None:
        return loss.mean()
    pixel_weight = weight.to(loss.dtype)[flat_label]
    return (loss * pixel_weight).sum() / pixel_weight.sum().clamp(min=torch.finfo(loss.dtype).tiny)
