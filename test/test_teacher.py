# SPDX-License-Identifier: Apache-2.0
"""Test training with a teacher: its probabilities, their crops, the loss, and images without labels."""

import shutil

import cv2
import numpy as np
import onnx
import pytest
import torch
import torch.nn.functional as F
from onnx import TensorProto, helper, numpy_helper

from stdc_core.classes import IGNORE, ClassTable
from stdc_core.commands.main import main
from stdc_core.data.augment import Augmentation
from stdc_core.data.folder import Sample
from stdc_core.data.schedule import AugmentedSamples, SampleKey
from stdc_core.data.soft_targets import SoftTargets
from stdc_core.evaluation.predictors import open_predictor
from stdc_core.model.segmentation import STDCSeg, normalize, upsample
from stdc_core.model.weights import load_weights, save_weights
from stdc_core.training.losses import teacher_loss
from stdc_core.training.teacher import TeacherError, open_teacher

THREE = ClassTable(('road', 'sky', 'car'), ((0, 0, 0), (255, 0, 0), (0, 255, 0)))
TABLE = 'labels:\n  - {id: 0, name: sky}\n  - {id: 1, name: asphalt, classes: [road]}\n'


def brightness_network(path, size=('h', 'w'), softmax=False, table=TABLE, batch=1):
    """Write an ONNX file whose first output is high for bright pixels and its second for dark ones."""
    weight = numpy_helper.from_array(np.float32([[4] * 3, [-4] * 3]).reshape(2, 3, 1, 1), 'weight')
    nodes = [helper.make_node('Conv', ['image', 'weight'], ['logits'])]
    if softmax:
        nodes.append(helper.make_node('Softmax', ['logits'], ['out'], axis=1))
    output = 'out' if softmax else 'logits'
    graph = helper.make_graph(
        nodes,
        'teacher',
        [helper.make_tensor_value_info('image', TensorProto.FLOAT, [batch, 3, *size])],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, [batch, 2, *size])],
        [weight],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid('', 17)], ir_version=8), path)
    if table:
        path.with_suffix('.yaml').write_text(table)
    return path


def half_bright(height=40, width=80):
    image = np.zeros((height, width, 3), np.uint8)
    image[:, width // 2 :] = 255
    return image


@pytest.mark.parametrize('softmax', [False, True], ids=['logits', 'probabilities'])
@pytest.mark.parametrize('size', [('h', 'w'), (32, 64)], ids=['any size', 'one size'])
def test_any_network_with_a_table_can_teach(size, softmax, tmp_path):
    teacher = open_teacher(brightness_network(tmp_path / 't.onnx', size, softmax), THREE)
    assert teacher.size == (None if size == ('h', 'w') else size)
    found = teacher.probabilities(half_bright())
    assert found.dtype == np.uint8
    assert found.shape == (3, 10, 20) if teacher.size is None else found.shape[0] == 3
    half = found.shape[2] // 2
    assert (found[0, :, : half - 1] == 255).all() and (found[1, :, half + 1 :] == 255).all()
    assert not found[2].any()


def test_stdc_network_teaches_by_class_names(tmp_path):
    other = ClassTable(('tram', 'sky', 'road'), THREE.colors)
    torch.manual_seed(0)
    save_weights(STDCSeg('stdc1', 3), tmp_path / 't.safetensors', other, {})
    model = load_weights(tmp_path / 't.safetensors')[0]
    image = np.random.default_rng(0).integers(0, 256, (64, 96, 3), np.uint8)
    found = open_teacher(tmp_path / 't.safetensors', THREE).probabilities(image)
    with torch.inference_mode():
        logits = model(normalize(torch.from_numpy(image)[None].permute(0, 3, 1, 2)))
        # The deployed graph upsamples with aligned corners. The centre of a cell of 8 pixels lies between two of them.
        full = upsample(logits, (64, 96))[0]
        middle = full.unflatten(2, (12, 8))[..., 3:5].mean(3).unflatten(1, (8, 8))[:, :, 3:5].mean(2)
        expected = middle.softmax(0).numpy()
    assert found.shape == (3, 8, 12)
    assert np.abs(found[0] - 255 * expected[2]).max() <= 1
    assert np.abs(found[1] - 255 * expected[1]).max() <= 1
    assert not found[2].any()


@pytest.mark.parametrize(
    ('table', 'message'),
    [
        (None, r't\.onnx: its classes are not known; expected t\.yaml or labels\.yaml beside it'),
        ('labels: [{id: 0, name: roads}]', r"t\.yaml: id 0 \(roads\): 'roads' is not one of .*did you mean 'road'"),
        ('labels: [{id: 0, name: x, classes: [sky, car]}]', r't\.yaml: id 0: expected one class for a teacher'),
    ],
)
def test_teacher_with_unknown_classes_is_refused(table, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        open_teacher(brightness_network(tmp_path / 't.onnx', table=table), THREE)


def test_invalid_teacher_is_named(tmp_path):
    (tmp_path / 't.onnx').write_bytes(b'no')
    with pytest.raises(TeacherError, match=r't\.onnx: ONNX Runtime cannot load it'):
        open_teacher(tmp_path / 't.onnx', THREE)
    with pytest.raises(FileNotFoundError, match='absent: no such file'):
        open_teacher(tmp_path / 'absent', THREE)
    teacher = open_teacher(brightness_network(tmp_path / 'u.onnx', table='labels: [{id: 2, name: sky}]'), THREE)
    with pytest.raises(TeacherError, match=r'expected \[1, 3, h, w\] by u\.yaml, found an output of \[1, 2, 40, 80\]'):
        teacher.probabilities(half_bright())


@pytest.mark.parametrize(('batch', 'size'), [(2, ('h', 'w')), (1, (64, 'w'))], ids=['batch', 'half a size'])
def test_teacher_with_another_input_is_refused(batch, size, tmp_path):
    with pytest.raises(TeacherError, match=r't\.onnx: expected one input, float \[1, 3, H, W\] of one size or of any'):
        open_teacher(brightness_network(tmp_path / 't.onnx', size, batch=batch), THREE)


def test_teacher_that_fails_on_an_image_is_named(tmp_path):
    """A graph that only takes widths that are a multiple of 32."""
    path = brightness_network(tmp_path / 't.onnx')
    model = onnx.load(path)
    shape = numpy_helper.from_array(np.int64([1, 2, 0, -1, 32]), 'shape')
    model.graph.node.append(helper.make_node('Reshape', ['logits', 'shape'], ['folded']))
    model.graph.initializer.append(shape)
    model.graph.output.append(helper.make_tensor_value_info('folded', TensorProto.FLOAT, None))
    model.graph.output.reverse()
    onnx.save(model, path)
    with pytest.raises(TeacherError, match=r't\.onnx: cannot segment an image of 80 x 40 pixels \('):
        open_teacher(path, THREE).probabilities(half_bright())


def test_crops_of_probabilities_match_crops_of_labels(tmp_path):
    """For cells inside a block of one class, the crop of the probabilities equals the crop of the label."""
    label = np.kron(np.random.default_rng(0).integers(0, 3, (5, 6), np.uint8), np.ones((16, 16), np.uint8))
    soft = SoftTargets(tmp_path, 3)
    soft.path(0, 0).parent.mkdir()
    np.save(soft.path(0, 0), np.stack([label[2::4, 2::4] == c for c in range(3)]).astype(np.uint8) * 255)
    sample = Sample(np.zeros((80, 96, 3), np.uint8), label, 'a')
    samples = AugmentedSamples([[sample]], Augmentation((62, 95), (0.8, 2.0)), soft=soft)
    compared = 0
    for seed in range(20):
        _, crop, cells = samples[SampleKey(0, 0, seed)]
        assert cells.shape == (3, 16, 24)
        padded = np.full((64, 96), 200, np.uint8)
        padded[:62, :95] = crop
        blocks = padded.reshape(16, 4, 24, 4).transpose(0, 2, 1, 3).reshape(16, 24, 16)
        inside = (blocks == blocks[..., :1]).all(2) & (cells.max(0) == 255) & (blocks[..., 0] < 3)
        compared += inside.sum()
        assert (cells.argmax(0)[inside] == blocks[..., 0][inside]).all()
        # Also cells whose neighbours lie outside the image.
        outside = (blocks == IGNORE).all(2).astype(np.uint8)
        assert not cells[:, cv2.erode(outside, np.ones((3, 3))) > 0].any()
    assert compared > 1000


def test_teacher_loss_is_the_cross_entropy():
    torch.manual_seed(0)
    logits, soft = torch.randn(2, 3, 6, 8), torch.randn(2, 3, 6, 8).softmax(1)
    label = torch.full((2, 6, 8), IGNORE)
    expected = F.cross_entropy(logits, soft)
    assert float(teacher_loss(logits, soft, label, hard_weight=1)) == pytest.approx(float(expected), rel=1e-5)
    each = F.cross_entropy(logits, soft, reduction='none').flatten().sort().values
    weighted = (each[:48].sum() + 3 * each[48:].sum()) / (48 * 4)
    assert float(teacher_loss(logits, soft, label)) == pytest.approx(float(weighted), rel=1e-5)


def test_teacher_chooses_within_the_set_of_the_label():
    logits, sets = torch.randn(1, 3, 1, 2), torch.tensor([[True, True, False]])
    soft = torch.tensor([0.1, 0.3, 0.6]).reshape(1, 3, 1, 1).repeat(1, 1, 1, 2)
    label = torch.tensor([[[3, 0]]])
    logp = logits.log_softmax(1)[0, :, 0]
    within = -(0.25 * logp[0, 0] + 0.75 * logp[1, 0])
    free = -(0.1 * logp[0, 1] + 0.3 * logp[1, 1] + 0.6 * logp[2, 1])
    found = teacher_loss(logits, soft, label, sets, hard_weight=1)
    assert float(found) == pytest.approx(float((within + free) / 2), rel=1e-4)


def test_a_teacher_that_contradicts_the_label_does_not_count():
    logits, sets = torch.randn(1, 3, 1, 3, requires_grad=True), torch.tensor([[True, True, False]])
    soft = torch.tensor([0.02, 0.03, 0.95]).reshape(1, 3, 1, 1).repeat(1, 1, 1, 3)
    label = torch.tensor([[[3, 0, 2]]])  # a set, a wrong class and the class of the teacher
    teacher_loss(logits, soft, label, sets).backward()
    assert not logits.grad[..., :2].any() and logits.grad[..., 2].any()
    found = teacher_loss(logits, soft, torch.tensor([[[IGNORE, 0, 1]]]))  # without sets
    expected = -(soft * logits.log_softmax(1)).sum(1)[0, 0, 0]
    assert found.item() == pytest.approx(expected.item(), rel=1e-4)


def test_pixels_that_the_teacher_does_not_know_are_ignored():
    logits = torch.randn(1, 3, 1, 2, requires_grad=True)
    soft = torch.tensor([[0.9, 0.0], [0.1, 0.0], [0.0, 0.4]]).reshape(1, 3, 1, 2)
    label = torch.full((1, 1, 2), IGNORE)
    teacher_loss(logits, soft, label).backward()
    assert logits.grad[..., 0].any() and not logits.grad[..., 1].any()
    assert teacher_loss(logits, soft, label, confidence=0.95) == 0


@pytest.fixture
def data(tmp_path):
    """Return a labelled dataset of grey road, and a dataset of dark and bright images without labels."""
    rng = np.random.default_rng(0)
    for name, values in (('own/train/images', [60]), ('more/train/images', [20, 235])):
        (tmp_path / name).mkdir(parents=True)
        for value in values:
            noise = rng.integers(-8, 8, (64, 96, 3))
            cv2.imwrite(str(tmp_path / name / f'{value}.png'), (value + noise).astype(np.uint8))
    (tmp_path / 'own/train/labels').mkdir()
    cv2.imwrite(str(tmp_path / 'own/train/labels/60.png'), np.zeros((64, 96), np.uint8))
    (tmp_path / 'three.yaml').write_text(
        'classes: [{name: road, color: [0, 0, 0]}, {name: sky, color: [1, 0, 0]}, {name: car, color: [2, 0, 0]}]'
    )
    return tmp_path


def command(data, out, *more, steps=40):
    settings = [f'classes={data / "three.yaml"}', 'crop_height=64', 'crop_width=96', 'batch_size=4', f'steps={steps}']
    settings += ['warmup_steps=3', 'val_split=', 'workers=0', 'ema_decay=0.5', 'learning_rate=0.001', 'brightness=0.1']
    arguments = ['train', '--data', str(data / 'own'), '--extra', f'{data / "more"}=0.5', '--out', str(out), *more]
    return [*arguments, *(f'--set={text}' for text in settings)]


@pytest.mark.parametrize('loader', ['workers', 'resident'])
def test_training_without_labels_from_a_teacher(loader, data, tmp_path):
    teacher, out = brightness_network(tmp_path / 't.onnx'), tmp_path / 'run'
    assert main(command(data, out, '--teacher', str(teacher), '--set', f'loader={loader}')) == 0
    predict = open_predictor(out / 'weights.safetensors')
    for value, wanted in ((20, 0), (235, 1)):
        image = cv2.imread(str(data / f'more/train/images/{value}.png'))
        assert (predict.mask(image) == wanted).mean() > 0.9
    assert load_weights(out / 'weights.safetensors')[2]['teacher'] == 't.onnx'
    # A resumed run reads the stored probabilities and does not run the teacher again.
    (out / 'weights.safetensors').unlink()
    teacher.unlink()
    assert main(['train', '--resume', '--out', str(out)]) == 0


def test_labels_are_needed_without_a_teacher(data, tmp_path, capsys):
    assert main(command(data, tmp_path / 'run')) == 2
    assert 'no such label' in capsys.readouterr().err
    # With a teacher, a folder in which some labels are missing is still an error.
    labels = data / 'more/train/labels'
    labels.mkdir()
    shutil.copy(data / 'own/train/labels/60.png', labels / '20.png')
    teacher = brightness_network(tmp_path / 't.onnx')
    assert main(command(data, tmp_path / 'run', '--teacher', str(teacher))) == 2
    assert '235.png: no such label' in capsys.readouterr().err
    assert not (tmp_path / 'run').exists()


def test_unusable_teacher_leaves_no_run(data, tmp_path, capsys):
    assert main(command(data, tmp_path / 'run', '--teacher', str(tmp_path / 'absent.onnx'))) == 2
    assert 'absent.onnx: no such file' in capsys.readouterr().err
    assert not (tmp_path / 'run').exists()
