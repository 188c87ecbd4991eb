# SPDX-License-Identifier: Apache-2.0
"""Test the quantisation of models to int8."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np
import onnx
import onnxruntime
import pytest
from conftest import REPOSITORY, in_own_process
from onnx import numpy_helper

from stdc_core.classes import CAMVID
from stdc_core.commands.main import main
from stdc_core.data.folder import SegmentationFolder
from stdc_core.data.synthetic import SyntheticDrive
from stdc_core.export.calibration_images import CalibrationImages, find_images
from stdc_core.export.quantize import QuantizeError, quantize
from stdc_core.export.quantized_layers import block_names
from stdc_core.inference import DEFAULT_MODEL, ModelError, Segmenter
from stdc_core.inference.backend_choice import make_backend
from stdc_core.inference.input_scale import InputScale, set_input_scale
from stdc_core.inference.model_file import read_model
from stdc_core.inference.onnx_graph.constant_folding import fold
from stdc_core.inference.onnx_graph.quantized_on_cpu import narrow_weights, products_saturate
from stdc_core.io.files import WriteError, write_png
from stdc_core.model.weights import WeightsError, load_weights


@pytest.fixture(scope='module')
def images(tmp_path_factory):
    """Return a dataset of small pictures of drives with labels."""
    folder = tmp_path_factory.mktemp('drives')
    assert main(['render', str(folder), '--split', 'val', '--drives', '2', '--frames', '3', '--size', '120x160']) == 0
    return folder


@pytest.fixture(scope='module')
def model(tmp_path_factory):
    """Return the shipped model at input scale 1, for speed."""
    path = tmp_path_factory.mktemp('model') / 'model.onnx'
    proto, info = read_model(DEFAULT_MODEL)
    set_input_scale(proto, 1.0)
    for entry in proto.metadata_props:
        if entry.key == 'stdc.input_scale':
            entry.value = '1.0'
    onnx.save(proto, path)
    assert info.classes
    return path


@pytest.fixture(scope='module')
def quantized(model, images, tmp_path_factory):
    """Return the path of the quantised model, and the report."""
    out = tmp_path_factory.mktemp('int8') / 'model.int8.onnx'
    return out, quantize(model, out, sorted((images / 'val' / 'images').iterdir()), max_loss=100.0)


def test_folding_keeps_all_labels(model):
    image = SyntheticDrive(seed=3, frames=1)[0].image[None]
    before = make_backend('onnxruntime', read_model(model)[0], 1)(image, True)
    folded = fold(read_model(model)[0])
    assert not {'BatchNormalization'} & {node.op_type for node in folded.graph.node}
    after = make_backend('onnxruntime', folded, 1)(image, True)
    assert (before[0] == after[0]).mean() > 0.9999
    assert np.abs(before[1].astype(int) - after[1]).max() <= 1


def test_quantised_model_is_a_model_file_of_half_the_size(quantized, model):
    out, report = quantized
    segmenter, original = Segmenter.load(out), Segmenter.load(model)
    assert segmenter.info.classes == original.info.classes
    assert segmenter.info.input_scale == 1.0
    assert json.loads(segmenter.info.provenance['quantized'])['images'] == report.images == 6
    assert report.size[1] < 0.6 * report.size[0]
    image = SyntheticDrive(seed=7, frames=1)[0].image
    expected, found = original(image, confidence=True), segmenter(image, confidence=True)
    assert (expected.mask == found.mask).mean() > 0.95
    assert np.median(np.abs(expected.confidence.astype(int) - found.confidence)) <= 12
    assert segmenter.scale == original.scale == (1.0, 360 * 480)
    # The input scale can be changed as in every model file.
    assert Segmenter.load(out, input_scale=0.5)(image).mask.shape == image.shape[:2]


def test_large_images_are_scaled_for_calibration(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr('stdc_core.export.quantize.CALIBRATED', 1)
    monkeypatch.setattr('stdc_core.export.calibration_images.check_size', lambda *arguments: seen.append(arguments))
    for index in range(2):
        cv2.imwrite(str(tmp_path / f'{index}.png'), SyntheticDrive(index, height=720, width=960, frames=1)[0].image)
    report = quantize(DEFAULT_MODEL, tmp_path / 'int8.onnx', sorted(tmp_path.glob('*.png')), max_loss=100.0)
    assert seen == [(720, 960, 0.75)] * 2
    image = cv2.imread(str(tmp_path / '1.png'))
    masks = [Segmenter.load(path)(image).mask for path in (DEFAULT_MODEL, tmp_path / 'int8.onnx')]
    assert report.changed == pytest.approx(100 * (masks[0] != masks[1]).mean())
    # The file has one scale, like all model files.
    graph = onnx.load(tmp_path / 'int8.onnx').graph
    scales = {tensor.name: numpy_helper.to_array(tensor).tolist() for tensor in graph.initializer}
    assert scales['input_scales'] == [1, 1, 1.5, 1.5]
    assert ['input_scales' in node.input for node in graph.node if node.op_type == 'Resize'].count(True) == 1


def test_quantisation_has_the_form_that_tensorrt_needs(quantized):
    graph = onnx.load(quantized[0]).graph
    tensors = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    nodes = [node for node in graph.node if node.op_type in ('QuantizeLinear', 'DequantizeLinear')]
    assert len(nodes) > 100
    for node in nodes:
        zero = tensors[node.input[2]]
        assert zero.dtype == np.int8
        assert not zero.any()
    producers = {name: node for node in graph.node for name in node.output}
    convolutions = [node for node in graph.node if node.op_type == 'Conv']
    quantised = [node for node in convolutions if producers[node.input[0]].op_type == 'DequantizeLinear']
    assert len(quantised) == 36
    for node in quantised:
        weight = producers[node.input[1]]
        assert tensors[weight.input[0]].dtype == np.int8
        assert tensors[weight.input[1]].shape == (tensors[weight.input[0]].shape[0],)  # one scale per channel
        assert all(tensors[bias].dtype == np.float32 for bias in node.input[2:])


def test_blocks_with_a_large_loss_stay_in_float(model, images, tmp_path):
    files = sorted((images / 'val' / 'images').iterdir())
    all_of_it = quantize(model, tmp_path / 'all.onnx', files, max_loss=100.0)
    assert all_of_it.kept == []
    limit = all_of_it.changed / 2
    some = quantize(model, tmp_path / 'some.onnx', files, max_loss=limit)
    assert some.kept
    assert some.changed <= limit
    assert set(some.blocks) == set(block_names(fold(read_model(model)[0])))
    # The blocks that help most in float were taken first.
    assert some.kept == sorted(some.blocks, key=some.blocks.get)[: len(some.kept)]
    stored = json.loads(Segmenter.load(tmp_path / 'some.onnx').info.provenance['quantized'])
    assert stored['in float'] == some.kept
    weights = {tensor.name: tensor.data_type for tensor in onnx.load(tmp_path / 'some.onnx').graph.initializer}
    kept = [
        name for name in weights if name.startswith(f'model.{some.kept[0]}.') and name.endswith('weight/float/folded')
    ]
    assert kept
    assert all(weights[name] == onnx.TensorProto.FLOAT for name in kept)


def test_model_without_quantisable_blocks_is_an_error(model, images, tmp_path):
    files = sorted((images / 'val' / 'images').iterdir())
    with pytest.raises(QuantizeError, match='no part of it can be quantised with a loss of at most 0; allow a larger'):
        quantize(model, tmp_path / 'int8.onnx', files, max_loss=0.0)
    assert not (tmp_path / 'int8.onnx').exists()


def test_command_measures_miou_before_and_after(model, images, tmp_path, capsys):
    model = shutil.copy(model, tmp_path / 'mine.onnx')
    command = ['quantize', str(model), '--images', str(images / 'val' / 'images'), '--data', str(images)]
    assert main([*command, '--max-loss', '50']) == 0
    printed = capsys.readouterr().out
    assert 'calibrated on 6 images' in printed
    assert '% before' in printed
    assert f'{tmp_path / "mine.int8.onnx"}: ' in printed
    assert 'int8 changed' in Segmenter.load(model, precision='int8').reason
    assert main(command) == 2
    assert 'add --overwrite' in capsys.readouterr().err


def test_labels_of_a_dataset_are_not_calibration_images(images):
    assert (images / 'val' / 'labels').is_dir()
    files = sorted((images / 'val' / 'images').iterdir())
    assert find_images([images]) == find_images([images / 'val' / 'images']) == files
    assert find_images(files[:1]) == files[:1]


@pytest.mark.parametrize(
    ('image', 'label'),
    [
        ('701_StillsRaw_full/0001TP_006690.png', 'LabeledApproved_full/0001TP_006690_L.png'),
        ('train/0001TP_006690.png', 'train_labels/0001TP_006690_L.png'),
        ('train/0001TP_006690.png', 'trainannot/0001TP_006690.png'),
        ('leftImg8bit/val/ulm/ulm_0_1_leftImg8bit.png', 'gtFine/val/ulm/ulm_0_1_gtFine_labelIds.png'),
        ('leftImg8bit/val/ulm/ulm_0_1_leftImg8bit.png', 'gtFine/val/ulm/ulm_0_1_gtFine_color.png'),
    ],
)
def test_labels_of_other_layouts_are_not_calibration_images(image, label, tmp_path):
    for name in (image, label):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert find_images([tmp_path]) == [tmp_path / image]


def test_labels_in_a_folder_of_another_name_are_not_calibration_images(tmp_path):
    for name in ('train/images/a.png', 'train/groups/a.png', 'groups/b.png'):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / 'labels.yaml').write_text('{folder: groups, labels: [{id: 0, name: road}]}')
    assert find_images([tmp_path]) == [tmp_path / 'groups/b.png', tmp_path / 'train/images/a.png']


def test_loss_on_coarse_labels_is_that_of_their_groups(model, images, tmp_path, capsys):
    """Labels of two groups: the mIoU is that of `stdc evaluate`, in groups."""
    root = tmp_path / 'coarse'
    shutil.copytree(images, root)
    names = ', '.join(CAMVID.names[1:])
    (root / 'labels.yaml').write_text(
        f'labels: [{{id: 0, name: sky}}, {{id: 1, name: rest, classes: [{names}]}}]',
    )
    for path in (root / 'val' / 'labels').iterdir():
        cv2.imwrite(str(path), np.minimum(cv2.imread(str(path), cv2.IMREAD_GRAYSCALE), 1))
    model = shutil.copy(model, tmp_path / 'mine.onnx')
    assert main(['evaluate', str(model), '--data', str(root)]) == 0
    miou = re.search(r'mIoU +([\d.]+) %', capsys.readouterr().out)[1]
    command = ['quantize', str(model), '--images', str(root), '--data', str(root), '--max-loss', '100']
    assert main(command) == 0
    assert f'mIoU {miou} % before' in capsys.readouterr().out


def test_hidden_files_are_not_calibration_images(images, tmp_path):
    files = sorted((images / 'val' / 'images').iterdir())
    (tmp_path / 'mine' / '.Trash-1000').mkdir(parents=True)
    (tmp_path / 'mine' / '.Trash-1000' / 'old.png').touch()
    (tmp_path / 'mine' / 'd.png').mkdir()
    with pytest.raises(FileNotFoundError, match=rf'{tmp_path}/mine: no images \(\.jpg'):
        find_images([tmp_path / 'mine'])
    (tmp_path / 'mine' / 'link').symlink_to(files[0].parent)
    assert find_images([tmp_path / 'mine']) == [tmp_path / 'mine' / 'link' / file.name for file in files]


def test_image_that_the_network_refuses_is_named(model, images, tmp_path, monkeypatch):
    write_png(tmp_path / 'a.png', np.zeros((1, 1, 3), np.uint8))
    with pytest.raises(QuantizeError, match=r'a\.png: image of 1 x 1 pixels, expected 1 x 1 to be left'):
        CalibrationImages([tmp_path / 'a.png'], InputScale(0.5)).get_next()
    monkeypatch.setattr('stdc_core.inference.segmenter.MAX_PIXELS', 100)
    files = sorted((images / 'val' / 'images').iterdir())
    with pytest.raises(QuantizeError, match=r'\.png: image of 160 x 120 pixels, expected at most 100'):
        quantize(model, tmp_path / 'out.onnx', files)


def test_data_without_labels_sets_no_limit(model, images, tmp_path):
    for name in ('images', 'labels'):
        (tmp_path / 'val' / name).mkdir(parents=True)
    write_png(tmp_path / 'val' / 'images' / 'a.png', np.zeros((64, 96, 3), np.uint8))
    write_png(tmp_path / 'val' / 'labels' / 'a.png', np.full((64, 96), 255, np.uint8))
    data = SegmentationFolder(tmp_path, 'val', CAMVID)
    with pytest.raises(QuantizeError, match=f'{tmp_path}/val: no pixel has a label of a class'):
        quantize(model, tmp_path / 'out.onnx', sorted((images / 'val' / 'images').iterdir()), data)
    assert not (tmp_path / 'out.onnx').exists()


def test_mistakes_are_reported(model, images, quantized, tmp_path, capsys):
    files = sorted((images / 'val' / 'images').iterdir())
    with pytest.raises(QuantizeError, match='found 1 images to calibrate on, expected at least 2'):
        quantize(model, tmp_path / 'out.onnx', files[:1])
    for threads in (-1, 257):
        with pytest.raises(ValueError, match=f'threads: expected 0 to 256, found {threads}'):
            quantize(model, tmp_path / 'out.onnx', files, threads=threads)
    for limit in ('nan', 'inf', '-1'):
        with pytest.raises(ValueError, match=f'max loss: expected a finite number of 0 or more, found {limit}'):
            quantize(model, tmp_path / 'out.onnx', files, max_loss=float(limit))
    with pytest.raises(IsADirectoryError, match='is a folder, expected a file to write'):
        quantize(model, tmp_path, files, overwrite=True)
    (tmp_path / 'file').touch()
    with pytest.raises(WriteError, match=rf'{tmp_path}/file/out\.onnx: could not be written \(Not a directory\)'):
        quantize(tmp_path / 'absent.onnx', tmp_path / 'file' / 'out.onnx', files)
    with pytest.raises(ModelError, match='is quantised already'):
        quantize(quantized[0], tmp_path / 'out.onnx', files)
    with pytest.raises(WeightsError, match='is quantised and has no float weights'):
        load_weights(quantized[0])
    assert main(['quantize', str(model), str(tmp_path / 'out.onnx'), '--images', str(tmp_path / 'nowhere')]) == 2
    assert 'nowhere: no such image or folder' in capsys.readouterr().err
    assert not (tmp_path / 'out.onnx').exists()


def test_unsigned_activations_are_at_least_as_fine(quantized):
    image = SyntheticDrive(seed=5, frames=1)[0].image
    mask = Segmenter.load(quantized[0])(image).mask
    plain = onnxruntime.InferenceSession(str(quantized[0]), providers=['CPUExecutionProvider'])
    assert (plain.run(['mask'], {'image': image[None]})[0][0] == mask).mean() > 0.97
    assert len(np.unique(mask)) > 1


def test_seven_bit_weights_are_nearly_the_same(quantized):
    image = SyntheticDrive(seed=5, frames=1)[0].image[None]
    whole, _ = read_model(quantized[0])
    narrow = narrow_weights(read_model(quantized[0])[0])
    weights = [numpy_helper.to_array(t) for t in narrow.graph.initializer if t.name.endswith('/weight')]
    assert len(weights) == 36
    assert all(weight.dtype == np.int8 and np.abs(weight).max() <= 64 for weight in weights)
    masks = []
    for model in (whole, narrow):
        # The file has signed activations and weights, whose sums ONNX Runtime computes correctly on every CPU.
        session = onnxruntime.InferenceSession(model.SerializeToString(), providers=['CPUExecutionProvider'])
        masks.append(session.run(['mask'], {'image': image})[0])
    assert 0.97 < (masks[0] == masks[1]).mean() < 1


@pytest.mark.skipif(not Path('/proc/cpuinfo').exists(), reason='the CPU is asked through /proc')
def test_cpu_without_vnni_is_detected():
    known = re.search(r'^flags\s*:(.*)', Path('/proc/cpuinfo').read_text(), re.MULTILINE)
    if known is None:
        pytest.skip('not an x86 CPU')
    assert products_saturate() == (not {'avx_vnni', 'avx512_vnni'} & set(known.group(1).split()))


def segment(path: Path, backend: str, image: np.ndarray) -> np.ndarray:
    """Return the mask of an image."""
    return Segmenter.load(path, backend=backend)(image).mask


@pytest.mark.skipif(find_spec('openvino') is None, reason='openvino is not installed')
def test_openvino_runs_the_quantised_model(quantized):
    image = SyntheticDrive(seed=5, frames=1)[0].image
    mask = in_own_process(segment, quantized[0], 'openvino', image)
    assert (mask == segment(quantized[0], 'onnxruntime', image)).mean() > 0.97


def test_benchmark_times_every_variant():
    command = [
        sys.executable,
        '-m',
        'stdc_core.commands.main',
        'benchmark',
        '--size',
        '128x192',
        '--runs',
        '1',
        '--int8',
    ]
    run = subprocess.run(command, capture_output=True, text=True, env={**os.environ, 'PYTHONPATH': str(REPOSITORY)})
    assert run.returncode == 0, run.stderr
    printed = run.stdout
    sides = ['PyTorch eager, tuned', 'segmenter on onnxruntime', 'segmenter on onnxruntime, int8']
    equal = {side: float(re.search(rf'^{side} +.* (\S+) %$', printed, re.MULTILINE).group(1)) for side in sides}
    assert equal['PyTorch eager, tuned'] == 100
    assert equal['segmenter on onnxruntime'] > 99.9
    assert 90 < equal['segmenter on onnxruntime, int8'] < 100
    assert 'backend auto: onnxruntime (STDC_BACKEND=onnxruntime)' in printed
