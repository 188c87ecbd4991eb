# SPDX-License-Identifier: Apache-2.0
"""Quantise the layers of a deployed graph, and turn blocks of layers back to float."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import onnx
from onnxruntime.quantization import QuantFormat, QuantType, quantize_static

from stdc_core.export.calibration_images import CalibrationImages
from stdc_core.inference.input_scale import InputScale
from stdc_core.inference.onnx_graph.constant_folding import remove_unused

#: Operators to quantise.
QUANTIZED = ('Conv', 'Concat', 'AveragePool')

# Operators between a global average and the feature that it scales.
_GATE_OPERATORS = ('Conv', 'BatchNormalization', 'Relu', 'Sigmoid', 'HardSigmoid', 'HardSwish')

# Suffix that ONNX Runtime's quantiser gives to the names of dequantised tensors.
_DEQUANTIZED = '_DequantizeLinear_Output'


def quantize_layers(folded: onnx.ModelProto, images: Sequence[Path], scale: InputScale) -> onnx.ModelProto:
    """Quantise all large layers of a deployed graph.

    Weights become int8 for each output channel, activations int8 for each tensor, both symmetric around 0.

    Args:
        folded: Deployed graph with folded constants; it is not changed.
        images: Image files to take the ranges of the activations from.
        scale: Input scale of the network.

    Returns:
        Graph with QuantizeLinear and DequantizeLinear around each of these layers.

    Raises:
        QuantizeError: An image is too small or too large.
    """
    layers = {node.name for node in _large_layers(folded)}
    # The quantiser advises preprocessing, which folding has done, and warns about every tensor that stays in float.
    with _only_errors(logging.getLogger()), tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / 'float.onnx', Path(folder) / 'int8.onnx'
        onnx.save(folded, source)
        quantize_static(
            source,
            target,
            CalibrationImages(images, scale),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            weight_type=QuantType.QInt8,
            activation_type=QuantType.QInt8,
            nodes_to_quantize=sorted(layers),
            # TensorRT accepts neither zero points nor int32 biases.
            extra_options={'ActivationSymmetric': True, 'WeightSymmetric': True, 'QuantizeBias': False},
        )
        model = onnx.load(target)
    _bypass_quantization(model.graph, layers)
    return model


def keep_in_float(quantized: onnx.ModelProto, folded: onnx.ModelProto, blocks: Sequence[str]) -> onnx.ModelProto:
    """Return a copy of a quantised graph in which the layers of some blocks have float activations and weights.

    Args:
        quantized: Graph of ``quantize_layers``.
        folded: Graph that it was made from.
        blocks: Names of ``block_names``.
    """
    model = onnx.ModelProto()
    model.CopyFrom(quantized)
    producers = {name: node for node in model.graph.node for name in node.output}
    weights = {tensor.name: tensor for tensor in folded.graph.initializer}
    names = {node.name for node in _large_layers(folded) if _block_name(node) in blocks}
    for node in model.graph.node:
        for index, name in enumerate(node.input if node.name in names else ()):
            source = producers.get(name)
            if source is None or source.op_type != 'DequantizeLinear':
                continue
            weight = name.removesuffix(_DEQUANTIZED)
            if weight in weights:
                model.graph.initializer.append(weights[weight])
                node.input[index] = weight
            else:
                node.input[index] = producers[source.input[0]].input[0]
    remove_unused(model.graph)
    return model


def block_names(model: onnx.ModelProto) -> list[str]:
    """Return the blocks whose layers stay in float together, such as ``backbone.stage3.0`` or ``ffm``."""
    return list(dict.fromkeys(_block_name(node) for node in _large_layers(model)))


def _large_layers(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    """Return the layers to quantise.

    Layers behind a global average are left out: they are small, and the gates that they compute need their accuracy.
    """
    gates: set[str] = set()
    features: set[str] = set()
    for node in model.graph.node:
        averages = node.op_type in ('ReduceMean', 'GlobalAveragePool')
        follows = node.op_type in _GATE_OPERATORS and gates & set(node.input)
        activates = node.op_type == 'Mul' and set(node.input) <= gates  # x * sigmoid(x)
        if averages or follows or activates:
            gates.update(node.output)
        elif node.op_type == 'Relu':
            features.update(node.output)
    return [
        node
        for node in model.graph.node
        if node.op_type in QUANTIZED
        and not gates & set(node.output)
        # A Concat without features among its inputs computes a shape.
        and (node.op_type != 'Concat' or features & set(node.input))
    ]


def _block_name(node: onnx.NodeProto) -> str:
    """Return the block of a layer.

    It is ``backbone.stage3.0`` for ``/model/backbone/stage3/stage3.0/...`` and ``ffm`` for ``/model/ffm/conv/Conv``.
    Backbones from timm have their stages one level deeper, in ``/model/backbone/features/``.
    """
    first, second, *rest = node.name.split('/')[2:]
    if first != 'backbone':
        return first
    if second == 'features' and rest:
        second, *rest = rest
    return f'{first}.{rest[0] if rest and rest[0].startswith(second) else second}'


def _bypass_quantization(graph: onnx.GraphProto, layers: set[str]) -> None:
    """Give all nodes except the quantised layers the values before quantisation, in place.

    This matters for ReLU, which all runtimes fuse with the convolution before it.
    """
    producers = {name: node for node in graph.node for name in node.output}
    for node in graph.node:
        if node.name in layers or node.op_type in ('QuantizeLinear', 'DequantizeLinear'):
            continue
        for index, name in enumerate(node.input):
            dequantize = producers.get(name)
            if dequantize is not None and dequantize.op_type == 'DequantizeLinear':
                node.input[index] = producers[dequantize.input[0]].input[0]
    remove_unused(graph)


@contextmanager
def _only_errors(logger: logging.Logger) -> Iterator[None]:
    """Suppress messages of a logger that are less severe than errors."""
    level = logger.level
    logger.setLevel(max(level, logging.ERROR))
    try:
        yield
    finally:
        logger.setLevel(level)
