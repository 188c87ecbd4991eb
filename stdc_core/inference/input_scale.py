# SPDX-License-Identifier: Apache-2.0
"""Compute the size that the network sees, rounded alike for torch, ONNX Runtime and TensorRT, and set it in a graph."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import onnx
from onnx import helper, numpy_helper

#: Key of the input scale in the metadata of a model file.
SCALE_KEY = 'stdc.input_scale'

_SCALES = 'input_scales'


class InputScale(NamedTuple):
    """Scale at which the network sees an image, which depends on the size of the image.

    Attributes:
        own: Scale for images with at most ``pixels`` pixels.
        pixels: Number of pixels of the largest training image. A larger image is scaled down further, so that the
            network never sees more pixels than in its training. None: ``own`` holds for every image.
    """

    own: float
    pixels: int | None = None

    def of(self, size: Sequence[int]) -> float:
        """Return the scale for images of a size.

        Args:
            size: (height, width), pixels.
        """
        height, width = size
        if self.pixels is None or height * width <= self.pixels:
            return self.own
        # Computed in float32, in the steps of the graph of set_input_scale, so that both give the same size.
        share = np.float32(self.pixels) / (np.float32(height) * np.float32(width))
        return float(np.float32(self.own) * np.sqrt(share))


def scaled_size(size: Sequence[int], scale: float) -> tuple[int, int]:
    """Return the (h, w) at which the network sees an image.

    The products are computed in float32 and rounded down, as ONNX's Resize does.

    Args:
        size: (H, W) of the image, pixels.
        scale: Input scale.
    """
    height, width = (int(np.float32(side) * np.float32(scale)) for side in size)
    return height, width


def check_input_scale(scale: float) -> None:
    """Raise ValueError unless the scale is above 0 and at most 4."""
    if not 0 < scale <= 4:
        raise ValueError(f'input scale: expected above 0 and at most 4, found {scale}')


def set_input_scale(model: onnx.ModelProto, scale: float | InputScale) -> None:
    """Change the input scale of a deployed graph in place, in the graph and in its metadata.

    The graph resizes the image bilinearly with aligned corners, as in ``stdc_core.model.deployed_graph``.

    Args:
        model: Model from ``stdc export``.
        scale: Scale, above 0 and at most 4.

    Raises:
        ValueError: The scale is out of its range, or the graph does not begin as ``stdc export`` writes it.
    """
    scale = scale if isinstance(scale, InputScale) else InputScale(scale)
    check_input_scale(scale.own)
    graph = model.graph
    # The graph transposes the image to float [N, 3, H, W], resizes it unless the scale is 1, and normalises it.
    planes = next((node for node in graph.node if node.op_type == 'Transpose' and node.input[0] == 'image'), None)
    cast = next((node for node in graph.node if planes and node.input[:1] == planes.output), None)
    if cast is None or cast.op_type != 'Cast':
        raise ValueError('its graph does not begin with an image of bytes; expected one from `stdc export`')
    users = [node for node in graph.node if cast.output[0] in node.input]
    # Remove the nodes and tensors of an earlier call.
    for node in [node for node in graph.node if node.output[0].startswith(_SCALES)]:
        graph.node.remove(node)
    for tensor in [tensor for tensor in graph.initializer if tensor.name.startswith(_SCALES)]:
        graph.initializer.remove(tensor)
    _add_scales(graph, scale)
    for entry in model.metadata_props:
        if entry.key == SCALE_KEY:
            entry.value = repr(scale.own)
    if [node.op_type for node in users] == ['Resize']:
        users[0].input[2] = _SCALES
        return
    resized = f'{cast.output[0]}_resized'
    for node in users:
        for index, name in enumerate(node.input):
            if name == cast.output[0]:
                node.input[index] = resized
    modes = {'mode': 'linear', 'coordinate_transformation_mode': 'align_corners'}
    resize = helper.make_node('Resize', [cast.output[0], '', _SCALES], [resized], **modes)
    graph.node.insert(list(graph.node).index(cast) + 1, resize)


def _add_scales(graph: onnx.GraphProto, scale: InputScale) -> None:
    """Add the ``scales`` input of ONNX's Resize, float32 ``[4]``: constant, or computed from the image size."""
    if scale.pixels is None:
        scales = np.array([1, 1, scale.own, scale.own], np.float32)
        graph.initializer.append(numpy_helper.from_array(scales, _SCALES))
        return
    # These are the steps of InputScale.of.
    constants = {'own': [scale.own], 'pixels': [scale.pixels], 'one': [1], 'ones': [1, 1]}
    for name, value in constants.items():
        graph.initializer.append(numpy_helper.from_array(np.array(value, np.float32), f'{_SCALES}/{name}'))
    steps: list[tuple[str, list[str], str, dict[str, Any]]] = [
        ('Shape', ['image'], 'size', {'start': 1, 'end': 3}),
        ('Cast', ['size'], 'sides', {'to': onnx.TensorProto.FLOAT}),
        ('ReduceProd', ['sides'], 'area', {'keepdims': 1}),
        ('Div', ['pixels', 'area'], 'share', {}),
        ('Sqrt', ['share'], 'root', {}),
        ('Min', ['root', 'one'], 'factor', {}),
        ('Mul', ['own', 'factor'], 'scale', {}),
        ('Concat', ['ones', 'scale', 'scale'], '', {'axis': 0}),
    ]
    for index, (kind, inputs, output, attributes) in enumerate(steps):
        names = [name if name == 'image' else f'{_SCALES}/{name}' for name in inputs]
        made = f'{_SCALES}/{output}' if output else _SCALES
        graph.node.insert(index, helper.make_node(kind, names, [made], **attributes))
