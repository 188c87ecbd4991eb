# SPDX-License-Identifier: Apache-2.0
"""Test the parameter table, declared on a real node."""

from __future__ import annotations

from dataclasses import fields

import pytest
import ros_helpers  # noqa: F401  (isolates this run; before rclpy)
from rclpy.context import Context
from rclpy.exceptions import InvalidParameterTypeException, InvalidParameterValueException
from rclpy.node import Node
from rclpy.parameter import Parameter

from stdc_ros.node import parameters
from stdc_ros.node.declare_parameters import declare
from stdc_ros.node.parameters import Parameters


@pytest.fixture
def make_node():
    """Return a function that makes nodes with given parameter values, as from the command line."""
    context = Context()
    context.init()
    nodes = []

    def make(**given: object) -> Node:
        overrides = [Parameter(name, value=value) for name, value in given.items()]
        nodes.append(Node('parameters', context=context, parameter_overrides=overrides))
        return nodes[-1]

    yield make
    for node in nodes:
        node.destroy_node()
    context.shutdown()


def test_parameters_have_descriptions_and_limits(make_node):
    node = make_node()
    values = declare(node)
    assert values == Parameters()
    for entry in fields(Parameters):
        descriptor = node.describe_parameter(entry.name)
        value = node.get_parameter(entry.name).value
        assert (tuple(value) if isinstance(entry.default, tuple) else value) == entry.default
        assert len(descriptor.description) > 20
        assert descriptor.read_only == (not entry.metadata['at_run_time'])
        if type(entry.default) in (int, float):
            limits = [*descriptor.integer_range, *descriptor.floating_point_range]
            assert [(limit.from_value, limit.to_value) for limit in limits] == [entry.metadata['bounds']]
    assert node.describe_parameter('image_reliability').additional_constraints == 'one of best_effort, reliable'


def test_all_parameters_can_be_read_at_once(make_node):
    node = make_node()
    declare(node)
    # As `ros2 param dump` does. rclpy returns nothing if one parameter has no value.
    values = node.get_parameters([entry.name for entry in fields(Parameters)])
    assert all(value.type_ != Parameter.Type.NOT_SET for value in values)
    assert (values[0].name, values[0].value) == ('model', '')


def test_given_values_are_attributes(make_node):
    values = declare(make_node(model='/my/model.onnx', threads=3, overlay_opacity=0.25))
    assert (values.model, values.threads, values.overlay_opacity) == ('/my/model.onnx', 3, 0.25)
    assert values.image_reliability == 'best_effort'


@pytest.mark.parametrize(
    ('name', 'value', 'error', 'words'),
    [
        ('threads', 'two', InvalidParameterTypeException, 'threads.*two.*STRING.*INTEGER'),
        ('threads', -1, InvalidParameterValueException, 'threads out of range.*Min: 0, Max: 256, value: -1'),
        ('overlay_opacity', float('nan'), InvalidParameterValueException, 'overlay_opacity out of range'),
        ('image_reliability', 'maybe', InvalidParameterValueException, "'maybe', expected one of best_effort"),
        ('cameras', ['front', 'front'], InvalidParameterValueException, 'cameras.*front.*expected names that differ'),
        ('cameras', ['front/left'], InvalidParameterValueException, 'front/left.*letters, digits'),
        ('output_size', '0x10', InvalidParameterValueException, "'0x10', expected input, network, or WIDTHxHEIGHT"),
        ('confidence_threshold', 1.5, InvalidParameterValueException, 'confidence_threshold out of range.*Max: 1.0'),
        ('model', 5, InvalidParameterTypeException, 'model.*5.*INTEGER.*STRING'),
    ],
)
def test_invalid_value_is_an_error_with_the_expected_one(make_node, name, value, error, words):
    with pytest.raises(error, match=words):
        declare(make_node(**{name: value}))


def test_only_run_time_parameters_can_be_changed(make_node):
    node = make_node()
    values = declare(node)
    assert node.set_parameters([Parameter('overlay_opacity', value=0.75)])[0].successful
    assert values.overlay_opacity == 0.75
    for name, value in (('overlay_opacity', 1.01), ('overlay_opacity', 'half'), ('threads', 2), ('model', 'other')):
        assert not node.set_parameters([Parameter(name, value=value)])[0].successful, name
    assert values == Parameters(overlay_opacity=0.75)


def test_lists_are_tuples_and_empty_by_default(make_node):
    assert declare(make_node()).cameras == ()
    assert declare(make_node(cameras=['front', 'rear'])).cameras == ('front', 'rear')


@pytest.mark.parametrize(
    ('setting', 'expected'), [('input', (480, 641)), ('network', (240, 320)), ('320x200', (200, 320))]
)
def test_output_size(setting, expected):
    assert parameters.output_size(setting, (480, 641), 0.5) == expected


def test_other_parameters_are_ignored(make_node):
    node = make_node()
    values = declare(node)
    node.declare_parameter('theirs', 1)
    assert node.set_parameters([Parameter('theirs', value=2)])[0].successful
    assert values == Parameters()
