# SPDX-License-Identifier: Apache-2.0
"""Compute pixel losses from logits ``[N, C, H, W]`` and labels ``[N, H, W]``."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from stdc_core.classes import IGNORE


def set_cross_entropy(logits: Tensor, label: Tensor, sets: Tensor | None = None, ignore_index: int = IGNORE) -> Tensor:
    """Return the cross-entropy of each pixel, where a label may stand for a set of classes.

    The loss of a set is ``-log`` of the sum of the probabilities of its classes. The network may choose any of them.

    Args:
        logits: float ``[N, C, H, W]``.
        label: int64 ``[N, H, W]``: class ids, then numbers of ``sets``.
        sets: Classes of each set, bool ``[K, C]``; label ``C + k`` is set ``k``. None if all labels are class ids.
        ignore_index: Label of pixels whose loss is 0.

    Returns:
        float ``[N, H, W]``.
    """
    if sets is None:
        return F.cross_entropy(logits, label, ignore_index=ignore_index, reduction='none')
    allowed = _allowed_classes(label, logits.shape[1], sets, ignore_index)
    inside = logits.masked_fill(~allowed, -math.inf).logsumexp(1)
    return logits.logsumexp(1) - inside


def _allowed_classes(label: Tensor, classes: int, sets: Tensor | None, ignore_index: int) -> Tensor:
    """Return the classes that each pixel may have by its label, bool ``[N, C, H, W]``: all where there is no label."""
    member = torch.eye(classes, dtype=torch.bool, device=label.device)
    if sets is not None:
        member = torch.cat([member, sets])
    unlabelled = label == ignore_index
    return member[label.masked_fill(unlabelled, 0)].permute(0, 3, 1, 2) | unlabelled.unsqueeze(1)


def teacher_loss(
    logits: Tensor,
    soft: Tensor,
    label: Tensor,
    sets: Tensor | None = None,
    confidence: float = 0.0,
    hard_weight: float = 3.0,
    ignore_index: int = IGNORE,
) -> Tensor:
    """Return the cross-entropy with the probabilities of a teacher. The harder half of the pixels has more weight.

    Where the label is a set of classes, the teacher chooses within the set: its probabilities of these classes are
    scaled to a sum of 1. A pixel does not count if the teacher contradicts its label, i.e. gives less than a tenth to
    the class or the set. It does not count either if the teacher gives less than a half to all classes of the student.

    Args:
        logits: float ``[N, C, H, W]``.
        soft: Probabilities of the teacher, float ``[N, C, H, W]``; 0 outside the image.
        label: int64 ``[N, H, W]``: class ids, then numbers of ``sets``.
        sets: Classes of each set, bool ``[K, C]``; label ``C + k`` is set ``k``. None if all labels are class ids.
        confidence: Smallest probability, 0 to 1, that the teacher's best class needs for a pixel to count.
        hard_weight: Weight of the half of the pixels with the larger loss; the others have weight 1.
        ignore_index: Label of pixels without a label.

    Returns:
        Scalar; 0 if no pixel counts.
    """
    classes = logits.shape[1]
    inside = soft * _allowed_classes(label, classes, sets, ignore_index)
    counted = (soft.sum(1) > 0.5) & (inside.sum(1) >= 0.1)
    coarse = (label >= classes) & (label != ignore_index)
    soft = torch.where(coarse.unsqueeze(1), inside, soft)
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
    """Return the cross-entropy of the hard pixels: online hard example mining (OHEM, section 4.2).

    A pixel is hard if its true class, or set of classes, has at most the probability ``threshold``. If fewer than
    ``min_kept`` pixels are hard, the ``min_kept`` hardest ones count instead, or all labelled ones. Ignored pixels
    never count. A batch without a labelled pixel has loss 0.

    Args:
        logits: float ``[N, C, H, W]``.
        label: int64 ``[N, H, W]``: class ids, then numbers of ``sets``.
        threshold: Probability above 0; the paper has 0.7. With 1, every pixel is hard.
        min_kept: Smallest number of pixels that count; None means a sixteenth of all, as in the paper's recipe.
        weight: Class weights of the average, float ``[C]``; a set has the mean weight of its classes. Which pixels are
            hard does not depend on them.
        ignore_index: Label of pixels that do not count.
        sets: Classes of each set, bool ``[K, C]``; label ``C + k`` is set ``k``. None if all labels are class ids.

    Returns:
        Scalar.

    Example:
        >>> logits, label = torch.zeros(1, 3, 8, 8), torch.zeros(1, 8, 8, dtype=torch.long)
        >>> round(float(ohem_cross_entropy(logits, label)), 4)
        1.0986
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
