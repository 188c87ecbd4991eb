# SPDX-License-Identifier: Apache-2.0
"""Declare the table of parameters on a ROS node and keep its values up to date."""

from __future__ import annotations

import difflib
from dataclasses import Field, fields
from typing import Any

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor, SetParametersResult
from rclpy.node import Node
from rclpy.parameter import Parameter

from stdc_ros.node.parameters import Parameters

#: Parameter type by type hint of a list. ROS cannot derive the type from an empty list.
_LIST_TYPES = {'tuple[str, ...]': Parameter.Type.STRING_ARRAY, 'tuple[float, ...]': Parameter.Type.DOUBLE_ARRAY}

#: Beginning of the names of the parameters that are declared when a topic is opened.
_OVERRIDES = 'qos_overrides.'


def declare(node: Node) -> Parameters:
    """Declare every parameter of the table on a node.

    Returns:
        Values of the parameters, which are updated when a parameter is set later.

    Raises:
        rclpy.exceptions.ParameterException: A value that was given has the wrong type or is out of range; the message
            names the parameter, the value and what is expected.
    """
    parameters = Parameters()
    table = {entry.name: entry for entry in fields(Parameters)}

    def on_set(changes: list[Parameter]) -> SetParametersResult:
        # A list that was not given has no value while it is declared.
        ours = [change for change in changes if change.name in table and change.value is not None]
        try:
            values = {change.name: _value(table[change.name], change) for change in ours}
        except ValueError as error:
            return SetParametersResult(successful=False, reason=str(error))
        for name, value in values.items():
            setattr(parameters, name, value)
        return SetParametersResult(successful=True)

    # Before the declarations, so that the callback sees the initial values. rclpy checks type and range before it.
    node.add_on_set_parameters_callback(on_set)
    for entry in table.values():
        if entry.default == ():
            _declare_list(node, entry)
        else:
            node.declare_parameter(entry.name, entry.default, _descriptor(entry))
    return parameters


def _declare_list(node: Node, entry: Field) -> None:
    """Declare a list whose default is empty.

    A parameter without a value would break requests for all parameters at once, such as ``ros2 param dump``.
    """
    list_type, descriptor = _LIST_TYPES[str(entry.type)], _descriptor(entry)
    if entry.metadata['parse']:  # the value may also be text
        descriptor.dynamic_typing = True
        declared = node.declare_parameter(entry.name, None, ParameterDescriptor(dynamic_typing=True))
    else:
        descriptor.type = list_type.value
        declared = node.declare_parameter(entry.name, list_type)
    # rclpy takes an empty default for bytes. So the list is set after its declaration and then made read-only.
    if declared.type_ == Parameter.Type.NOT_SET:
        node.set_parameters([Parameter(entry.name, list_type, [])])
    node.set_descriptor(entry.name, descriptor)


def _value(entry: Field, parameter: Parameter) -> Any:
    """Return the value for the table. Raises ValueError if the table does not allow it."""
    value, choices, check = parameter.value, entry.metadata['choices'], entry.metadata['check']
    if entry.metadata['parse']:
        return entry.metadata['parse'](value)
    if parameter.type_ in _LIST_TYPES.values():
        value = tuple(value)
    expected = check(value) if check else ''
    if choices and value not in choices:
        expected = f'one of {", ".join(choices)}'
    if expected:
        raise ValueError(f'{parameter.name} is {parameter.value!r}, expected {expected}')
    return value


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


def warn_of_unknown(node: Node, overrides: bool | None = None) -> None:
    """Warn about values for parameters that do not exist, which ROS ignores silently.

    Call this when the parameters that are checked are declared.

    Args:
        node: Node that has the parameters.
        overrides: True to check only overrides of the quality of service, which are declared when the topics are
            opened; False to check only the other parameters; None to check all.
    """
    # rclpy has no public way to read the given values nor, in Humble, the names of all declared parameters.
    for name in getattr(node, '_parameter_overrides', {}):
        checked = overrides is None or name.startswith(_OVERRIDES) == overrides
        if checked and not node.has_parameter(name):
            known = [entry.name for entry in fields(Parameters)]
            close = difflib.get_close_matches(name, node._parameters, n=1)
            hint = f'did you mean {close[0]}?' if close else f'expected one of {", ".join(known)}'
            node.get_logger().warning(f'parameter {name} is given but does not exist: {hint}')
