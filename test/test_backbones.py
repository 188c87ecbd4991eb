# SPDX-License-Identifier: Apache-2.0
"""Backbones from timm under the STDC decoder. Where timm is not installed, most of these tests skip."""

from __future__ import annotations

import subprocess
import sys

import cv2
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from stdc_core.classes import CAMVID
from stdc_core.commands.main import main
from stdc_core.export.onnx import export
from stdc_core.inference import Segmenter
from stdc_core.inference.model_file import is_network, read_model
from stdc_core.inference.onnx_graph.quantized import is_quantized
from stdc_core.model.deployed_graph import DeployedGraph
from stdc_core.model.networks import make_network
from stdc_core.model.segmentation import STDCSeg
from stdc_core.model.timm_backbone import BackboneError, TimmBackbone, load_pretrained
from stdc_core.model.weights import WeightsError, load_weights, save_weights
from stdc_core.training.config import ConfigError, make_config
from stdc_core.training.train_config import TrainConfig

#: Those of Tables 3 and 5 that timm has.
NAMES = (
    'ghostnet_100',
    'mobilenetv3_large_100',
    'efficientnet_b0',
    'resnet18',
    'resnet50',
    'densenet121',
    'mobilenetv2_100',
)


@pytest.fixture
def timm():
    return pytest.importorskip('timm', reason='timm is not installed; `make compare` installs it')


@pytest.fixture(scope='module')
def dataset(tmp_path_factory):
    out = tmp_path_factory.mktemp('dataset')
    for split in ('train', 'val'):
        command = ['render', str(out), '--split', split, '--drives', '1', '--frames', '2', '--size', '64x96']
        assert main([*command, '--every', '20']) == 0
    return out


def noise(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


@pytest.mark.parametrize('name', ['timm/', 'timm/../x', 'timm/hf-hub:a/b', 'resnet18', 'timm/ResNet', 'stdc3'])
def test_other_names_are_no_networks(name):
    assert not is_network(name)
    with pytest.raises(ConfigError, match=r'backbone: expected one of stdc1, stdc2, .* or timm/NAME, found'):
        TrainConfig(backbone=name)


def test_weights_of_a_backbone_need_a_backbone_from_timm():
    with pytest.raises(ConfigError, match='backbone_weights: for a backbone timm/NAME only, found backbone stdc1'):
        make_config(TrainConfig, {'backbone_weights': 'pretrained'}, 'recipe.yaml')
    with pytest.raises(BackboneError, match='expected a backbone timm/NAME, found stdc1'):
        load_pretrained(STDCSeg('stdc1').backbone, 'pretrained')


def test_a_machine_without_timm_is_told_how_to_install_it(dataset, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, 'timm', None)
    command = ['train', '--data', str(dataset), '--out', str(tmp_path / 'run'), '--set', 'backbone=timm/resnet18']
    assert main(command) == 2
    assert "timm is missing; install it with: pip install '.[compare]'" in capsys.readouterr().err


@pytest.mark.parametrize('name', NAMES)
def test_a_backbone_is_exported_and_segments_as_in_torch(timm, name, tmp_path):
    torch.manual_seed(0)
    model = make_network(f'timm/{name}', len(CAMVID)).eval()
    assert isinstance(model.backbone, TimmBackbone)
    with torch.inference_mode():
        features = model.backbone(torch.zeros(1, 3, 45, 71))
        output = model.forward_train(torch.zeros(1, 3, 45, 71))
    expected = {8: (6, 9), 16: (3, 5), 32: (2, 3)}
    assert {s: tuple(x.shape[1:]) for s, x in features.items()} == {
        s: (model.backbone.channels[s], *size) for s, size in expected.items()
    }
    assert output.detail[8].shape == (1, 1, 6, 9)
    weights, file = tmp_path / 'weights.safetensors', tmp_path / 'model.onnx'
    save_weights(model, weights, CAMVID, {})
    assert export(weights, file).backbone == f'timm/{name}'
    segmenter = Segmenter.load(file)
    assert segmenter.info.name == f'timm/{name}-seg'
    loaded, classes, _ = load_weights(weights)
    assert (loaded.name, classes) == (f'timm/{name}', CAMVID)
    for size in ((64, 96), (45, 71)):
        with torch.inference_mode():
            mask, _ = DeployedGraph(loaded).eval()(torch.from_numpy(noise(*size)[None]))
        assert (segmenter(noise(*size)).mask == mask[0].numpy()).mean() > 0.99


def test_a_model_file_with_a_backbone_from_timm_runs_without_torch_and_timm(timm, tmp_path):
    weights, file = tmp_path / 'weights.safetensors', tmp_path / 'model.onnx'
    save_weights(make_network('timm/mobilenetv3_large_100', len(CAMVID)), weights, CAMVID, {})
    export(weights, file)
    code = (
        'import sys; sys.modules |= {"torch": None, "timm": None, "torchvision": None}\n'
        'import numpy as np; from stdc_core.inference import Segmenter\n'
        f'print(Segmenter.load({str(file)!r})(np.zeros((64, 96, 3), np.uint8)).mask.shape)'
    )
    assert subprocess.run([sys.executable, '-c', code], capture_output=True, text=True).stdout == '(64, 96)\n'
    # The file gives the weights back, too.
    original, recovered = load_weights(weights)[0].state_dict(), load_weights(file)[0].state_dict()
    inference = [key for key in original if key.startswith('backbone.') and not key.endswith('num_batches_tracked')]
    assert all(torch.equal(original[key], recovered[key]) for key in inference)


@pytest.mark.parametrize('name', ['resnet18', 'efficientnet_b0'])
def test_a_backbone_is_quantised(timm, name, dataset, tmp_path):
    weights, file = tmp_path / 'weights.safetensors', tmp_path / 'model.onnx'
    torch.manual_seed(0)
    save_weights(make_network(f'timm/{name}', len(CAMVID)), weights, CAMVID, {})
    export(weights, file)
    out = tmp_path / 'int8.onnx'
    images = str(dataset / 'train' / 'images')
    assert main(['quantize', str(file), str(out), '--images', images, '--max-loss', '100']) == 0
    model, info = read_model(out)
    assert is_quantized(model) and info.backbone == f'timm/{name}'
    assert Segmenter.load(out)(noise(64, 96)).mask.shape == (64, 96)


def test_training_begins_with_the_weights_of_a_file(timm, dataset, tmp_path):
    network = timm.create_model('resnet18')
    save_file(network.state_dict(), tmp_path / 'resnet18.safetensors')
    config = ['backbone=timm/resnet18', f'backbone_weights={tmp_path / "resnet18.safetensors"}', 'steps=1']
    config += ['batch_size=2', 'crop_height=64', 'crop_width=64', 'workers=0', 'learning_rate=1e-12', 'ema_decay=0']
    command = ['train', '--data', str(dataset), '--out', str(tmp_path / 'run')]
    assert main([*command, *(part for each in config for part in ('--set', each))]) == 0
    trained = load_file(tmp_path / 'run' / 'weights.safetensors')
    begun = network.state_dict()
    # A step of almost no length: the weights are those of the file, in half precision.
    for ours, theirs in (('conv1.weight', 'conv1.weight'), ('layer4.1.conv2.weight', 'layer4.1.conv2.weight')):
        torch.testing.assert_close(trained[f'backbone.features.{ours}'].float(), begun[theirs], rtol=1e-3, atol=1e-5)
    assert main(['export', str(tmp_path / 'run' / 'weights.safetensors'), str(tmp_path / 'model.onnx')]) == 0
    image = cv2.imread(str(next((dataset / 'val' / 'images').iterdir())))
    assert Segmenter.load(tmp_path / 'model.onnx')(image).mask.shape == image.shape[:2]


def test_wrong_weights_of_a_backbone_are_told(timm, tmp_path):
    backbone = TimmBackbone('timm/resnet18')
    with pytest.raises(BackboneError, match=r'absent\.safetensors: no such file'):
        load_pretrained(backbone, str(tmp_path / 'absent.safetensors'))
    (tmp_path / 'text.safetensors').write_text('text')
    with pytest.raises(BackboneError, match=r'text\.safetensors: not a safetensors file'):
        load_pretrained(backbone, str(tmp_path / 'text.safetensors'))
    save_file(timm.create_model('resnet34').state_dict(), tmp_path / 'other.safetensors')
    with pytest.raises(BackboneError, match=r'other\.safetensors: expected weights of timm/resnet50, but layer1\.0'):
        load_pretrained(TimmBackbone('timm/resnet50'), str(tmp_path / 'other.safetensors'))


def test_a_machine_without_the_hub_is_told_so_in_one_line(timm, tmp_path):
    pytest.importorskip('huggingface_hub')
    code = (
        'from stdc_core.model.timm_backbone import TimmBackbone, load_pretrained\n'
        'try:\n    load_pretrained(TimmBackbone("timm/resnet18"), "pretrained")\n'
        'except ValueError as error:\n    print(error)\n'
    )
    run = subprocess.run(
        [sys.executable, '-c', code],
        capture_output=True,
        text=True,
        env={'HF_HUB_OFFLINE': '1', 'HF_HOME': str(tmp_path), 'PYTHONPATH': ':'.join(sys.path)},
    )
    assert run.stdout.count('\n') == 1, run.stderr
    assert run.stdout.startswith('backbone_weights: timm/resnet18.a1_in1k cannot be downloaded (')
    assert run.stdout.endswith('give the path of its model.safetensors\n')


@pytest.mark.parametrize(
    ('name', 'message'),
    [
        ('timm/resnet81', r'has no such network; did you mean timm/resnet'),
        ('timm/vit_tiny_patch16_224', 'expected features at strides 8, 16 and 32, found strides 16'),
    ],
)
def test_networks_that_are_no_backbone_are_told(timm, name, message):
    with pytest.raises(BackboneError, match=message):
        TimmBackbone(name)


def test_a_small_file_cannot_claim_a_network_of_billions_of_weights(timm, tmp_path):
    """The names and shapes are compared before the network takes any memory."""
    weights = tmp_path / 'weights.safetensors'
    model = make_network('timm/resnet18', len(CAMVID))
    model.name = 'timm/regnety_1280'
    save_weights(model, weights, CAMVID, {})
    with pytest.raises(WeightsError, match=r'weights\.safetensors: missing backbone\.features\.'):
        load_weights(weights)
