# SPDX-License-Identifier: Apache-2.0
"""From weights to the one self-describing ``model.onnx``."""

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
from stdc_core.model.deployed_graph import DeployedGraph, own_offset, own_scale
from stdc_core.model.weights import load_weights

# The newest that TensorRT 8.5 and 8.6 read. torch's newer exporter starts at 18, hence the older one below.
OPSET = 17
_OUTPUTS = ('mask', 'confidence')

# Between a network's accuracy and the input scale that it was measured at, where it is not the file's own.
_MEASURED_AT = ' at input scale '

# Below it, the image that a graph is traced with would take too much memory.
_SMALLEST_SCALE = 1 / 1024


def export(
    weights: str | Path, out: str | Path, input_scale: float | None = None, overwrite: bool = False
) -> ModelInfo:
    """Write a model file from weights (or from another model file, at another input scale).

    Args:
        weights: ``.safetensors`` from ``stdc train``, or a ``.onnx`` from here.
        out: the file to write.
        input_scale: the paper has 0.5 (Seg50) and 0.75 (Seg75); it then holds for images of every size. None: see
            ``own_scale``.
        overwrite: replace ``out`` if it exists.

    Returns:
        What was written into the file's metadata.

    Raises:
        FileExistsError: ``out`` exists and ``overwrite`` is false; IsADirectoryError: it is a folder.
        ValueError: the input scale is out of its range.
        FileNotFoundError, WeightsError: see ``load_weights``.
    """
    check_no_folder(Path(out))
    if Path(out).exists() and not overwrite:
        raise FileExistsError(f'{out} exists; say --overwrite to replace it')
    model, classes, provenance = load_weights(weights)
    own = own_scale(weights, provenance)
    if input_scale not in (None, own) and 'miou' in provenance and _MEASURED_AT not in provenance['miou']:
        provenance = {**provenance, 'miou': f'{provenance["miou"]}{_MEASURED_AT}{own:g}'}
    info = ModelInfo(model.backbone.name, own, classes, provenance)
    if input_scale is not None:
        info = info.at(input_scale)
    _check_traceable(info.input_scale)
    proto = _trace(DeployedGraph(model, info.input_scale, own_offset(provenance)).eval())
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
    """The graph as ONNX with batch, height and width free, and batch norms left apart from the convolutions.

    Left apart, the weights keep the values and names that they have in training, so that ``load_weights`` reads them
    back; every runtime fuses them when it loads the file.
    """
    buffer = io.BytesIO()
    smallest = math.ceil(2 / graph.input_scale)  # of which the network sees a pixel, however its size is rounded
    axes = {0: 'batch', 1: 'height', 2: 'width'}
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # of constants that are meant to be constants
        torch.onnx.export(
            graph,
            (torch.zeros(1, max(64, smallest), max(96, smallest), 3, dtype=torch.uint8),),
            buffer,  # type: ignore[arg-type]  # takes files, too; the stubs of torch do not say so
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
    """Give each parameter its own initializer: the exporter stores equal ones once and refers to them by Identity."""
    initializers = {tensor.name: tensor for tensor in graph.initializer}
    for node in [n for n in graph.node if n.op_type == 'Identity' and n.input[0] in initializers]:
        copy = graph.initializer.add()
        copy.CopyFrom(initializers[node.input[0]])
        copy.name = node.output[0]
        graph.node.remove(node)


def _store_half(graph: onnx.GraphProto) -> None:
    """Store convolution weights as float16, with a Cast that every runtime folds at load, wherever nothing is lost."""
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
