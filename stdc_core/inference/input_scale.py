"""Another input scale for a model file: detail against speed, without torch and without a new export."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper, numpy_helper

_SCALES = 'input_scales'


def check_input_scale(scale: float) -> None:
    """Raise ValueError unless the scale is above 0 and at most 4."""
    if not 0 < scale <= 4:
        raise ValueError(f'input scale: expected above 0 and at most 4, found {scale}')


def set_input_scale(model: onnx.ModelProto, scale: float) -> None:
    """Change a deployed graph, in place, so that the network sees the image at ``scale``, above 0 and at most 4.

    Bilinear with aligned corners, as ``stdc_core.export.graph`` does it.

    Raises:
        ValueError: the scale is out of its range, or the graph does not begin as ``stdc export`` makes it begin.
    """
    check_input_scale(scale)
    graph = model.graph
    # The image becomes float [N, 3, H, W], is rescaled unless the scale is 1, and is normalised.
    planes = next((node for node in graph.node if node.op_type == 'Transpose' and node.input[0] == 'image'), None)
    cast = next((node for node in graph.node if planes and node.input[:1] == planes.output), None)
    if cast is None or cast.op_type != 'Cast':
        raise ValueError('its graph does not begin with an image of bytes; expected one from `stdc export`')
    users = [node for node in graph.node if cast.output[0] in node.input]
    graph.initializer.append(numpy_helper.from_array(np.array([1, 1, scale, scale], np.float32), _SCALES))
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
