# SPDX-License-Identifier: Apache-2.0
"""Test the arguments of the launch file: processes, parameters, remappings and errors."""

from __future__ import annotations

import ast
import re
from dataclasses import fields

import pytest
import ros_helpers  # noqa: F401  (isolates this run; before rclpy)
from launch_helpers import (
    BAG,
    LAUNCH_FILE,
    ROOT,
    launched,
    needs_launch,
    parameters_of,
    words,
)

from stdc_ros.node.parameters import Parameters


@needs_launch
@pytest.mark.parametrize('other', ['required', 'build_only'])
def test_respawn_contradicts_other_arguments(other):
    with pytest.raises(ValueError, match=f'^respawn and {other} are both true, expected one of them$'):
        launched(respawn='1', **{other: 'True'})


@needs_launch
def test_tilde_in_paths_is_expanded(tmp_path, monkeypatch):
    from launch_ros.utilities import evaluate_parameters

    monkeypatch.setenv('HOME', str(tmp_path))
    (tmp_path / 'mine.yaml').write_text('/**:\n  ros__parameters:\n    threads: 1\n')
    (tmp_path / 'drive.mcap').touch()
    (node, play), context = launched(params_file='~/mine.yaml', model='~/model.onnx', bag='~/drive.mcap')
    file, model, _ = evaluate_parameters(context, node._Node__parameters)
    assert (str(file), model['model']) == (str(tmp_path / 'mine.yaml'), str(tmp_path / 'model.onnx'))
    assert str(tmp_path / 'drive.mcap') in words(play)


@needs_launch
def test_launch_arguments_are_described():
    from launch.launch_description_sources import get_launch_description_from_python_launch_file

    description = get_launch_description_from_python_launch_file(str(LAUNCH_FILE))
    arguments = {argument.name: argument for argument in description.get_launch_arguments()}
    assert set(arguments) == {
        *('image', 'cameras', 'params_file', 'model', 'input_scale', 'output_size', 'image_transport', 'backend'),
        *('precision', 'build_only', 'image_size', 'node_name', 'namespace', 'use_sim_time', 'log_level', 'respawn'),
        *('lifecycle', 'required', 'bag', 'points', 'rviz'),
    }
    assert all(argument.default_value is not None for argument in arguments.values())
    for name, argument in arguments.items():
        assert argument.description.endswith(('.', ']')), name
    for name in ('build_only', 'use_sim_time', 'lifecycle', 'respawn', 'required', 'rviz'):
        assert arguments[name].description.startswith('true or false: ')


def test_launch_arguments_offer_the_choices_of_the_parameters():
    source = LAUNCH_FILE.read_text()
    for entry in (entry for entry in fields(Parameters) if entry.metadata['choices']):
        if f"'{entry.name}'," in source:
            offered = re.search(rf"'{entry.name}',\s+default_value='',\s+choices=(\[.*?\])", source)
            assert offered and ast.literal_eval(offered[1]) == ['', *entry.metadata['choices']]


@needs_launch
def test_arguments_select_the_processes():
    assert [words(process)[:2] for process in launched()[0]] == [['--ros-args', '--log-level']]
    rviz, _ = launched(rviz='true')[0]
    assert words(rviz)[:2] == ['-d', str(ROOT / 'config' / 'segmentation.rviz')]
    assert [part.text for part in rviz.output] == ['screen']


@needs_launch
def test_lifecycle_argument_starts_the_managed_node():
    assert words(launched(lifecycle='True')[0][0])[0] == '--lifecycle'
    assert '--lifecycle' not in words(launched(lifecycle='0')[0][0])
    with pytest.raises(ValueError, match='^lifecycle and build_only are both true, expected one of them$'):
        launched(lifecycle='true', build_only='true')


@needs_launch
@pytest.mark.parametrize('distribution', ['jazzy', 'humble'])
def test_bag_is_played_without_results_of_the_node(monkeypatch, distribution):
    monkeypatch.setenv('ROS_DISTRO', distribution)
    _, play = launched(bag=BAG, node_name='eyes')[0]
    *played, pattern = words(play) if distribution == 'jazzy' else [*words(play), '']
    assert played[:8] == ['ros2', 'bag', 'play', '--clock', '100', '--delay', '3', BAG]
    if distribution == 'humble':  # whose `ros2 bag play` has no such option
        assert played[8:] == []
        return
    assert played[8:] == ['--exclude-regex']
    for topic in ('/eyes/mask', '/car/front/eyes/mask/compressed', '/eyes/label_info'):
        assert re.fullmatch(pattern, topic)
    for topic in ('/image', '/eyes', '/eyes/left/image', '/front/image_raw', '/diagnostics'):
        assert not re.fullmatch(pattern, topic)


@needs_launch
@pytest.mark.parametrize('spelling', ['true', 'True', 'TRUE', '1', ' true '])
def test_true_flag_in_every_spelling(spelling):
    assert len(launched(rviz=spelling)[0]) == 2
    assert parameters_of(build_only=spelling) == {'build_only': True}
    assert parameters_of(use_sim_time=spelling) == {'use_sim_time': True}


@needs_launch
@pytest.mark.parametrize('spelling', ['false', 'False', 'FALSE', '0'])
def test_false_flag_in_every_spelling(spelling):
    given = dict.fromkeys(('rviz', 'build_only', 'respawn', 'required', 'use_sim_time'), spelling)
    assert len(launched(**given)[0]) == 1
    assert parameters_of(**given) == {'use_sim_time': False}


@needs_launch
@pytest.mark.parametrize('name', ['rviz', 'build_only', 'respawn', 'required', 'use_sim_time'])
def test_invalid_flag_is_an_error(name):
    with pytest.raises(ValueError, match=f'^{name} is maybe, expected true or false$'):
        launched(**{name: 'maybe'})


@needs_launch
@pytest.mark.parametrize(
    ('given', 'expected'),
    [
        ({}, {}),
        ({'bag': BAG}, {'use_sim_time': True}),
        ({'use_sim_time': 'false'}, {'use_sim_time': False}),
        ({'input_scale': '1'}, {'input_scale': 1.0}),
        ({'points': '/lidar'}, {'points': True}),
        (
            {'output_size': '64x48', 'image_transport': 'compressed'},
            {'output_size': '64x48', 'image_transport': 'compressed'},
        ),
    ],
)
def test_launch_arguments_override_the_parameter_file(given, expected):
    from launch_ros.utilities import evaluate_parameters

    (node, *_), context = launched(**given)
    (file, *parameters) = evaluate_parameters(context, node._Node__parameters)
    assert str(file) == str(ROOT / 'config' / 'segmentation.yaml')
    told = {name: value for table in parameters for name, value in table.items()}
    told = {name: value if isinstance(value, bool | float) else str(value) for name, value in told.items()}
    assert told == expected
    assert [type(value) for value in told.values()] == [type(value) for value in expected.values()]


@needs_launch
@pytest.mark.parametrize(
    ('given', 'expected'),
    [
        ({}, {'image': 'image'}),
        ({'image': '/front/image_raw'}, {'image': '/front/image_raw'}),
        ({'cameras': 'a b', 'image': 'image_raw'}, {'a/image': 'a/image_raw', 'b/image': 'b/image_raw'}),
        ({'points': '/lidar'}, {'image': 'image', 'points': '/lidar'}),
    ],
)
def test_image_arguments_become_remappings(given, expected):
    from launch.utilities import perform_substitutions

    (node, *_), context = launched(**given)
    told = [[perform_substitutions(context, list(name)) for name in rule] for rule in node._Node__remappings]
    assert dict(told) == expected


@needs_launch
@pytest.mark.parametrize(
    'text',
    [
        'front left',
        'front,left',
        'front, left',
        '[front, left]',
        '[front,left]',
        '[\'front\', "left"]',
        ' front  left ',
    ],
)
def test_cameras_in_every_usual_spelling(text):
    assert parameters_of(cameras=text) == {'cameras': ('front', 'left')}


@needs_launch
@pytest.mark.parametrize(
    ('given', 'message'),
    [
        ({'cameras': 'a b', 'image': '/front/image'}, 'image is /front/image, expected a name below each camera: a, b'),
        (
            {'cameras': '[front, le/ft]'},
            "cameras is [front, le/ft]: 'le/ft' is not a camera name, expected letters, digits",
        ),
        ({'cameras': '1st'}, "cameras is 1st: '1st' is not a camera name, expected letters, digits and _"),
        ({'cameras': 'kamera-1'}, "cameras is kamera-1: 'kamera-1' is not a camera name"),
        ({'cameras': 'Mitte,Süd'}, "cameras is Mitte,Süd: 'Süd' is not a camera name"),
        ({'cameras': 'a,b,a'}, 'cameras is a,b,a, expected names that differ'),
        ({'image': 'a b'}, "image is 'a b', expected a topic name: "),
        ({'points': 'a b'}, "points is 'a b', expected a topic name: "),
        ({'namespace': '1x'}, "namespace is '1x', expected a namespace: "),
        ({'node_name': 'a/b'}, "node_name is 'a/b', expected a node name: "),
        ({'input_scale': 'half'}, 'input_scale is half, expected a number such as 0.5'),
        ({'log_level': 'loud'}, 'log_level is loud, expected one of debug, info, warn, error, fatal'),
    ],
)
def test_invalid_argument_gives_one_line(given, message):
    with pytest.raises(ValueError, match=f'^{re.escape(message)}') as raised:
        launched(**given)
    assert '\n' not in str(raised.value)


@needs_launch
@pytest.mark.parametrize('cameras', ['', 'front left'])
def test_rviz_follows_a_pushed_namespace(cameras):
    import rclpy
    from launch_ros.actions import PushRosNamespace
    from rclpy.context import Context
    from rclpy.node import Node

    processes, context = launched(rviz='true', namespace='car', node_name='eyes', cameras=cameras)
    PushRosNamespace('robot').execute(context)
    rviz = processes[0]
    # The arguments of rviz2, given to another node, because rviz2 is not on PyPI. Every node resolves names alike.
    rviz._perform_substitutions(context)
    rules = [f'{source}:={target}' for source, target in rviz.expanded_remapping_rules]
    rules += [f'__ns:={rviz.expanded_node_namespace}']
    own = Context()
    rclpy.init(args=['--ros-args', *(word for rule in rules for word in ('-r', rule))], context=own)
    node = Node('rviz', context=own)
    try:
        inside = '/robot/car/front' if cameras else '/robot/car'
        for name in ('overlay', 'color_mask', 'drivable_grid'):
            assert node.resolve_topic_name(f'/segmentation/{name}') == f'{inside}/eyes/{name}'
        assert node.resolve_topic_name('/segmentation/points') == '/robot/car/eyes/points'
    finally:
        node.destroy_node()
        rclpy.shutdown(context=own)


@needs_launch
def test_profile_of_the_user_is_kept(monkeypatch):
    def profiles() -> dict[str, str]:
        (node,), _ = launched()
        return {name[0].text: value[0].text for name, value in node.additional_env}

    of_version_2, of_version_3 = 'FASTRTPS_DEFAULT_PROFILES_FILE', 'FASTDDS_DEFAULT_PROFILES_FILE'
    monkeypatch.setenv(of_version_2, '/mine.xml')
    monkeypatch.delenv(of_version_3, raising=False)
    assert profiles() == {of_version_2: '/mine.xml', of_version_3: '/mine.xml'}
    monkeypatch.delenv(of_version_2)
    own = str(ROOT / 'config' / 'fastdds.xml')
    assert profiles() == {of_version_2: own, of_version_3: own}
