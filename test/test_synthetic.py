# SPDX-License-Identifier: Apache-2.0
"""Test the synthetic drive: reproducible, with exact labels and every class, and continuous."""

from __future__ import annotations

import zlib

import cv2
import numpy as np
import pytest

from stdc_core.classes import CAMVID
from stdc_core.commands.main import main
from stdc_core.data.synthetic import Frame, SyntheticDrive

SKY, ROAD = CAMVID.names.index('sky'), CAMVID.names.index('road')


@pytest.fixture(scope='module')
def drive() -> SyntheticDrive:
    return SyntheticDrive(seed=0)


def test_interface(drive: SyntheticDrive) -> None:
    assert len(drive) == 150
    assert drive.classes is CAMVID
    assert (drive.height, drive.width, drive.rate) == (360, 480, 15.0)
    frame = drive[30]
    assert isinstance(frame, Frame)
    assert frame.image.shape == (360, 480, 3) and frame.image.dtype == np.uint8
    assert frame.label.shape == (360, 480) and frame.label.dtype == np.uint8
    assert frame.time == 2.0
    assert isinstance(frame.time, float)
    assert 40 < frame.image.mean() < 215
    assert frame.image.std() > 25


def test_sequence_protocol() -> None:
    drive = SyntheticDrive(seed=1, height=64, width=96, frames=3, rate=2)
    assert [frame.time for frame in drive] == [0.0, 0.5, 1.0]
    np.testing.assert_array_equal(drive[-1].image, drive[2].image)
    for index in (3, -4):
        with pytest.raises(IndexError):
            drive[index]


def test_frames_do_not_depend_on_order_or_instance(drive: SyntheticDrive) -> None:
    other = SyntheticDrive(seed=0, frames=3000)
    later = other[2900]
    for index in (40, 3):
        first, second = drive[index], other[index]
        np.testing.assert_array_equal(first.image, second.image)
        np.testing.assert_array_equal(first.label, second.label)
    again = other[2900]
    np.testing.assert_array_equal(later.image, again.image)
    np.testing.assert_array_equal(later.label, again.label)


@pytest.mark.skipif(
    tuple(map(int, cv2.__version__.split('.')[:2])) < (4, 13), reason='OpenCV before 4.13 draws some edges otherwise'
)
@pytest.mark.parametrize(('seed', 'index', 'checksum'), [(0, 25, 937037184), (3, 100, 63776156)])
def test_labels_are_the_same_on_every_machine(seed: int, index: int, checksum: int) -> None:
    assert zlib.crc32(SyntheticDrive(seed=seed)[index].label.tobytes()) == checksum


def test_seeds_differ(drive: SyntheticDrive) -> None:
    other = SyntheticDrive(seed=1)
    assert (drive[0].label != other[0].label).mean() > 0.1


@pytest.mark.parametrize(('seed', 'start'), [(0, 0), (1, 0), (2, 1200), (3, 700), (4, 1340), (5, 60)])
def test_every_class_appears(seed: int, start: int) -> None:
    drive = SyntheticDrive(seed=seed, height=180, width=240, frames=1500)
    counts = np.zeros(256, np.int64)
    for index in range(start, start + 150, 15):
        counts += np.bincount(drive[index].label.ravel(), minlength=256)
    assert (counts[: len(CAMVID)] > 0).all(), dict(zip(CAMVID.names, counts.tolist(), strict=False))
    assert counts[len(CAMVID) :].sum() == 0
    share = counts / counts.sum()
    assert 0.2 < share[ROAD] < 0.5
    assert 0.03 < share[SKY] < 0.4


@pytest.mark.parametrize('seed', [0, 5])
def test_drive_is_continuous(seed: int) -> None:
    drive = SyntheticDrive(seed=seed)
    near = [np.mean(drive[i].label == drive[i + 1].label) for i in (10, 60, 110)]
    far = [np.mean(drive[i].label == drive[i + 37].label) for i in (10, 60, 110)]
    assert min(near) > 0.88
    assert np.mean(far) < np.mean(near) - 0.02


@pytest.mark.parametrize('seed', [1, 2])
def test_horizon_and_road_follow_the_camera(seed: int) -> None:
    drive = SyntheticDrive(seed=seed)
    matrix = drive.camera_matrix
    assert matrix.dtype == np.float64
    assert matrix[0, 0] == matrix[1, 1] > 0
    np.testing.assert_allclose(matrix[:2, 2], [239.5, 179.5])
    for index in (0, 75, 149):
        label = drive[index].label
        horizon = drive.camera(index / drive.rate).horizon
        rows = np.arange(drive.height)[:, None]
        assert not (label[(rows > horizon + 2)[:, 0]] == SKY).any()
        assert not (label[(rows < horizon - 2)[:, 0]] == ROAD).any()
        assert label[-1, drive.width // 2] == ROAD


def test_sizes_show_the_same_scene(drive: SyntheticDrive) -> None:
    large = SyntheticDrive(seed=0, height=720, width=960)
    np.testing.assert_allclose(large.camera_matrix[:2, :2], 2 * drive.camera_matrix[:2, :2])
    for index in (0, 80):
        assert np.mean(large[index].label[::2, ::2] == drive[index].label) > 0.94


def test_odd_sizes_and_long_drives() -> None:
    drive = SyntheticDrive(seed=4, height=33, width=211, frames=100000, rate=30)
    for index in (0, 54321, 99999):
        frame = drive[index]
        assert frame.image.shape == (33, 211, 3)
        assert set(np.unique(frame.label)) <= set(range(len(CAMVID)))


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        ({'height': 31}, '31 x 480'),
        ({'width': 10}, '360 x 10'),
        ({'frames': 0}, '0'),
        ({'rate': 0.0}, 'rate'),
        ({'rate': -1.0}, '-1.0'),
        ({'rate': float('nan')}, 'nan'),
        ({'seed': -1}, '-1'),
    ],
)
def test_bad_arguments(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SyntheticDrive(**arguments)


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['--drives', '0'], '--drives: expected 1 or more, found 0'),
        (['--frames', '0'], '--frames: expected 1 or more, found 0'),
        (['--every', '0'], '--every: expected 1 or more, found 0'),
        (['--seed', '-1'], 'expected a seed of 0 or more, found -1'),
        (['--size', '31x480'], 'found 31 x 480'),
    ],
)
def test_wrong_argument_to_render_leaves_nothing(arguments, message, tmp_path, capsys) -> None:
    assert main(['render', str(tmp_path / 'out'), *arguments]) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
