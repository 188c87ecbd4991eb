# SPDX-License-Identifier: Apache-2.0
"""Export weights to the self-describing ``model.onnx``."""

from __future__ import annotations

import dataclasses
import io
import math
import warnings
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper

from stdc_core.inference.input_scale import check_input_scale
from stdc_core.inference.model_file import ModelInfo
from stdc_core.inference.onnx_graph.network_search import describe_network
from stdc_core.io.files import appearing, check_no_folder
from stdc_core.model.deployed_graph import DeployedGraph, stored_class_offset, stored_input_scale
from stdc_core.model.weights import load_weights

#: ONNX opset: the newest one that TensorRT 8.5 and 8.6 read. The newer exporter of torch starts at 18.
OPSET = 17
_OUTPUTS = ('mask', 'confidence')

# Stands between the mIoU in the provenance and its input scale, where that is not the input scale of the file.
_MEASURED_AT = ' at input scale '

# Below this scale, the image that a graph is traced with would take too much memory.
_SMALLEST_SCALE = 1 / 1024


def export(
    weights: str | Path, out: str | Path, input_scale: float | None = None, overwrite: bool = False
) -> ModelInfo:
    """Write a model file from weights, or from another model file to change its input scale.

    Args:
        weights: ``.safetensors`` from ``stdc train``, or ``.onnx`` from this function.
        out: File to write.
        input_scale: Input scale for images of every size; the paper has 0.5 (Seg50) and 0.75 (Seg75). None takes the
            scale of ``weights`` (see ``stored_input_scale``).
        overwrite: Whether to replace ``out`` if it exists.

    Returns:
        Metadata of the file.

    Raises:
        FileExistsError: ``out`` exists and ``overwrite`` is false.
        IsADirectoryError: ``out`` is a folder.
        ValueError: The input scale is out of its range.
        FileNotFoundError: The weights do not exist.
        WeightsError: The weights cannot be read.
        WriteError: ``out`` cannot be written.
    """
    check_no_folder(Path(out))
    if Path(out).exists() and not overwrite:
        raise FileExistsError(f'{out} exists; add --overwrite to replace it')
    model, classes, provenance = load_weights(weights)
    own = stored_input_scale(weights, provenance)
    if input_scale not in (None, own) and 'miou' in provenance and _MEASURED_AT not in provenance['miou']:
        provenance = {**provenance, 'miou': f'{provenance["miou"]}{_MEASURED_AT}{own:g}'}
    info = ModelInfo(model.name, own, classes, provenance)
    if input_scale is not None:
        info = info.at(input_scale)
    _check_traceable(info.input_scale)
    proto = _trace(DeployedGraph(model, info.input_scale, stored_class_offset(provenance)).eval())
    _name_shared_initializers(proto.graph)
    _store_half(proto.graph)
    info = dataclasses.replace(info, network=describe_network(proto, len(classes)))
    helper.set_model_props(proto, info.to_metadata())
    onnx.checker.check_model(proto, full_check=True)
    with appearing(Path(out)) as partial:
        partial.write_bytes(proto.SerializeToString())
    return info


def _check_traceable(input_scale: float) -> None:
    """Raise ValueError unless a graph can be traced at this input scale."""
    check_input_scale(input_scale)
    if input_scale < _SMALLEST_SCALE:
        raise ValueError(f'input scale: expected 1/1024 or more in a model file, found {input_scale}')


def _trace(graph: DeployedGraph) -> onnx.ModelProto:
    """Trace a graph to ONNX, for any batch, height and width.

    Batch norms are not folded into the convolutions. The weights so keep the values and names that they have in
    training, and ``load_weights`` can read them. Every runtime folds the batch norms when it loads the file.
    """
    buffer = io.BytesIO()
    smallest = math.ceil(2 / graph.input_scale)  # leaves the network at least one pixel, however the size is rounded
    axes = {0: 'batch', 1: 'height', 2: 'width'}
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # the tracer warns about values that are meant to be constants
        torch.onnx.export(
            graph,
            (torch.zeros(1, max(64, smallest), max(96, smallest), 3, dtype=torch.uint8),),
            buffer,  # type: ignore[arg-type]  # torch accepts a file object; its stubs do not say so
            dynamo=False,
            opset_version=OPSET,
            input_names=['image'],
            output_names=list(_OUTPUTS),
            dynamic_axes=dict.fromkeys(('image', *_OUTPUTS), axes),
            training=torch.onnx.TrainingMode.PRESERVE,
            do_constant_folding=False,
        )
    return onnx.load_from_string(buffer.getvalue())


def _name_shared_initializers(graph: onnx.GraphProto) -> None:
    """Give each parameter its own initializer, in place.

    The exporter stores equal parameters once, with an Identity node for each further one.
    """
    initializers = {tensor.name: tensor for tensor in graph.initializer}
    for node in [n for n in graph.node if n.op_type == 'Identity' and n.input[0] in initializers]:
        copy = graph.initializer.add()
        copy.CopyFrom(initializers[node.input[0]])
        copy.name = node.output[0]
        graph.node.remove(node)


def _store_half(graph: onnx.GraphProto) -> None:
    """Store convolution weights as float16 where that changes no value, in place.

    A Cast node follows each of them, which every runtime folds when it loads the file.
    """
    casts = []
    for tensor in graph.initializer:
        if tensor.data_type != TensorProto.FLOAT or len(tensor.dims) < 2:
            continue
        full = numpy_helper.to_array(tensor)
        half = full.astype(np.float16)
        if not np.array_equal(half.astype(np.float32), full):
            continue
        name = tensor.name
        for node in graph.node:
            for index, source in enumerate(node.input):
                if source == name:
                    node.input[index] = f'{name}/float'
        tensor.CopyFrom(numpy_helper.from_array(half, name))
        casts.append(helper.make_node('Cast', [name], [f'{name}/float'], to=TensorProto.FLOAT))
    for position, node in enumerate(casts):
        graph.node.insert(position, node)
