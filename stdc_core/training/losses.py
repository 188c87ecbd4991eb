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


def teacher_loss(
    logits: Tensor,
    soft: Tensor,
    label: Tensor,
    sets: Tensor | None = None,
    confidence: float = 0.0,
    hard_weight: float = 3.0,
    ignore_index: int = IGNORE,
) -> Tensor:
    """Return the cross-entropy to a teacher's probabilities; the harder half of the pixels weighs more.

    Where the label is a set of classes, the teacher chooses within the set: its probabilities of these classes are
    scaled to a sum of 1. A pixel where they are less than a tenth together does not count, and neither does a pixel
    where the teacher gives less than a half to the student's classes.

    Args:
        logits: float ``[N, C, H, W]``.
        soft: float ``[N, C, H, W]``, probabilities of the teacher, 0 outside the image.
        label: int64 ``[N, H, W]``: class ids, then numbers of ``sets``.
        sets: bool ``[K, C]``, classes of each set; label ``C + k`` is set ``k``. None: labels are classes alone.
        confidence: Largest probability of a pixel from which on it counts, 0 to 1.
        hard_weight: Weight of the half of the pixels with the larger loss; the others weigh 1.
        ignore_index: Label of pixels without one.

    Returns:
        A scalar; 0 where no pixel counts.
    """
    counted = soft.sum(1) > 0.5
    if sets is not None:
        classes = logits.shape[1]
        coarse = (label >= classes) & (label != ignore_index)
        allowed = sets[(label - classes).clamp(0, len(sets) - 1)].permute(0, 3, 1, 2) | ~coarse.unsqueeze(1)
        soft = soft * allowed
        counted &= ~coarse | (soft.sum(1) > 0.1)
    soft = soft / soft.sum(1, keepdim=True).clamp(min=1e-4)
    counted &= soft.amax(1) >= confidence
    loss = -(soft * logits.log_softmax(1)).sum(1)[counted]
    if not loss.numel():
        return logits.sum() * 0.0
    middle = loss.detach().median()
    weight = torch.where(loss.detach() > middle, hard_weight, 1.0)
    return (loss * weight).sum() / weight.sum()


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
