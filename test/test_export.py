# SPDX-License-Identifier: Apache-2.0
"""Test the deployed graph: torch and ONNX Runtime agree, and the file describes itself."""

import json
import subprocess
import sys

import numpy as np
import onnx
import pytest
import torch

from stdc_core.classes import CAMVID
from stdc_core.commands.main import main
from stdc_core.data.synthetic import SyntheticDrive
from stdc_core.export.onnx import export
from stdc_core.inference import DEFAULT_MODEL, Segmenter
from stdc_core.model.deployed_graph import DeployedGraph, stored_class_offset
from stdc_core.model.segmentation import STDCSeg
from stdc_core.model.weights import WeightsError, load_weights, save_weights


@pytest.fixture(scope='module')
def weights(tmp_path_factory):
    """Return random weights whose batch norms are not the identity, so that fusing them matters."""
    torch.manual_seed(0)
    model = STDCSeg('stdc1', len(CAMVID))
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            module.running_var.uniform_(0.5, 1.5)
            module.running_mean.normal_(0, 0.1)
    path = tmp_path_factory.mktemp('weights') / 'weights.safetensors'
    save_weights(model, path, CAMVID, {'data': 'none'})
    return path


# 0.7 is a float32 in ONNX Runtime, so the network sees 252 of 360 rows and not 251.
@pytest.mark.parametrize('input_scale', [1.5, 1.0, 0.75, 0.7, 0.5])
def test_torch_and_onnx_runtime_agree_on_a_drive(input_scale, tmp_path):
    drive = SyntheticDrive(seed=5, frames=200)
    frames = np.stack([drive[index].image for index in (0, 90, 199)])
    export(DEFAULT_MODEL, tmp_path / 'model.onnx', input_scale)
    result = Segmenter.load(tmp_path / 'model.onnx')(frames, confidence=True)
    with torch.inference_mode():
        model, _, provenance = load_weights(DEFAULT_MODEL)
        mask, confidence = DeployedGraph(model, input_scale, stored_class_offset(provenance)).eval()(
            torch.from_numpy(frames)
        )
    assert (result.mask == mask.numpy()).mean() >= 0.9999
    assert np.abs(result.confidence.astype(int) - confidence.numpy()).max() <= 1


def test_torch_and_onnx_runtime_agree_on_real_frames(camvid):
    import cv2

    paths = sorted((camvid / 'val' / 'images').iterdir())[::25]
    frames = np.stack([cv2.imread(str(path)) for path in paths])
    segmenter = Segmenter.load()
    mask = segmenter(frames).mask
    with torch.inference_mode():
        model, _, provenance = load_weights(DEFAULT_MODEL)
        graph = DeployedGraph(model, segmenter.info.input_scale, stored_class_offset(provenance)).eval()
        expected, _ = graph(torch.from_numpy(frames))
    assert (mask == expected.numpy()).mean() >= 0.9999


@pytest.mark.parametrize('shape', [(1, 64, 96), (3, 45, 71), (2, 8, 200)])
def test_any_batch_and_image_size(weights, shape, tmp_path):
    export(weights, tmp_path / 'model.onnx', 0.75)
    images = np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)
    mask = Segmenter.load(tmp_path / 'model.onnx')(images).mask
    with torch.inference_mode():
        expected, _ = DeployedGraph(load_weights(weights)[0], 0.75).eval()(torch.from_numpy(images))
    assert mask.shape == shape
    assert mask.dtype == np.uint8
    assert (mask == expected.numpy()).mean() >= 0.999


def test_model_file_describes_itself(weights, tmp_path):
    written = export(weights, tmp_path / 'model.onnx', 0.5)
    read = Segmenter.load(tmp_path / 'model.onnx').info
    assert read == written
    assert read.classes == CAMVID
    assert read.input_scale == 0.5
    assert read.provenance == {'data': 'none'}
    assert read.name == 'stdc1-seg50'


def test_graph_holds_the_weights_once_in_half_precision(weights, tmp_path):
    export(weights, tmp_path / 'model.onnx')
    model = onnx.load(tmp_path / 'model.onnx')
    assert (tmp_path / 'model.onnx').stat().st_size < weights.stat().st_size
    kinds = {tensor.data_type for tensor in model.graph.initializer if len(tensor.dims) == 4}
    assert kinds == {onnx.TensorProto.FLOAT16}
    assert model.opset_import[0].version == 17


def test_weights_can_be_read_from_a_model_file(weights, tmp_path):
    export(weights, tmp_path / 'model.onnx')
    original, recovered = load_weights(weights)[0].state_dict(), load_weights(tmp_path / 'model.onnx')[0].state_dict()
    assert original.keys() == recovered.keys()
    for key in original:
        if not key.startswith(('aux', 'detail')) and not key.endswith('num_batches_tracked'):
            assert torch.equal(original[key], recovered[key]), key


def test_existing_file_is_not_overwritten_unasked(weights, tmp_path):
    (tmp_path / 'model.onnx').write_text('mine')
    with pytest.raises(FileExistsError, match=r'model\.onnx exists; add --overwrite'):
        export(weights, tmp_path / 'model.onnx')
    assert (tmp_path / 'model.onnx').read_text() == 'mine'
    export(weights, tmp_path / 'model.onnx', overwrite=True)
    assert Segmenter.load(tmp_path / 'model.onnx').info.classes == CAMVID


def test_file_does_not_replace_a_folder(tmp_path, capsys):
    (tmp_path / 'models').mkdir()
    (tmp_path / 'models' / 'mine').write_text('mine')
    # Before the model is read.
    assert main(['export', 'absent.onnx', str(tmp_path / 'models'), '--overwrite']) == 2
    assert f'{tmp_path}/models: is a folder, expected a file to write' in capsys.readouterr().err
    assert (tmp_path / 'models' / 'mine').read_text() == 'mine'


def test_a_very_small_input_scale(weights, tmp_path, capsys):
    export(weights, tmp_path / 'model.onnx', 0.01)
    assert Segmenter.load(tmp_path / 'model.onnx')(np.zeros((120, 130, 3), np.uint8)).mask.shape == (120, 130)
    with pytest.raises(ValueError, match='input scale: expected 1/1024 or more in a model file, found 1e-05'):
        export(weights, tmp_path / 'smaller.onnx', 1e-5)
    assert main(['benchmark', str(weights), '--size', '64x96', '--input-scale', '0.01']) == 2
    assert capsys.readouterr().err == 'stdc benchmark: size: no pixel of 64x96 is left at input scale 0.01\n'


def test_accuracy_in_a_model_file_names_its_scale(tmp_path):
    weights, model = tmp_path / 'weights.safetensors', tmp_path / 'model.onnx'
    recipe = json.dumps({'input_scale': 1.5})
    save_weights(STDCSeg('stdc1', 11), weights, CAMVID, {'recipe': recipe, 'miou': '0.4388 on sm/val'})
    assert export(weights, model).provenance['miou'] == '0.4388 on sm/val'
    told = '0.4388 on sm/val at input scale 1.5'
    assert export(weights, tmp_path / 'half.onnx', 0.5).provenance['miou'] == told
    assert export(tmp_path / 'half.onnx', tmp_path / 'one.onnx', 1.0).provenance['miou'] == told
    assert export(tmp_path / 'half.onnx', tmp_path / 'again.onnx').provenance['miou'] == told


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['--threads', '0'], 'threads: expected 1 to 256, found 0'),
        (['--threads', '257'], 'threads: expected 1 to 256, found 257'),
        (['--runs', '0'], 'runs: expected 1 or more, found 0'),
        (['--input-scale', '5'], 'input scale: expected above 0 and at most 4, found 5.0'),
    ],
)
def test_wrong_benchmark_arguments_are_reported_first(arguments, message, capsys):
    assert main(['benchmark', 'absent.onnx', *arguments]) == 2
    assert capsys.readouterr().err == f'stdc benchmark: {message}\n'


def test_largest_training_image_is_exported(tmp_path):
    weights, model = tmp_path / 'weights.safetensors', tmp_path / 'model.onnx'
    save_weights(STDCSeg('stdc1', 11), weights, CAMVID, {'largest_image': '720x1280'})
    assert export(weights, model).scale == (1.0, 720 * 1280)
    assert export(model, tmp_path / 'again.onnx').scale == (1.0, 720 * 1280)
    # An explicit scale holds for images of every size.
    for given in (0.5, 1.0):
        assert export(model, tmp_path / 'given.onnx', given, overwrite=True).scale == (given, None)
    assert export(tmp_path / 'given.onnx', tmp_path / 'later.onnx').scale == (1.0, None)
    save_weights(STDCSeg('stdc1', 11), weights, CAMVID, {'largest_image': 'large'})
    damaged = r"safetensors: its metadata is damaged \(largest_image in its provenance: .*, found 'large'\)"
    with pytest.raises(WeightsError, match=damaged):
        export(weights, tmp_path / 'other.onnx')


@pytest.mark.parametrize('input_scale', [0.0, -1.0, 4.5])
def test_impossible_input_scale(weights, input_scale, tmp_path):
    with pytest.raises(ValueError, match=f'input scale.*found {input_scale}'):
        export(weights, tmp_path / 'model.onnx', input_scale)
    assert not list(tmp_path.iterdir())


def test_inference_imports_neither_torch_nor_ros():
    code = 'import sys, stdc_core.inference, stdc_core.pictures.overlay, stdc_core.evaluation.metrics\n'
    code += 'import stdc_core.data.synthetic\n'
    code += 'print(sorted({"torch", "lightning", "rclpy", "sensor_msgs"} & set(sys.modules)))'
    assert subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True).stdout == '[]\n'


def test_default_input_scale_is_that_of_the_training(tmp_path):
    weights, model = tmp_path / 'weights.safetensors', tmp_path / 'model.onnx'
    save_weights(STDCSeg('stdc1', 11), weights, CAMVID, {'recipe': json.dumps({'input_scale': 1.5})})
    assert export(weights, model).input_scale == 1.5
    assert export(model, tmp_path / 'again.onnx').input_scale == 1.5
    assert export(model, tmp_path / 'half.onnx', 0.5).input_scale == 0.5


def test_class_offsets_are_in_the_model(tmp_path):
    """With an offset larger than every logit, each pixel gets the class of the offset."""
    weights, model = tmp_path / 'weights.safetensors', tmp_path / 'model.onnx'
    offset = [0.0] * 11
    offset[7] = 1e4
    save_weights(STDCSeg('stdc1', 11), weights, CAMVID, {'class_offset': json.dumps(offset)})
    export(weights, model)
    image = np.random.default_rng(0).integers(0, 256, (64, 96, 3), np.uint8)
    assert (Segmenter.load(model)(image).mask == 7).all()
    # It stays when the model is exported again.
    export(model, tmp_path / 'again.onnx', 0.5)
    assert (Segmenter.load(tmp_path / 'again.onnx')(image).mask == 7).all()
