# SPDX-License-Identifier: Apache-2.0
"""The launch file and the files in config/."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import yaml
from ros_helpers import Client
from sensor_msgs.msg import Image

import stdc_ros
from stdc_core.inference import Segmenter
from stdc_ros.node.camera import OUTPUTS
from stdc_ros.node.parameters import Parameters

ROOT = Path(__file__).parent.parent
LAUNCH_FILE = ROOT / 'launch' / 'segmentation.launch.py'
TIMEOUT = 60.0

#: Any folder: it is not played.
BAG = str(ROOT / 'test' / 'data')

# Not find_spec('launch'): without the package that finds our own folder of that name.
needs_launch = pytest.mark.skipif(
    find_spec('launch_ros') is None, reason='launch and launch_ros come with ROS 2 and are not on PyPI'
)


def test_the_parameter_file_holds_every_parameter_with_its_default():
    content = yaml.safe_load((ROOT / 'config' / 'segmentation.yaml').read_text())
    # Lists have no default in ROS; those are in comments.
    defaults = {name: value for name, value in asdict(Parameters()).items() if value != ()}
    assert content == {'/**': {'ros__parameters': defaults}}


def test_every_list_is_explained_in_the_parameter_file():
    text = (ROOT / 'config' / 'segmentation.yaml').read_text()
    for name in (name for name, value in asdict(Parameters()).items() if value == ()):
        example = next(line for line in text.splitlines() if line.startswith(f'    # {name}: '))
        assert isinstance(yaml.safe_load(example.lstrip('# '))[name], list)


def test_the_costmap_file_names_topics_and_classes_that_there_are():
    costmap = yaml.safe_load((ROOT / 'config' / 'nav2_semantic_segmentation_layer.yaml').read_text())
    layer = costmap['local_costmap']['local_costmap']['ros__parameters']['semantic_segmentation_layer']['camera']
    outputs = {*OUTPUTS, 'label_info'}
    topics = [layer[name] for name in ('segmentation_topic', 'confidence_topic', 'labels_topic')]
    assert all(topic.removeprefix('/segmentation/') in outputs for topic in topics)
    named = {name for kind in layer['class_types'] for name in layer[kind]['classes']}
    assert named == set(Segmenter.load().info.classes.names) - {'sky'}


def test_rviz_shows_outputs_that_there_are():
    displays = yaml.safe_load((ROOT / 'config' / 'segmentation.rviz').read_text())['Visualization Manager']['Displays']
    topics = [display['Topic']['Value'] for display in displays]
    assert topics
    assert all(topic.removeprefix('/segmentation/') in OUTPUTS for topic in topics)


def test_the_fast_dds_profile_carries_1080p_images():
    root = ElementTree.parse(ROOT / 'config' / 'fastdds.xml').getroot()
    texts = {element.tag.rpartition('}')[2]: (element.text or '').strip() for element in root.iter()}
    assert int(texts['segment_size']) == 64 * 2**20
    assert int(texts['maxMessageSize']) == 16 * 2**20
    assert [element.text for element in root.iter() if element.tag.endswith('type')] == ['SHM', 'UDPv4']


def test_the_launch_file_is_python_and_runs_no_code_of_others():
    source = LAUNCH_FILE.read_text()
    compile(source, str(LAUNCH_FILE), 'exec')
    assert not any(word in source for word in ('eval(', 'exec(', 'subprocess', 'os.system', 'pip'))


# What `ros2 launch` does, which comes with ROS 2 only.
LAUNCHER = """
import sys
from launch import LaunchDescription, LaunchService
from launch.actions import IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource
arguments = [argument.split(':=') for argument in sys.argv[2:]]
file = IncludeLaunchDescription(PythonLaunchDescriptionSource(sys.argv[1]), launch_arguments=arguments)
service = LaunchService()
service.include_launch_description(LaunchDescription([file]))
sys.exit(service.run())
"""


@pytest.fixture
def installed(tmp_path) -> dict[str, str]:
    """Environment in which ``stdc_ros`` is an installed package with an executable ``segmentation_node``."""
    (tmp_path / 'share/ament_index/resource_index/packages').mkdir(parents=True)
    (tmp_path / 'share/ament_index/resource_index/packages/stdc_ros').touch()
    executable = tmp_path / 'lib/stdc_ros/segmentation_node'
    executable.parent.mkdir(parents=True)
    executable.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m stdc_ros.node.main "$@"\n')
    executable.chmod(executable.stat().st_mode | stat.S_IXUSR)
    environment = dict(os.environ)
    for name in ('FASTRTPS_DEFAULT_PROFILES_FILE', 'FASTDDS_DEFAULT_PROFILES_FILE'):
        environment.pop(name, None)
    environment['AMENT_PREFIX_PATH'] = os.pathsep.join([str(tmp_path), environment.get('AMENT_PREFIX_PATH', '')])
    environment['PYTHONPATH'] = os.pathsep.join(
        [str(Path(stdc_ros.__file__).parent.parent), environment.get('PYTHONPATH', '')]
    )
    return environment


@needs_launch
def test_launching_starts_the_node_with_its_arguments(installed, tmp_path):
    parameter_file = tmp_path / 'mine.yaml'
    parameter_file.write_text('/**:\n  ros__parameters:\n    overlay_opacity: 0.0\n    threads: 1\n')
    arguments = ['image:=/front/image_raw', 'namespace:=front', f'params_file:={parameter_file}']
    with tempfile.NamedTemporaryFile('r', dir=tmp_path) as log:
        process = subprocess.Popen(
            [sys.executable, '-c', LAUNCHER, str(LAUNCH_FILE), *arguments],
            env=installed,
            stdout=log.fileno(),
            stderr=subprocess.STDOUT,
        )
        try:
            with Client('/front', image='/front/image_raw') as client:
                client.listen('overlay')
                image = Image(height=64, width=64, encoding='mono8', step=64)
                image.data.frombytes(bytes(range(64)) * 64)
                overlay = client.segment(image, 'overlay')
                # The parameter file was read: at opacity 0 the overlay is the image.
                assert np.frombuffer(overlay.data, np.uint8).reshape(64, 64, 3)[5, 7].tolist() == [7, 7, 7]
                environ = child_environment(process.pid)
                assert environ['FASTRTPS_DEFAULT_PROFILES_FILE'] == str(ROOT / 'config' / 'fastdds.xml')
            process.send_signal(signal.SIGINT)
            assert process.wait(TIMEOUT) == 0, log.read()
            output = Path(log.name).read_text()
            assert 'process has finished cleanly' in output
            assert 'Traceback' not in output
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()


@needs_launch
def test_a_failed_node_or_bag_ends_all_and_one_that_has_ended_nothing():
    processes, context = launched(bag=BAG)
    assert len(processes) == 2
    for process in processes:
        on_exit = process._ExecuteLocal__on_exit
        (ending,) = on_exit(SimpleNamespace(process_name='this-1', returncode=1), context)
        assert 'this-1 ended with exit status 1' in ending.event.reason
        assert not on_exit(SimpleNamespace(process_name='this-1', returncode=0), context)


@needs_launch
@pytest.mark.parametrize('name', ['params_file', 'bag'])
def test_a_file_that_is_not_there_is_an_error(installed, name):
    command = [sys.executable, '-c', LAUNCHER, str(LAUNCH_FILE), f'{name}:=/nowhere/mine']
    run = subprocess.run(command, env=installed, capture_output=True, text=True, timeout=TIMEOUT)
    assert run.returncode == 1
    assert f'{name} /nowhere/mine: no such file' in run.stderr + run.stdout
    assert 'process started' not in run.stderr + run.stdout


def child_environment(pid: int) -> dict[str, str]:
    """Environment of the one child of a process (Linux)."""
    (child,) = Path(f'/proc/{pid}/task/{pid}/children').read_text().split()
    entries = Path(f'/proc/{child}/environ').read_bytes().decode().split('\0')
    return dict(entry.split('=', 1) for entry in entries if entry)


@needs_launch
def test_the_arguments_are_described():
    from launch.launch_description_sources import get_launch_description_from_python_launch_file

    description = get_launch_description_from_python_launch_file(str(LAUNCH_FILE))
    arguments = {argument.name: argument for argument in description.get_launch_arguments()}
    assert set(arguments) == {
        *(
            'image',
            'cameras',
            'params_file',
            'model',
            'input_scale',
            'backend',
            'precision',
            'build_only',
            'image_size',
        ),
        *('namespace', 'use_sim_time', 'bag', 'rviz'),
    }
    assert all(argument.description != 'no description given' for argument in arguments.values())


def launched(**given: str) -> tuple[list[Any], Any]:
    """Processes that the launch file starts if these arguments are given, and their context."""
    from launch.launch_description_sources import get_launch_description_from_python_launch_file
    from launch.utilities import perform_substitutions

    from launch import LaunchContext

    context = LaunchContext()
    entities = get_launch_description_from_python_launch_file(str(LAUNCH_FILE)).entities
    for argument in (entity for entity in entities if type(entity).__name__ == 'DeclareLaunchArgument'):
        default = perform_substitutions(context, argument.default_value)
        context.launch_configurations[argument.name] = given.get(argument.name, default)
    start = next(entity for entity in entities if type(entity).__name__ == 'OpaqueFunction')
    return start.execute(context), context


@needs_launch
@pytest.mark.parametrize(
    ('given', 'expected'),
    [
        ({}, [[]]),
        ({'bag': BAG}, [[], ['ros2', 'bag', 'play', '--clock', '100', '--delay', '3', BAG]]),
        ({'rviz': 'true'}, [['-d', str(ROOT / 'config' / 'segmentation.rviz')], []]),
    ],
)
def test_arguments_decide_which_processes_there_are_and_what_they_are_told(given, expected):
    # What stands in the file; the rest of a node's command is made when it starts.
    processes, _ = launched(**given)
    started = [[part.text for parts in process.cmd for part in parts if hasattr(part, 'text')] for process in processes]
    started = [[word for word in words if word not in ('--ros-args', '-r')] for words in started]
    assert started == expected


@needs_launch
@pytest.mark.parametrize(
    ('given', 'expected'),
    [
        ({}, {}),
        ({'bag': BAG}, {'use_sim_time': True}),
        ({'use_sim_time': 'false'}, {'use_sim_time': False}),
        ({'input_scale': '1'}, {'input_scale': 1.0}),
    ],
)
def test_parameters_are_those_of_the_file_unless_they_are_asked_for(given, expected):
    from launch_ros.utilities import evaluate_parameters

    (node, *_), context = launched(**given)
    (file, *parameters) = evaluate_parameters(context, node._Node__parameters)
    assert str(file) == str(ROOT / 'config' / 'segmentation.yaml')
    told = {name: value for table in parameters for name, value in table.items()}
    assert told == expected
    assert [type(value) for value in told.values()] == [type(value) for value in expected.values()]


@needs_launch
@pytest.mark.parametrize(
    ('given', 'expected'),
    [
        ({}, {'image': 'image'}),
        ({'image': '/front/image_raw'}, {'image': '/front/image_raw'}),
        ({'cameras': 'a b', 'image': 'image_raw'}, {'a/image': 'a/image_raw', 'b/image': 'b/image_raw'}),
    ],
)
def test_images_come_from_the_topics_that_are_named(given, expected):
    from launch.utilities import perform_substitutions

    (node, *_), context = launched(**given)
    told = [[perform_substitutions(context, list(name)) for name in rule] for rule in node._Node__remappings]
    assert dict(told) == expected


@needs_launch
def test_several_cameras_have_not_one_topic():
    with pytest.raises(ValueError, match='image is /front/image, expected a name below that of each camera: a b'):
        launched(cameras='a b', image='/front/image')


@needs_launch
def test_an_input_scale_is_a_number():
    with pytest.raises(ValueError, match=r'^input_scale is half, expected a number such as 0\.5$'):
        launched(input_scale='half')


@needs_launch
def test_a_profile_of_the_users_own_is_kept(monkeypatch):
    from launch.launch_description_sources import get_launch_description_from_python_launch_file

    def profiles() -> dict[str, str]:
        entities = get_launch_description_from_python_launch_file(str(LAUNCH_FILE)).entities
        set_ = [entity for entity in entities if type(entity).__name__ == 'SetEnvironmentVariable']
        return {entity.name[0].text: entity.value[0].text for entity in set_}

    of_version_2, of_version_3 = 'FASTRTPS_DEFAULT_PROFILES_FILE', 'FASTDDS_DEFAULT_PROFILES_FILE'
    monkeypatch.setenv(of_version_2, '/mine.xml')
    monkeypatch.delenv(of_version_3, raising=False)
    assert profiles() == {of_version_3: '/mine.xml'}
    monkeypatch.delenv(of_version_2)
    own = str(ROOT / 'config' / 'fastdds.xml')
    assert profiles() == {of_version_2: own, of_version_3: own}
