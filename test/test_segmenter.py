# SPDX-License-Identifier: Apache-2.0
"""Test the segmenter: accepted images and models, results, and errors."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

from stdc_core.inference import DEFAULT_MODEL, MAX_PIXELS, ModelError, Segmenter, SizeError
from stdc_core.inference.input_scale import set_input_scale
from stdc_core.inference.model_file import read_model
from stdc_core.inference.onnx_graph.network_split import split


@pytest.fixture(scope='module')
def segmenter():
    return Segmenter.load()


@pytest.fixture(scope='module')
def image():
    return np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)


def test_one_image(segmenter, image):
    result = segmenter(image)
    assert (result.mask.shape, result.mask.dtype) == ((48, 64), np.uint8)
    assert result.mask.max() < len(segmenter.info.classes)
    assert result.confidence is None


def test_confidence_comes_with_the_same_mask(segmenter, image):
    result = segmenter(image, confidence=True)
    assert (result.confidence.shape, result.confidence.dtype) == ((48, 64), np.uint8)
    # The most probable of C classes has a probability of at least 1 / C.
    assert result.confidence.min() >= 255 // len(segmenter.info.classes)
    assert np.array_equal(result.mask, segmenter(image).mask)


def test_batch_equals_its_images(segmenter, image):
    other = image[::-1].copy()
    masks = segmenter(np.stack([image, other])).mask
    assert masks.shape == (2, 48, 64)
    assert np.array_equal(masks[0], segmenter(image).mask)
    assert np.array_equal(masks[1], segmenter(other).mask)


def test_views_are_accepted(segmenter, image):
    view = image[:, ::-1]
    assert np.array_equal(segmenter(view).mask, segmenter(view.copy()).mask)


def test_repeated_calls_give_the_same_bytes(segmenter, image):
    assert (
        segmenter(image, confidence=True).confidence.tobytes() == segmenter(image, confidence=True).confidence.tobytes()
    )


@pytest.mark.parametrize(
    ('wrong', 'error', 'message'),
    [
        (np.zeros((48, 64, 3), np.float32), TypeError, 'uint8, found an array of float32'),
        ([[1, 2, 3]], TypeError, 'uint8, found list'),
        (np.zeros((48, 64), np.uint8), ValueError, r'\[H, W, 3\].*found \[48, 64\]'),
        (np.zeros((48, 64, 4), np.uint8), ValueError, r'found \[48, 64, 4\]'),
        (np.zeros((0, 64, 3), np.uint8), SizeError, r'64 x 0 pixels, expected 1 x 1 to be left'),
        (np.zeros((0, 48, 64, 3), np.uint8), ValueError, r'expected one image or more, found shape \[0, 48, 64, 3\]'),
    ],
)
def test_invalid_image_is_refused(segmenter, wrong, error, message):
    with pytest.raises(error, match=message):
        segmenter(wrong)


@pytest.mark.parametrize(
    ('scale', 'largest', 'message'),
    [
        (0.5, (4096, 8192), 'image of 8193 x 4096 pixels, expected at most 33554432'),
        (2.0, (2048, 4096), 'image of 4097 x 2048 pixels, 8194 x 4096 for the network at input scale 2, expected'),
    ],
)
def test_too_large_image_is_refused(scale, largest, message):
    segmenter = Segmenter.load(input_scale=scale)
    height, width = largest
    assert height * width * max(1, scale) ** 2 == MAX_PIXELS
    segmenter.check_size(height, width)
    image = np.broadcast_to(np.uint8(0), (height, width + 1, 3))  # needs no memory unless it is copied
    for refusing in (segmenter, lambda image: segmenter.prepare(image.shape[:2], print)):
        with pytest.raises(SizeError, match=message):
            refusing(image)


def test_missing_model_is_named():
    with pytest.raises(FileNotFoundError, match=r'absent\.onnx: no such model file'):
        Segmenter.load('absent.onnx')


def test_text_file_is_not_a_model(tmp_path):
    (tmp_path / 'model.onnx').write_text('not a model')
    with pytest.raises(ModelError, match=r'model\.onnx: not an ONNX model'):
        Segmenter.load(tmp_path / 'model.onnx')


@pytest.mark.parametrize('kept', [0.001, 0.5, 0.999])
def test_truncated_model_is_refused(kept, tmp_path):
    whole = DEFAULT_MODEL.read_bytes()
    (tmp_path / 'model.onnx').write_bytes(whole[: int(kept * len(whole))])
    with pytest.raises(ModelError, match=r'model\.onnx: '):
        Segmenter.load(tmp_path / 'model.onnx')


def test_empty_file_is_refused(tmp_path):
    (tmp_path / 'model.onnx').touch()
    with pytest.raises(ModelError, match=r'model\.onnx: '):
        Segmenter.load(tmp_path / 'model.onnx')


def test_other_onnx_model_is_refused(tmp_path):
    value = onnx.helper.make_tensor_value_info('x', onnx.TensorProto.FLOAT, [1])
    graph = onnx.helper.make_graph([onnx.helper.make_node('Identity', ['x'], ['y'])], 'other', [value], [value])
    onnx.save(onnx.helper.make_model(graph), tmp_path / 'other.onnx')
    with pytest.raises(ModelError, match='without a description of its classes'):
        Segmenter.load(tmp_path / 'other.onnx')


def described(**changes) -> str:
    """Return the network description of the shipped model with some values changed."""
    metadata = {entry.key: entry.value for entry in onnx.load(DEFAULT_MODEL).metadata_props}
    return json.dumps(json.loads(metadata['stdc.network']) | changes)


def test_format_1_file_gives_the_same_masks(tmp_path):
    proto, info = read_model(DEFAULT_MODEL)
    older = dataclasses.replace(info, network=None)
    onnx.helper.set_model_props(proto, older.to_metadata())
    onnx.save(proto, tmp_path / 'model.onnx')
    found, found_info = read_model(tmp_path / 'model.onnx')
    assert found_info == older
    assert {entry.key: entry.value for entry in found.metadata_props}['stdc.format'] == '1'
    one, two = split(found), split(read_model(DEFAULT_MODEL)[0])
    assert one.network.graph == two.network.graph
    assert one[1:] == two[1:]
    image = np.random.default_rng(0).integers(0, 256, (96, 128, 3), np.uint8)
    masks = [Segmenter.load(path)(image).mask for path in (tmp_path / 'model.onnx', DEFAULT_MODEL)]
    np.testing.assert_array_equal(*masks)


def test_format_1_graph_with_another_normalisation_is_not_split():
    proto, info = read_model(DEFAULT_MODEL)
    onnx.helper.set_model_props(proto, dataclasses.replace(info, network=None).to_metadata())
    divisor = next(node for node in proto.graph.node if node.op_type == 'Div')
    divisor.op_type = 'Mul'
    with pytest.raises(ValueError, match='does not normalise images as `stdc export` does; export the weights again'):
        split(proto)


def test_input_scale_changes_the_metadata():
    proto, _ = read_model(DEFAULT_MODEL)
    set_input_scale(proto, 0.5)
    assert split(proto).scale == (0.5, None)


@pytest.mark.parametrize(
    ('key', 'value', 'message'),
    [
        ('stdc.format', '99', "format '99'"),
        ('stdc.classes', '{"names": ["a"]}', 'damaged'),
        ('stdc.classes', 'nonsense', 'damaged'),
        ('stdc.input_scale', 'big', 'damaged'),
        ('stdc.network', 'nonsense', 'damaged'),
        ('stdc.network', '[' * 100_000, 'damaged .*nested too deeply'),
        ('stdc.network', '{}', 'damaged .*network: expected the keys classes, logits, mean, planes, std'),
        ('stdc.network', described(std=[1, 0, 1]), 'damaged .*std: expected numbers above 0, found 0'),
        ('stdc.network', described(mean=[1, 2]), r'damaged .*mean: expected three finite numbers, found \[1, 2\]'),
        ('stdc.network', described(mean=[1, 2, float('nan')]), 'damaged .*mean: expected three finite numbers'),
        ('stdc.network', described(classes=12), 'damaged .*classes: expected 11, found 12'),
        ('stdc.network', described(classes='11x'), 'damaged .*classes: expected 1 to 255, found 11x'),
        ('stdc.network', described(planes=''), 'damaged .*planes: expected the name of a tensor'),
        ('stdc.network', described(logits='absent'), "not a graph .*names the tensor 'absent', which the graph lacks"),
    ],
)
def test_damaged_description_is_refused(key, value, message, tmp_path):
    model = onnx.load(DEFAULT_MODEL)
    next(entry for entry in model.metadata_props if entry.key == key).value = value
    onnx.save(model, tmp_path / 'model.onnx')
    with pytest.raises(ModelError, match=message):
        Segmenter.load(tmp_path / 'model.onnx')


def test_graph_that_cannot_run_is_refused(tmp_path):
    model = onnx.load(DEFAULT_MODEL)
    next(node for node in model.graph.node if node.op_type == 'Conv').op_type = 'NoSuchOperator'
    onnx.save(model, tmp_path / 'model.onnx')
    with pytest.raises(ModelError, match='model.onnx: the backend auto cannot run it'):
        Segmenter.load(tmp_path / 'model.onnx')


SCALES = (1.0, 0.5, 1.5)


@pytest.fixture(scope='module')
def exported(tmp_path_factory) -> dict[float, Path]:
    """Return the shipped model exported with each of the scales."""
    pytest.importorskip('torch')
    from stdc_core.export.onnx import export

    paths = {scale: tmp_path_factory.mktemp('exported') / f'{scale}.onnx' for scale in SCALES}
    for scale, path in paths.items():
        export(DEFAULT_MODEL, path, scale)
    return paths


@pytest.mark.parametrize('own', SCALES)
@pytest.mark.parametrize('wanted', SCALES)
def test_input_scale_can_be_changed(own, wanted, image, exported):
    expected, found = Segmenter.load(exported[wanted]), Segmenter.load(exported[own], input_scale=wanted)
    assert found.info.input_scale == wanted
    one, other = expected(image, confidence=True), found(image, confidence=True)
    assert np.array_equal(one.mask, other.mask)
    assert np.array_equal(one.confidence, other.confidence)


@pytest.mark.parametrize('scale', [0.0, -1.0, 4.5, float('nan')])
def test_invalid_input_scale_is_named(scale):
    with pytest.raises(ModelError, match=rf'stdc1_streets\.onnx: input scale: expected above 0 .* found {scale}'):
        Segmenter.load(input_scale=scale)


def test_number_of_threads():
    tasks = Path('/proc/self/task')
    if not tasks.exists():
        pytest.skip('/proc tells the threads of a process; this system has none')
    for threads in (1, 3):
        before = len(list(tasks.iterdir()))
        segmenter = Segmenter.load(threads=threads)
        # The calling thread computes, too.
        assert len(list(tasks.iterdir())) - before == threads - 1, segmenter.backend
        del segmenter


@pytest.mark.parametrize('threads', [-1, 257, 100_000])
def test_invalid_number_of_threads_is_named(threads):
    with pytest.raises(ValueError, match=f'^threads: expected 0 to 256, found {threads}$'):
        Segmenter.load('absent.onnx', threads)


def test_no_telemetry(tmp_path):
    kept = ('ORT_DISABLE_TELEMETRY', 'XDG_CACHE_HOME')
    environment = {name: value for name, value in os.environ.items() if name not in kept}
    environment.update(HOME=str(tmp_path), PYTHONPATH=os.pathsep.join(sys.path))
    code = 'from stdc_core.inference import Segmenter; Segmenter.load()'
    subprocess.run([sys.executable, '-c', code], env=environment, check=True)
    assert not list(tmp_path.rglob('*'))
