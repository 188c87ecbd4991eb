# SPDX-License-Identifier: Apache-2.0
"""Test labels that stand for sets of classes: table, loss, training and evaluation."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from stdc_core.classes import CAMVID, IGNORE, ClassTable
from stdc_core.commands.main import main
from stdc_core.data.check import DataError, check, raise_problems
from stdc_core.data.datasets import open_dataset
from stdc_core.data.label_table import LabelTable
from stdc_core.evaluation.evaluate import Predictor, evaluate
from stdc_core.evaluation.groups import grouped
from stdc_core.model.segmentation import STDCSeg
from stdc_core.model.weights import load_weights, save_weights
from stdc_core.training.detail import detail_loss
from stdc_core.training.extra_data import ExtraData
from stdc_core.training.losses import ohem_cross_entropy, set_cross_entropy
from stdc_core.training.task import SegmentationTask
from stdc_core.training.train_config import TrainConfig
from stdc_core.training.training_data import open_training_data

REPOSITORY = Path(__file__).resolve().parent.parent
THREE = ClassTable(('road', 'car', 'person'), ((0, 0, 0), (255, 0, 0), (0, 255, 0)))
#: Table with a class (id 0), a set of classes (id 4) and an ignored label (id 7).
TABLE = """labels:
  - {id: 0, name: road}
  - {id: 4, name: moving, classes: [car, person]}
  - {id: 7, name: other, classes: []}
"""


def make(root, table=TABLE, ids=(0, 4, 7, 255), split='train', folder='labels', images=2, size=(64, 96)):
    """Write a dataset whose labels are stripes of the ids."""
    for name in ('images', folder):
        (root / split / name).mkdir(parents=True)
    label = np.array(ids, np.uint8)[np.arange(size[1]) * len(ids) // size[1]][None].repeat(size[0], 0)
    for number in range(images):
        image = np.random.default_rng(number).integers(0, 256, (*size, 3), np.uint8)
        cv2.imwrite(str(root / split / 'images' / f'{split}{number}.png'), image)
        cv2.imwrite(str(root / split / folder / f'{split}{number}.png'), label)
    (root / 'labels.yaml').write_text(table)
    return root


def test_table_maps_ids_to_classes(tmp_path):
    dataset = open_dataset(make(tmp_path), 'train', THREE)
    assert dataset.label_sets == (frozenset({1, 2}),)
    assert dataset.label(0)[0, ::24].tolist() == [0, 3, IGNORE, IGNORE]
    dataset.use_label_sets((frozenset({0, 1}), frozenset({1, 2})))
    assert dataset.label(0)[0, ::24].tolist() == [0, 4, IGNORE, IGNORE]


def test_table_names_the_folder_of_the_labels(tmp_path):
    make(tmp_path, 'folder: groups\n' + TABLE, folder='groups')
    assert open_dataset(tmp_path, 'train', THREE).files(0)[1] == tmp_path / 'train/groups/train0.png'


@pytest.mark.parametrize('path', sorted((REPOSITORY / 'config' / 'labels').glob('*.yaml')), ids=lambda path: path.stem)
def test_shipped_tables_are_valid(path):
    sets = LabelTable.from_yaml(path).sets(CAMVID)
    assert set().union(*sets.values()) == set(range(len(CAMVID)))


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('classes: []', r"expected \"labels: .*found the keys \['classes'\]"),
        ('labels: []', r'labels: expected a list of entries'),
        ('labels: [road]', r"label 0: expected {id: .*found 'road'"),
        ('labels: [{id: 255, name: road}]', 'label 0: id: expected 0 to 254, found 255'),
        ('labels: [{id: 0, name: road}, {id: 0, name: car}]', 'label 1: id 0 occurs twice'),
        ('labels: [{id: 0, name: no}]', 'label 0: name: expected text, found False'),
        ('labels: [{id: 0, name: a, classes: road}]', 'label 0: classes: expected a list of names'),
        ('{folder: ../x, labels: [{id: 0, name: road}]}', 'folder: expected the name of a folder beside images/'),
        ('labels: [{id: 3, name: roads}]', r"id 3 \(roads\): 'roads' is not one of .*did you mean 'road'"),
        ('labels: [{id: 3, name: zebra}]', r'.*give `classes: \[\]` if these pixels do not count'),
    ],
)
def test_invalid_table_is_refused(text, message, tmp_path):
    make(tmp_path, text)
    with pytest.raises(ValueError, match=rf'labels\.yaml: {message}'):
        open_dataset(tmp_path, 'train', THREE)


def test_check_counts_sets_and_names_unknown_ids(tmp_path):
    report = check(open_dataset(make(tmp_path / 'good'), 'train', THREE), progress=False)
    raise_problems(report)
    assert (report.counts.tolist(), report.coarse, report.ignored) == ([2 * 64 * 24, 0, 0], 2 * 64 * 24, 4 * 64 * 24)
    # Neither class of the set is missing.
    assert report.warnings == []
    bad = check(open_dataset(make(tmp_path / 'bad', ids=(0, 5)), 'train', THREE), progress=False)
    with pytest.raises(DataError, match=r'ids \[5\] are not in .*labels\.yaml'):
        raise_problems(bad)


@pytest.mark.parametrize('has_table', [False, True], ids=['plain labels', 'a set without pixels'])
def test_coarse_extra_data_does_not_hide_absent_classes(has_table, tmp_path):
    coarse, data = make(tmp_path / 'coarse'), make(tmp_path / 'data', ids=(0,))
    make(data, ids=(0, 255), split='val')
    if not has_table:
        (data / 'labels.yaml').unlink()
    opened = open_training_data(TrainConfig(), THREE, data, [ExtraData(coarse, 0.5)], has_teacher=False)
    with pytest.raises(DataError, match=r'/val: 50\.0 % of the pixels are 255.* and no pixel is car, person\.'):
        opened.check(progress=False, refuse_absent=True)


def test_ids_without_a_table_are_not_sets_of_another_dataset(tmp_path):
    plain = make(tmp_path / 'plain', ids=(0, 3))
    (plain / 'labels.yaml').unlink()
    dataset = open_dataset(plain, 'train', THREE)
    dataset.use_label_sets((frozenset({1, 2}),))
    with pytest.raises(ValueError, match=r'train0\.png: .*\b3\b'):
        dataset.label(0)


def test_loss_of_a_set_uses_its_summed_probability():
    torch.manual_seed(0)
    logits, sets = torch.randn(2, 3, 5, 7), torch.tensor([[False, True, True], [True, True, True]])
    probability = logits.softmax(1)
    for label, expected in ((3, probability[:, 1:].sum(1)), (1, probability[:, 1]), (4, torch.ones(2, 5, 7))):
        found = set_cross_entropy(logits, torch.full((2, 5, 7), label), sets)
        torch.testing.assert_close(found, -expected.log(), atol=1e-6, rtol=1e-5)
    assert not set_cross_entropy(logits, torch.full((2, 5, 7), IGNORE), sets).any()


def test_gradient_of_a_set():
    logits = torch.tensor([80.0, -80.0, -80.0]).reshape(1, 3, 1, 1).requires_grad_()
    loss = set_cross_entropy(logits, torch.full((1, 1, 1), 3), torch.tensor([[False, True, True]]))
    loss.sum().backward()
    assert loss.item() == pytest.approx(160, abs=1)
    assert torch.allclose(logits.grad.flatten(), torch.tensor([1.0, -0.5, -0.5]))


def test_ohem_with_sets_equals_ohem_of_merged_classes():
    torch.manual_seed(1)
    logits, sets = torch.randn(1, 3, 16, 16), torch.tensor([[False, True, True]])
    label = torch.randint(0, 2, (1, 16, 16))
    merged = torch.stack([logits[:, 0], logits[:, 1:].logsumexp(1)], 1)
    coarse = torch.where(label == 1, 3, 0)
    weight = torch.tensor([1.0, 2.0, 6.0])
    expected = ohem_cross_entropy(merged, label, weight=torch.tensor([1.0, 4.0]))
    assert float(ohem_cross_entropy(logits, coarse, weight=weight, sets=sets)) == pytest.approx(float(expected))


def test_detail_target_with_sets():
    target = torch.zeros(1, 1, 8, 8)
    target[..., 4] = 1
    known = torch.ones(1, 1, 8, 8, dtype=torch.bool)
    known[..., 5:] = False
    logits = torch.where(target > 0, 30.0, -30.0)
    logits[..., 5:] = 30
    assert float(sum(detail_loss(logits, target, known))) == pytest.approx(0, abs=1e-5)
    assert float(sum(detail_loss(logits, target))) > 1
    assert float(sum(detail_loss(logits, target, torch.zeros_like(known)))) == 0


def test_sets_train_every_head():
    model = STDCSeg('stdc1', 3).train()
    task = SegmentationTask(model, TrainConfig(class_balance=0), THREE, None, [frozenset({1, 2})])
    label = torch.full((2, 64, 96), 3)
    label[:, :32] = 0
    parts = task.losses(model.forward_train(torch.rand(2, 3, 64, 96)), label)
    sum(parts.values()).backward()
    assert not [name for name, p in model.named_parameters() if p.grad is None or not torch.isfinite(p.grad).all()]


def test_training_on_fine_and_coarse_data(tmp_path):
    """The fine data only labels road; the coarse data labels the rest as one set."""
    fine, coarse = tmp_path / 'fine', make(tmp_path / 'coarse', ids=(4,))
    make(fine, 'labels: [{id: 0, name: road}]', ids=(0,))
    table = tmp_path / 'three.yaml'
    table.write_text(
        'classes: [{name: road, color: [0, 0, 0]}, {name: car, color: [1, 0, 0]}, {name: person, color: [2, 0, 0]}]'
    )
    for root, value in ((fine, 40), (coarse, 220)):
        for path in (root / 'train/images').iterdir():
            cv2.imwrite(str(path), np.full((64, 96, 3), value, np.uint8))
    settings = [f'classes={table}', 'crop_height=64', 'crop_width=96', 'batch_size=4', 'steps=30', 'warmup_steps=3']
    settings += ['val_split=', 'workers=0', 'ema_decay=0.5', 'learning_rate=0.003', 'brightness=0.1', 'contrast=0']
    arguments = ['train', '--data', str(fine), '--extra', f'{coarse}=0.5', '--out', str(tmp_path / 'run')]
    assert main([*arguments, *(f'--set={text}' for text in settings)]) == 0
    path = tmp_path / 'run/weights.safetensors'
    classes = load_weights(path)[1]
    from stdc_core.evaluation.predictors import open_predictor

    predictor = open_predictor(path)
    for root, wanted in ((fine, 'road'), (coarse, 'moving')):
        used, dataset = grouped(predictor, open_dataset(root, 'train', classes))
        iou = evaluate(used, dataset).confusion.iou()
        assert iou[used.classes.names.index(wanted)] > 0.9


def test_evaluation_of_coarse_labels(tmp_path):
    dataset = open_dataset(make(tmp_path), 'train', THREE)
    mask = np.tile(np.array([0, 0, 1, 2, 2, 1, 0, 0], np.uint8)[np.arange(96) // 12], (64, 1))
    protocol = {'input_scale': 1.0, 'full_scale_pixels': None, 'scales': [1.0], 'flip': False, 'backend': 'none'}
    used, groups = grouped(Predictor(lambda image: mask, THREE, 'fixed', protocol), dataset)
    assert groups.classes.names == ('road', 'moving')
    assert evaluate(used, groups).confusion.iou().tolist() == [1, 1]
    # Road predicted as person, and person as road: the IoU of road and of the set decrease.
    mask[:, 6:12], mask[:, 24:30] = 2, 0
    assert evaluate(used, groups).confusion.iou() == pytest.approx([18 / 30, 18 / 30])


def test_groups_have_names_that_fit_a_class_table(tmp_path):
    long = 'construction--structure--of-a-certain-kind'
    entries = [
        *('{id: 0, name: asphalt, classes: [road]}', '{id: 4, name: markings, classes: [road]}'),
        f'{{id: 5, name: {long * 2}, classes: [car, person]}}',
        f'{{id: 7, name: {long * 2}, classes: [person, car]}}',
        *('{id: 8, name: road, classes: [road, car]}', '{id: 9, name: road, classes: [road, person]}'),
    ]
    table = 'labels:\n' + ''.join(f'  - {entry}\n' for entry in entries)
    dataset = open_dataset(make(tmp_path, table, ids=(0, 4, 5, 7, 8, 9)), 'train', THREE)
    mask = np.zeros((64, 96), np.uint8)
    used, groups = grouped(Predictor(lambda image: mask, THREE, 'fixed', {}), dataset)
    assert groups.classes.names[0] == 'road'
    assert groups.classes.names[1].startswith(long) and len(groups.classes.names[1]) <= 100
    assert groups.classes.names[2:] == ('road or car', 'road or person')
    assert evaluate(used, groups).confusion.iou()[0] == pytest.approx(2 / 4)


def test_evaluation_of_several_datasets(tmp_path, capsys):
    first, second = make(tmp_path / 'first', ids=(0, 4)), tmp_path / 'second'
    make(second, 'labels: [{id: 0, name: asphalt, classes: [road]}, {id: 4, name: car}]', ids=(0, 4))
    cv2.imwrite(str(second / 'train/labels/old.png'), np.zeros((64, 96), np.uint8))
    weights = tmp_path / 'weights.safetensors'
    save_weights(STDCSeg('stdc1', 3), weights, THREE, {})
    out = tmp_path / 'report'
    command = ['evaluate', str(weights), '--split', 'train', '--out', str(out), '--data']
    assert main([*command, str(first), str(second)]) == 0
    captured = capsys.readouterr()
    assert f'warning: {second}/train/labels: 1 files have no image' in captured.err
    lines = captured.out.splitlines()
    reports = [json.loads((out / name / 'report.json').read_text()) for name in ('first', 'second')]
    rows = {line.split()[0]: line.split() for line in lines[-3:]}
    assert lines[-4].split() == ['images', 'mIoU', 'road']
    for name, report in zip(('first', 'second'), reports, strict=True):
        assert rows[name][1] == '2'
        assert float(rows[name][2]) == pytest.approx(100 * report['miou'], abs=0.006)
        assert float(rows[name][4]) == pytest.approx(100 * report['classes'][0]['iou'], abs=0.006)
    assert float(rows['mean'][1]) == pytest.approx(50 * sum(report['miou'] for report in reports), abs=0.006)
    assert [entry['name'] for entry in reports[0]['classes']] == ['road', 'moving']
    assert main(['evaluate', '--split', 'train', '--data', str(first), str(weights)]) == 0
    assert 'moving' in capsys.readouterr().out
    assert main(['evaluate', '--data', str(first)]) == 2
    assert 'the model is missing' in capsys.readouterr().err
    assert main([*command[:4], '--data', str(first), str(first)]) == 2
    assert f'--data: expected different folders, found {first} twice' in capsys.readouterr().err
