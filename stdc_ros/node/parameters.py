# SPDX-License-Identifier: Apache-2.0
"""The node's parameters: one table, declared once, read as attributes."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable
from dataclasses import Field, dataclass, field, fields
from typing import Any

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor, SetParametersResult
from rclpy.node import Node
from rclpy.parameter import Parameter

from stdc_core.inference import BACKENDS, PRECISIONS
from stdc_core.inference.backend import MAX_THREADS
from stdc_core.inference.input_scale import scaled_size

_SIZE = r'[1-9]\d{0,4}x[1-9]\d{0,4}'


def _parameter(
    default: Any,
    description: str,
    bounds: tuple[Any, Any] | None = None,
    choices: tuple[str, ...] = (),
    check: Callable[[Any], str] | None = None,
    at_run_time: bool = False,
) -> Any:
    """One line of the table. Its type is that of the default; ``at_run_time``: it can be set while the node runs.

    Args:
        check: tells what is expected instead of a value; empty: the value is fine.
    """
    metadata = {
        'description': description,
        'bounds': bounds,
        'choices': choices,
        'check': check,
        'at_run_time': at_run_time,
    }
    return field(default=default, metadata=metadata)


def _check_output_size(value: str) -> str:
    """See ``_parameter``; see also :func:`output_size`."""
    return '' if value in ('input', 'network') or re.fullmatch(_SIZE, value) else 'input, network, or WIDTHxHEIGHT'


def _check_image_size(value: str) -> str:
    return '' if not value or re.fullmatch(_SIZE, value) else 'WIDTHxHEIGHT'


def _check_cameras(names: tuple[str, ...]) -> str:
    if len(set(names)) < len(names):
        return 'names that differ'
    return '' if all(re.fullmatch(r'[A-Za-z]\w*', name) for name in names) else 'names of letters, digits and _'


@dataclass
class Parameters:
    """The table, and the values that hold now. Lists, here tuples, are empty unless they are given."""

    model: str = _parameter('', 'Path of a model.onnx from `stdc export`; empty: the model that is shipped.')
    input_scale: float = _parameter(
        0.0,
        'Scale at which the network sees the image: less is faster, by its square, more finds smaller things; '
        "0: the model's own, and less for larger images than in its training, if it tells their size.",
        bounds=(0.0, 4.0),
    )
    backend: str = _parameter(
        'auto',
        'What computes. auto is tensorrt where there is an NVIDIA GPU with it, else onnxruntime; openvino, where '
        'installed, is faster on CPUs that have bfloat16.',
        choices=BACKENDS,
    )
    precision: str = _parameter(
        'auto',
        'Of tensorrt: auto is fp16 where the GPU is fast in it, or int8 if the model comes from `stdc quantize`.',
        choices=PRECISIONS,
    )
    build_only: bool = _parameter(
        False, 'Build the engine of tensorrt for images of image_size, or find it in the cache, and end.'
    )
    image_size: str = _parameter('', 'WIDTHxHEIGHT of the images that build_only builds for.', check=_check_image_size)
    threads: int = _parameter(
        0, 'CPU threads for inference; 0: every core that the node may use.', bounds=(0, MAX_THREADS)
    )
    cameras: tuple[str, ...] = _parameter(
        (), 'Several cameras: their names, which are the namespaces of their topics.', check=_check_cameras
    )
    image_transport: str = _parameter(
        'raw',
        'raw takes sensor_msgs/Image; compressed takes JPEG and PNG from image/compressed.',
        choices=('raw', 'compressed'),
    )
    image_reliability: str = _parameter(
        'best_effort',
        'Reliability of the image subscription. best_effort receives from every camera driver; '
        'reliable only from publishers that are reliable too.',
        choices=('best_effort', 'reliable'),
    )
    output_size: str = _parameter(
        'input',
        "Size of the outputs: input is the image's, network that at which the network sees it, or WIDTHxHEIGHT.",
        check=_check_output_size,
    )
    enabled: bool = _parameter(
        True,
        'False: no camera is subscribed to and nothing is published. ~/set_enabled sets it too.',
        at_run_time=True,
    )
    confidence_threshold: float = _parameter(
        0.0,
        'Pixels of the mask with less confidence become 255, which is no class; 0: none.',
        bounds=(0.0, 1.0),
        at_run_time=True,
    )
    max_frame_age: float = _parameter(
        0.0,
        'Seconds. Images that are older, by their stamp, are dropped; 0: none. Camera and node need one clock.',
        bounds=(0.0, 3600.0),
        at_run_time=True,
    )
    stale_after: float = _parameter(
        3.0,
        'Seconds without an image, with the same image again and again, or in the dark, until the node warns.',
        bounds=(0.1, 3600.0),
        at_run_time=True,
    )
    overlay_opacity: float = _parameter(
        0.5,
        'Weight of the class colours in ~/overlay: 0 shows the image alone, 1 the colours alone.',
        bounds=(0.0, 1.0),
        at_run_time=True,
    )
    drivable_grid: bool = _parameter(False, "Publish ~/drivable_grid, a bird's-eye view of where one can drive.")
    grid_frame: str = _parameter('base_link', 'Ground frame of the grid: x forward, y left, z = 0 on the ground.')
    grid_camera_pose: tuple[float, ...] = _parameter(
        (),
        'x, y, z, roll, pitch, yaw of the camera in the ground frame, metres and radians, of several cameras one after '
        'the other; not given: from TF, at the stamp of the image.',
    )
    grid_classes: tuple[str, ...] = _parameter((), 'Names of the drivable classes; not given: road.')
    grid_rectified: bool = _parameter(
        False,
        'The images are rectified, as image_rect of image_proc: P of their CameraInfo holds, not K and the distortion.',
    )
    grid_x_min: float = _parameter(0.0, 'Where the grid begins, metres ahead.', bounds=(-1000.0, 1000.0))
    grid_x_max: float = _parameter(40.0, 'Where the grid ends, metres ahead.', bounds=(-1000.0, 1000.0))
    grid_y_min: float = _parameter(-10.0, 'Right edge of the grid, metres to the left.', bounds=(-1000.0, 1000.0))
    grid_y_max: float = _parameter(10.0, 'Left edge of the grid, metres to the left.', bounds=(-1000.0, 1000.0))
    grid_resolution: float = _parameter(0.1, 'Side of a cell of the grid, metres.', bounds=(0.01, 100.0))
    grid_min_confidence: float = _parameter(
        0.5, 'Cells whose pixel has less confidence are unknown; 0: none.', bounds=(0.0, 1.0)
    )


#: Types of the lists: of an empty one ROS cannot tell it.
_LIST_TYPES = {'tuple[str, ...]': Parameter.Type.STRING_ARRAY, 'tuple[float, ...]': Parameter.Type.DOUBLE_ARRAY}


def declare(node: Node) -> Parameters:
    """Declare every parameter of the table on the node.

    Returns:
        the values, kept up to date when a parameter is set later.

    Raises:
        rclpy.exceptions.ParameterException: a given value has the wrong type or is out of range; the message names the
            parameter, the value and what is expected.
    """
    parameters = Parameters()
    table = {entry.name: entry for entry in fields(Parameters)}

    def on_set(changes: list[Parameter]) -> SetParametersResult:
        # Without a value: a list that is being declared and was not given.
        ours = [change for change in changes if change.name in table and change.value is not None]
        values = {change.name: _value(change) for change in ours}
        for change in ours:
            expected = _expected(table[change.name], values[change.name])
            if expected:
                reason = f'{change.name} is {change.value!r}, expected {expected}'
                return SetParametersResult(successful=False, reason=reason)
        for name, value in values.items():
            setattr(parameters, name, value)
        return SetParametersResult(successful=True)

    # Before the declarations, so that it sees the values given at the start. Type and range rclpy has checked by then.
    node.add_on_set_parameters_callback(on_set)
    for entry in table.values():
        if entry.default == ():
            _declare_list(node, entry)
        else:
            node.declare_parameter(entry.name, entry.default, _descriptor(entry))
    return parameters


def _declare_list(node: Node, entry: Field) -> None:
    """Declare a list that is empty unless it is given.

    One without a value would hide all parameters from those who ask for them at once, as ``ros2 param dump`` does.
    """
    of, descriptor = _LIST_TYPES[entry.type], _descriptor(entry)
    descriptor.type = of.value
    # rclpy takes an empty default for bytes: so the list is set once it is declared, and made read-only after that.
    if node.declare_parameter(entry.name, of).type_ == Parameter.Type.NOT_SET:
        node.set_parameters([Parameter(entry.name, of, [])])
    node.set_descriptor(entry.name, descriptor)


def _value(parameter: Parameter) -> Any:
    return tuple(parameter.value) if parameter.type_ in _LIST_TYPES.values() else parameter.value


def _expected(entry: Field, value: Any) -> str:
    """What is expected instead of a value; empty: it is fine."""
    choices, check = entry.metadata['choices'], entry.metadata['check']
    if choices and value not in choices:
        return f'one of {", ".join(choices)}'
    return check(value) if check else ''


def _descriptor(entry: Field) -> ParameterDescriptor:
    descriptor = ParameterDescriptor(
        description=entry.metadata['description'], read_only=not entry.metadata['at_run_time']
    )
    bounds = entry.metadata['bounds']
    if bounds and isinstance(entry.default, float):
        descriptor.floating_point_range = [FloatingPointRange(from_value=bounds[0], to_value=bounds[1])]
    elif bounds:
        descriptor.integer_range = [IntegerRange(from_value=bounds[0], to_value=bounds[1])]
    if entry.metadata['choices']:
        descriptor.additional_constraints = 'one of ' + ', '.join(entry.metadata['choices'])
    return descriptor


def warn_of_unknown(node: Node) -> None:
    """Warn of values that were given for names that nobody declared: ROS drops those without a word.

    To be called when everything is declared.
    """
    # rclpy has no public way to see the values that were given, nor, in Humble, all that are declared.
    for name in getattr(node, '_parameter_overrides', {}):
        if not node.has_parameter(name):
            known = [entry.name for entry in fields(Parameters)]
            close = difflib.get_close_matches(name, node._parameters, n=1)
            hint = f'did you mean {close[0]}?' if close else f'expected one of {", ".join(known)}'
            node.get_logger().warning(f'parameter {name} is given but does not exist: {hint}')


def output_size(setting: str, image: tuple[int, int], input_scale: float) -> tuple[int, int]:
    """Height and width of the outputs for an image of (height, width), by the parameter ``output_size``."""
    if setting == 'input':
        return image
    if setting == 'network':
        height, width = scaled_size(image, input_scale)
        return max(1, height), max(1, width)
    return size_of(setting)


def size_of(text: str) -> tuple[int, int]:
    """Height and width of ``WIDTHxHEIGHT``."""
    width, height = text.split('x')
    return int(height), int(width)
