# SPDX-License-Identifier: Apache-2.0
"""Prepare a deployed graph for TensorRT: the network alone, or the whole graph in one piece."""

from __future__ import annotations

import copy
from typing import NamedTuple

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from stdc_core.classes import ClassTable
from stdc_core.inference.input_scale import SCALE_KEY, InputScale, scaled_size, set_input_scale
from stdc_core.inference.network_description import METADATA_KEY, NetworkDescription
from stdc_core.inference.onnx_graph.constant_folding import fold, remove_unused
from stdc_core.inference.onnx_graph.network_search import check_normalization, describe_network
from stdc_core.inference.onnx_graph.quantized import is_quantized
from stdc_core.inference.tensorrt.kernels import Normalization

#: Names of the input, float ``[N, 3, h, w]``, and output, float ``[N, C, ceil(h / 8), ceil(w / 8)]``, of the network.
PLANES, LOGITS = 'planes', 'logits'

# First ONNX opset whose QuantizeLinear takes float16.
_HALF_QUANTIZATION_OPSET = 19


class Parts(NamedTuple):
    """Parts of a deployed graph.

    Attributes:
        network: Graph from :data:`PLANES` to :data:`LOGITS`, for any batch, height and width.
        normalization: Numbers that turn bytes into planes.
        scale: Scale at which the network sees images.
        classes: Number of classes, C.
    """

    network: onnx.ModelProto
    normalization: Normalization
    scale: InputScale
    classes: int

    def network_size(self, size: tuple[int, int]) -> tuple[int, int]:
        """Return the (h, w) at which the network sees an image of ``size`` (H, W), pixels."""
        return scaled_size(size, self.scale.of(size))


def split(model: onnx.ModelProto, scale: InputScale | None = None) -> Parts:
    """Split a deployed graph into its network and the numbers of the steps around it. The model is not changed.

    Args:
        model: Deployed graph with its metadata, as ``read_model`` returns it.
        scale: Scale at which the network sees images; None takes the scale in the metadata.

    Raises:
        ValueError: The graph or its metadata is not as ``stdc export`` writes it.
    """
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    if SCALE_KEY not in metadata:
        raise ValueError(f'its metadata has no {SCALE_KEY}; expected a model file from `stdc export`')
    description = _description(model, metadata)
    network = _cut(fold(copy.deepcopy(model)), description.planes, description.logits)
    red, green, blue = description.mean
    red_std, green_std, blue_std = description.std
    normalization = Normalization(
        channel=(2, 1, 0),  # the image is BGR, the planes are RGB
        gain=(1 / 255 / red_std, 1 / 255 / green_std, 1 / 255 / blue_std),
        offset=(-red / red_std, -green / green_std, -blue / blue_std),
    )
    return Parts(network, normalization, scale or InputScale(float(metadata[SCALE_KEY])), description.classes)


def _description(model: onnx.ModelProto, metadata: dict[str, str]) -> NetworkDescription:
    """Return the description of the network: from the metadata or, for format 1, from the graph.

    Raises:
        ValueError: The description is damaged, or the network is not found.
    """
    if METADATA_KEY in metadata:
        return NetworkDescription.from_json(metadata[METADATA_KEY])
    description = describe_network(model, len(ClassTable.from_json(metadata.get('stdc.classes', ''))))
    check_normalization(model, description)
    return description


def _cut(model: onnx.ModelProto, planes: str, logits: str) -> onnx.ModelProto:
    """Return the graph between two tensors, which are renamed to :data:`PLANES` and :data:`LOGITS`."""
    network = copy.deepcopy(model)
    graph = network.graph
    for node in graph.node:
        node.input[:] = [PLANES if name == planes else name for name in node.input]
        node.output[:] = [LOGITS if name == logits else 'before' if name == planes else name for name in node.output]
    free_planes: list[str | int | None] = ['batch', 3, 'height', 'width']
    free_logits: list[str | int | None] = ['batch', None, None, None]
    del graph.input[:], graph.output[:], graph.value_info[:], network.metadata_props[:]
    graph.input.append(helper.make_tensor_value_info(PLANES, TensorProto.FLOAT, free_planes))
    graph.output.append(helper.make_tensor_value_info(LOGITS, TensorProto.FLOAT, free_logits))
    remove_unused(graph)
    return network


def whole(model: onnx.ModelProto, scale: float | None = None) -> onnx.ModelProto:
    """Return the whole deployed graph in a form that TensorRT reads. The model is not changed.

    TensorRT can only cast bytes. This graph is for systems where kernels cannot be compiled, and for comparisons with
    the kernels.

    Args:
        model: Deployed graph.
        scale: Scale at which the network sees images; None keeps the scale of the graph.
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
    for node in graph.node:  # TensorRT does not accept a tensor of bytes even to take its shape
        node.input[:] = ['image/float' if name == 'image' else name for name in node.input]
    graph.node.insert(0, helper.make_node('Cast', ['image'], ['image/float'], to=TensorProto.FLOAT))
    mask = next(node for node in graph.node if node.op_type == 'Cast' and node.output[0] == 'mask')
    graph.node.insert(
        list(graph.node).index(mask), helper.make_node('Cast', [mask.input[0]], ['mask/float'], to=TensorProto.FLOAT)
    )
    mask.input[0] = 'mask/float'
    return model


def widen(network: onnx.ModelProto) -> onnx.ModelProto:
    """Store quantised weights as floats with a QuantizeLinear, in place. TensorRT 8 reads only this form."""
    graph = network.graph
    weights = {tensor.name: tensor for tensor in graph.initializer}
    for node in [n for n in graph.node if n.op_type == 'DequantizeLinear' and n.input[0] in weights]:
        name, scale_name = node.input[0], node.input[1]
        stored, scale = (numpy_helper.to_array(weights[each]) for each in (name, scale_name))
        if scale.ndim:  # one scale for each output channel
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
    """Convert every float of a network to float16 in place, including its input and output.

    TensorRT 11 and TensorRT for RTX compute in the types of the graph. Scales of a quantised network become float16,
    too, since QuantizeLinear has one type for its input and its scale. A scale that would become 0 becomes the smallest
    float16 above 0.
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
            if tensor.name in scales:  # about 1e-20 for a channel whose weights are all 0
                half = np.maximum(half, np.finfo(np.float16).smallest_subnormal)
            tensor.CopyFrom(numpy_helper.from_array(half, tensor.name))
    for value in (*graph.input, *graph.output):
        value.type.tensor_type.elem_type = TensorProto.FLOAT16
    if is_quantized(network):
        _raise_opset(network)
    return network


def _raise_opset(network: onnx.ModelProto) -> None:
    """Raise the opset, in place, to one whose QuantizeLinear takes float16.

    From opset 18 on, the axes of ReduceMean are an input instead of an attribute.
    """
    for entry in network.opset_import:
        entry.version = max(entry.version, _HALF_QUANTIZATION_OPSET)
    for node in [node for node in network.graph.node if node.op_type == 'ReduceMean']:
        for attribute in [attribute for attribute in node.attribute if attribute.name == 'axes']:
            name = f'{node.output[0]}/axes'
            network.graph.initializer.append(numpy_helper.from_array(np.array(attribute.ints, np.int64), name))
            node.input.append(name)
            node.attribute.remove(attribute)
