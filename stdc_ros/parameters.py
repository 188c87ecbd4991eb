"""The node's parameters: one table, declared once, read as attributes."""

from __future__ import annotations

import difflib
from dataclasses import Field, dataclass, field, fields
from typing import Any

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor, SetParametersResult
from rclpy.node import Node
from rclpy.parameter import Parameter


def _parameter(
    default: Any,
    description: str,
    bounds: tuple[Any, Any] | None = None,
    choices: tuple[str, ...] = (),
    at_run_time: bool = False,
) -> Any:
    """One line of the table. Its type is that of the default; ``at_run_time``: it can be set while the node runs."""
    metadata = {'description': description, 'bounds': bounds, 'choices': choices, 'at_run_time': at_run_time}
    return field(default=default, metadata=metadata)


@dataclass
class Parameters:
    """The table, and the values that hold now."""

    model: str = _parameter('', 'Path of a model.onnx from `stdc export`; empty: the model that is shipped.')
    input_scale: float = _parameter(
        0.0,
        'Scale at which the network sees the image: less is faster, by its square, more finds smaller things; '
        "0: the model's own.",
        bounds=(0.0, 4.0),
    )
    threads: int = _parameter(0, 'CPU threads for inference; 0: every core that the node may use.', bounds=(0, 256))
    image_reliability: str = _parameter(
        'best_effort',
        'Reliability of the image subscription. best_effort receives from every camera driver; '
        'reliable only from publishers that are reliable too.',
        choices=('best_effort', 'reliable'),
    )
    overlay_opacity: float = _parameter(
        0.5,
        'Weight of the class colours in ~/overlay: 0 shows the image alone, 1 the colours alone.',
        bounds=(0.0, 1.0),
        at_run_time=True,
    )


def declare(node: Node) -> Parameters:
    """Declare every parameter of the table on the node.

    Warns of values that were given for names that nobody declared: ROS drops those without a word.

    Returns:
        the values, kept up to date when a parameter is set later.

    Raises:
        rclpy.exceptions.ParameterException: a given value has the wrong type or is out of range; the message names the
            parameter, the value and what is expected.
    """
    parameters = Parameters()

    def on_set(changes: list[Parameter]) -> SetParametersResult:
        table = {entry.name: entry for entry in fields(Parameters)}
        changes = [change for change in changes if change.name in table]
        for change in changes:
            choices = table[change.name].metadata['choices']
            if choices and change.value not in choices:
                reason = f'{change.name} is {change.value!r}, expected one of {", ".join(choices)}'
                return SetParametersResult(successful=False, reason=reason)
        for change in changes:
            setattr(parameters, change.name, change.value)
        return SetParametersResult(successful=True)

    # Before the declarations, so that it sees the values given at the start. Type and range rclpy has checked by then.
    node.add_on_set_parameters_callback(on_set)
    for entry in fields(Parameters):
        node.declare_parameter(entry.name, entry.default, _descriptor(entry))
    _warn_of_unknown(node)
    return parameters


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


def _warn_of_unknown(node: Node) -> None:
    # rclpy has no public way to see the values that were given; without this attribute there is no warning.
    for name in getattr(node, '_parameter_overrides', {}):
        if not node.has_parameter(name):
            known = [entry.name for entry in fields(Parameters)]
            close = difflib.get_close_matches(name, known, n=1)
            hint = f'did you mean {close[0]}?' if close else f'expected one of {", ".join(known)}'
            node.get_logger().warning(f'parameter {name} is given but does not exist: {hint}')
