"""Quantised model files on a CPU.

``stdc quantize`` writes signed activations around 0, which is what TensorRT takes. CPUs multiply unsigned by signed
bytes much faster; and of activations that are never negative, a signed byte uses half of its values.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import numpy_helper

#: What keeps numbers as they are, or picks among them, or averages them: none becomes negative.
_KEEPS_SIGN = ('AveragePool', 'Concat', 'QuantizeLinear', 'DequantizeLinear')


def is_quantized(model: onnx.ModelProto) -> bool:
    """Whether a deployed graph has quantised activations."""
    return any(node.op_type == 'QuantizeLinear' for node in model.graph.node)


def use_unsigned(model: onnx.ModelProto) -> onnx.ModelProto:
    """Make the quantised activations of a deployed graph unsigned, in place.

    Those that are never negative get 255 steps where they had 127, up to the same largest value; a ReLU before them is
    left out, as what is below 0 becomes 0 by being quantised. The others are shifted by 128, which changes nothing.
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
        constants = np.asarray(scale, np.float32), np.array(zero, np.uint8)
        names = f'{output}/scale', f'{output}/zero'
        graph.initializer.extend(map(numpy_helper.from_array, constants, names))
        for user in (node, *(user for user in users[output] if user.op_type == 'DequantizeLinear')):
            del user.input[1:]
            user.input.extend(names)
        relu = producers[node.input[0]]
        if positive[output] and relu.op_type == 'Relu' and len(users[relu.output[0]]) == 1:
            node.input[0] = relu.input[0]
            graph.node.remove(relu)
    return model
