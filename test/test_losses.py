# SPDX-License-Identifier: Apache-2.0
"""Test properties of the losses and the detail target that reference values do not show."""

import pytest
import torch
import torch.nn.functional as F

from stdc_core.training.detail import detail_target, dice_loss
from stdc_core.training.losses import ohem_cross_entropy


def test_image_border_is_not_an_edge():
    assert detail_target(torch.full((1, 32, 48), 7)).sum() == 0


def test_ignored_pixels_give_no_edge():
    label = torch.full((1, 32, 32), 3)
    label[:, 10:20, 10:20] = 255
    assert detail_target(label).sum() == 0


def test_edge_is_where_a_higher_id_touches_a_lower():
    label = torch.zeros(1, 32, 32, dtype=torch.long)
    label[:, :, 15:] = 4
    target = detail_target(label)[0, 0]
    assert (target[:, 15] == 1).all()
    assert target[:, :14].sum() == 0
    assert target[:, 20:].sum() == 0


@pytest.mark.parametrize(('height', 'width'), [(31, 45), (5, 3), (1, 1)])
def test_detail_target_of_any_size(height, width):
    target = detail_target(torch.randint(0, 5, (2, height, width)))
    assert target.shape == (2, 1, height, width)
    assert set(target.unique().tolist()) <= {0.0, 1.0}


def test_autocast_does_not_round_the_ids():
    torch.manual_seed(0)
    label = torch.randint(0, 150, (2, 12, 16)).repeat_interleave(5, 1).repeat_interleave(5, 2)
    expected = detail_target(label)
    with torch.autocast('cpu', torch.bfloat16):
        assert torch.equal(detail_target(label), expected)


def test_dice_loss_range():
    target = torch.zeros(1, 1, 40, 40)
    target[..., :20] = 1
    assert float(dice_loss(target, target)) == pytest.approx(0)
    assert float(dice_loss(1 - target, target)) == pytest.approx(1, abs=1e-3)


def hard_and_easy(hard: int, total: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return logits ``[1, 2, 1, total]``, wrong by 3 on the first ``hard`` pixels and right by 3 on the rest."""
    logits = torch.zeros(1, 2, 1, total)
    logits[:, 0] = 3
    logits[:, 0, :, :hard] = -3
    return logits, torch.zeros(1, 1, total, dtype=torch.long)


def test_ohem_uses_only_hard_pixels():
    logits, label = hard_and_easy(10, 100)
    expected = F.cross_entropy(logits[..., :10], label[..., :10])
    assert float(ohem_cross_entropy(logits, label, 0.7, min_kept=5)) == pytest.approx(float(expected))


def test_ohem_fills_up_with_the_hardest_of_the_easy():
    logits, label = hard_and_easy(10, 100)
    expected = F.cross_entropy(logits[..., :20], label[..., :20])
    assert float(ohem_cross_entropy(logits, label, 0.7, min_kept=20)) == pytest.approx(float(expected))


def test_ohem_never_counts_ignored_pixels():
    logits, label = hard_and_easy(10, 100)
    label[..., :10] = 255
    logits.requires_grad_()
    ohem_cross_entropy(logits, label, 0.7, min_kept=1000).backward()
    assert logits.grad[..., :10].abs().sum() == 0
    assert (logits.grad[..., 10:].abs().sum(1) > 0).all()


def test_ohem_with_threshold_one_counts_pixels_without_a_loss_too():
    logits, label = hard_and_easy(10, 100)
    logits[:, 0, :, 10:] = 200
    loss = F.cross_entropy(logits, label, reduction='none')
    assert (loss == 0).sum() == 90
    assert float(ohem_cross_entropy(logits, label, 1.0, min_kept=1)) == pytest.approx(float(loss.mean()))


def test_ohem_survives_few_pixels():
    logits, label = hard_and_easy(1, 2)
    assert torch.isfinite(ohem_cross_entropy(logits, label, 0.7, min_kept=2000))
    assert torch.isfinite(ohem_cross_entropy(logits, label, 0.7))


def test_ohem_of_an_unlabelled_batch_is_zero_and_trains_nothing():
    logits, label = hard_and_easy(1, 4)
    logits.requires_grad_()
    loss = ohem_cross_entropy(logits, torch.full_like(label, 255))
    loss.backward()
    assert loss.item() == 0
    assert logits.grad.abs().sum() == 0


def test_ohem_with_class_weights_is_weighted_cross_entropy_where_every_pixel_is_hard():
    logits, label = torch.randn(1, 3, 8, 8), torch.randint(0, 3, (1, 8, 8))
    weight = torch.tensor([1.0, 5.0, 0.2])
    expected = F.cross_entropy(logits, label, weight=weight)
    assert float(ohem_cross_entropy(logits, label, 1.0, min_kept=64, weight=weight)) == pytest.approx(float(expected))
