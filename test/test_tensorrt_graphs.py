# SPDX-License-Identifier: Apache-2.0
"""Give TensorRT's parsers only what they read, from version 8.5 to 11."""

from __future__ import annotations

import copy

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, numpy_helper

from stdc_core.data.synthetic import SyntheticDrive
from stdc_core.inference import DEFAULT_MODEL
from stdc_core.inference.input_scale import set_input_scale
from stdc_core.inference.model_file import read_model
from stdc_core.inference.onnx_graph.network_split import LOGITS, PLANES, split, to_half, whole, widen
from stdc_core.inference.tensorrt.engine_builder import sized

#: Operators that all these parsers read, with their attributes. Source: builtin_op_importers.cpp of onnx/onnx-tensorrt,
#: branch release/8.5-GA, and onnxOpImporters.cpp of later ones.
READ = {
    'Add': '',
    'ArgMax': 'axis keepdims',
    'AveragePool': 'ceil_mode count_include_pad kernel_shape pads strides',
    'Cast': 'to',
    'Concat': 'axis',
    'Constant': 'value',
    'Conv': 'dilations group kernel_shape pads strides',
    'DequantizeLinear': 'axis',
    'Div': '',
    'Exp': '',
    'Gather': 'axis',
    'Mul': '',
    'QuantizeLinear': 'axis',
    'Reciprocal': '',
    'ReduceMax': 'axes keepdims',
    'ReduceMean': 'axes keepdims',
    'ReduceSum': 'keepdims',
    'Relu': '',
    'Resize': 'coordinate_transformation_mode cubic_coeff_a mode nearest_mode',
    'Round': '',
    'Shape': '',
    'Sigmoid': '',
    'Slice': '',
    'Sub': '',
    'Transpose': 'perm',
    'Unsqueeze': '',
}

#: Inputs that have to be constants.
CONSTANT = {
    'Conv': [2],
    'DequantizeLinear': [1, 2],
    'QuantizeLinear': [1, 2],
    'ReduceMean': [1],
    'ReduceSum': [1],
    'Slice': [3],
    'Unsqueeze': [1],
}


@pytest.fixture(scope='module', params=['float', 'int8'])
def model(request) -> onnx.ModelProto:
    return request.getfixturevalue('quantized') if request.param == 'int8' else read_model(DEFAULT_MODEL)[0]


@pytest.fixture(params=['whole', 'network', 'half network', 'whole at half the scale'])
def graph(request, model) -> onnx.ModelProto:
    made = copy.deepcopy(model)
    if 'scale' in request.param:
        set_input_scale(made, 0.5)
    made = widen(whole(made) if request.param.startswith('whole') else split(made).network)
    return to_half(made) if request.param == 'half network' else made


def test_every_operator_is_one_that_all_parsers_read(graph):
    onnx.checker.check_model(graph, full_check=True)
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.graph.initializer}
    for node in graph.graph.node:
        if node.op_type == 'Constant':
            constants[node.output[0]] = numpy_helper.to_array(node.attribute[0].t)
    for node in graph.graph.node:
        attributes = {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute}
        assert set(attributes) <= set(READ[node.op_type].split()), node.name
        inputs = [name for index, name in enumerate(node.input) if index in CONSTANT.get(node.op_type, ())]
        assert set(inputs) <= set(constants), node.name
        if node.op_type == 'Resize':
            modes = attributes['mode'], attributes['coordinate_transformation_mode'], attributes['nearest_mode']
            assert modes in ((b'linear', b'align_corners', b'floor'), (b'nearest', b'asymmetric', b'floor'))
        if node.op_type in ('QuantizeLinear', 'DequantizeLinear'):
            scale, zero = constants[node.input[1]], constants[node.input[2]]
            assert (scale > 0).all() and scale.shape == zero.shape
            assert zero.dtype == np.int8 and not zero.any()
            assert scale.ndim == 0 or attributes['axis'] == 0
            # Channels on their own only of weights, which are floats that the graph quantises.
            if node.op_type == 'QuantizeLinear':
                assert scale.ndim == 0 or constants[node.input[0]].dtype == scale.dtype
            else:
                assert node.input[0] not in constants


def test_bytes_are_cast_from_and_to_floats_and_nothing_else(graph):
    types = {value.name: value.type.tensor_type.elem_type for value in (*graph.graph.input, *graph.graph.output)}
    bytes_in_and_out = {name for name, kind in types.items() if kind == TensorProto.UINT8}
    assert bytes_in_and_out == ({'image', 'mask', 'confidence'} if 'image' in types else set())
    floats = {node.output[0] for node in graph.graph.node if node.op_type in ('Cast', 'Round')} - set(types)
    for node in graph.graph.node:
        if bytes_in_and_out & {*node.input, *node.output}:
            assert node.op_type == 'Cast'
            assert node.input[0] == 'image' or node.input[0] in floats


def test_a_quantised_network_in_half_precision_computes_the_same(quantized):
    parts = split(quantized)
    full = widen(parts.network)
    half = to_half(copy.deepcopy(full))
    channel, gain, offset = map(np.array, parts.normalization)
    # Not noise: there, most pixels lie between two classes.
    image = SyntheticDrive(seed=3, height=128, width=192, frames=1)[0].image
    planes = (image[..., channel] * gain + offset).transpose(2, 0, 1)[None].astype(np.float32)
    expected, found = (run(each, planes.astype(kind)) for each, kind in ((full, np.float32), (half, np.float16)))
    assert found.dtype == np.float16
    difference = np.abs(found.astype(np.float32) - expected)
    # A step more or less in a quantised activation goes on through the network.
    assert difference.mean() < 0.02 * np.abs(expected).max()
    assert (found.argmax(axis=1) == expected.argmax(axis=1)).mean() > 0.95
    assert len(np.unique(expected.argmax(axis=1))) > 3


def test_the_scale_of_a_channel_that_is_off_does_not_become_zero(quantized):
    network = widen(split(quantized).network)
    weights = {tensor.name: tensor for tensor in network.graph.initializer}
    name = next(
        node.input[1] for node in network.graph.node if node.op_type == 'QuantizeLinear' and node.input[0] in weights
    )
    scale = numpy_helper.to_array(weights[name]).copy()
    scale[0] = 1e-20
    weights[name].CopyFrom(numpy_helper.from_array(scale, name))
    halved = numpy_helper.to_array(next(t for t in to_half(network).graph.initializer if t.name == name))
    assert halved.dtype == np.float16 and (halved > 0).all()


@pytest.mark.parametrize('batch', [1, 2])
def test_in_a_sized_graph_only_batches_are_left_open(batch):
    network = split(read_model(DEFAULT_MODEL)[0]).network
    fixed = onnx.load_from_string(sized(network.SerializeToString(), (batch, 3, 96, 130)))
    dimensions = fixed.graph.input[0].type.tensor_type.shape.dim
    assert [each.dim_value for each in dimensions] == [1 if batch == 1 else 0, 3, 96, 130]
    planes = np.random.default_rng(0).normal(size=(batch, 3, 96, 130)).astype(np.float32)
    np.testing.assert_array_equal(run(fixed, planes), run(network, planes))


def run(network: onnx.ModelProto, planes: np.ndarray) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    # As it is written: what ONNX Runtime 1.32 makes of quantised float16 is not that.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(network.SerializeToString(), options, providers=['CPUExecutionProvider'])
    return session.run([LOGITS], {PLANES: planes})[0]
