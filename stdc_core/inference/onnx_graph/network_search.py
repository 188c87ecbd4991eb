# SPDX-License-Identifier: Apache-2.0
"""Find the network inside a deployed graph, at export and in files of format 1, which do not describe it."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

from stdc_core.inference.network_description import IMAGENET_MEAN, IMAGENET_STD, NetworkDescription
from stdc_core.inference.onnx_graph.constant_folding import fold, remove_unused

# Colour (BGR) and side in pixels of the image that the normalisation of a graph is tried with.
_COLOUR, _SIDE = (30, 90, 200), 64


def describe_network(model: onnx.ModelProto, classes: int) -> NetworkDescription:
    """Describe the network of a deployed graph. The normalisation is that of ImageNet, as for every network here.

    Args:
        model: Deployed graph, quantised or not.
        classes: Number of classes.

    Raises:
        ValueError: The graph does not have a network between an image and an ArgMax.
    """
    producers = {name: node for node in model.graph.node for name in node.output}
    first = next((node for node in model.graph.node if node.op_type == 'Conv'), None)
    choice = next((node for node in model.graph.node if node.op_type == 'ArgMax'), None)
    upsampling = producers.get(choice.input[0]) if choice else None
    if first is None or upsampling is None or upsampling.op_type != 'Resize':
        raise ValueError('its graph is not a network between an image and an ArgMax; expected one from `stdc export`')
    planes = first.input[0]
    # Some backbones pad the image before their first convolution.
    while planes in producers and producers[planes].op_type in ('QuantizeLinear', 'DequantizeLinear', 'Pad'):
        planes = producers[planes].input[0]
    return NetworkDescription(IMAGENET_MEAN, IMAGENET_STD, classes, planes, upsampling.input[0])


def check_normalization(model: onnx.ModelProto, network: NetworkDescription) -> None:
    """Compare the normalisation in a deployed graph with its description, on an image of one colour.

    Args:
        model: Deployed graph.
        network: Description of its network.

    Raises:
        ValueError: The graph normalises in another way.
    """
    before = fold(copy.deepcopy(model))
    del before.graph.output[:]
    before.graph.output.append(helper.make_tensor_value_info(network.planes, TensorProto.FLOAT, [None] * 4))
    remove_unused(before.graph)
    image = np.broadcast_to(np.array(_COLOUR, np.uint8), (1, _SIDE, _SIDE, 3))
    planes: Any = ReferenceEvaluator(before).run(None, {'image': np.ascontiguousarray(image)})
    found = planes[0][0, :, 0, 0]
    expected = (np.array(_COLOUR[::-1]) / 255 - network.mean) / network.std
    if not np.allclose(found, expected, atol=1e-4):
        raise ValueError('its graph does not normalise images as `stdc export` does; export the weights again')
