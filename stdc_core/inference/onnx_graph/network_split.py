# SPDX-License-Identifier: Apache-2.0
"""A deployed graph, prepared for TensorRT: in one piece, or the network alone with what surrounds it as numbers."""

from __future__ import annotations

import copy
from typing import NamedTuple

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from stdc_core.inference.input_scale import InputScale, set_input_scale
from stdc_core.inference.onnx_graph.constant_folding import fold, remove_unused
from stdc_core.inference.onnx_graph.quantized import is_quantized
from stdc_core.inference.scaled_size import scaled_size
from stdc_core.inference.tensorrt.kernels import Normalization

#: Names of the network's input, float ``[N, 3, h, w]``, and output, float ``[N, C, ceil(h/8), ceil(w/8)]``.
PLANES, LOGITS = 'planes', 'logits'

# Since which float16 may be quantised.
_HALF_QUANTIZATION_OPSET = 19


class Parts(NamedTuple):
    """A deployed graph, taken apart.

    Attributes:
        network: from :data:`PLANES` to :data:`LOGITS`, all three sizes free.
        normalization: from bytes to planes.
        scale: at which the network sees images.
        classes: C.
    """

    network: onnx.ModelProto
    normalization: Normalization
    scale: InputScale
    classes: int

    def network_size(self, size: tuple[int, int]) -> tuple[int, int]:
        """(h, w) for an image of (H, W)."""
        return scaled_size(size, self.scale.of(size))


def split(model: onnx.ModelProto, scale: InputScale | None = None) -> Parts:
    """Take a deployed graph apart. The model itself is not changed.

    Args:
        scale: at which the network sees images; None: the graph's own.

    Raises:
        ValueError: it is not as ``stdc export`` makes it.
    """
    model = fold(copy.deepcopy(model))
    producers = {name: node for node in model.graph.node for name in node.output}
    first = next((node for node in model.graph.node if node.op_type == 'Conv'), None)
    choice = next((node for node in model.graph.node if node.op_type == 'ArgMax'), None)
    upsampling = producers.get(choice.input[0]) if choice else None
    if first is None or upsampling is None or upsampling.op_type != 'Resize':
        raise ValueError('its graph is not a network between an image and an ArgMax; expected one from `stdc export`')
    planes, logits = first.input[0], upsampling.input[0]
    while producers[planes].op_type in ('QuantizeLinear', 'DequantizeLinear'):
        planes = producers[planes].input[0]
    network = _cut(model, planes, logits)
    before = copy.deepcopy(model)
    del before.graph.output[:]
    before.graph.output.append(helper.make_tensor_value_info(planes, TensorProto.FLOAT, [None] * 4))
    remove_unused(before.graph)
    own = _scale(before)
    return Parts(network, _normalization(before, own), scale or InputScale(own), _classes(network))


def _cut(model: onnx.ModelProto, planes: str, logits: str) -> onnx.ModelProto:
    """The graph between two tensors, which get the names of :data:`PLANES` and :data:`LOGITS`."""
    network = copy.deepcopy(model)
    graph = network.graph
    for node in graph.node:
        node.input[:] = [PLANES if name == planes else name for name in node.input]
        node.output[:] = [LOGITS if name == logits else 'before' if name == planes else name for name in node.output]
    free = ['batch', 3, 'height', 'width'], ['batch', None, None, None]
    del graph.input[:], graph.output[:], graph.value_info[:], network.metadata_props[:]
    graph.input.append(helper.make_tensor_value_info(PLANES, TensorProto.FLOAT, free[0]))
    graph.output.append(helper.make_tensor_value_info(LOGITS, TensorProto.FLOAT, free[1]))
    remove_unused(graph)
    return network


def _scale(before: onnx.ModelProto) -> float:
    resize = next((node for node in before.graph.node if node.op_type == 'Resize'), None)
    if resize is None:
        return 1.0
    known = {tensor.name: numpy_helper.to_array(tensor) for tensor in before.graph.initializer}
    if resize.input[2] not in known:
        constants = copy.deepcopy(before)
        del constants.graph.output[:], constants.graph.input[:]
        constants.graph.output.append(helper.make_tensor_value_info(resize.input[2], TensorProto.FLOAT, [4]))
        remove_unused(constants.graph)
        known[resize.input[2]] = ReferenceEvaluator(constants).run(None, {})[0]
    return float(known[resize.input[2]][2])


def _normalization(before: onnx.ModelProto, scale: float) -> Normalization:
    """Found by trying: what the graph makes of images of one colour."""
    side = int(np.ceil(2 / scale))
    evaluator = ReferenceEvaluator(before)

    def planes(colour: tuple[int, int, int]) -> np.ndarray:
        image = np.broadcast_to(np.array(colour, np.uint8), (1, side, side, 3))
        return evaluator.run(None, {'image': np.ascontiguousarray(image)})[0][0, :, 0, 0].astype(np.float64)

    offset = planes((0, 0, 0))
    table = np.stack([planes((255, 0, 0)), planes((0, 255, 0)), planes((0, 0, 255))], axis=1) - offset[:, None]
    channel = np.abs(table).argmax(axis=1)
    gain = table[range(3), channel] / 255
    colour = (30, 90, 200)
    if not np.allclose(np.array(colour)[channel] * gain + offset, planes(colour), atol=1e-4):
        raise ValueError('what its graph does to the image is more than a scale and a shift of each channel')
    return Normalization(
        channel=tuple(map(int, channel)), gain=tuple(map(float, gain)), offset=tuple(map(float, offset))
    )


def _classes(network: onnx.ModelProto) -> int:
    """Of the last convolution that the logits come from."""
    weights = {tensor.name: tensor for tensor in network.graph.initializer}
    producers = {name: node for node in network.graph.node for name in node.output}
    node = producers[LOGITS]
    while node.op_type != 'Conv':
        node = producers[next(name for name in node.input if name in producers)]
    weight = node.input[1]
    return weights[weight if weight in weights else producers[weight].input[0]].dims[0]


def whole(model: onnx.ModelProto, scale: float | None = None) -> onnx.ModelProto:
    """The deployed graph in one piece, as TensorRT takes it: it does nothing with bytes but cast them.

    Where no kernels can be compiled; and to compare them with. The model itself is not changed.

    Args:
        scale: at which the network sees images; None: the graph's own.
    """
    model = copy.deepcopy(model)
    if scale is not None:
        set_input_scale(model, scale)
    model = fold(model)
    graph = model.graph
    planes = next(node for node in graph.node if node.op_type == 'Transpose' and node.input[0] == 'image')
    cast = next(node for node in graph.node if planes.output[0] in node.input)
    planes.output[0] = cast.output[0]
    graph.node.remove(cast)
    for node in graph.node:  # not even its shape is taken of bytes
        node.input[:] = ['image/float' if name == 'image' else name for name in node.input]
    graph.node.insert(0, helper.make_node('Cast', ['image'], ['image/float'], to=TensorProto.FLOAT))
    mask = next(node for node in graph.node if node.op_type == 'Cast' and node.output[0] == 'mask')
    graph.node.insert(
        list(graph.node).index(mask), helper.make_node('Cast', [mask.input[0]], ['mask/float'], to=TensorProto.FLOAT)
    )
    mask.input[0] = 'mask/float'
    return model


def widen(network: onnx.ModelProto) -> onnx.ModelProto:
    """Give quantised weights as floats that are quantised in the graph, in place: all that TensorRT 8 reads."""
    graph = network.graph
    weights = {tensor.name: tensor for tensor in graph.initializer}
    for node in [n for n in graph.node if n.op_type == 'DequantizeLinear' and n.input[0] in weights]:
        name, scale_name = node.input[0], node.input[1]
        stored, scale = (numpy_helper.to_array(weights[each]) for each in (name, scale_name))
        if scale.ndim:  # one for each output channel
            scale = scale.reshape(-1, *[1] * (stored.ndim - 1))
        full = numpy_helper.from_array((stored * scale).astype(np.float32), f'{name}/full')
        graph.initializer.append(full)
        quantize = helper.make_node('QuantizeLinear', [full.name, *node.input[1:]], [f'{name}/quantized'])
        quantize.attribute.extend(node.attribute)
        graph.node.insert(list(graph.node).index(node), quantize)
        node.input[0] = quantize.output[0]
    remove_unused(graph)
    return network


def to_half(network: onnx.ModelProto) -> onnx.ModelProto:
    """Make float16 of every float of a network, in place, its input and output among them.

    For TensorRT 11, which computes in the types that the graph has. Of a quantised network, scales become float16 too:
    QuantizeLinear has one type for what it quantises and for its scale. None of them becomes 0, which is no scale.
    """
    graph = network.graph
    lengths = {node.input[2] for node in graph.node if node.op_type == 'Resize' and len(node.input) > 2}
    tensors = [tensor for tensor in graph.initializer if tensor.name not in lengths]
    for node in graph.node:
        if node.op_type == 'Constant' and node.output[0] not in lengths:
            tensors += [attribute.t for attribute in node.attribute if attribute.name == 'value']
        for attribute in node.attribute:
            if node.op_type == 'Cast' and attribute.name == 'to' and attribute.i == TensorProto.FLOAT:
                attribute.i = TensorProto.FLOAT16
    scales = {node.input[1] for node in graph.node if node.op_type in ('QuantizeLinear', 'DequantizeLinear')}
    for tensor in tensors:
        if tensor.data_type == TensorProto.FLOAT:
            half = numpy_helper.to_array(tensor).astype(np.float16)
            if tensor.name in scales:  # of a channel that is off, 1e-20 or so
                half = np.maximum(half, np.finfo(np.float16).smallest_subnormal)
            tensor.CopyFrom(numpy_helper.from_array(half, tensor.name))
    for value in (*graph.input, *graph.output):
        value.type.tensor_type.elem_type = TensorProto.FLOAT16
    if is_quantized(network):
        _raise_opset(network)
    return network


def _raise_opset(network: onnx.ModelProto) -> None:
    """Raise the opset, in place, to one with float16 in QuantizeLinear. From 18 on, axes of a mean are an input."""
    for entry in network.opset_import:
        entry.version = max(entry.version, _HALF_QUANTIZATION_OPSET)
    for node in [node for node in network.graph.node if node.op_type == 'ReduceMean']:
        for attribute in [attribute for attribute in node.attribute if attribute.name == 'axes']:
            name = f'{node.output[0]}/axes'
            network.graph.initializer.append(numpy_helper.from_array(np.array(attribute.ints, np.int64), name))
            node.input.append(name)
            node.attribute.remove(attribute)
