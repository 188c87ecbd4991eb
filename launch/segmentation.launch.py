# SPDX-License-Identifier: Apache-2.0
"""Starts the segmentation node: ros2 launch stdc_ros segmentation.launch.py image:=/camera/image_raw."""

from __future__ import annotations

import os
from pathlib import Path

from launch.actions import DeclareLaunchArgument, EmitEvent, ExecuteProcess, OpaqueFunction, SetEnvironmentVariable
from launch.events import Shutdown
from launch.events.process import ProcessExited
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue

from launch import LaunchContext, LaunchDescription

# Beside this folder both in the repository and where the package is installed.
CONFIG = Path(__file__).resolve().parent.parent / 'config'

#: Where Fast DDS 2 (Humble to Jazzy) and 3 (Kilted and later) look for profiles. Other middlewares ignore both.
PROFILE_VARIABLES = ('FASTRTPS_DEFAULT_PROFILES_FILE', 'FASTDDS_DEFAULT_PROFILES_FILE')

#: What rviz2 shows.
SHOWN = ('overlay', 'color_mask', 'drivable_grid')

ARGUMENTS = (
    DeclareLaunchArgument(
        'image',
        default_value='image',
        description='Camera topic, sensor_msgs/msg/Image; with `cameras`, below the name of each, such as image_raw.',
    ),
    DeclareLaunchArgument(
        'cameras',
        default_value='',
        description='Several cameras, such as "front left": their images are front/image and left/image. If they are '
        'in params_file alone, `image` and `rviz` do not know of them.',
    ),
    DeclareLaunchArgument(
        'params_file', default_value=str(CONFIG / 'segmentation.yaml'), description='YAML file of node parameters.'
    ),
    DeclareLaunchArgument(
        'model',
        default_value='',
        description='Path of a model.onnx from `stdc export`; empty: as params_file says, which is the shipped model.',
    ),
    DeclareLaunchArgument(
        'input_scale',
        default_value='',
        description='Scale at which the network sees the images; empty: as params_file says, which is '
        "the model's own, and less for larger images than in its training.",
    ),
    DeclareLaunchArgument(
        'backend',
        default_value='',
        choices=['', 'auto', 'onnxruntime', 'openvino', 'tensorrt'],
        description='What computes; empty: as params_file says.',
    ),
    DeclareLaunchArgument(
        'precision',
        default_value='',
        choices=['', 'auto', 'fp32', 'fp16', 'int8'],
        description='Of tensorrt; empty: as params_file says.',
    ),
    DeclareLaunchArgument(
        'build_only',
        default_value='false',
        choices=['true', 'false'],
        description='Build the engine of tensorrt for images of image_size, and end.',
    ),
    DeclareLaunchArgument(
        'image_size', default_value='', description='WIDTHxHEIGHT of the images that build_only builds for.'
    ),
    DeclareLaunchArgument('namespace', default_value='', description='Namespace of the node and its topics.'),
    DeclareLaunchArgument(
        'use_sim_time',
        default_value='',
        choices=['', 'true', 'false'],
        description='Take the time from /clock; empty: with `bag`, else as params_file says.',
    ),
    DeclareLaunchArgument(
        'bag', default_value='', description='Bag to play with --clock, once; its image topic is `image`.'
    ),
    DeclareLaunchArgument(
        'rviz', default_value='false', choices=['true', 'false'], description='Watch overlay and colours in rviz2.'
    ),
)


def start(context: LaunchContext) -> list[ExecuteProcess]:
    """The processes. A function, because an empty argument must not override what the parameter file says.

    Raises:
        FileNotFoundError: there is no such params_file or bag. ROS would go on without.
        ValueError: several cameras, and one topic for all; an input_scale that is no number.
    """
    given = {name: LaunchConfiguration(name).perform(context) for name in (a.name for a in ARGUMENTS)}
    if not Path(given['params_file']).is_file():
        raise FileNotFoundError(f'params_file {given["params_file"]}: no such file')
    if given['bag'] and not Path(given['bag']).exists():
        raise FileNotFoundError(f'bag {given["bag"]}: no such file or folder')
    if given['cameras'].split() and given['image'].startswith('/'):
        raise ValueError(f'image is {given["image"]}, expected a name below that of each camera: {given["cameras"]}')
    # rviz2 first: where it is not installed, launch ends there, and would leave what it has started behind.
    processes: list[ExecuteProcess] = [_rviz(given)] if given['rviz'] == 'true' else []
    processes.append(_node(given))
    if given['bag']:
        # The node is there after a second or so, and would miss the beginning.
        play = ['ros2', 'bag', 'play', '--clock', '100', '--delay', '3', given['bag']]
        processes.append(ExecuteProcess(cmd=play, name='ros2_bag_play', output='screen', on_exit=_end_if_failed))
    return processes


def _end_if_failed(event: ProcessExited, _: LaunchContext) -> list[EmitEvent]:
    """Without the node, or a bag that can be played, there is nothing to wait for; after the bag the node goes on."""
    reason = f'{event.process_name} ended with exit status {event.returncode}'
    return [EmitEvent(event=Shutdown(reason=reason))] if event.returncode else []


def _node(given: dict[str, str]) -> Node:
    parameters: dict = {
        name: ParameterValue(given[name], value_type=str)
        for name in ('model', 'backend', 'precision', 'image_size')
        if given[name]
    }
    if given['input_scale']:
        parameters['input_scale'] = _scale(given['input_scale'])
    if given['build_only'] == 'true':
        parameters['build_only'] = True
    cameras = given['cameras'].split()
    if cameras:
        parameters['cameras'] = cameras
    return Node(
        package='stdc_ros',
        executable='segmentation_node',
        name='segmentation',
        namespace=given['namespace'],
        parameters=[given['params_file'], parameters, *_sim_time(given)],
        remappings=[(f'{camera}/image', f'{camera}/{given["image"]}') for camera in cameras]
        or [('image', given['image'])],
        output='screen',
        on_exit=_end_if_failed,
    )


def _scale(text: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise ValueError(f'input_scale is {text}, expected a number such as 0.5') from error


def _sim_time(given: dict[str, str]) -> list[dict[str, bool]]:
    """The parameter ``use_sim_time``, if it is given or follows from the bag."""
    told = given['use_sim_time'] or ('true' if given['bag'] else '')
    return [{'use_sim_time': told == 'true'}] if told else []


def _rviz(given: dict[str, str]) -> Node:
    """rviz2 on the outputs of the node, or of its first camera."""
    parts = [given['namespace'].strip('/'), *given['cameras'].split()[:1], 'segmentation']
    base = ''.join(f'/{part}' for part in parts if part)
    return Node(
        package='rviz2',
        executable='rviz2',
        arguments=['-d', str(CONFIG / 'segmentation.rviz')],
        parameters=_sim_time(given),
        remappings=[(f'/segmentation/{name}', f'{base}/{name}') for name in SHOWN],
    )


def generate_launch_description() -> LaunchDescription:
    """Arguments, the Fast DDS profile, the user's where there is one, and the processes."""
    given = [path for path in map(os.environ.get, PROFILE_VARIABLES) if path]
    # Each version looks at one of them.
    path = given[0] if given else str(CONFIG / 'fastdds.xml')
    profile = [SetEnvironmentVariable(name, path) for name in PROFILE_VARIABLES if not os.environ.get(name)]
    return LaunchDescription([*ARGUMENTS, *profile, OpaqueFunction(function=start)])
