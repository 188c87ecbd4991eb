# SPDX-License-Identifier: Apache-2.0
"""`stdc explain`: what its pictures show, and its mistakes."""

from __future__ import annotations

import json
import shutil

import cv2
import numpy as np
import pytest
import torch

from stdc_core.classes import CAMVID, CITYSCAPES
from stdc_core.commands.main import main
from stdc_core.export.onnx import export
from stdc_core.model.networks import make_network
from stdc_core.model.weights import save_weights
from stdc_core.pictures.drawing import DARK
from stdc_core.pictures.explained import WIDTH, Scene, View, explained
from stdc_core.pictures.overlay import heat_map
from stdc_core.training.detail import detail_target


@pytest.fixture(scope='module')
def dataset(tmp_path_factory):
    out = tmp_path_factory.mktemp('dataset')
    command = ['render', str(out), '--split', 'val', '--drives', '1', '--frames', '2', '--size', '64x96']
    assert main([*command, '--every', '20']) == 0
    return out


@pytest.fixture(scope='module')
def weights(tmp_path_factory):
    """Three networks: trained with detail guidance, without it, and one that has no detail head."""
    folder = tmp_path_factory.mktemp('weights')
    torch.manual_seed(0)
    for name, network, weight in (('with', 'stdc1', 1.0), ('without', 'stdc1', 0.0), ('other', 'bisenetv2', 1.0)):
        recipe = {'recipe': json.dumps({'detail_weight': weight})}
        save_weights(make_network(network, len(CAMVID)), folder / f'{name}.safetensors', CAMVID, recipe)
    return folder


def panels(row: np.ndarray, top: int, height: int) -> list[np.ndarray]:
    """Return the four pictures of a row of the sheet."""
    return [row[top : top + height, 10 + i * (WIDTH + 10) : 10 + i * (WIDTH + 10) + WIDTH] for i in range(4)]


def test_a_heat_map_is_red_where_the_feature_is_strong():
    strength = np.zeros((4, 8))
    strength[:, 4:] = 1
    picture = heat_map(strength, (40, 80)).astype(int)
    blue, red = picture[20, 5], picture[20, 75]
    assert blue[0] > blue[2] and red[2] > red[0]
    assert heat_map(np.full((4, 8), 3.0), (40, 80)).std(axis=(0, 1)).max() == 0


def test_the_sheet_shows_what_each_network_sees():
    height, width = 42, 2 * WIDTH // 10
    image = np.full((height, width, 3), 90, np.uint8)
    truth = np.zeros((height, width), np.uint8)
    truth[:, width // 2 :] = 3
    target = detail_target(torch.from_numpy(truth)[None])[0, 0].numpy()
    wrong = truth.copy()
    wrong[: height // 2] = 5
    views = [View('right', target, target, truth), View('wrong', 1 - target, None, wrong)]
    sheet = explained([Scene('street', image, truth, target, views)], CAMVID)
    size = height * WIDTH // width
    step = 52 + size + 10
    given, right, bad = (panels(sheet, index * step + 52, size) for index in range(3))
    assert (given[0] == 90).all()
    assert np.array_equal(given[2][size // 2, :, 0] > 127, right[1][size // 2, :, 0] > 127)
    assert (given[2][size // 2, :, 0] > 127).any()
    red = [(each[3][..., 2] > 150).mean() for each in (right, bad)]
    assert red[0] == 0 and red[1] == pytest.approx(0.5, abs=0.02)
    # Without a label, the fourth picture is the mask over the image.
    unlabelled = panels(explained([Scene('street', image, None, None, views[:1])], CAMVID), step + 52, size)
    assert not np.array_equal(unlabelled[3], unlabelled[2])


def test_networks_side_by_side(dataset, weights, tmp_path, capsys):
    models = [str(weights / f'{name}.safetensors') for name in ('with', 'without', 'other')]
    out = tmp_path / 'out'
    assert main(['explain', *models, '--data', str(dataset), '--limit', '2', '--out', str(out)]) == 0
    assert [line.split('/')[-1] for line in capsys.readouterr().out.splitlines()] == [
        'drive01000_00000_explained.png',
        'drive01000_00020_explained.png',
        'sheet.png',
    ]
    picture = cv2.imread(str(out / 'drive01000_00000_explained.png'))
    size = 64 * WIDTH // 96
    rows = [panels(picture, index * (52 + size + 10) + 52, size) for index in range(4)]
    with_guidance, without, no_head = (row[1] for row in rows[1:])
    # Where no detail head was trained, the picture says so; it is the same for both.
    assert np.array_equal(without, no_head)
    assert not np.array_equal(with_guidance, without)
    assert rows[0][2].any()  # the detail target
    sheet = cv2.imread(str(out / 'sheet.png'))
    assert sheet.shape[0] > 1.8 * picture.shape[0] - 200


def test_labels_lie_beside_images(dataset, weights, tmp_path):
    """Of the same images, those with a folder `labels` beside them are compared with it."""
    shutil.copytree(dataset / 'val' / 'images', tmp_path / 'alone')
    model = str(weights / 'with.safetensors')
    for name, folder in (('labelled', dataset / 'val' / 'images'), ('alone', tmp_path / 'alone')):
        command = ['explain', model, '--images', str(folder), '--limit', '1']
        assert main([*command, '--out', str(tmp_path / name / 'x')]) == 0
    labelled, alone = (cv2.imread(str(tmp_path / name / 'x' / 'sheet.png')) for name in ('labelled', 'alone'))
    size = 64 * WIDTH // 96
    assert panels(labelled, 52, size)[1].std() > 10
    assert (panels(alone, 52, size)[1] == DARK).all()


def test_a_model_file_shows_masks(dataset, weights, tmp_path):
    export(weights / 'other.safetensors', tmp_path / 'model.onnx')
    command = ['explain', str(tmp_path / 'model.onnx'), '--data', str(dataset), '--limit', '1']
    assert main([*command, '--out', str(tmp_path / 'out')]) == 0
    assert len(list((tmp_path / 'out').iterdir())) == 2


def test_mistakes_are_told_in_one_line(dataset, weights, tmp_path, capsys):
    model, data = str(weights / 'with.safetensors'), ['--data', str(dataset)]
    (tmp_path / 'full').mkdir()
    (tmp_path / 'full' / 'mine').write_text('mine')
    save_weights(make_network('stdc1', 19), tmp_path / 'city.safetensors', CITYSCAPES, {})
    wrong = {
        'full is not empty': [model, *data, '--out', str(tmp_path / 'full')],
        'absent.safetensors: no such file': ['absent.safetensors', *data, '--out', str(tmp_path / 'out')],
        '--limit: expected 1 or more, found 0': [model, *data, '--limit', '0', '--out', str(tmp_path / 'out')],
        f'city.safetensors: expected the classes of {model} (sky,': [
            *(model, str(tmp_path / 'city.safetensors')),
            *(*data, '--out', str(tmp_path / 'out')),
        ],
    }
    for message, arguments in wrong.items():
        assert main(['explain', *arguments]) == 2
        error = capsys.readouterr().err
        assert error.count('\n') == 1 and message in error
    assert not (tmp_path / 'out').exists()
