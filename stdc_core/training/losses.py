# SPDX-License-Identifier: Apache-2.0
"""Pixel losses over ``[N, C, H, W]`` logits and ``[N, H, W]`` labels."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from stdc_core.classes import IGNORE


def set_cross_entropy(logits: Tensor, label: Tensor, sets: Tensor | None = None, ignore_index: int = IGNORE) -> Tensor:
    """Return the cross-entropy of each pixel, where a label may stand for a set of classes.

    The loss of a set is ``-log`` of the sum of its classes' probabilities: that of the classes taken as one, which
    leaves open which of them it is.

    Args:
        logits: float ``[N, C, H, W]``.
        label: int64 ``[N, H, W]``: class ids, then numbers of ``sets``.
        sets: bool ``[K, C]``, classes of each set; label ``C + k`` is set ``k``. None: labels are classes alone.
        ignore_index: Label of pixels whose loss is 0.

    Returns:
        float ``[N, H, W]``.
    """
    if sets is None:
        return F.cross_entropy(logits, label, ignore_index=ignore_index, reduction='none')
    classes = logits.shape[1]
    ignored = label == ignore_index
    member = torch.cat([torch.eye(classes, dtype=torch.bool, device=sets.device), sets])
    allowed = member[label.masked_fill(ignored, 0)].permute(0, 3, 1, 2)
    inside = logits.masked_fill(~allowed, -math.inf).logsumexp(1)
    return (logits.logsumexp(1) - inside).masked_fill(ignored, 0)


def ohem_cross_entropy(
    logits: Tensor,
    label: Tensor,
    threshold: float = 0.7,
    min_kept: int | None = None,
    weight: Tensor | None = None,
    ignore_index: int = IGNORE,
    sets: Tensor | None = None,
) -> Tensor:
    """Return the cross-entropy over the hard pixels alone: online hard example mining (section 4.2).

    Pixels whose true class, or set of classes, has at most the probability ``threshold`` are hard. Where they are fewer
    than ``min_kept``, the ``min_kept`` hardest count instead, or as many as are labelled. Ignored pixels are never
    among them; a batch without a labelled pixel has loss 0.

    Args:
        logits: float ``[N, C, H, W]``.
        label: int64 ``[N, H, W]``: class ids, then numbers of ``sets``.
        threshold: probability above 0, the paper's 0.7; with 1 every pixel is hard.
        min_kept: pixels that always count; by default a sixteenth of all, as the paper's recipe has it.
        weight: float ``[C]``, class weights applied to the loss that is averaged. Hardness is judged without them.
            A set weighs as much as its classes on average.
        ignore_index: label of the pixels that do not count.
        sets: bool ``[K, C]``, classes of each set; label ``C + k`` is set ``k``. None: labels are classes alone.

    Returns:
        A scalar.
    """
    loss = set_cross_entropy(logits, label, sets, ignore_index).flatten()
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
    if sets is not None:
        share = sets.to(weight.dtype)
        weight = torch.cat([weight, share @ weight / share.sum(1)])
    pixel_weight = weight.to(loss.dtype)[flat_label]
    return (loss * pixel_weight).sum() / pixel_weight.sum().clamp(min=torch.finfo(loss.dtype).tiny)
