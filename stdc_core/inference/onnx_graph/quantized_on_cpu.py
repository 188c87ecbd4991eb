# SPDX-License-Identifier: Apache-2.0
"""Prepare quantised model files for CPUs.

``stdc quantize`` writes signed activations around 0, which TensorRT needs. CPUs multiply unsigned by signed bytes much
faster. Moreover, an activation that is never negative uses only half of the values of a signed byte.

CPUs without VNNI (Intel before Cascade Lake and Ice Lake, AMD before Zen 4) add two such products in 16 bits, which may
overflow. ONNX Runtime and OpenVINO then compute wrong sums. With weights of 7 bits, the sum fits.
"""

from __future__ import annotations

import copy
import functools

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from stdc_core.inference.onnx_graph.constant_folding import remove_unused
from stdc_core.inference.onnx_graph.quantized import is_quantized

#: Operators whose outputs are never negative if their inputs are not.
_KEEPS_SIGN = ('AveragePool', 'Concat', 'QuantizeLinear', 'DequantizeLinear')


def for_cpu(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a deployed graph for CPUs: a changed copy if the graph is quantised, else the graph itself."""
    if not is_quantized(model):
        return model
    model = use_unsigned(copy.deepcopy(model))
    return narrow_weights(model) if products_saturate() else model


@functools.cache
def products_saturate() -> bool:
    """Return whether sums of products of unsigned and signed bytes overflow on this CPU, found by trying."""
    depth = 64
    inputs = [
        helper.make_tensor_value_info('unsigned', TensorProto.UINT8, [1, depth]),
        helper.make_tensor_value_info('signed', TensorProto.INT8, [depth, 1]),
    ]
    product = helper.make_tensor_value_info('product', TensorProto.INT32, [1, 1])
    node = helper.make_node('MatMulInteger', ['unsigned', 'signed'], ['product'])
    graph = helper.make_graph([node], 'products', inputs, [product])
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid('', 17)], ir_version=8)
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=['CPUExecutionProvider'])
    bytes_of = {'unsigned': np.full((1, depth), 255, np.uint8), 'signed': np.full((depth, 1), 127, np.int8)}
    return int(session.run(None, bytes_of)[0][0, 0]) != 255 * 127 * depth


def use_unsigned(model: onnx.ModelProto) -> onnx.ModelProto:
    """Make the quantised activations of a deployed graph unsigned, in place.

    Activations that are never negative get 255 steps instead of 127 up to the same largest value. A ReLU before them is
    removed, since quantisation turns values below 0 into 0. Other activations are shifted by 128, which changes no
    value.
    """
    graph = model.graph
    weights = {tensor.name: tensor for tensor in graph.initializer}
    producers = {name: node for node in graph.node for name in node.output}
    users: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        for name in node.input:
            users.setdefault(name, []).append(node)

    def is_positive(name: str) -> bool:
        node = producers.get(name)
        if node is None or node.op_type not in _KEEPS_SIGN:
            return node is not None and node.op_type in ('Relu', 'Sigmoid')
        return all(is_positive(source) for source in (node.input if node.op_type == 'Concat' else node.input[:1]))

    quantizers = [node for node in graph.node if node.op_type == 'QuantizeLinear']
    positive = {node.output[0]: is_positive(node.input[0]) for node in quantizers}
    for node in quantizers:
        output = node.output[0]
        scale = numpy_helper.to_array(weights[node.input[1]])
        scale, zero = (scale * np.float32(127 / 255), 0) if positive[output] else (scale, 128)
        constants: tuple[np.ndarray, ...] = np.asarray(scale, np.float32), np.array(zero, np.uint8)
        names = f'{output}/scale', f'{output}/zero'
        for constant, name in zip(constants, names, strict=True):
            graph.initializer.append(numpy_helper.from_array(constant, name))
        for user in (node, *(user for user in users[output] if user.op_type == 'DequantizeLinear')):
            del user.input[1:]
            user.input.extend(names)
        relu = producers[node.input[0]]
        if positive[output] and relu.op_type == 'Relu' and len(users[relu.output[0]]) == 1:
            node.input[0] = relu.input[0]
            graph.node.remove(relu)
    return model


def narrow_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """Round the quantised weights of a deployed graph to 7 bits, in place, since 2 * 255 * 64 fits into 16 bits."""
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    weights = {name for name, tensor in constants.items() if tensor.data_type == TensorProto.INT8}
    for node in model.graph.node:
        if node.op_type != 'DequantizeLinear' or node.input[0] not in weights:
            continue
        halves = np.rint(numpy_helper.to_array(constants[node.input[0]]) / np.float32(2)).astype(np.int8)
        doubled = numpy_helper.to_array(constants[node.input[1]]) * np.float32(2)
        names = f'{node.output[0]}/weight', f'{node.output[0]}/scale'
        model.graph.initializer.append(numpy_helper.from_array(halves, names[0]))
        model.graph.initializer.append(numpy_helper.from_array(doubled, names[1]))
        node.input[0], node.input[1] = names
    remove_unused(model.graph)
    return model
