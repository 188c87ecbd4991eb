# SPDX-License-Identifier: Apache-2.0
"""Test the launch file and the files in config/."""

from __future__ import annotations

import ast
import json
import os
import re
import signal
import stat
import subprocess
import sys
import tempfile
from dataclasses import asdict, fields
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import yaml
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from ros_helpers import Client
from sensor_msgs.msg import Image

import stdc_ros
from stdc_core.inference import Segmenter
from stdc_ros.node.camera import OUTPUTS, POINTS
from stdc_ros.node.parameters import Parameters

ROOT = Path(__file__).parent.parent
LAUNCH_FILE = ROOT / 'launch' / 'segmentation.launch.py'
TIMEOUT = 60.0

#: Any existing folder; it is not played.
BAG = str(ROOT / 'test' / 'data')

# Not find_spec('launch'), which finds the folder launch/ of this repository if the package is not installed.
needs_launch = pytest.mark.skipif(
    find_spec('launch_ros') is None, reason='launch and launch_ros come with ROS 2 and are not on PyPI'
)


def test_parameter_file_has_every_parameter_with_its_default():
    content = yaml.safe_load((ROOT / 'config' / 'segmentation.yaml').read_text())
    # ROS lists have no default, so they are comments in the file.
    defaults = {name: value for name, value in asdict(Parameters()).items() if value != ()}
    assert content == {'/**': {'ros__parameters': defaults}}


def test_parameter_file_explains_every_list():
    text = (ROOT / 'config' / 'segmentation.yaml').read_text()
    for name in (name for name, value in asdict(Parameters()).items() if value == ()):
        example = next(line for line in text.splitlines() if line.startswith(f'    # {name}: '))
        assert isinstance(yaml.safe_load(example.lstrip('# '))[name], list)


def test_costmap_file_names_existing_topics_and_classes():
    costmap = yaml.safe_load((ROOT / 'config' / 'nav2_semantic_segmentation_layer.yaml').read_text())
    layer = costmap['local_costmap']['local_costmap']['ros__parameters']['semantic_segmentation_layer']['camera']
    outputs = {*OUTPUTS, 'label_info'}
    topics = [layer[name] for name in ('segmentation_topic', 'confidence_topic', 'labels_topic')]
    assert all(topic.removeprefix('/segmentation/') in outputs for topic in topics)
    named = {name for kind in layer['class_types'] for name in layer[kind]['classes']}
    assert named == set(Segmenter.load().info.classes.names) - {'sky'}


def test_costmap_file_explains_the_ignored_class():
    text = (ROOT / 'config' / 'nav2_semantic_segmentation_layer.yaml').read_text()
    comments = ' '.join(line.lstrip('# ') for line in text.splitlines() if line.startswith('#'))
    layer = yaml.safe_load(text)['local_costmap']['local_costmap']['ros__parameters']['semantic_segmentation_layer']
    named = {name for kind in layer['camera']['class_types'] for name in layer['camera'][kind]['classes']}
    for name in set(Segmenter.load().info.classes.names) - named:
        # As the layer logs it, so that a search for the message finds the file.
        assert f"CRITICAL ERROR: Class '{name}' from label_info is not defined in the costmap parameters!" in comments


def test_points_costmap_file_names_existing_topics_and_classes():
    text = (ROOT / 'config' / 'nav2_points_layer.yaml').read_text()
    layer = yaml.safe_load(text)['local_costmap']['local_costmap']['ros__parameters']['obstacle_layer']
    assert layer['observation_sources'].split() == ['painted', 'free']
    assert layer['painted']['topic'] == f'/segmentation/{POINTS}'
    named = set(re.search(r'points_only: \[(.*)\]', text)[1].split(', '))
    assert set(Segmenter.load().info.classes.names) - named == {'sky', 'road', 'sidewalk'}


def test_foxglove_layout_shows_existing_topics():
    layout = json.loads((ROOT / 'config' / 'foxglove_layout.json').read_text())
    panels = layout['configById']

    def leaves(part: Any) -> list[str]:
        return [part] if isinstance(part, str) else [*leaves(part['first']), *leaves(part['second'])]

    assert sorted(leaves(layout['layout'])) == sorted(panels)
    camera = {'/camera/image_raw', '/camera/camera_info'}
    node = {f'/segmentation/{name}' for name in (*OUTPUTS, 'label_info', 'performance')}
    shown = set()
    for panel in panels.values():
        shown |= {*panel.get('imageMode', {}).values(), *panel.get('topics', {})}
        shown |= {panel[key].partition('.')[0] for key in ('topicPath', 'topicToRender') if key in panel}
    assert shown <= {*camera, *node, '/diagnostics'}
    wanted = ('overlay', 'color_mask', 'label_info', 'drivable_grid', 'performance')
    assert shown >= {'/camera/image_raw', '/diagnostics', *(f'/segmentation/{name}' for name in wanted)}


def test_foxglove_layout_shows_existing_fields():
    panels = json.loads((ROOT / 'config' / 'foxglove_layout.json').read_text())['configById']
    (path,) = [
        panel['topicPath']
        for panel in panels.values()
        if panel.get('topicPath', '').startswith('/segmentation/performance.')
    ]
    message = DiagnosticArray(status=[DiagnosticStatus(values=[KeyValue(key='a', value='b')])])
    for name in path.replace('[:]', '').split('.')[1:]:
        message = getattr(message, name)[0]
    assert message == KeyValue(key='a', value='b')


def test_rviz_shows_existing_outputs():
    displays = yaml.safe_load((ROOT / 'config' / 'segmentation.rviz').read_text())['Visualization Manager']['Displays']
    topics = [display['Topic']['Value'] for display in displays]
    assert topics
    assert all(topic.removeprefix('/segmentation/') in {*OUTPUTS, POINTS} for topic in topics)


def test_fast_dds_profile_is_large_enough_for_1080p():
    root = ElementTree.parse(ROOT / 'config' / 'fastdds.xml').getroot()
    texts = {element.tag.rpartition('}')[2]: (element.text or '').strip() for element in root.iter()}
    assert int(texts['segment_size']) == 64 * 2**20
    assert int(texts['maxMessageSize']) == 16 * 2**20
    assert [element.text for element in root.iter() if element.tag.endswith('type')] == ['SHM', 'UDPv4']


def test_launch_file_imports_only_launch_and_rclpy():
    source = LAUNCH_FILE.read_text()
    compile(source, str(LAUNCH_FILE), 'exec')
    assert not any(word in source for word in ('eval(', 'exec(', 'subprocess', 'os.system', 'pip'))


def test_logging_pytest_plugin_fails_no_test(tmp_path):
    # As launch does, whose pytest plugin is part of every ROS 2.
    (tmp_path / 'chatty.py').write_text('import logging\nlogging.getLogger().setLevel(logging.INFO)\n')
    (tmp_path / 'test_log.py').write_text(
        'import logging\n\n\ndef test_log(caplog):\n'
        '    logging.getLogger("x").info("more")\n    assert not caplog.messages\n'
    )
    (tmp_path / 'conftest.py').symlink_to(ROOT / 'test' / 'conftest.py')
    environment = {**os.environ, 'PYTHONPATH': f'{tmp_path}:{os.environ.get("PYTHONPATH", "")}'}
    command = [sys.executable, '-m', 'pytest', '-q', '-p', 'chatty', '-p', 'no:cacheprovider', str(tmp_path)]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=TIMEOUT)
    assert run.returncode == 0, run.stdout + run.stderr
    assert '1 passed' in run.stdout


#: Program that works like `ros2 launch`, which is not on PyPI. With a command, it is the launch file of a robot that
#: includes ours and then starts the command.
LAUNCHER = """
import sys
from launch import LaunchDescription, LaunchService
from launch.actions import ExecuteProcess, IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource
path, command, *arguments = sys.argv[1:]
arguments = [argument.split(':=') for argument in arguments]
file = IncludeLaunchDescription(PythonLaunchDescriptionSource(path), launch_arguments=arguments)
other = [ExecuteProcess(cmd=[sys.executable, '-c', command], name='driver', output='screen')] if command else []
service = LaunchService()
service.include_launch_description(LaunchDescription([file, *other]))
sys.exit(service.run())
"""

#: Driver of a robot, which ends by itself after some seconds unless the launch ends first.
DRIVER = "import time; print('driver starts', flush=True); time.sleep({seconds}); print('driver is done', flush=True)"


def run_launch(
    environment: dict[str, str], *arguments: str, driver: str = '', timeout: float = TIMEOUT
) -> tuple[int, str]:
    """Launch and wait until the launch ends by itself. Return the exit status and all output."""
    command = [sys.executable, '-c', LAUNCHER, str(LAUNCH_FILE), driver, *arguments]
    run = subprocess.run(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=timeout)
    return run.returncode, run.stdout.decode()


@pytest.fixture
def installed(tmp_path) -> dict[str, str]:
    """Return an environment in which ``stdc_ros`` is installed with an executable ``segmentation_node``."""
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
def test_launch_starts_the_node_with_its_arguments(installed, tmp_path):
    parameter_file = tmp_path / 'mine.yaml'
    parameter_file.write_text('/**:\n  ros__parameters:\n    overlay_opacity: 0.0\n    threads: 1\n')
    arguments = ['image:=/front/image_raw', 'namespace:=front', 'node_name:=eyes', f'params_file:={parameter_file}']
    with tempfile.NamedTemporaryFile('r', dir=tmp_path) as log:
        process = subprocess.Popen(
            [sys.executable, '-c', LAUNCHER, str(LAUNCH_FILE), '', *arguments, 'log_level:=WARN'],
            env=installed,
            stdout=log.fileno(),
            stderr=subprocess.STDOUT,
        )
        try:
            with Client() as client:
                received: list[Image] = []
                camera = client.node.create_publisher(Image, '/front/image_raw', 5)
                client.node.create_subscription(Image, '/front/eyes/overlay', received.append, 5)
                client.spin_until(lambda: camera.get_subscription_count() == 1, 'the node subscribes to the camera')
                image = Image(height=64, width=64, encoding='mono8', step=64)
                image.data.frombytes(bytes(range(64)) * 64)
                camera.publish(image)
                client.spin_until(lambda: bool(received), 'an overlay')
                # At opacity 0 of the parameter file, the overlay equals the image.
                assert np.frombuffer(received[0].data, np.uint8).reshape(64, 64, 3)[5, 7].tolist() == [7, 7, 7]
                environ = child_environment(process.pid)
                assert environ['FASTRTPS_DEFAULT_PROFILES_FILE'] == str(ROOT / 'config' / 'fastdds.xml')
            process.send_signal(signal.SIGINT)
            assert process.wait(TIMEOUT) == 0, log.read()
            output = Path(log.name).read_text()
            assert 'process has finished cleanly' in output
            assert 'Traceback' not in output
            assert '[INFO]' not in ''.join(line for line in output.splitlines() if '[segmentation_node-1] ' in line)
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()


@needs_launch
def test_dying_node_does_not_end_the_launch(installed):
    status, output = run_launch(installed, 'model:=/nowhere.onnx', driver=DRIVER.format(seconds=15))
    assert 'process has died' in output
    assert output.index('process has died') < output.index('[driver-2] driver is done')
    assert status == 0


@needs_launch
@pytest.mark.parametrize('arguments', [('required:=True', 'model:=/nowhere.onnx'), ('build_only:=1',)])
def test_failure_of_a_required_or_building_node_fails_the_launch(installed, arguments):
    status, output = run_launch(installed, *arguments, driver=DRIVER.format(seconds=600))
    assert status == 1
    assert 'segmentation_node-1 ended with exit status 1' in output
    assert '[driver-2] driver is done' not in output
    assert 'Traceback' not in output.split('segmentation_node-1 ended')[0]


@needs_launch
def test_end_of_a_required_node_ends_the_launch():
    processes, context = launched(required='true')
    ended = SimpleNamespace(process_name='node-1', returncode=0)
    (shutdown,) = on_exit(processes[0], ended, context)
    assert type(shutdown).__name__ == 'Shutdown' and 'node-1 ended' in shutdown.event.reason
    # After building an engine, only the process of the node ends.
    processes, context = launched(build_only='true')
    assert on_exit(processes[0], ended, context) == []


@needs_launch
def test_shutdown_is_not_a_failure_of_a_required_node():
    processes, context = launched(required='true')
    context._set_is_shutdown(True)
    assert on_exit(processes[0], SimpleNamespace(process_name='node-1', returncode=-9), context) == []


@needs_launch
def test_unplayable_bag_fails_a_required_launch():
    failed = SimpleNamespace(process_name='ros2_bag_play-2', returncode=1)
    processes, context = launched(bag=BAG)
    assert on_exit(processes[1], failed, context) == []
    processes, context = launched(bag=BAG, required='true')
    with pytest.raises(RuntimeError, match='ros2_bag_play-2 ended with exit status 1'):
        on_exit(processes[1], failed, context)
    # The node keeps running after the bag.
    assert on_exit(processes[1], SimpleNamespace(process_name='ros2_bag_play-2', returncode=0), context) == []


def on_exit(process: Any, event: Any, context: Any) -> list[Any]:
    return process._ExecuteLocal__on_exit(event, context)


@needs_launch
def test_respawn_restarts_the_node(installed):
    process = subprocess.Popen(
        [sys.executable, '-c', LAUNCHER, str(LAUNCH_FILE), '', 'respawn:=true', 'namespace:=again'],
        env=installed,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        with Client() as client:

            def there() -> bool:
                return client.node.count_publishers('/again/segmentation/mask') == 1

            client.spin_until(there, 'the node')
            (first,) = children(process.pid)
            os.kill(first, signal.SIGKILL)
            client.spin_until(lambda: children(process.pid) not in ([], [first]), 'a second node')
            client.spin_until(there, 'its topics')
        process.send_signal(signal.SIGINT)
        assert process.wait(TIMEOUT) == 0
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


@needs_launch
@pytest.mark.parametrize('other', ['required', 'build_only'])
def test_respawn_contradicts_other_arguments(other):
    with pytest.raises(ValueError, match=f'^respawn and {other} are both true, expected one of them$'):
        launched(respawn='1', **{other: 'True'})


@needs_launch
@pytest.mark.parametrize('name', ['params_file', 'bag'])
def test_missing_file_is_an_error(installed, name):
    status, output = run_launch(installed, f'{name}:=/nowhere/mine')
    assert status == 1
    assert f'{name} /nowhere/mine: no such file' in output
    assert 'process started' not in output


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


def children(pid: int) -> list[int]:
    """Return the ids of the child processes of a process (Linux)."""
    return [int(child) for child in Path(f'/proc/{pid}/task/{pid}/children').read_text().split()]


def child_environment(pid: int) -> dict[str, str]:
    """Return the environment of the only child of a process (Linux)."""
    (child,) = children(pid)
    entries = Path(f'/proc/{child}/environ').read_bytes().decode().split('\0')
    return dict(entry.split('=', 1) for entry in entries if entry)


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


def launched(**given: str) -> tuple[list[Any], Any]:
    """Return the processes that the launch file starts with these arguments, and their context."""
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


def words(process: Any) -> list[str]:
    """Return the command in the launch file; launch adds the rest of a node's command at its start."""
    return [part.text for parts in process.cmd for part in parts if hasattr(part, 'text')]


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


def parameters_of(**given: str) -> dict[str, Any]:
    """Return the parameters that the node gets in addition to the parameter file."""
    from launch_ros.utilities import evaluate_parameters

    processes, context = launched(**given)
    _, *parameters = evaluate_parameters(context, processes[-1]._Node__parameters)
    return {name: value for table in parameters for name, value in table.items()}


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
def test_profile_is_set_for_our_processes_only(installed):
    names = ('FASTRTPS_DEFAULT_PROFILES_FILE', 'FASTDDS_DEFAULT_PROFILES_FILE')
    driver = f'import os; print("driver sees", [os.environ.get(name) for name in {names}])'
    _, output = run_launch(installed, 'model:=/nowhere.onnx', driver=driver)
    assert 'driver sees [None, None]' in output
    processes, _ = launched(bag=BAG, rviz='true')
    assert [bool(process.additional_env) for process in processes] == [False, True, True]


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
