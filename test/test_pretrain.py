# SPDX-License-Identifier: Apache-2.0
"""Test pretraining: images by class, a run that learns and resumes, initial weights, and the import of classifiers."""

import json
import os
import shutil
import signal
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file
from torch import nn

from stdc_core.classes import CAMVID, CITYSCAPES, ClassTable
from stdc_core.commands.main import main
from stdc_core.data.image_folder import ImageFolder, RandomCrop, centre_crop
from stdc_core.inference.segmenter import DEFAULT_MODEL
from stdc_core.model.reference import import_reference
from stdc_core.model.segmentation import STDCSeg
from stdc_core.model.stdc import STDCClassifier
from stdc_core.model.weights import (
    WeightsError,
    initialise,
    load_classifier,
    load_weights,
    save_classifier,
    save_weights,
)
from stdc_core.training import pretrain
from stdc_core.training.config import read_config
from stdc_core.training.pretrain_config import PretrainConfig

COLOURS = {'blue': (200, 60, 40), 'green': (60, 180, 50), 'red': (40, 50, 200)}
SETTINGS = {
    'image_size': 32,
    'area_min': 0.5,
    'jitter': 0.1,
    'epochs': 10,
    'warmup_epochs': 1,
    'batch_size': 6,
    'learning_rate': 0.01,
    'ema_decay': 0.5,
    'val_epochs': 10,
    'workers': 0,
    'precision': '32-true',
    'accelerator': 'cpu',
}


@pytest.fixture(scope='module')
def images(tmp_path_factory):
    """Return a dataset of discs in three colours: four of each for training, two for validation."""
    root = tmp_path_factory.mktemp('images')
    rng = np.random.default_rng(0)
    for split, count in (('train', 4), ('val', 2)):
        for name, colour in COLOURS.items():
            (root / split / name).mkdir(parents=True)
            for index in range(count):
                image = rng.integers(0, 80, (48, 64, 3), np.uint8)
                cv2.circle(image, (int(rng.integers(20, 44)), 24), 22, colour, -1)
                cv2.imwrite(str(root / split / name / f'{index}.JPEG'), image)
    return root


def arguments(root: Path, out: Path, **settings: object) -> list[str]:
    overrides = [f'--set={key}={value}' for key, value in (SETTINGS | settings).items()]
    return ['pretrain', '--data', str(root), '--out', str(out), *overrides]


@pytest.fixture(scope='module')
def losses():
    """Return the list of the losses of each step of ``run``."""
    return []


@pytest.fixture(scope='module')
def run(images, losses, tmp_path_factory):
    """Return the folder of an uninterrupted pretraining."""
    out = tmp_path_factory.mktemp('runs') / 'whole'
    step = pretrain.ClassificationTask.training_step

    def recorded(*args):
        losses.append(step(*args))
        return losses[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pretrain.ClassificationTask, 'training_step', recorded)
        assert main(arguments(images, out)) == 0
    return out


# Images by class


def test_folder_numbers_the_classes_by_name(images):
    folder = ImageFolder(images, 'train')
    assert folder.classes == ('blue', 'green', 'red')
    assert len(folder) == 12
    image, label = folder[11]
    assert image.shape == (48, 64, 3)
    assert label == 2
    assert folder.path(11) == images / 'train' / 'red' / '3.JPEG'


def test_folder_ignores_hidden_folders_and_reads_any_name(images, tmp_path):
    for name in ('.Trash-1000', 'cat'):
        (tmp_path / 'train' / name).mkdir(parents=True)
    data = (images / 'train' / 'red' / '3.JPEG').read_bytes()
    (tmp_path / 'train' / 'cat' / os.fsdecode(b'caf\xe9.jpg')).write_bytes(data)
    folder = ImageFolder(tmp_path, 'train')
    assert folder.classes == ('cat',)
    assert folder[0][0].shape == (48, 64, 3)


def test_folder_names_what_is_missing_or_unknown(images, tmp_path):
    with pytest.raises(FileNotFoundError, match=r'train: not found; expected a folder with one folder .* per class'):
        ImageFolder(tmp_path, 'train')
    (tmp_path / 'train').mkdir()
    with pytest.raises(FileNotFoundError, match='one folder of images per class, found none'):
        ImageFolder(tmp_path, 'train')
    (tmp_path / 'train' / 'cat').mkdir()
    with pytest.raises(FileNotFoundError, match=r'cat: no images \(\.jpg'):
        ImageFolder(tmp_path, 'train')
    (tmp_path / 'train' / 'cat' / 'a.jpg').write_text('hello')
    with pytest.raises(ValueError, match=r'a\.jpg: not an image'):
        ImageFolder(tmp_path, 'train')[0]
    with pytest.raises(ValueError, match=r'green: not one of the 2 classes of the other split$'):
        ImageFolder(images, 'val', ('blue', 'red'))


@pytest.mark.parametrize('size', [(48, 64), (200, 30), (16, 16)])
def test_crops_have_their_size_for_any_image(size):
    image = np.random.default_rng(0).integers(0, 255, (*size, 3), np.uint8)
    for seed in range(10):
        crop = RandomCrop(24)(image, np.random.default_rng(seed))
        assert (crop.shape, crop.dtype) == ((24, 24, 3), np.uint8)
    assert centre_crop(image, 24).shape == (24, 24, 3)


def test_crops_depend_only_on_the_seed():
    image = np.random.default_rng(0).integers(0, 255, (48, 64, 3), np.uint8)
    a, b, c = (RandomCrop(24)(image, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert np.array_equal(a, b)
    assert not np.array_equal(a, c)


def test_no_jitter_and_centre_crop():
    image = np.full((64, 64, 3), (200, 60, 40), np.uint8)
    assert (RandomCrop(32, jitter=0.0)(image, np.random.default_rng(0)) == image[:32, :32]).all()
    image[:, :16] = image[:, -16:] = 0
    assert (centre_crop(image, 28) == (200, 60, 40))[:, 8:20].all()
    assert (centre_crop(image, 28) == 0)[:, :4].all()


# A run


@pytest.mark.parametrize('name', ['stdc1', 'stdc2'])
def test_shipped_configurations(name):
    path = Path(__file__).parents[1] / 'config' / 'train' / f'imagenet_{name}.yaml'
    config = read_config(PretrainConfig, path)
    assert config.backbone == name
    plan = config.in_steps(1_281_167)
    assert (plan.steps, plan.warmup_steps) == (300 * 20018, 5 * 20018)


def test_short_run_learns_and_describes_itself(images, run, losses):
    assert len(losses) == 20
    assert sum(losses[-5:]) < 0.7 * sum(losses[:5])
    model, names, provenance = load_classifier(run / 'classifier.safetensors')
    assert (model.backbone.name, names) == ('stdc1', ('blue', 'green', 'red'))
    assert provenance['data'] == f'{images.name}/train'
    assert json.loads(provenance['recipe'])['epochs'] == 10
    top1 = float(provenance['accuracy'].split()[1].rstrip(','))
    assert top1 > 0.6  # chance: 0.33
    assert 'top-5 1.0000' in provenance['accuracy']
    assert {'last.ckpt', 'best.ckpt', 'metrics.csv', 'run.yaml'} <= {path.name for path in run.iterdir()}


class Tiny(nn.Module):
    """Tiny network instead of the real one: resuming does not depend on its size."""

    def __init__(self, name: str, num_classes: int, dropout: float):
        super().__init__()
        self.backbone = nn.Sequential(
            nn.Conv2d(3, 8, 3, 4, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(4)
        )
        self.backbone.name = name
        self.dropout = nn.Dropout(dropout)
        self.fc2 = nn.Linear(128, num_classes)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.fc2(self.dropout(self.backbone(image).flatten(1)))


class Killed(BaseException):
    """Ends a run like a kill, as far as its files are concerned."""


@pytest.mark.parametrize(
    ('hook', 'step'),
    [('training_step', 5), ('validation_step', 4), ('training_step', 6), ('validation_step', 8), ('save', 8)],
)
def test_killed_run_gives_the_same_result(hook, step, images, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(pretrain, 'STDCClassifier', Tiny)
    settings = {'epochs': 4, 'val_epochs': 1, 'checkpoint_every': 2, 'dropout': 0.5, 'ema_decay': 0.5}
    assert main(arguments(images, tmp_path / 'whole', **settings)) == 0

    def die(task=None, *_):
        if task is None or task.global_step == step:
            raise Killed

    with monkeypatch.context() as patch:
        if hook == 'save':
            patch.setattr(pretrain, 'save_classifier', lambda *_: die())
        else:
            original = getattr(pretrain.ClassificationTask, hook)
            patch.setattr(pretrain.ClassificationTask, hook, lambda *args: (die(*args), original(*args))[1])
        with pytest.raises(Killed):
            main(arguments(images, tmp_path / 'killed', **settings))
    assert not (tmp_path / 'killed' / 'classifier.safetensors').exists()
    assert main(['pretrain', '--out', str(tmp_path / 'killed'), '--resume']) == 0

    whole, resumed = (load_file(tmp_path / name / 'classifier.safetensors') for name in ('whole', 'killed'))
    for key, value in whole.items():
        torch.testing.assert_close(resumed[key], value, rtol=1e-4, atol=1e-6)
    capsys.readouterr()
    assert main(['pretrain', '--out', str(tmp_path / 'killed'), '--resume']) == 2
    assert 'the run is complete' in capsys.readouterr().err


@pytest.mark.parametrize(('sent', 'status'), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_stopped_run_fails_and_says_how_to_continue(sent, status, images, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(pretrain, 'STDCClassifier', Tiny)
    out = tmp_path / 'out'
    original = pretrain.ClassificationTask.training_step
    with monkeypatch.context() as patch:
        patch.setattr(
            pretrain.ClassificationTask, 'training_step', lambda *args: (os.kill(os.getpid(), sent), original(*args))[1]
        )
        try:
            assert main(arguments(images, out)) == status
        except SystemExit as error:
            assert error.code == status
    assert f'--resume --out {out} continues the run\n' in capsys.readouterr().err
    assert main(['pretrain', '--out', str(out), '--resume']) == 0


def test_run_is_resumed_on_the_same_images_from_any_folder(images, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(pretrain, 'STDCClassifier', Tiny)
    shutil.copytree(images, tmp_path / 'images')
    monkeypatch.chdir(tmp_path)
    assert main(arguments('images', 'run', epochs=1, val_epochs=1)) == 0
    resumed = ['pretrain', '--out', str(tmp_path / 'run'), '--resume']
    classifier, record = tmp_path / 'run' / 'classifier.safetensors', tmp_path / 'run' / 'run.yaml'
    monkeypatch.chdir(images)
    classifier.unlink()
    assert main(resumed) == 0
    classifier.unlink()
    red = tmp_path / 'images' / 'train' / 'red'
    shutil.copy(red / '0.JPEG', red / '4.JPEG')
    capsys.readouterr()
    assert main(resumed) == 2
    assert 'images/train: expected the 12 images that the run began with, found 13' in capsys.readouterr().err
    for split in ('train', 'val'):
        (tmp_path / 'images' / split / 'red').rename(tmp_path / 'images' / split / 'pink')
    assert main(resumed) == 2
    said = capsys.readouterr().err
    assert 'train: expected the 3 classes that the run began with, found 3; missing: red; new: pink' in said
    # The record of an older version does not contain them.
    content = yaml.safe_load(record.read_text())
    record.write_text(yaml.safe_dump({'config': content['config'], 'data': content['data']}))
    assert main(resumed) == 0


def test_broken_image_gives_one_line_from_any_process(images, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(pretrain, 'STDCClassifier', Tiny)
    shutil.copytree(images, tmp_path / 'images')
    broken = tmp_path / 'images' / 'train' / 'red' / '0.JPEG'
    broken.write_text('hello')
    assert main(arguments(tmp_path / 'images', tmp_path / 'run', workers=1)) == 2
    said = capsys.readouterr().err
    assert f'stdc pretrain: {broken}: not an image that OpenCV reads\n' in said
    assert 'Traceback' not in said


@pytest.mark.parametrize(
    ('extra', 'message'),
    [
        (['--set', 'epoch=3'], "unknown key 'epoch'; did you mean 'epochs'?"),
        (['--set', 'batch_size=13'], 'batch_size: found 13, expected at most 12, the number of images to train on'),
        (['--set', 'batch_size=1'], 'batch_size: expected 2 or more per device, found 1 on 1'),
        (['--set', 'seed=99999999999'], 'seed: expected at most 4294967295, found 99999999999'),
        (['--set', 'dropout=2'], 'dropout: expected at most 1'),
        (['--data', 'absent'], 'absent/train: not found'),
        (['--resume'], 'contains no run to resume'),
    ],
)
def test_mistakes_give_one_line(extra, message, images, tmp_path, capsys):
    assert main([*arguments(images, tmp_path / 'out'), *extra]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count('\n') == 1
    assert not (tmp_path / 'out').exists()


def test_run_needs_data_and_an_empty_folder(images, run, tmp_path, capsys):
    assert main(['pretrain', '--out', 'absent']) == 2
    assert '--data is missing' in capsys.readouterr().err
    assert main(arguments(images, run)) == 2
    assert 'is not empty' in capsys.readouterr().err
    (tmp_path / 'file').write_text('mine')
    assert main(arguments(images, tmp_path / 'file')) == 2
    assert f'{tmp_path}/file: is a file, expected a folder to write to' in capsys.readouterr().err


# Initial weights


def same(model: nn.Module, other: nn.Module, prefix: str) -> bool:
    a, b = model.state_dict(), other.state_dict()
    return all(torch.allclose(a[k], b[k], rtol=1e-3, atol=1e-4) for k in a if k.startswith(prefix))


def shuffled(model: nn.Module) -> nn.Module:
    """Return the model with random weights and batch norms, to detect which ones are taken."""
    for value in model.state_dict().values():
        if value.is_floating_point() and value.dim() == 1:
            value.add_(0.1 * torch.rand_like(value))
    return model


def test_classifier_can_be_read_from_its_file(tmp_path):
    model = shuffled(STDCClassifier('stdc2', 7)).eval()
    save_classifier(model, tmp_path / 'c.safetensors', tuple('abcdefg'), {'data': 'made up'})
    loaded, names, provenance = load_classifier(tmp_path / 'c.safetensors')
    assert (loaded.backbone.name, names, provenance) == ('stdc2', tuple('abcdefg'), {'data': 'made up'})
    assert same(loaded, model, '')
    with pytest.raises(ValueError, match='1 class names for 7 outputs'):
        save_classifier(model, tmp_path / 'd.safetensors', ['a'], {})


def test_backbone_is_taken_from_a_classifier(run):
    path = run / 'classifier.safetensors'
    model = STDCSeg('stdc1', 11)
    head = model.head[0].conv.weight.clone()
    sentence = initialise(model, path, CAMVID)
    assert sentence == f'{path}: took the stdc1 backbone of a classifier of 3 classes'
    assert same(model.backbone, load_classifier(path)[0].backbone, '')
    assert torch.equal(model.head[0].conv.weight, head)


def test_all_weights_are_taken_for_the_same_classes(tmp_path):
    stored = shuffled(STDCSeg('stdc1', 11))
    save_weights(stored, tmp_path / 'w.safetensors', CAMVID, {})
    model = STDCSeg('stdc1', 11)
    # Other colours do not make another class.
    recoloured = ClassTable(CAMVID.names, CAMVID.colors[::-1])
    assert initialise(model, tmp_path / 'w.safetensors', recoloured).endswith('took the stdc1 network of 11 classes')
    assert same(model, stored, '')


def test_last_layers_are_not_taken_for_other_classes(tmp_path):
    stored = shuffled(STDCSeg('stdc1', 11, detail_strides=(2, 8)))
    save_weights(stored, tmp_path / 'w.safetensors', CAMVID, {})
    model = STDCSeg('stdc1', 19, detail_strides=(4, 8))
    last = model.head[1].weight.clone()
    sentence = initialise(model, tmp_path / 'w.safetensors', CITYSCAPES)
    assert sentence.endswith(
        'took the stdc1 network of 11 classes, '
        'except the detail heads at stride 4 and the last layers, because the classes differ'
    )
    assert torch.equal(model.head[1].weight, last)
    for part in ('backbone.', 'ffm.', 'head.0.', 'aux8_head.0.', 'aux16_head.0.', 'detail_heads.8.'):
        assert same(model, stored, part), part


def test_weights_are_taken_from_a_model_file():
    model = STDCSeg('stdc1', 11)
    sentence = initialise(model, DEFAULT_MODEL, CAMVID)
    assert sentence.endswith('11 classes, except the auxiliary heads and the detail heads at stride 8')
    assert same(model, load_weights(DEFAULT_MODEL)[0], 'backbone.')
    assert same(model, load_weights(DEFAULT_MODEL)[0], 'head.')


def test_weights_that_do_not_fit_are_refused(run, tmp_path):
    path = run / 'classifier.safetensors'
    model = STDCSeg('stdc2', 11)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(WeightsError, match=r'classifier\.safetensors: found backbone stdc1, expected stdc2'):
        initialise(model, path, CAMVID)
    with pytest.raises(WeightsError, match=r'\.onnx: found backbone stdc1, expected stdc2'):
        initialise(model, DEFAULT_MODEL, CAMVID)
    with pytest.raises(FileNotFoundError, match=r'absent\.safetensors: no such file'):
        initialise(model, tmp_path / 'absent.safetensors', CAMVID)
    (tmp_path / 'model.pth').write_text('hello')
    with pytest.raises(WeightsError, match=r'model\.pth: not a safetensors file.*`stdc import` reads checkpoints'):
        initialise(model, tmp_path / 'model.pth', CAMVID)
    save_file({'x': torch.zeros(1)}, tmp_path / 'x.safetensors')
    with pytest.raises(WeightsError, match=r'x\.safetensors: no backbone, classes, provenance in its metadata'):
        initialise(model, tmp_path / 'x.safetensors', CAMVID)
    metadata = {'kind': 'classifier', 'backbone': 'stdc2', 'names': '["a"]', 'provenance': '{}'}
    save_file({'backbone.stage1.bn.weight': torch.zeros(32)}, tmp_path / 'part.safetensors', metadata)
    with pytest.raises(WeightsError, match=r'part\.safetensors: missing stage1\.conv\.weight; .* more'):
        initialise(model, tmp_path / 'part.safetensors', CAMVID)
    save_file({'x': torch.zeros(1)}, tmp_path / 'names.safetensors', metadata | {'names': '3'})
    with pytest.raises(WeightsError, match=r'names\.safetensors: its metadata is damaged \(names: expected a list'):
        load_classifier(tmp_path / 'names.safetensors')
    save_file({'x': torch.zeros(1)}, tmp_path / 'name.safetensors', metadata | {'backbone': 'stdc3'})
    with pytest.raises(WeightsError, match="found backbone 'stdc3', expected one of stdc1, stdc2"):
        load_classifier(tmp_path / 'name.safetensors')
    with pytest.raises(WeightsError, match='an image classifier, expected a segmentation network'):
        load_weights(path)
    with pytest.raises(WeightsError, match='a segmentation network, expected an image classifier'):
        load_classifier(DEFAULT_MODEL)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


# Import of the reference's classifiers


def reference_classifier(model: STDCClassifier) -> dict[str, torch.Tensor]:
    """Return the state under the names of the reference, with the batch norm that the reference keeps but does not use.

    The names are those of ``cp.backbone`` in a segmentation checkpoint of the reference, which contains the classifier.
    """
    listing = np.load(Path(__file__).parent / 'data' / 'reference.npz')[f'{model.backbone.name}_keys']
    names = [str(key).removeprefix('cp.backbone.') for key in listing if key.startswith('cp.backbone.')]
    names = [name for name in names if name[0] != 'x' and not name.startswith('bn.')]
    state = dict(zip(names, model.state_dict().values(), strict=True))
    norm = {'weight': 2.0, 'bias': 1.0, 'running_mean': 3.0, 'running_var': 2.0}
    return state | {f'bn.{key}': torch.full((1024,), value) for key, value in norm.items()}


@pytest.fixture(scope='module')
def classifier():
    torch.manual_seed(0)
    return shuffled(STDCClassifier('stdc1', 10)).eval()


@pytest.mark.parametrize('name', ['stdc1', 'stdc2'])
def test_imported_classifier_computes_the_same(name, tmp_path, capsys):
    torch.manual_seed(0)
    model = shuffled(STDCClassifier(name, 10)).eval()
    state = {f'module.{key}': value for key, value in reference_classifier(model).items()}
    state['module.x2.0.0.conv.weight'] = state['module.features.0.conv.weight']
    torch.save({'epoch': 299, 'state_dict': state}, tmp_path / 'STDCNet.tar')
    image = torch.rand(2, 3, 64, 64)
    with torch.inference_mode():
        expected = model(image)
        imported = import_reference(tmp_path / 'STDCNet.tar', CITYSCAPES)
        assert torch.equal(imported(image), expected)
        assert main(['import', str(tmp_path / 'STDCNet.tar'), str(tmp_path / 'c.safetensors')]) == 0
        stored, names, provenance = load_classifier(tmp_path / 'c.safetensors')
        # The file holds float16.
        torch.testing.assert_close(stored(image), expected, rtol=0.02, atol=0.02 * float(expected.abs().max()))
    assert f'{name}, classifier of 10 classes' in capsys.readouterr().out
    assert names == tuple('0123456789')
    assert provenance == {'imported from': 'STDCNet.tar'}
    assert 'backbone of a classifier of 10' in initialise(STDCSeg(name, 11), tmp_path / 'c.safetensors', CAMVID)


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (lambda s: s.pop('linear.weight'), r'linear\.weight: expected \[classes, 1024\], found no such key'),
        (lambda s: s.pop('features.2.avd_layer.0.weight'), r'1 keys .* missing, among them features\.2\.avd_layer\.0'),
        (lambda s: s.pop('fc.weight'), r'among them fc\.weight'),
        (lambda s: s.update({'extra.weight': torch.zeros(1)}), r'unexpected extra\.weight'),
        (lambda s: s.update({'linear.weight': torch.zeros(10, 512)}), r'fc2\.weight has shape \(10, 512\), expected'),
        (lambda s: s.update({'features.20.conv.weight': torch.zeros(1)}), r'features\.\* has 21 modules, expected 8'),
    ],
)
def test_different_classifier_is_refused(change, message, classifier, tmp_path):
    state = reference_classifier(classifier)
    change(state)
    torch.save(state, tmp_path / 'c.tar')
    with pytest.raises(WeightsError, match=rf'c\.tar: .*{message}'):
        import_reference(tmp_path / 'c.tar', CITYSCAPES)


def test_other_files_are_refused_in_one_line(tmp_path, capsys):
    torch.save({'conv.weight': torch.zeros(1)}, tmp_path / 'other.pth')
    assert main(['import', str(tmp_path / 'other.pth'), str(tmp_path / 'out.safetensors')]) == 2
    assert 'no key cp.backbone.features.* or features.*' in capsys.readouterr().err
    assert not (tmp_path / 'out.safetensors').exists()
