# SPDX-License-Identifier: Apache-2.0
"""Test training on a CPU: data, configuration, one step, and a short run that learns."""

import shutil
from dataclasses import fields
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import yaml

from stdc_core.classes import CAMVID, CITYSCAPES
from stdc_core.commands.main import main
from stdc_core.data.augment import Augmentation
from stdc_core.data.folder import SegmentationFolder
from stdc_core.data.synthetic import SyntheticDrive
from stdc_core.evaluation.metrics import ConfusionMatrix
from stdc_core.inference import Segmenter
from stdc_core.inference.input_scale import InputScale
from stdc_core.model.segmentation import STDCSeg
from stdc_core.model.weights import WeightsError, load_weights, save_weights
from stdc_core.training.checkpoints import BestCheckpoint, LastCheckpoint
from stdc_core.training.config import ConfigError
from stdc_core.training.extra_data import ExtraData
from stdc_core.training.fitting import growing_average, has_bfloat16_instructions
from stdc_core.training.loaders import largest_size
from stdc_core.training.run_folder import check_empty
from stdc_core.training.task import SegmentationTask, _subsample, rate_factor
from stdc_core.training.train_config import TrainConfig, load_config

RECIPES = Path(__file__).parent.parent / 'config' / 'train'


@pytest.fixture(scope='module')
def dataset(tmp_path_factory):
    """Return a small dataset of two drives: OUT/train and OUT/val."""
    out = tmp_path_factory.mktemp('dataset')
    size = ['--size', '96x128', '--every', '40']
    assert main(['render', str(out), '--drives', '2', '--frames', '4', *size]) == 0
    assert main(['render', str(out), '--drives', '1', '--frames', '3', '--seed', '7', '--split', 'val', *size]) == 0
    return out


def test_folder_pairs_images_with_labels(dataset):
    folder = SegmentationFolder(dataset, 'train', CAMVID)
    assert len(folder) == 8
    assert folder[0].name == 'drive01000_00000'
    frame = SyntheticDrive(seed=1000, height=96, width=128, frames=160)[0]
    assert np.array_equal(folder[0].image, frame.image)
    assert np.array_equal(folder[0].label, frame.label)


def test_render_keeps_existing_files(dataset, capsys):
    size = ['--size', '96x128', '--every', '40']
    assert main(['render', str(dataset), '--drives', '1', '--frames', '1', *size]) == 2
    assert 'drive01000_00000.png exists' in capsys.readouterr().err


def test_folder_names_what_is_missing(dataset, tmp_path):
    with pytest.raises(FileNotFoundError, match=r'test: expected a folder images/'):
        SegmentationFolder(dataset, 'test', CAMVID)
    for name in ('images', 'labels'):
        (tmp_path / 'train' / name).mkdir(parents=True)
    with pytest.raises(FileNotFoundError, match='no images'):
        SegmentationFolder(tmp_path, 'train', CAMVID)
    cv2.imwrite(str(tmp_path / 'train' / 'images' / 'a.png'), np.zeros((8, 8, 3), np.uint8))
    with pytest.raises(FileNotFoundError, match=r'1 of 1 images have no label, the first .*a\.png'):
        SegmentationFolder(tmp_path, 'train', CAMVID)


@pytest.mark.parametrize(
    ('label', 'message'),
    [
        (np.full((8, 8), 11, np.uint8), r'class ids \[11\] are not in the table of 11'),
        (np.zeros((8, 9), np.uint8), r'found size \(8, 9\), expected that of its image, \(8, 8\)'),
        (np.zeros((8, 8, 3), np.uint8), 'expected one channel of 8-bit class ids'),
        (np.zeros((8, 8), np.uint16), 'expected one channel of 8-bit class ids'),
    ],
)
def test_folder_names_a_wrong_label(label, message, tmp_path):
    for name in ('images', 'labels'):
        (tmp_path / 'train' / name).mkdir(parents=True)
    cv2.imwrite(str(tmp_path / 'train' / 'images' / 'a.png'), np.zeros((8, 8, 3), np.uint8))
    cv2.imwrite(str(tmp_path / 'train' / 'labels' / 'a.png'), label)
    with pytest.raises(ValueError, match=rf'a\.png: {message}'):
        SegmentationFolder(tmp_path, 'train', CAMVID)[0]


def test_augmentation_moves_image_and_label_together():
    label = np.kron(np.random.default_rng(0).integers(0, 11, (6, 8), np.uint8), np.ones((20, 20), np.uint8))
    image = np.repeat(label[..., None] * 20, 3, axis=2)
    augment = Augmentation((64, 96), scale=(0.4, 2.0), brightness=0, contrast=0, saturation=0)
    for seed in range(20):
        new_image, new_label = augment(image, label, np.random.default_rng(seed))
        assert new_image.shape == (64, 96, 3)
        assert new_label.shape == (64, 96)
        inner = new_label != 255
        # Interpolation blurs the image only at the borders of the blocks.
        same = new_image[..., 0][inner] == new_label[inner] * 20
        assert same.mean() > 0.6


def test_padding_is_never_a_class():
    label = np.zeros((20, 20), np.uint8)
    image = np.full((20, 20, 3), 200, np.uint8)
    _, padded = Augmentation((64, 64), scale=(0.5, 0.5))(image, label, np.random.default_rng(0))
    assert (padded == 0).sum() == 100
    assert (padded == 255).sum() == 64 * 64 - 100


def test_small_image_is_enlarged_without_padding():
    image, label = np.full((20, 30, 3), 200, np.uint8), np.zeros((20, 30), np.uint8)
    for seed in range(10):
        _, cropped = Augmentation((64, 64), scale=(0.5, 5), pad=False)(image, label, np.random.default_rng(seed))
        assert (cropped == 0).all()


@pytest.mark.parametrize(('uniform', 'middle'), [(True, (0.25 + 4) / 2), (False, 1.0)])
def test_distribution_of_the_enlargement(uniform, middle):
    augment, rng = Augmentation((64, 64), scale=(0.25, 4), uniform=uniform), np.random.default_rng(0)
    factors = [augment.placement((64, 64), rng)[1, 1] for _ in range(2000)]
    assert 0.25 <= min(factors) < 0.3 and 3.9 < max(factors) <= 4
    assert np.median(factors) == pytest.approx(middle, rel=0.1)


@pytest.mark.parametrize('size', [(40, 60), (80, 120), (227, 320), (720, 960)])
def test_images_are_scaled_to_equal_pixels(size):
    pixels = 360 * 480
    augment = Augmentation((64, 64), scale=(1.5, 1.5), pixels=pixels)
    factor = augment.placement(size, np.random.default_rng(0))[1, 1]
    assert size[0] * size[1] * factor**2 == pytest.approx(2.25 * pixels)
    # As the deployed network scales images that are larger than those of the training.
    if size[0] * size[1] >= pixels:
        assert factor == pytest.approx(InputScale(1.5, pixels).of(size))


@pytest.mark.parametrize(
    ('text', 'expected'),
    [
        ('idd', ExtraData(Path('idd'))),
        ('idd=0.3', ExtraData(Path('idd'), 0.3)),
        ('a=b/idd=1', ExtraData(Path('a=b/idd'), 1.0)),
    ],
)
def test_extra_data_is_a_folder_and_a_share(text, expected):
    assert ExtraData.parse(text) == expected
    assert ExtraData.parse(str(expected)) == expected


def test_existing_folder_may_look_like_a_share(tmp_path):
    (tmp_path / 'scale=0.5').mkdir()
    assert ExtraData.parse(str(tmp_path / 'scale=0.5')) == ExtraData(tmp_path / 'scale=0.5')


@pytest.mark.parametrize('share', ['0', '1.5', '-1', 'nan', 'much', ''])
def test_invalid_share_is_named(share, dataset, tmp_path, capsys):
    arguments = ['train', '--data', str(dataset), '--out', str(tmp_path / 'run'), '--extra', f'more={share}']
    assert main(arguments) == 2
    assert capsys.readouterr().err == (
        f'stdc train: --extra more={share}: expected FOLDER=SHARE with a share above 0 and at most 1, found {share!r}\n'
    )


def test_training_on_extra_data_with_a_share(dataset, tmp_path, capsys):
    settings = ['crop_height=64', 'crop_width=64', 'batch_size=2', 'steps=1', 'workers=0', 'val_every=1']
    out, extra = tmp_path / 'run', f'{dataset}=0.5'
    arguments = ['train', '--data', str(dataset), '--extra', extra, '--out', str(out)]
    assert main([*arguments, *(f'--set={text}' for text in settings)]) == 0
    assert yaml.safe_load((out / 'run.yaml').read_text())['extra'] == [extra]
    (out / 'weights.safetensors').unlink()
    assert main(['train', '--resume', '--out', str(out)]) == 0
    record = (out / 'run.yaml').read_text()
    (out / 'weights.safetensors').unlink()
    (out / 'run.yaml').write_text(record.replace('=0.5', '=5'))
    capsys.readouterr()
    assert main(['train', '--resume', '--out', str(out)]) == 2
    assert 'run.yaml: damaged (extra: --extra' in capsys.readouterr().err


def test_misspelt_and_mistyped_keys_are_named(tmp_path):
    (tmp_path / 'train.yaml').write_text('learning_rat: 0.1\n')
    with pytest.raises(ConfigError, match=r"train\.yaml: unknown key 'learning_rat'; did you mean 'learning_rate'"):
        load_config(tmp_path / 'train.yaml', [])
    with pytest.raises(ConfigError, match="batch_size: expected int, found 'many'"):
        load_config(None, ['batch_size=many'])
    (tmp_path / 'broken.yaml').write_text('steps: [1\n')
    with pytest.raises(ConfigError, match=r'broken\.yaml: not YAML'):
        load_config(tmp_path / 'broken.yaml', [])
    with pytest.raises(ConfigError, match='expected key=value'):
        load_config(None, ['batch_size'])
    with pytest.raises(ConfigError, match="backbone: expected one of stdc1, stdc2, bis.* or timm/NAME, found 'stdc9'"):
        load_config(None, ['backbone=stdc9'])
    assert load_config(None, ['learning_rate=1']).learning_rate == 1.0


def test_values_out_of_range_are_named(tmp_path):
    for override, message in (
        ('steps=0', 'steps: expected 1 or more, found 0'),
        ('learning_rate=0', r'learning_rate: expected more than 0, found 0\.0'),
        ('ohem_threshold=0', r'ohem_threshold: expected more than 0, found 0\.0'),
        ('seed=99999999999', 'seed: expected at most 4294967295, found 99999999999'),
        ('extra_share=1.5', r'extra_share: expected at most 1, found 1\.5'),
        ('scale_min=3', r'expected scale_min <= scale_max, found 3\.0 and 2\.0'),
        ('train_split=a++b', r"train_split: expected split names joined by '\+', found 'a\+\+b'"),
    ):
        with pytest.raises(ConfigError, match=message):
            load_config(None, [override])
    (tmp_path / 'train.yaml').write_text('steps: 0\n')
    with pytest.raises(ConfigError, match=r'train\.yaml: steps: expected 1 or more'):
        load_config(tmp_path / 'train.yaml')


def test_number_formats():
    assert load_config(None, ['learning_rate=1e-3']).learning_rate == 1e-3
    assert load_config(None, ['val_split=']).val_split == ''


def test_help_explains_every_key(capsys):
    with pytest.raises(SystemExit):
        main(['train', '--help'])
    text = capsys.readouterr().out
    for field in fields(TrainConfig):
        assert f'\n  {field.name}: ' in text
        assert field.metadata['explanation'].split()[0] in text


@pytest.mark.parametrize('recipe', sorted(RECIPES.glob('[!i]*.yaml')), ids=lambda path: path.stem)
def test_shipped_recipes_are_configurations_for_every_machine(recipe):
    config = load_config(recipe, ['steps=5'])
    assert config.steps == 5
    # bf16-mixed takes nineteen times as long on a CPU without instructions for it.
    assert config.precision == 'auto'


def test_recipe_of_the_paper():
    """Section 4.2 of the paper. The weight of the heads and the enlargement follow the reference implementation."""
    config = load_config(RECIPES / 'cityscapes_stdc1_seg75.yaml')
    model = STDCSeg(config.backbone, 19)
    made = SegmentationTask(model, config, CITYSCAPES).configure_optimizers()
    optimizer, schedule = made['optimizer'], made['lr_scheduler']['scheduler']
    assert isinstance(optimizer, torch.optim.SGD)
    rates, seen = {}, 0
    for group in optimizer.param_groups:
        seen += len(group['params'])
        for name, parameter in model.named_parameters():
            if any(parameter is member for member in group['params']):
                rates[name] = (group['initial_lr'], group['weight_decay'], group['momentum'])
    assert seen == len(rates) == len(list(model.parameters()))
    assert rates['backbone.stage1.conv.weight'] == (0.01, 5e-4, 0.9)
    # Batch norms of the backbone are trained without weight decay.
    assert rates['backbone.stage1.bn.weight'] == (0.01, 0.0, 0.9)
    assert rates['head.1.weight'] == rates['ffm.conv.conv.weight'] == (0.1, 5e-4, 0.9)
    assert config.input_scale == 0.75
    assert (config.scale_min, config.scale_max, config.scale_draw, config.pad_crops) == (0.125, 1.5, 'uniform', False)
    assert schedule.lr_lambdas[0](0) == 1 / 1000
    assert rate_factor(config, 999) == rate_factor(config, 1000) == 1
    assert rate_factor(config, 30500) == pytest.approx(0.5**0.9)
    assert rate_factor(config, 60000) == 0


def test_moving_average_does_not_synchronise():
    """On the meta device, reading a number is an error. On a GPU, it would wait for all queued work."""
    average = growing_average(0.998)
    for steps, decay in ((0, 0.1), (90, 0.91), (100_000, 0.998)):
        averaged = [torch.tensor([1.0, 2.0])]
        average(averaged, [torch.tensor([3.0, 0.0])], torch.tensor(steps))
        assert averaged[0].tolist() == pytest.approx([3 - 2 * decay, 2 * decay])
    average([torch.ones(3, device='meta')], [torch.ones(3, device='meta')], torch.tensor(5, device='meta'))


def test_old_pytorch_trains_in_float32(monkeypatch):
    for name in ('_is_amx_tile_supported', '_is_avx512_bf16_supported'):
        monkeypatch.delattr(torch.cpu, name, raising=False)
    assert has_bfloat16_instructions() is False


def test_largest_image_has_the_most_pixels():
    sizes = [{(100, 300): 5, (200, 200): 1}, {(150, 250): 7}]
    assert largest_size(sizes) == largest_size(sizes[::-1]) == (200, 200)


def test_cosine_schedule():
    config = TrainConfig(steps=110, warmup_steps=10)
    assert [rate_factor(config, step) for step in (0, 9, 60, 110)] == pytest.approx([0.1, 1.0, 0.5, 0.0])


def test_thinned_labels_keep_the_corners():
    label = torch.arange(9).repeat(7, 1)[None]
    thin = _subsample(label, 2)
    assert thin.shape == (1, 3, 4)
    assert thin[0, 0].tolist() == [0, 3, 5, 8]
    assert _subsample(label, 1) is label


def test_prior_correction():
    weight = torch.linspace(0.5, 4, 11)
    task = SegmentationTask(STDCSeg('stdc1', 11), TrainConfig(prior_correction=0.4), CAMVID, weight)
    torch.testing.assert_close(task.offset.flatten().exp(), weight**-0.4)
    assert not SegmentationTask(STDCSeg('stdc1', 11), TrainConfig(), CAMVID, weight).offset.any()


def test_heads_without_a_loss_are_not_trained():
    model = STDCSeg('stdc1', 11).train()
    task = SegmentationTask(model, TrainConfig(aux_weight=0, detail_weight=0), CAMVID)
    parts = task.losses(model.forward_train(torch.rand(2, 3, 64, 96)), torch.randint(0, 11, (2, 64, 96)))
    assert parts.keys() == {'main'}
    parts['main'].backward()
    idle = {name for name, p in model.named_parameters() if not p.requires_grad}
    assert idle == {name for name, p in model.named_parameters() if p.grad is None}
    assert {name.split('.')[0] for name in idle} == {'aux8_head', 'aux16_head', 'detail_heads'}


def test_bad_data_is_found_before_training(dataset, tmp_path, capsys):
    data = tmp_path / 'data'
    shutil.copytree(dataset, data)
    labels = sorted((data / 'train' / 'labels').iterdir())
    labels[0].unlink()
    cv2.imwrite(str(labels[1]), np.full((96, 128), 40, np.uint8))
    cv2.imwrite(str(labels[2]), np.zeros((96, 100), np.uint8))
    validated = next((data / 'val' / 'labels').iterdir())
    cv2.imwrite(str(validated), np.full((96, 128), 41, np.uint8))
    assert main(['train', '--data', str(data), '--out', str(tmp_path / 'run')]) == 2
    said = capsys.readouterr().err
    assert '4 problems' in said
    assert f'{validated.name}: class ids [41]' in said
    for label in labels[:3]:
        assert label.name in said
    assert '40' in said
    assert not (tmp_path / 'run').exists()


@pytest.mark.parametrize(
    ('extra', 'message'),
    [
        (
            ['--set', 'extra_share=0.25'],
            'no extra data was given: give `--extra FOLDER` (`stdc render FOLDER` makes one)',
        ),
        (['--extra', 'more'], 'extra_share is 0, but extra data was given, more: set the share'),
    ],
)
def test_extra_data_needs_its_share(extra, message, dataset, tmp_path, capsys):
    assert main(['train', '--data', str(dataset), '--out', str(tmp_path / 'run'), *extra]) == 2
    assert message in capsys.readouterr().err


def test_file_is_not_a_run_folder(dataset, tmp_path, capsys):
    (tmp_path / 'run').write_text('mine')
    assert main(['train', '--data', str(dataset), '--out', str(tmp_path / 'run')]) == 2
    assert capsys.readouterr().err == f'stdc train: {tmp_path / "run"}: is a file, expected a folder to write to\n'


@pytest.mark.parametrize(('scores', 'best'), [((0.1, 0.2), 0.2), ((0.2, 0.1), 0.2)], ids=['last', 'in training'])
def test_last_validation_may_be_the_best(scores, best, dataset, tmp_path, monkeypatch):
    given = iter(scores)
    monkeypatch.setattr(ConfusionMatrix, 'miou', lambda _: next(given))
    settings = ['crop_height=64', 'crop_width=64', 'batch_size=2', 'steps=3', 'val_every=2', 'workers=0']
    out = tmp_path / 'run'
    arguments = ['train', '--data', str(dataset), '--out', str(out), *(f'--set={setting}' for setting in settings)]
    assert main(arguments) == 0
    model, _, provenance = load_weights(out / 'best.safetensors')
    last, _, its_provenance = load_weights(out / 'weights.safetensors')
    assert provenance['largest_image'] == its_provenance['largest_image'] == '96x128'
    assert float(provenance['miou'].split()[0]) == best
    assert float(its_provenance['miou'].split()[0]) == scores[-1]
    same = torch.equal(model.head[1].weight, last.head[1].weight)
    assert same == (best == scores[-1])


def test_best_validation_is_found_in_a_moved_folder(dataset, tmp_path, monkeypatch):
    given = iter([0.9, 0.2, 0.1])
    monkeypatch.setattr(ConfusionMatrix, 'miou', lambda _: next(given))
    settings = ['crop_height=64', 'crop_width=64', 'batch_size=2', 'steps=1', 'workers=0', 'val_every=1']
    begun, moved = tmp_path / 'begun', tmp_path / 'moved'
    assert main(['train', '--data', str(dataset), '--out', str(begun), *(f'--set={text}' for text in settings)]) == 0
    # Under the name of Lightning's own callback, as older versions of this package wrote it.
    states = torch.load(begun / 'best.ckpt', weights_only=True)['callbacks']
    assert [name.partition('{')[0] for name, state in states.items() if state.get('monitor')] == ['ModelCheckpoint']
    # As after an interruption.
    (begun / 'weights.safetensors').unlink()
    record = begun / 'run.yaml'
    record.write_text(record.read_text().replace('steps: 1\n', 'steps: 3\n', 1))
    begun.rename(moved)
    assert main(['train', '--resume', '--out', str(moved)]) == 0
    scores = [float(load_weights(moved / f'{name}.safetensors')[2]['miou'].split()[0]) for name in ('best', 'weights')]
    assert scores == [0.9, 0.1]


def test_every_device_needs_a_validation_image(dataset, tmp_path, capsys):
    settings = ['devices=4', 'batch_size=8', 'accelerator=cpu']
    arguments = ['train', '--data', str(dataset), '--out', str(tmp_path / 'run')]
    assert main([*arguments, *(f'--set={setting}' for setting in settings)]) == 2
    assert 'expected at least one image for each of the 4 devices, found 3' in capsys.readouterr().err
    assert not (tmp_path / 'run').exists()


def test_checkpoints_keep_the_keys_of_earlier_versions(tmp_path):
    assert LastCheckpoint(dirpath=tmp_path).state_key.startswith('_Last{')
    assert BestCheckpoint(dirpath=tmp_path, monitor='miou').state_key.startswith('ModelCheckpoint{')


def test_first_machine_creates_the_run_folder(tmp_path, monkeypatch):
    (tmp_path / 'run.yaml').write_text('')
    with pytest.raises(FileExistsError):
        check_empty(tmp_path)
    monkeypatch.setenv('NODE_RANK', '1')
    check_empty(tmp_path, 2)
    with pytest.raises(FileExistsError):
        check_empty(tmp_path)


def test_every_loss_trains_its_head():
    model = STDCSeg('stdc1', 11).train()
    task = SegmentationTask(model, TrainConfig(), CAMVID)
    parts = task.losses(model.forward_train(torch.rand(2, 3, 64, 96)), torch.randint(0, 11, (2, 64, 96)))
    assert parts.keys() == {'main', 'aux8', 'aux16', 'detail8'}
    sum(parts.values()).backward()
    # Every parameter gets a gradient, including the batch norms of the backbone.
    assert not [name for name, p in model.named_parameters() if p.grad is None]
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())


def test_shipped_recipes_in_sequence(dataset, tmp_path):
    small = {'crop_height': 64, 'crop_width': 64, 'batch_size': 2, 'warmup_steps': 0, 'val_every': 1, 'workers': 0}
    # The second stage makes one step that does not change the weights.
    stages = {'camvid_stdc1': {'steps': 2}, 'camvid_stdc1_fine': {'steps': 1, 'learning_rate': 1e-12}}
    runs, init = [], []
    for recipe, own in stages.items():
        runs.append(tmp_path / recipe)
        settings = [part for name, value in (small | own).items() for part in ('--set', f'{name}={value}')]
        sources = ['--data', str(dataset), '--extra', str(dataset), '--out', str(runs[-1])]
        assert main(['train', str(RECIPES / f'{recipe}.yaml'), *sources, *init, *settings]) == 0
        init = ['--init', str(runs[-1] / 'weights.safetensors')]
    (first, _, provenance), (second, *_) = (load_weights(run / 'weights.safetensors') for run in runs)
    assert provenance['data'] == f'{dataset.name}/train, {dataset.name}/train'
    for (name, before), after in zip(first.named_parameters(), second.parameters(), strict=True):
        torch.testing.assert_close(after, before, rtol=1e-3, atol=1e-3, msg=name)


def test_recipe_and_data_are_sufficient(dataset, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    small = ['crop_height=64', 'crop_width=64', 'batch_size=2', 'steps=1', 'warmup_steps=0', 'workers=0']
    command = [
        'train',
        str(RECIPES / 'camvid_stdc1.yaml'),
        '--data',
        str(dataset),
        *(f'--set={each}' for each in small),
    ]
    assert main(command) == 0
    recipe = RECIPES / 'camvid_stdc1.yaml'
    assert f'warning: {recipe} takes 0.25 of the samples from --extra, which is missing' in capsys.readouterr().err
    assert main(command) == 2
    assert 'stdc train: runs/camvid_stdc1 is not empty; --resume continues' in capsys.readouterr().err
    assert load_weights('runs/camvid_stdc1/weights.safetensors')[2]['data'] == f'{dataset.name}/train'
    assert main(['train', '--data', str(dataset)]) == 2
    assert capsys.readouterr().err == 'stdc train: --out is missing: the folder of the run\n'


def test_share_of_a_recipe_is_unused_if_each_extra_dataset_has_its_own(dataset, tmp_path, capsys):
    (tmp_path / 'mine').touch()  # the run ends before it reads data, but after it has compared the shares
    sources = ['--data', str(dataset), '--extra', f'{dataset}=0.3', '--extra', f'{dataset}=0.2']
    assert main(['train', str(RECIPES / 'camvid_stdc1.yaml'), *sources, '--out', str(tmp_path)]) == 2
    assert capsys.readouterr().err == f'stdc train: {tmp_path} is not empty; choose another folder or move it away\n'


def test_weights_are_saved_and_loaded(tmp_path):
    model = STDCSeg('stdc2', 11, detail_strides=(2, 8)).eval()
    save_weights(model, tmp_path / 'w.safetensors', CAMVID, {'a': 'b'})
    loaded, classes, provenance = load_weights(tmp_path / 'w.safetensors')
    assert (loaded.backbone.name, classes, provenance) == ('stdc2', CAMVID, {'a': 'b'})
    image = torch.rand(1, 3, 64, 64)
    with torch.inference_mode():
        torch.testing.assert_close(loaded(image), model(image), rtol=0.02, atol=0.02)
    assert [path.name for path in tmp_path.iterdir()] == ['w.safetensors']


def test_invalid_weights_file_is_refused(tmp_path):
    (tmp_path / 'w.safetensors').write_text('hello')
    with pytest.raises(WeightsError, match=r'w\.safetensors: not a safetensors file'):
        load_weights(tmp_path / 'w.safetensors')
    with pytest.raises(FileNotFoundError, match=r'absent\.safetensors'):
        load_weights(tmp_path / 'absent.safetensors')


def test_short_training_learns(dataset, tmp_path, capsys):
    out = tmp_path / 'run'
    settings = ['crop_height=96', 'crop_width=128', 'batch_size=4', 'steps=40', 'warmup_steps=5', 'val_every=20']
    settings += ['ema_decay=0.9', 'workers=0', 'learning_rate=0.003', 'aux_stride=2']
    overrides = [argument for setting in settings for argument in ('--set', setting)]
    arguments = ['train', '--data', str(dataset), '--out', str(out), *overrides]
    assert main(arguments) == 0
    assert main(['export', str(out / 'weights.safetensors'), str(tmp_path / 'model.onnx')]) == 0

    def miou(segmenter: Segmenter) -> float:
        confusion = ConfusionMatrix(11)
        for sample in SegmentationFolder(dataset, 'train', CAMVID):
            confusion.update(segmenter(sample.image).mask, sample.label)
        return confusion.miou()

    untrained = tmp_path / 'untrained.safetensors'
    save_weights(STDCSeg('stdc1', 11), untrained, CAMVID, {})
    assert main(['export', str(untrained), str(tmp_path / 'untrained.onnx')]) == 0
    before = miou(Segmenter.load(tmp_path / 'untrained.onnx'))
    after = miou(Segmenter.load(tmp_path / 'model.onnx'))
    assert before < 0.1
    assert after > 0.25

    provenance = Segmenter.load(tmp_path / 'model.onnx').info.provenance
    assert 'on ' + dataset.name + '/val' in provenance['miou']
    capsys.readouterr()
    assert main(['evaluate', str(tmp_path / 'model.onnx'), '--data', str(dataset)]) == 0
    evaluated = capsys.readouterr().out
    measured = float(evaluated.split('mIoU')[1].split()[0])
    assert measured == pytest.approx(100 * float(provenance['miou'].split()[0]), abs=1.0)

    capsys.readouterr()
    assert main(arguments) == 2
    assert f'{out} is not empty' in capsys.readouterr().err
