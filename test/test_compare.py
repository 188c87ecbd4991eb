# SPDX-License-Identifier: Apache-2.0
"""The comparison of networks: its tables and its plot."""

from __future__ import annotations

import dataclasses
import json

import ablation
import compare
import cv2
import pytest
from conftest import REPOSITORY
from network_comparison.measuring import Row
from network_comparison.report import network_table, plot_points
from network_comparison.training import recipe

from stdc_core.data.synthetic import SyntheticDrive
from stdc_core.io.files import write_png
from stdc_core.model.networks import outline
from stdc_core.model.size import multiply_adds, parameters
from stdc_core.model.weights import load_weights
from stdc_core.training.run_folder import write_record
from stdc_core.training.train import WEIGHTS
from stdc_core.training.train_config import load_config

#: The smallest training: one step on one crop, then a validation on one image.
ONE_STEP = ['steps=1', 'val_every=1', 'batch_size=2', 'crop_height=32', 'crop_width=32', 'workers=0']


@pytest.fixture(scope='module')
def dataset(tmp_path_factory):
    """Return a dataset of one rendered image to train on and one to validate on."""
    out = tmp_path_factory.mktemp('drive')
    for seed, split in enumerate(('train', 'val')):
        frame = SyntheticDrive(seed, height=64, width=96, frames=1)[0]
        for folder, picture in (('images', frame.image), ('labels', frame.label)):
            (out / split / folder).mkdir(parents=True)
            write_png(out / split / folder / f'{split}.png', picture)
    return out


@pytest.fixture
def options(dataset, tmp_path):
    """Return the options of two trainings of one step for each network."""
    settings = [text for each in (*ONE_STEP, 'absent_classes=allow') for text in ('--set', each)]
    recipe = REPOSITORY / 'config' / 'train' / 'camvid_stdc1.yaml'
    return ['--out', str(tmp_path), '--data', str(dataset), '--config', str(recipe), '--seeds', '2', *settings]


def cells(text: str, network: str) -> list[list[str]]:
    """Return the cells of the rows of a network in the tables."""
    rows = [[cell.strip() for cell in line.strip('|').split('|')] for line in text.splitlines()]
    return [row for row in rows if row[0] == network]


def test_a_quick_comparison(tmp_path, capsys):
    """One network beside STDC2: sizes are those of the networks, and ratios those of the times."""
    assert compare.main(['--quick', '--only', 'bisenetv2', '--threads', '1', '--out', str(tmp_path)]) == 0
    assert 'TensorRT is left out: backend tensorrt' in capsys.readouterr().out
    text, found = (tmp_path / 'compare.md').read_text(), json.loads((tmp_path / 'compare.json').read_text())
    reference, other = cells(text, 'STDC2'), cells(text, 'BiSeNetV2')
    assert [row[1] for row in other] == ['64 x 128']
    network = outline('bisenetv2', 19)
    assert other[0][3] == f'{parameters(network) / 1e6:.2f}'
    assert other[0][4] == f'{multiply_adds(network, 64, 128) / 1e9:.2f}'
    # This is the memory of a process of its own. That of this process has torch in it and is larger.
    assert 20 < float(other[0][5]) < 400
    assert reference[0][8] == '1.00'
    times = {(row['network'], row['scale']): row['seconds'] for row in found['networks']}
    assert other[0][8] == f'{times["stdc2", 0.5] / times["bisenetv2", 0.5]:.2f}'
    assert other[0][10:] == ['156.0', '0.83', '73.4']
    assert reference[1][1:5] == ['12.47', '12.5', '1437', '1446']
    assert cv2.imread(str(tmp_path / 'compare.png')).shape == (720, 1100, 3)


def test_measured_accuracy_replaces_the_published_one_in_the_plot():
    rows = [
        Row('stdc2', 0.5, 'onnxruntime', 1, 1, None, 0.1),
        Row('stdc2', 0.75, 'onnxruntime', 1, 1, None, 0.2),
        Row('timm/resnet18', 0.5, 'onnxruntime', 1, 1, None, 0.05),
    ]
    assert [(p.x, p.y, p.name) for p in plot_points(rows)] == [(10, 74.2, 'STDC2 0.5'), (5, 77.0, 'STDC2 0.75')]
    for row, scores in zip(rows, ([50.0, 52.0], [50.0, 52.0], [48.0, 48.5]), strict=True):
        row.miou = scores
    assert [(p.x, p.y, p.name) for p in plot_points(rows)] == [(10, 51.0, 'STDC2'), (20, 48.25, 'ResNet-18')]
    text = network_table(rows, (1024, 2048))
    assert cells(text, 'STDC2')[0][9] == '51.0 (50.0 to 52.0)'
    # Published numbers are beside the row that they belong to, and nowhere else.
    assert [row[10] for row in cells(text, 'STDC2')] == ['188.6', '97.0']
    assert cells(text, 'ResNet-18')[0][10:] == ['', '', '']


def test_a_network_is_trained_once_for_each_seed(options, tmp_path):
    parsed = compare.parse(options)
    rows = [Row(name, 0.5, 'onnxruntime', 1, 1, None, 0.1) for name in ('stdc2', 'bisenetv2')]
    compare.add_accuracy(parsed, ['bisenetv2'], rows, [])
    text, found = (tmp_path / 'compare.md').read_text(), json.loads((tmp_path / 'compare.json').read_text())
    stored = [load_weights(tmp_path / 'trainings' / f'bisenetv2_seed{seed}' / WEIGHTS)[2] for seed in (0, 1)]
    assert [json.loads(each['recipe'])['seed'] for each in stored] == [0, 1]
    scores = [100 * float(each['miou'].split()[0]) for each in stored]
    assert [row['miou'] for row in found['networks']] == [[], scores]
    low, high = sorted(scores)
    assert cells(text, 'BiSeNetV2')[0][9] == f'{(low + high) / 2:.1f} ({low:.1f} to {high:.1f})'
    assert '/val at input scale 1, after 1 steps of camvid_stdc1.yaml: mean (lowest to highest) of 2 seeds' in text

    # The same command again reads the trainings. Another recipe is refused.
    again = [dataclasses.replace(row, miou=[]) for row in rows]
    compare.add_accuracy(parsed, ['bisenetv2'], again, [])
    assert again == rows
    with pytest.raises(ValueError, match=r'bisenetv2_seed0: trained with steps 1, expected 2; choose another --out'):
        compare.compare(compare.parse([*options, '--only', 'bisenetv2', '--set', 'steps=2']))


def test_an_ablation_refuses_a_run_of_another_recipe(options, tmp_path):
    parsed = compare.parse(options)
    (tmp_path / 'no_OHEM_seed0').mkdir()
    config = load_config(parsed.config, [*parsed.set, 'extra_share=0', 'ohem_threshold=1', 'seed=0'])
    write_record(tmp_path / 'no_OHEM_seed0', config, {'data': str(parsed.data), 'extra': []})
    parsed.set += ['extra_share=0', 'learning_rate=0.5']
    with pytest.raises(ValueError, match=r'no_OHEM_seed0: trained with learning_rate 0.001, expected 0.5; choose'):
        ablation.score(parsed, 'no OHEM', ['ohem_threshold=1'], 0)


def test_training_is_short_without_a_gpu_unless_steps_are_given(options):
    """Extra data of the recipe is left out if there is none, as in `stdc train`."""
    parsed = compare.parse(options[:-2])
    assert (recipe(parsed, 'stdc1', 7).steps, recipe(parsed, 'stdc1', 7).warmup_steps) == (1, 200)
    parsed.set = []
    config = recipe(parsed, 'stdc1', 7)
    assert (config.steps, config.val_every, config.warmup_steps) == (300, 300, 30)
    assert (config.backbone, config.seed, config.extra_share) == ('stdc1', 7, 0)


@pytest.mark.parametrize(
    ('more', 'message'),
    [
        (['--data', 'nowhere'], 'nowhere'),
        (['--config', 'nothing.yaml'], 'nothing.yaml'),
        (['--set', 'stepps=3'], 'stepps'),
        (['--set', 'val_split='], 'val_split: expected the split to measure the mIoU on, found none'),
        (['--backend', 'tensorflow'], 'tensorflow'),
        (['--set', 'backbone_weights=pretrained'], 'backbone_weights: for a backbone timm/NAME only'),
    ],
)
def test_a_mistake_is_one_line_before_anything_is_measured(options, tmp_path, capsys, more, message):
    assert compare.main([*options, *more]) == 2
    error = capsys.readouterr().err
    assert error.startswith('compare: ') and error.count('\n') == 1 and message in error
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize('option', ['--runs', '--threads', '--seeds'])
def test_numbers_are_1_or_more(capsys, option):
    with pytest.raises(SystemExit):
        compare.main([option, '0'])
    assert f'{option}: expected 1 or more, found 0' in capsys.readouterr().err
