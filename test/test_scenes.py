# SPDX-License-Identifier: Apache-2.0
"""The scenes of the renderer: the town as it was, the others each with its own classes, in every weather."""

from __future__ import annotations

import zlib
from functools import cache

import cv2
import numpy as np
import pytest

from stdc_core.classes import CAMVID
from stdc_core.commands.main import main
from stdc_core.data.synthetic import SCENES, WEATHER, SyntheticDrive
from stdc_core.data.synthetic.world import CHUNK, START

SKY, BUILDING, POLE, ROAD, SIDEWALK, TREE, SIGN, FENCE, CAR, PEDESTRIAN, BICYCLIST = range(11)

#: Classes that a few frames of each scene show, and those that it never shows.
CLASSES = {
    'motorway': ({SKY, BUILDING, POLE, ROAD, TREE, SIGN, FENCE, CAR}, {PEDESTRIAN, BICYCLIST}),
    'dusty': (set(range(11)), set()),
    'boulevard': (set(range(11)) - {FENCE}, set()),
}

OTHERS = [name for name in SCENES if name != 'town']


@cache
def drive(scene: str, seed: int = 1, weather: str | None = None) -> SyntheticDrive:
    return SyntheticDrive(seed, 96, 128, 3000, scene=scene, weather=weather)


@pytest.mark.skipif(
    tuple(map(int, cv2.__version__.split('.')[:2])) < (4, 13), reason='OpenCV before 4.13 draws some edges otherwise'
)
@pytest.mark.parametrize(
    ('seed', 'index', 'checksum', 'colors'),
    [
        (0, 25, 3827204900, [(78, 87, 112), (154, 160, 162), (104, 111, 112)]),
        (1, 400, 953531958, [(57, 79, 89), (161, 164, 160), (81, 85, 91)]),
        (7, 90, 3215305983, [(77, 92, 85), (197, 196, 192), (155, 160, 154)]),
    ],
)
def test_the_town_stays_as_it_was(seed: int, index: int, checksum: int, colors: list) -> None:
    frame = SyntheticDrive(seed, 48, 64, 500)[index]
    assert zlib.crc32(frame.label.tobytes()) == checksum
    # The image may differ by rounding from processor to processor, its colours may not.
    found = cv2.resize(frame.image[:24], (3, 1), interpolation=cv2.INTER_AREA)[0]
    np.testing.assert_allclose(found, colors, atol=1)


def test_every_scene_is_tested() -> None:
    assert set(CLASSES) == set(OTHERS)


@pytest.mark.parametrize('scene', OTHERS)
def test_a_frame_depends_on_seed_scene_and_index_alone(scene: str) -> None:
    first, again = drive(scene), SyntheticDrive(1, 96, 128, 70, scene=scene)
    later = first[2900]
    for index in (40, 3):
        frame, other = first[index], again[index]
        np.testing.assert_array_equal(frame.image, other.image)
        np.testing.assert_array_equal(frame.label, other.label)
    np.testing.assert_array_equal(later.image, first[2900].image)
    assert (frame.label != drive(scene, 2)[3].label).mean() > 0.1
    assert np.mean(frame.label == first[4].label) > 0.8


@pytest.mark.parametrize('scene', OTHERS)
def test_the_classes_of_a_scene(scene: str) -> None:
    shown, missing = CLASSES[scene]
    counts = np.zeros(256, np.int64)
    for seed in (1, 2):
        for index in range(0, 450, 120):
            counts += np.bincount(drive(scene, seed)[index].label.ravel(), minlength=256)
    found = set(np.flatnonzero(counts).tolist())
    assert shown <= found, [CAMVID.names[k] for k in shown - found]
    assert not missing & found
    assert max(found) < len(CAMVID)
    assert 0.15 < counts[ROAD] / counts.sum() < 0.6


@pytest.mark.parametrize('scene', OTHERS)
def test_road_and_sky_follow_the_camera(scene: str) -> None:
    shown = drive(scene)
    for index in (0, 75, 149):
        label = shown[index].label
        horizon = shown.camera(index / shown.rate).horizon
        rows = np.arange(shown.height)
        assert not (label[rows > horizon + 2] == SKY).any()
        assert not (label[rows < horizon - 2] == ROAD).any()


@pytest.mark.parametrize('scene', OTHERS)
def test_sizes_show_the_same_scene(scene: str) -> None:
    large = SyntheticDrive(1, 192, 256, 100, scene=scene)[80].label
    assert np.mean(large[::2, ::2] == drive(scene)[80].label) > 0.93
    odd = SyntheticDrive(4, 33, 211, 100000, scene=scene)
    for index in (0, 99999):
        frame = odd[index]
        assert frame.image.shape == (33, 211, 3)
        assert frame.label.max() < len(CAMVID)


def test_weather_changes_the_image_and_not_the_label() -> None:
    frames = {name: drive('motorway', 6, name)[30] for name in WEATHER}
    for name, frame in frames.items():
        if name != 'fog':  # it hides what is far away
            np.testing.assert_array_equal(frame.label, frames['sunny'].label)
    light = {name: frame.image.mean() for name, frame in frames.items()}
    assert light['night'] < light['dusk'] < light['rain'] < light['sunny']
    assert frames['fog'].image.std() < frames['sunny'].image.std()


@pytest.mark.parametrize('seed', [6, 7])
def test_a_wet_road_mirrors_what_stands_on_it(seed: int) -> None:
    similar = {}
    for weather in ('rain', 'overcast'):
        shown = drive('dusty', seed, weather)
        frame = shown[30]
        image, horizon = frame.image.mean(2), round(shown.camera(frame.time).horizon)
        below, above = [], []
        for k in range(4, 30):
            road = frame.label[horizon + k] == ROAD
            below += list(image[horizon + k][road] - image[horizon + k][road].mean())
            above += list(image[horizon - k][road] - image[horizon - k][road].mean())
        similar[weather] = np.corrcoef(below, above)[0, 1]
    assert similar['rain'] > similar['overcast'] + 0.3


def test_tunnels_are_buildings_without_grass() -> None:
    shown = drive('motorway', 1)
    chunk = next(k for k in range(2, 40) if shown._world.roofed(k))
    time = (chunk * CHUNK + 10 - START) / shown._world.style.speed
    label = shown[round(time * shown.rate)].label
    assert (label == BUILDING).mean() > 0.3
    # Below the horizon stand the walls; grass begins beyond the end of the tunnel.
    assert not (label[label.shape[0] * 3 // 4 :] == TREE).any()


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        ({'scene': 'moon'}, "expected a scene of town, .*motorway.*, found 'moon'"),
        ({'weather': 'snow'}, "expected a weather of sunny, .*night.*, found 'snow'"),
    ],
)
def test_unknown_names(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SyntheticDrive(**arguments)


def test_render_takes_scenes_and_weathers_in_turn(tmp_path) -> None:
    small = ['--size', '32x40', '--frames', '1', '--every', '1', '--seed', '5', '--drives', '3']
    assert main(['render', str(tmp_path), *small, '--scene', 'town', 'motorway', '--weather', 'night', 'fog']) == 0
    names = ['drive00005_00000.png', 'drive00007_00000.png', 'motorway00006_00000.png']
    assert sorted(path.name for path in (tmp_path / 'train' / 'images').iterdir()) == names
    assert sorted(path.name for path in (tmp_path / 'train' / 'labels').iterdir()) == names
    for seed, scene, weather in ((5, 'town', 'night'), (6, 'motorway', 'night'), (7, 'town', 'fog')):
        name = f'{"drive" if scene == "town" else scene}{seed:05d}_00000.png'
        image = cv2.imread(str(tmp_path / 'train' / 'images' / name))
        expected = SyntheticDrive(seed, 32, 40, 1, scene=scene, weather=weather)[0].image
        np.testing.assert_array_equal(image, expected)


@pytest.mark.parametrize(
    ('option', 'message'),
    [('scene', '--scene: expected town, motorway'), ('weather', '--weather: expected sunny, overcast')],
)
def test_render_names_what_exists(option: str, message: str, tmp_path, capsys) -> None:
    assert main(['render', str(tmp_path / 'out'), f'--{option}', 'moon']) == 2
    error = capsys.readouterr().err
    assert message in error and "found 'moon'" in error
    assert not list(tmp_path.iterdir())
