# SPDX-License-Identifier: Apache-2.0
"""Test that all backends scale down images that are larger than the training images."""

from __future__ import annotations

import dataclasses
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from conftest import in_own_process
from onnx import helper
from onnx.utils import Extractor

from stdc_core.data.synthetic import SyntheticDrive
from stdc_core.inference import DEFAULT_MODEL, ModelError, Segmenter
from stdc_core.inference.input_scale import InputScale, scaled_size, set_input_scale
from stdc_core.inference.model_file import read_model
from stdc_core.inference.onnx_graph.network_split import split, whole

#: Number of pixels of the images that the shipped model was trained on.
PIXELS = 360 * 480


def picture(height: int, width: int) -> np.ndarray:
    return SyntheticDrive(seed=3, height=height, width=width, frames=40)[30].image


def model_file(path: Path, largest_image: str | None) -> Path:
    """Write the shipped model as if it had been trained on images of this size; None: without the size."""
    model, info = read_model(DEFAULT_MODEL)
    provenance = {key: value for key, value in info.provenance.items() if key != 'largest_image'}
    if largest_image is not None:
        provenance['largest_image'] = largest_image
    helper.set_model_props(model, dataclasses.replace(info, provenance=provenance).to_metadata())
    onnx.save(model, path)
    return path


def test_network_never_sees_more_pixels_than_in_training():
    scale = InputScale(1.5, PIXELS)
    assert [scale.of(size) for size in ((1, 1), (100, 200), (360, 480), (480, 360))] == [1.5] * 4
    assert scale.of((720, 960)) == pytest.approx(0.75)
    assert scaled_size((1080, 1920), scale.of((1080, 1920))) == (467, 831)
    for size in ((361, 480), (480, 640), (1080, 1920), (4320, 7680)):
        assert scale.of(size) * np.sqrt(np.prod(size)) == pytest.approx(1.5 * np.sqrt(PIXELS))
    assert InputScale(0.5).of((4320, 7680)) == 0.5


@pytest.mark.parametrize('own', [1.5, 1.0, 0.7])
def test_graph_scales_as_described(own):
    model, _ = read_model(DEFAULT_MODEL)
    scale = InputScale(own, 90 * 120)
    set_input_scale(model, scale)
    (resize,) = [node for node in model.graph.node if node.op_type == 'Resize' and 'input_scales' in node.input]
    model.graph.value_info.append(helper.make_tensor_value_info(resize.output[0], onnx.TensorProto.FLOAT, [None] * 4))
    beginning = Extractor(model).extract_model(['image'], [resize.output[0]])
    session = onnxruntime.InferenceSession(beginning.SerializeToString(), providers=['CPUExecutionProvider'])
    rng = np.random.default_rng(0)
    sizes = [(90, 120), (90, 121), *rng.integers(2, 700, (200, 2)).tolist()]
    for size in map(tuple, sizes):
        (seen,) = session.run(None, {'image': np.zeros((1, *size, 3), np.uint8)})
        assert seen.shape[2:] == scaled_size(size, scale.of(size)), size


def segment(backend: str, image: np.ndarray, input_scale: float | None) -> np.ndarray:
    """Return mask and confidence of the shipped model, stacked."""
    return np.stack(Segmenter.load(backend=backend, input_scale=input_scale)(image, confidence=True))


@pytest.mark.parametrize('size', [(120, 160), (360, 480), (361, 483), (480, 848)])
def test_large_image_equals_an_explicit_scale(size):
    image = picture(*size)
    scale = InputScale(1.5, PIXELS).of(size)
    assert Segmenter.load().scale.of(size) == scale
    np.testing.assert_array_equal(segment('onnxruntime', image, None), segment('onnxruntime', image, scale))


@pytest.mark.skipif(find_spec('openvino') is None, reason='openvino is not installed')
def test_openvino_scales_large_images():
    image = picture(480, 848)
    scale = InputScale(1.5, PIXELS).of(image.shape[:2])
    found, expected = (in_own_process(segment, 'openvino', image, given) for given in (None, scale))
    np.testing.assert_array_equal(found, expected)


def test_tensorrt_scales_large_images():
    model, info = read_model(DEFAULT_MODEL)
    assert split(model, info.scale).network_size((1080, 1920)) == (467, 831)
    assert split(model).network_size((1080, 1920)) == (1620, 2880)
    image = picture(480, 848)
    graph = whole(model, info.scale.of(image.shape[:2]))
    session = onnxruntime.InferenceSession(graph.SerializeToString(), providers=['CPUExecutionProvider'])
    mask, confidence = session.run(['mask', 'confidence'], {'image': image[None]})
    found = Segmenter.load()(image, confidence=True)
    assert (mask[0] == found.mask).mean() > 0.9999
    assert np.abs(confidence[0].astype(int) - found.confidence).max() <= 1


def test_explicit_scale_holds_for_every_image():
    segmenter = Segmenter.load(input_scale=1.5)
    assert segmenter.scale.of((1080, 1920)) == 1.5
    image = picture(480, 640)
    assert (segmenter(image).mask != Segmenter.load()(image).mask).any()


def test_scale_can_be_set_again():
    model, info = read_model(DEFAULT_MODEL)
    expected = [tensor.name for tensor in model.graph.initializer]
    for scale in (info.scale, info.scale, 0.5, info.scale, 1.5):
        set_input_scale(model, scale)
    assert [tensor.name for tensor in model.graph.initializer] == [*expected, 'input_scales']
    onnx.checker.check_model(model, full_check=True)


@pytest.mark.parametrize(
    ('scale', 'name'), [(1.0, 'seg'), (0.5, 'seg50'), (1.125, 'seg112.5'), (0.2886751, 'seg28.87')]
)
def test_scale_is_in_the_name(scale, name):
    assert read_model(DEFAULT_MODEL)[1].at(scale).name == f'stdc1-{name}'


def test_model_without_a_training_size_has_one_scale(tmp_path):
    segmenter = Segmenter.load(model_file(tmp_path / 'model.onnx', None))
    assert segmenter.scale == (1.5, None)


@pytest.mark.parametrize('text', ['', '360', '360x', 'x480', '0x480', '360x-1', '360x480x3', '1e3x10', '360x999999'])
def test_damaged_size_is_named(text, tmp_path):
    path = model_file(tmp_path / 'model.onnx', text)
    with pytest.raises(ModelError, match=r'model\.onnx: its description is damaged .*image.*HEIGHTxWIDTH, found'):
        Segmenter.load(path)
