# SPDX-License-Identifier: Apache-2.0
"""Test the order of the samples, and that batches made on the device equal those of the ordinary loader."""

from collections import Counter

import cv2
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from stdc_core.classes import IGNORE
from stdc_core.data.augment import Augmentation
from stdc_core.data.folder import Sample
from stdc_core.data.resident import (
    BatchAugmentation,
    ResidentDataset,
    ResidentLoader,
    available_bytes,
    fits,
    resident_bytes,
)
from stdc_core.data.schedule import AugmentedSamples, BatchSchedule, SampleKey, ScheduleSampler, dataset_shares
from stdc_core.data.soft_targets import SoftTargets

without_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason='no CUDA')
DEVICES = ['cpu', pytest.param('cuda', marks=[pytest.mark.gpu, without_cuda])]
CROP = (48, 64)


def make_sample(seed, height, width, classes=11):
    """Return smooth colours and blocks of classes without ignored pixels."""
    rng = np.random.default_rng(seed)
    image = cv2.resize(rng.integers(0, 256, (6, 8, 3), np.uint8), (width, height), interpolation=cv2.INTER_CUBIC)
    label = cv2.resize(rng.integers(0, classes, (6, 8), np.uint8), (width, height), interpolation=cv2.INTER_NEAREST)
    return Sample(image, label, f'sample{seed}')


@pytest.fixture(scope='module')
def datasets():
    """Return two datasets. The images of the second differ in size, and some are smaller than the crop."""
    sizes = [(40, 50), (90, 70), (61, 133)]
    return [[make_sample(i, 72, 96) for i in range(5)], [make_sample(10 + i, *size) for i, size in enumerate(sizes)]]


def sizes_of(dataset):
    return Counter(sample.label.shape for sample in dataset)


def resident(datasets, device='cpu'):
    return ResidentDataset(datasets, [sizes_of(dataset) for dataset in datasets], device)


def keys_of(datasets, count=4):
    return [
        SampleKey(d, i, 100 * d + 10 * i + n)
        for d, s in enumerate(datasets)
        for i in range(len(s))
        for n in range(count)
    ]


def exact(image, label, matrix, crop):
    """Return the bilinear image and nearest label of a crop under an affine map, in float64 by definition."""
    rows = (np.arange(crop[0]) - matrix[1, 2]) / matrix[1, 1]
    columns = (np.arange(crop[1]) - matrix[0, 2]) / matrix[0, 0]

    def pixels(y, x):
        inside = ((y >= 0) & (y < label.shape[0]))[:, None] & ((x >= 0) & (x < label.shape[1]))
        at = np.ix_(y.clip(0, label.shape[0] - 1), x.clip(0, label.shape[1] - 1))
        return np.where(inside[..., None], image[at], 128.0), np.where(inside, label[at], IGNORE)

    y, x = np.floor(rows).astype(int), np.floor(columns).astype(int)
    total = 0
    for down in (0, 1):
        for right in (0, 1):
            weight = np.outer(abs(1 - down - rows + y), abs(1 - right - columns + x))
            total = total + weight[..., None] * pixels(y + down, x + right)[0]
    return total, pixels(np.floor(rows + 0.5).astype(int), np.floor(columns + 0.5).astype(int))[1]


@pytest.mark.parametrize('device', DEVICES)
def test_batch_equals_the_definition_of_a_bilinear_crop(datasets, device):
    augmentation = Augmentation(CROP, brightness=0, contrast=0, saturation=0)
    keys = keys_of(datasets)
    images, labels = BatchAugmentation(augmentation)(resident(datasets, device), keys)
    assert images.dtype == labels.dtype == torch.uint8
    assert images.shape == (len(keys), *CROP, 3) and labels.shape == (len(keys), *CROP)
    for key, image, label in zip(keys, images.cpu().numpy(), labels.cpu().numpy(), strict=True):
        sample = datasets[key.dataset][key.sample]
        matrix = augmentation.placement(sample.label.shape, np.random.default_rng(key.seed))
        expected_image, expected_label = exact(sample.image, sample.label, matrix, CROP)
        assert np.array_equal(label, expected_label)
        assert abs(image - expected_image).max() < 0.51


@pytest.mark.parametrize('device', DEVICES)
def test_batch_equals_that_of_the_ordinary_loader(datasets, device):
    """The ordinary loader uses OpenCV with the same keys, including the change of light."""
    augmentation = Augmentation(CROP)
    keys = keys_of(datasets)
    ordinary = AugmentedSamples(datasets, augmentation)
    images, labels = BatchAugmentation(augmentation)(resident(datasets, device), keys)
    expected = [ordinary[key] for key in keys]
    image = np.stack([image for image, _ in expected])
    label = np.stack([label for _, label in expected])
    assert (labels.cpu().numpy() == label).mean() >= 0.999
    # OpenCV places pixels to 1/32 only, which is visible at the border between image and grey.
    difference = abs(images.cpu().numpy().astype(int) - image)
    assert difference.mean() < 0.5
    assert (difference <= 2).mean() > 0.99


@pytest.mark.parametrize('device', DEVICES)
def test_probabilities_equal_those_of_the_ordinary_loader(datasets, device, tmp_path):
    soft = SoftTargets(tmp_path, 3)
    rng = np.random.default_rng(0)
    for number, dataset in enumerate(datasets):
        (tmp_path / str(number)).mkdir()
        for index in range(len(dataset)):
            cells = rng.dirichlet([1, 1, 1], (4, 5)).transpose(2, 0, 1).astype(np.float32)
            cells = [cv2.resize(plane, (23 + index, 17)) for plane in cells]
            np.save(soft.path(number, index), np.rint(np.stack(cells) * 255).astype(np.uint8))
    augmentation = Augmentation((46, 62))
    keys = keys_of(datasets)
    ordinary = AugmentedSamples(datasets, augmentation, soft=soft)
    data = ResidentDataset(datasets, [sizes_of(dataset) for dataset in datasets], device, soft)
    found = BatchAugmentation(augmentation)(data, keys)[2].cpu().numpy()
    expected = np.stack([ordinary[key][2] for key in keys])
    assert found.dtype == np.uint8 and found.shape == (len(keys), 3, 12, 16)
    # OpenCV places cells to 1/32 only, which is visible at the border between image and 0.
    difference = abs(found.astype(int) - expected)
    assert difference.mean() < 0.5 and (difference <= 2).mean() > 0.98
    assert soft.nbytes([5, 3]) > 8 * 3 * 17 * 23


def test_padding_is_never_a_class(datasets):
    """A crop four times as large as the image has labels only where the image is."""
    augmentation = Augmentation((144, 192), scale=(1, 1), brightness=0, contrast=0, saturation=0)
    keys = [SampleKey(0, i, i) for i in range(5)]
    images, labels = BatchAugmentation(augmentation)(resident(datasets), keys)
    for image, label in zip(images.numpy(), labels.numpy(), strict=True):
        inside = label != IGNORE
        rows, columns = np.flatnonzero(inside.any(1)), np.flatnonzero(inside.any(0))
        assert np.ptp(rows) + 1 == 72 and np.ptp(columns) + 1 == 96 and inside.sum() == 72 * 96
        outside = cv2.erode((~inside).astype(np.uint8), np.ones((3, 3)), borderValue=1).astype(bool)
        assert (image[outside] == 128).all()


def test_memory_and_sizes(datasets):
    sizes = [sizes_of(dataset) for dataset in datasets]
    assert resident_bytes(sizes[:1]) == 5 * 74 * 98 * 4
    assert resident(datasets).pixels.nbytes == resident_bytes(sizes)
    assert available_bytes('cpu') > resident_bytes(sizes)
    assert fits(sizes, 'cpu', 0.9) and not fits(sizes, 'cpu', 0.0)
    # Each image keeps its own size.
    data = resident(datasets[::-1])
    assert [place[1:].tolist() for place in data.places[0]] == [[40, 50], [90, 70], [61, 133]]
    whole = Augmentation((61, 133), scale=(1, 1), brightness=0, contrast=0, saturation=0)
    (image,), (label,) = BatchAugmentation(whole)(data, [(0, 2, 3)])
    if np.random.default_rng(3).uniform(size=4)[3] < 0.5:
        image, label = image.flip(1), label.flip(1)
    assert np.array_equal(image, datasets[1][2].image) and np.array_equal(label, datasets[1][2].label)


def test_epoch_has_each_image_once():
    schedule = BatchSchedule([10, 4], None, batch_size=7, seed=1)
    keys = [key for step in range(4) for key in schedule.batch(step)]
    epochs = [[key[:2] for key in keys[:14]], [key[:2] for key in keys[14:]]]
    everything = [(0, i) for i in range(10)] + [(1, i) for i in range(4)]
    assert sorted(epochs[0]) == sorted(epochs[1]) == everything
    assert epochs[0] != epochs[1]
    assert len({key.seed for key in keys}) == len(keys)
    other = BatchSchedule([10, 4], None, batch_size=7, seed=2)
    assert [key[:2] for step in range(2) for key in other.batch(step)] != epochs[0]


def test_shares():
    shares = dataset_shares([30, 10], [500, 300], [None, None], 0.3)
    assert shares == pytest.approx([0.525, 0.175, 0.1875, 0.1125])
    schedule = BatchSchedule([30, 10, 500, 300], shares, batch_size=16)
    counts = Counter(key.dataset for step in range(500) for key in schedule.batch(step))
    assert [counts[d] for d in range(4)] == pytest.approx([8000 * share for share in shares], abs=4)
    # Each batch also has about this share.
    extras = [sum(key.dataset > 1 for key in schedule.batch(step)) for step in range(500)]
    assert min(extras) >= 4 and max(extras) <= 6
    assert dataset_shares([3, 1]) == [0.75, 0.25]
    # A dataset with an explicit share supplies it, whatever its size.
    mixed = dataset_shares([30, 10], [500, 7, 300], [None, 0.4, None], 0.2)
    assert mixed == pytest.approx([0.3, 0.1, 0.125, 0.4, 0.075])
    assert dataset_shares([5], [1] * 10, [0.1] * 10)[0] == pytest.approx(0)
    assert {key.dataset for key in BatchSchedule([5, 0, 5], [1, 0, 0], 20).batch(3)} == {0}


def test_ranks_share_a_batch():
    schedule = BatchSchedule([20, 9], [0.8, 0.2], batch_size=12, seed=3)
    for step in (0, 1, 1000):
        parts = [schedule.batch(step, rank, 3) for rank in range(3)]
        assert [key for part in parts for key in part] == schedule.batch(step)
        assert len({key for part in parts for key in part}) == 12


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (([3, 4], [1.0], 2), '2 datasets, but 1 shares'),
        (([3], [0.0], 2), 'one above it'),
        (([3, 0], [0.5, 0.5], 2), 'without samples'),
        (([3], None, 0), 'batch size above 0'),
    ],
)
def test_mistakes_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        BatchSchedule(*arguments)


def test_more_mistakes_are_named():
    with pytest.raises(ValueError, match='no equal part for rank 0 of 3'):
        BatchSchedule([3], None, 8).batch(0, 0, 3)
    with pytest.raises(ValueError, match='datasets without samples'):
        dataset_shares([3], [], [], 0.5)
    with pytest.raises(ValueError, match=r'expected extra datasets to supply at most 1 of the samples, found 1\.2'):
        dataset_shares([3], [4, 5], [0.7, None], 0.5)


@pytest.mark.parametrize('kind', ['resident', 'cached', 'workers'])
def test_resumed_batches_equal_an_uninterrupted_run(datasets, kind):
    augmentation = Augmentation(CROP)
    data = resident(datasets)

    def batches(start, rank=0, world=1):
        # A new schedule each time, so that no state is carried over.
        schedule = BatchSchedule([5, 3], dataset_shares([5], [3], [None], 0.4), batch_size=4, seed=5)
        sampler = ScheduleSampler(schedule, 9, start, rank, world)
        if kind == 'resident':
            loader = ResidentLoader(data, augmentation, sampler)
        else:
            samples = AugmentedSamples(datasets, augmentation, cache=kind == 'cached')
            workers = 2 if kind == 'workers' and not start else 0
            loader = DataLoader(samples, batch_sampler=sampler, num_workers=workers)
        assert len(loader) == 9
        return list(loader)

    whole, resumed = batches(0), batches(6)
    assert len(whole) == 9 and len(resumed) == 3
    for expected, found in zip(whole[6:], resumed, strict=True):
        assert all(torch.equal(e, f) for e, f in zip(expected, found, strict=True))
    halves = [batches(6, rank, 2) for rank in range(2)]
    for expected, *parts in zip(resumed, *halves, strict=True):
        joined = [torch.cat(part) for part in zip(*parts, strict=True)]
        assert all(torch.equal(e, f) for e, f in zip(expected, joined, strict=True))
