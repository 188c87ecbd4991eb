# SPDX-License-Identifier: Apache-2.0
"""Give every graph that we make to the real parser and builder of TensorRT for RTX, which need no GPU."""

from __future__ import annotations

import re
from collections import Counter

import onnx
import pytest
from onnx import helper

from stdc_core.classes import class_table
from stdc_core.inference.input_scale import InputScale
from stdc_core.inference.model_file import read_model
from stdc_core.inference.tensorrt.cuda import missing_driver
from stdc_core.inference.tensorrt.engine import Engine
from stdc_core.inference.tensorrt.engine_builder import EngineOptions, build
from stdc_core.inference.tensorrt.library import EngineError
from stdc_core.inference.tensorrt.plan import EnginePlan

trt = pytest.importorskip('tensorrt_rtx', reason='TensorRT for RTX is not installed')

no_driver = pytest.mark.skipif(not missing_driver(), reason='there is an NVIDIA driver')

SIZE = (96, 130)


@pytest.fixture(scope='module')
def stdc2(tmp_path_factory) -> onnx.ModelProto:
    """The larger network with the 19 classes of Cityscapes, of random weights."""
    pytest.importorskip('torch', reason='torch is not installed')
    from stdc_core.export.onnx import export
    from stdc_core.model.segmentation import STDCSeg
    from stdc_core.model.weights import save_weights

    folder = tmp_path_factory.mktemp('stdc2')
    save_weights(STDCSeg('stdc2', 19), folder / 'weights.safetensors', class_table('cityscapes'), {})
    export(folder / 'weights.safetensors', folder / 'model.onnx')
    return read_model(folder / 'model.onnx')[0]


def format_1(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a copy with the metadata of format 1."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    kept = {entry.key: entry.value for entry in model.metadata_props if entry.key != 'stdc.network'}
    helper.set_model_props(copy, {**kept, 'stdc.format': '1'})
    return copy


def built(model: onnx.ModelProto, size: tuple[int, int] = SIZE, **plan) -> bytes:
    """Build the engine of a plan with the real library; a graph that it refuses fails with the library's words."""
    engine_plan = EnginePlan(model, **{'half': True, 'typed': True, **plan})
    return build(trt, engine_plan.network(size), engine_plan.options(size), b'', lambda percent: None)[0]


@pytest.mark.parametrize('half', [True, False], ids=['half', 'float'])
@pytest.mark.parametrize('batch', [1, 3])
@pytest.mark.parametrize('name', ['shipped_model', 'stdc2', 'quantized'])
def test_the_builder_takes_every_network(request, name, batch, half):
    small = built(request.getfixturevalue(name), half=half, max_batch=batch)
    assert len(small) > 1_000_000


@pytest.mark.parametrize('scale', [0.5, 0.75, 1.0, 1.5, 2.0])
@pytest.mark.parametrize('in_one', [False, True], ids=['split', 'one piece'])
def test_the_builder_takes_every_input_scale(shipped_model, scale, in_one):
    assert built(shipped_model, scale=InputScale(scale), in_one=in_one, half=not in_one)


@pytest.mark.parametrize('name', ['shipped_model', 'stdc2', 'quantized'])
def test_the_builder_takes_the_graph_in_one_piece(request, name):
    assert built(request.getfixturevalue(name), in_one=True, half=False)


@pytest.mark.parametrize('in_one', [False, True], ids=['split', 'one piece'])
def test_the_builder_takes_images_larger_than_those_of_the_training(shipped_model, in_one):
    assert built(shipped_model, (140, 180), scale=InputScale(1.5, 96 * 130), in_one=in_one, half=not in_one)


@pytest.mark.parametrize('size', [(1, 1), (33, 65), (97, 131), (200, 64), (360, 480)])
def test_the_builder_takes_odd_sizes(shipped_model, size):
    assert built(shipped_model, size)


def test_a_format_1_file_gives_the_same_network_as_format_2(shipped_model):
    one, two = (
        EnginePlan(each, half=True, typed=True).network(SIZE) for each in (format_1(shipped_model), shipped_model)
    )
    assert one == two
    assert built(format_1(shipped_model))


@pytest.mark.parametrize('target', ['SM75', 'SM80', 'SM86', 'SM89', 'SM120', 'SM121'])
def test_the_builder_builds_for_every_gpu_that_is_named(shipped_model, target):
    assert target in trt.ComputeCapability.__members__
    assert built(shipped_model, (64, 64), target=target)


def convolutions(engine: bytes) -> Counter:
    """Count the convolutions in the plan of an engine by the types of their two inputs, image and weights."""
    text = engine.decode('latin-1')
    types = dict(re.findall(r'tensor={ [^\n]*? name="([^"]+)" [^\n]*? type=(\w+) }', text))
    inputs = re.findall(r'corrltn={ name="[^"]*"\s+output={[^}]*}\s+input={([^}]*)}', text)
    return Counter(tuple(types[name] for name in re.findall(r'"([^"]+)"', each)[:2]) for each in inputs)


@pytest.mark.parametrize('size', [(64, 96), (256, 512)])
def test_quantised_convolutions_are_computed_in_int8(shipped_model, quantized, size):
    """36 convolutions are quantised, see test_quantize.py; the others stay in half."""
    found = convolutions(built(quantized, size, int8=True, scale=InputScale(1.0)))
    assert found[('int8', 'int8')] == 36
    assert set(found) == {('int8', 'int8'), ('half', 'half')}
    assert set(convolutions(built(shipped_model, size, scale=InputScale(1.0)))) == {('half', 'half')}


def test_the_raw_model_is_refused_in_the_words_of_the_parser(shipped_model):
    """Transpose of bytes: why ``whole`` casts first."""
    options = EngineOptions(half=False, int8=False, in_one=True, shape=(1, 96, 130, 3))
    with pytest.raises(EngineError, match=r'^TensorRT for RTX \d.* cannot read the graph: .*UInt8') as error:
        build(trt, shipped_model.SerializeToString(), options, b'', lambda percent: None)
    assert '\n' not in str(error.value)


def test_an_operator_that_the_library_lacks_is_named(shipped_model):
    plan = EnginePlan(shipped_model, half=False)
    network = onnx.load_from_string(plan.network(SIZE))
    next(node for node in network.graph.node if node.op_type == 'Relu').op_type = 'NoSuchOperator'
    with pytest.raises(EngineError, match=r'cannot read the graph: .*Plugin not found.* \(operator NoSuchOperator\)$'):
        build(trt, network.SerializeToString(), plan.options(SIZE), b'', lambda percent: None)


def test_a_target_that_does_not_exist_is_an_error_that_names_those_that_do(shipped_model):
    with pytest.raises(EngineError, match='cannot build for SM99; expected any or one of SM75, SM80, SM86, .*SM120'):
        built(shipped_model, target='SM99')


@no_driver
def test_an_engine_cannot_be_read_without_a_gpu(shipped_model):
    with pytest.raises(EngineError, match=r'^TensorRT for RTX \d.* cannot read the engine: .*driver'):
        Engine(trt, built(shipped_model, (64, 64)))
