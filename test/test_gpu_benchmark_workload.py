# SPDX-License-Identifier: Apache-2.0
"""The GPU benchmark: its plan, and frames and masks that are made for it."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from gpu_comparison import workload
from gpu_comparison.plan import (
    INT8,
    NETWORKS,
    RTX,
    SEG50,
    SHIPPED,
    SMALL,
    TENSORRT,
    Contender,
    groups,
)

from stdc_core.io.files import write_png


def test_the_files_are_small_enough_to_be_carried_one_by_one():
    """By their sizes at full size: frames; the larger network, half of whose bytes the shipped one has, too."""
    assert workload.FRAMES * 3 * workload.SIZE[0] * workload.SIZE[1] < 60 << 20


def test_the_plan_has_what_the_targets_need_and_the_most_important_first():
    plan = groups()
    assert [group.title for group in plan[:3]] == [SMALL, SEG50, 'masks of the shipped model']
    assert {group.title for group in plan} >= set(NETWORKS)
    for group in plan:
        assert len(set(group.contenders)) == len(group.contenders)
        assert {TENSORRT, RTX} <= {each.library for each in group.contenders}
    labels = [each.label for each in plan[0].contenders]
    assert labels[0] == f'{SMALL}, tensorrt fp16'
    assert Contender(RTX, 'fp32', SEG50, False, 2).label == f'{SEG50}, tensorrt_rtx fp32, all in the engine, batch 2'


def test_miou_and_equal_labels(tmp_path):
    masks, labels = np.array([[[0, 0], [1, 1]]], np.uint8), np.array([[[0, 1], [1, 255]]], np.uint8)
    assert workload.miou(masks, labels) == 50
    assert workload.miou(masks, np.full_like(labels, 255)) is None
    np.savez(tmp_path / 'expected.npz', masks=masks, labels=labels)
    assert workload.compare_masks(tmp_path, 1 - masks)['equal'] == 0
    with pytest.raises(ValueError, match=r'masks of shape \(1, 2\), expected \(1, 2, 2\)'):
        workload.compare_masks(tmp_path, masks[:, 0])


@pytest.fixture
def data(tmp_path) -> Path:
    """A dataset of five images to compare masks on and three to calibrate on."""
    for part, count in (('val', 5), ('train', 3)):
        for kind in ('images', 'labels'):
            (tmp_path / 'data' / part / kind).mkdir(parents=True)
        random = np.random.default_rng(count)
        for index in range(count):
            image, label = random.integers(0, 256, (40, 56, 3), np.uint8), random.integers(0, 11, (40, 56), np.uint8)
            write_png(tmp_path / 'data' / part / 'images' / f'{index}.png', image)
            write_png(tmp_path / 'data' / part / 'labels' / f'{index}.png', label)
    return tmp_path / 'data'


def test_masks_are_compared_on_real_frames_and_int8_is_calibrated_on_others(data, tmp_path, monkeypatch):
    calibrated: list[Path] = []

    def quantize(model, out, images, **settings):
        calibrated.extend(images)
        shutil.copy(model, out)

    monkeypatch.setattr('stdc_core.export.quantize.quantize', quantize)
    samples = workload.make_shipped(tmp_path, workload.real_images(data), [])
    assert [sample.name for sample in samples] == ['0', '1', '2', '3', '4']
    assert calibrated == [data / 'train' / 'images' / f'{index}.png' for index in range(3)]
    for name in (SHIPPED, INT8):
        np.testing.assert_array_equal(workload.read_frames(tmp_path, name), [sample.image for sample in samples])
        assert workload.scale_of(tmp_path, name) == 1.5
    with np.load(tmp_path / 'expected.npz') as expected:
        assert workload.compare_masks(tmp_path, expected['masks'])['equal'] == 100
    calibrated.clear()
    seeds = []
    monkeypatch.setattr(workload, 'render', lambda seed, *_: seeds.append(seed) or samples[:2])
    workload.make_shipped(tmp_path, None, samples[:2])
    assert (seeds, len(calibrated)) == ([1], 2)  # the frames to compare on are those of seed 0


def test_data_that_cannot_be_used_is_an_error(data):
    write_png(data / 'val' / 'images' / '4.png', np.zeros((32, 32, 3), np.uint8))
    write_png(data / 'val' / 'labels' / '4.png', np.zeros((32, 32), np.uint8))
    with pytest.raises(SystemExit, match='^--data: .*/val: 5 images of 2 sizes, expected images of one size$'):
        workload.real_images(data)
    shutil.rmtree(data / 'val')
    with pytest.raises(SystemExit, match="^--data: .*no dataset with a split 'val'"):
        workload.real_images(data)
