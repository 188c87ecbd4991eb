# SPDX-License-Identifier: Apache-2.0
"""Fold the constants of a deployed graph, as a runtime does when it loads one."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import numpy_helper


def fold(model: onnx.ModelProto) -> onnx.ModelProto:
    """Fold casts of weights, and batch norms behind convolutions, in place. The graph computes the same.

    The weight of a convolution is then called ``<name>/folded``, and the convolution has a bias.

    Args:
        model: Deployed graph.

    Returns:
        The same graph.
    """
    graph = model.graph
    weights = {tensor.name: tensor for tensor in graph.initializer}
    for node in [n for n in graph.node if n.op_type == 'Cast' and n.input[0] in weights]:
        full = numpy_helper.to_array(weights[node.input[0]]).astype(np.float32)
        weights[node.output[0]] = numpy_helper.from_array(full, node.output[0])
        graph.initializer.append(weights[node.output[0]])
        graph.node.remove(node)
    producers = {name: node for node in graph.node for name in node.output}
    for norm in [n for n in graph.node if n.op_type == 'BatchNormalization']:
        conv = producers[norm.input[0]]
        weight = numpy_helper.to_array(weights[conv.input[1]]).astype(np.float64)
        scale, shift, mean, variance = (
            numpy_helper.to_array(weights[name]).astype(np.float64) for name in norm.input[1:]
        )
        epsilon = next(attribute.f for attribute in norm.attribute if attribute.name == 'epsilon')
        factor = scale / np.sqrt(variance + epsilon)
        name = conv.input[1]
        for suffix, array in (('folded', weight * factor[:, None, None, None]), ('bias', shift - mean * factor)):
            graph.initializer.append(numpy_helper.from_array(array.astype(np.float32), f'{name}/{suffix}'))
        del conv.input[1:]
        conv.input.extend([f'{name}/folded', f'{name}/bias'])
        conv.output[0] = norm.output[0]
        graph.node.remove(norm)
    remove_unused(graph)
    return model


def remove_unused(graph: onnx.GraphProto) -> None:
    """Remove nodes whose outputs are not used, and then initializers that are not used, in place."""
    wanted = {output.name for output in graph.output}
    kept = []
    for node in reversed(graph.node):
        if wanted & set(node.output):
            wanted.update(node.input)
            kept.append(node)
    if len(kept) < len(graph.node):
        del graph.node[:]
        graph.node.extend(reversed(kept))
    for tensor in [tensor for tensor in graph.initializer if tensor.name not in wanted]:
        graph.initializer.remove(tensor)
