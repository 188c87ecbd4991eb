# SPDX-License-Identifier: Apache-2.0
"""Launch the segmentation node: ros2 launch stdc_ros segmentation.launch.py image:=/camera/image_raw.

A larger launch file can include this one: it does not change the environment of other processes, and if the node dies,
everything else keeps running unless ``required`` is true. It imports only launch, launch_ros and rclpy, because ``ros2
launch`` may run in another Python environment than the node.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

from launch.actions import DeclareLaunchArgument, ExecuteProcess, OpaqueFunction, Shutdown
from launch.conditions import InvalidConditionExpressionError, evaluate_condition_expression
from launch.events.process import ProcessExited
from launch.substitutions import LaunchConfiguration, TextSubstitution
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue
from rclpy.exceptions import InvalidNamespaceException, InvalidNodeNameException, InvalidTopicNameException
from rclpy.validate_namespace import validate_namespace
from rclpy.validate_node_name import validate_node_name
from rclpy.validate_topic_name import validate_topic_name

from launch import LaunchContext, LaunchDescription

# Beside this folder both in the repository and where the package is installed.
CONFIG = Path(__file__).resolve().parent.parent / 'config'

#: Variables that name the profile file of Fast DDS 2 (Humble to Jazzy) and 3 (Kilted and later). Other middlewares
#: ignore both.
PROFILE_VARIABLES = ('FASTRTPS_DEFAULT_PROFILES_FILE', 'FASTDDS_DEFAULT_PROFILES_FILE')

#: Outputs that config/segmentation.rviz displays.
SHOWN = ('overlay', 'color_mask', 'drivable_grid')

#: Seconds before a node that died is started again.
RESPAWN_DELAY = 2.0

LOG_LEVELS = ('debug', 'info', 'warn', 'error', 'fatal')

#: Boolean arguments, without use_sim_time, which may also be empty.
FLAGS = ('build_only', 'lifecycle', 'respawn', 'required', 'rviz')

#: End of the description of an argument that sets a node parameter.
UNSET = 'Empty: the value in params_file'

ARGUMENTS = (
    DeclareLaunchArgument(
        'image',
        default_value='image',
        description='Camera topic (sensor_msgs/msg/Image). With `cameras`: topic name below each camera, such as '
        'image_raw.',
    ),
    DeclareLaunchArgument(
        'cameras',
        default_value='',
        description='Names of several cameras: "front left", "front,left" or "[front, left]". Their images are '
        'front/image and left/image. `image` and `rviz` do not know cameras that only params_file names.',
    ),
    DeclareLaunchArgument(
        'params_file', default_value=str(CONFIG / 'segmentation.yaml'), description='YAML file of node parameters.'
    ),
    DeclareLaunchArgument(
        'model',
        default_value='',
        description=f'Path of a model.onnx from `stdc export`. {UNSET}, which is the shipped model.',
    ),
    DeclareLaunchArgument(
        'input_scale',
        default_value='',
        description='Scale of the images that the network sees, above 0 and at most 4; 0: automatic. '
        f'{UNSET}, which is 0.',
    ),
    DeclareLaunchArgument(
        'output_size',
        default_value='',
        description=f'Size of the outputs: input, network, or WIDTHxHEIGHT. {UNSET}, which is input.',
    ),
    DeclareLaunchArgument(
        'image_transport',
        default_value='',
        choices=['', 'raw', 'compressed'],
        description=f'Transport of the camera images. {UNSET}, which is raw.',
    ),
    DeclareLaunchArgument(
        'backend',
        default_value='',
        choices=['', 'auto', 'onnxruntime', 'onnxruntime_cuda', 'openvino', 'tensorrt', 'tensorrt_rtx'],
        description=f'Inference backend. {UNSET}, which is auto.',
    ),
    DeclareLaunchArgument(
        'precision',
        default_value='',
        choices=['', 'auto', 'fp32', 'bf16', 'fp16', 'int8'],
        description=f'Precision of the network. {UNSET}, which is auto.',
    ),
    DeclareLaunchArgument(
        'build_only',
        default_value='false',
        description='true or false: build the TensorRT engine for image_size and end. The launch fails if the build '
        'does.',
    ),
    DeclareLaunchArgument(
        'image_size', default_value='', description='Size of the images that build_only builds for, WIDTHxHEIGHT.'
    ),
    DeclareLaunchArgument('node_name', default_value='segmentation', description='Name of the node.'),
    DeclareLaunchArgument('namespace', default_value='', description='Namespace of the node and its topics.'),
    DeclareLaunchArgument(
        'use_sim_time',
        default_value='',
        description='true or false: take the time from /clock. Empty: true with `bag`, else the value in params_file.',
    ),
    DeclareLaunchArgument(
        'log_level', default_value='info', description=f'Log level of the node: {", ".join(LOG_LEVELS)}.'
    ),
    DeclareLaunchArgument(
        'lifecycle',
        default_value='false',
        description='true or false: run the managed node, which `ros2 lifecycle` or a lifecycle manager activates.',
    ),
    DeclareLaunchArgument(
        'respawn', default_value='false', description='true or false: start the node again when it dies.'
    ),
    DeclareLaunchArgument(
        'required',
        default_value='false',
        description='true or false: end the whole launch when the node ends, with exit status 1 if the node failed.',
    ),
    DeclareLaunchArgument(
        'bag',
        default_value='',
        description='Bag to play once with --clock, without results of this node that it holds. Its image topic is '
        '`image`.',
    ),
    DeclareLaunchArgument(
        'points',
        default_value='',
        description='Topic of point clouds (sensor_msgs/msg/PointCloud2), which are painted on ~/points. Empty: the '
        'value in params_file, which is none.',
    ),
    DeclareLaunchArgument(
        'rviz', default_value='false', description='true or false: show overlay and class colours in rviz2.'
    ),
)


def start(context: LaunchContext) -> list[ExecuteProcess]:
    """Return the processes to start.

    A function, because an empty argument must not override the parameter file.

    Raises:
        FileNotFoundError: The params_file or bag does not exist. ROS would ignore that.
        ValueError: An argument has a value that the node, launch or ROS does not accept.
    """
    given = {name: LaunchConfiguration(name).perform(context) for name in (a.name for a in ARGUMENTS)}
    flags = {name: _flag(context, name, given[name]) for name in FLAGS}
    for name in ('params_file', 'model', 'bag'):
        given[name] = os.path.expanduser(given[name])
    cameras = _cameras(given['cameras'])
    _check(given, cameras)
    if flags['respawn'] and (flags['required'] or flags['build_only']):
        other = 'required' if flags['required'] else 'build_only'
        raise ValueError(f'respawn and {other} are both true, expected one of them')
    if flags['lifecycle'] and flags['build_only']:
        raise ValueError('lifecycle and build_only are both true, expected one of them')
    use_sim_time = given['use_sim_time'] or ('true' if given['bag'] else '')
    sim_time = [{'use_sim_time': _flag(context, 'use_sim_time', use_sim_time)}] if use_sim_time else []
    profile = _profile(context)
    # rviz2 first: if it is not installed, launch fails here, and would leave processes behind that it has started.
    processes: list[ExecuteProcess] = [_rviz(given, cameras, sim_time)] if flags['rviz'] else []
    processes.append(_node(given, cameras, flags, sim_time, profile))
    if given['bag']:
        play = ExecuteProcess(
            cmd=_play_command(given['bag'], given['node_name']),
            name='ros2_bag_play',
            output='screen',
            additional_env=profile,
            on_exit=_on_exit(required=flags['required'], may_end=True),
        )
        processes.append(play)
    return processes


def _node(
    given: dict[str, str], cameras: list[str], flags: dict[str, bool], sim_time: list[dict], profile: dict[str, str]
) -> Node:
    strings = ('model', 'output_size', 'image_transport', 'backend', 'precision', 'image_size')
    parameters: dict = {name: ParameterValue(given[name], value_type=str) for name in strings if given[name]}
    if given['input_scale']:
        parameters['input_scale'] = _number('input_scale', given['input_scale'])
    if flags['build_only']:
        parameters['build_only'] = True
    if cameras:
        parameters['cameras'] = cameras
    remappings = [(f'{camera}/image', f'{camera}/{given["image"]}') for camera in cameras]
    remappings = remappings or [('image', given['image'])]
    if given['points']:
        parameters['points'] = True
        remappings.append(('points', given['points']))
    return Node(
        package='stdc_ros',
        executable='segmentation_node',
        name=given['node_name'],
        namespace=given['namespace'],
        parameters=[given['params_file'], parameters, *sim_time],
        remappings=remappings,
        arguments=['--lifecycle'] if flags['lifecycle'] else [],
        ros_arguments=['--log-level', given['log_level'].lower()],
        additional_env=profile,
        output='screen',
        respawn=flags['respawn'],
        respawn_delay=RESPAWN_DELAY,
        on_exit=_on_exit(flags['required'] or flags['build_only'], may_end=flags['build_only']),
    )


def _on_exit(required: bool, may_end: bool) -> Callable[[ProcessExited, LaunchContext], list[Shutdown]]:
    """Return the function that launch calls when a process has ended. Launch itself logs that the process died.

    Args:
        required: Whether a failure of the process ends the launch with exit status 1.
        may_end: Whether the launch keeps running when a required process has ended without failure.
    """

    def on_exit(event: ProcessExited, context: LaunchContext) -> list[Shutdown]:
        if not required or context.is_shutdown:
            return []
        reason = f'{event.process_name} ended with exit status {event.returncode}'
        if event.returncode:
            # Only an exception makes `ros2 launch` fail: after a Shutdown it exits with status 0.
            raise RuntimeError(reason)
        return [] if may_end else [Shutdown(reason=reason)]

    return on_exit


def _play_command(bag: str, node_name: str) -> list[str]:
    # The node takes about a second to start and would miss the beginning of the bag.
    command = ['ros2', 'bag', 'play', '--clock', '100', '--delay', '3', bag]
    if os.environ.get('ROS_DISTRO') != 'humble':  # Its `ros2 bag play` cannot leave topics out.
        command += ['--exclude-regex', rf'.*/{node_name}/[^/]+(/compressed)?']
    return command


def _rviz(given: dict[str, str], cameras: list[str], sim_time: list[dict]) -> Node:
    """Return rviz2 in the namespace of the node, showing the outputs of the node or of its first camera."""
    # Relative names, so that a namespace which an including launch file pushes holds for them, too.
    base = '/'.join([*cameras[:1], given['node_name']])
    return Node(
        package='rviz2',
        executable='rviz2',
        namespace=given['namespace'],
        arguments=['-d', str(CONFIG / 'segmentation.rviz')],
        parameters=sim_time,
        remappings=[
            *((f'/segmentation/{name}', f'{base}/{name}') for name in SHOWN),
            ('/segmentation/points', f'{given["node_name"]}/points'),  # of all cameras
        ],
        output='screen',
    )


def _profile(context: LaunchContext) -> dict[str, str]:
    """Return the environment variables for our Fast DDS profile, or for the user's own."""
    own = [path for path in map(context.environment.get, PROFILE_VARIABLES) if path]
    path = own[0] if own else str(CONFIG / 'fastdds.xml')
    return {name: context.environment.get(name) or path for name in PROFILE_VARIABLES}


def _check(given: dict[str, str], cameras: list[str]) -> None:
    if not Path(given['params_file']).is_file():
        raise FileNotFoundError(f'params_file {given["params_file"]}: no such file')
    if given['bag'] and not Path(given['bag']).exists():
        raise FileNotFoundError(f'bag {given["bag"]}: no such file or folder')
    if cameras and given['image'].startswith('/'):
        raise ValueError(f'image is {given["image"]}, expected a name below each camera: {", ".join(cameras)}')
    if given['log_level'].lower() not in LOG_LEVELS:
        raise ValueError(f'log_level is {given["log_level"]}, expected one of {", ".join(LOG_LEVELS)}')
    namespace = given['namespace']
    for name in ('image', 'points'):
        try:
            validate_topic_name(given[name] or name)
        except InvalidTopicNameException as error:
            raise ValueError(f'{name} is {given[name]!r}, expected a topic name: {_first_line(error)}') from error
    try:
        validate_node_name(given['node_name'])
        if namespace.strip('/'):
            validate_namespace(namespace if namespace.startswith('/') else f'/{namespace}')
    except InvalidNodeNameException as error:
        raise ValueError(f'node_name is {given["node_name"]!r}, expected a node name: {_first_line(error)}') from error
    except InvalidNamespaceException as error:
        raise ValueError(f'namespace is {namespace!r}, expected a namespace: {_first_line(error)}') from error


def _first_line(error: Exception) -> str:
    """Return why rclpy refuses a name, without the following lines that point to the character."""
    return str(error).splitlines()[0].rstrip(':')


def _cameras(text: str) -> list[str]:
    """Return the names in "front left", "front,left" or "[front, 'left']"."""
    names = [name.strip('\'"') for name in re.split(r'[,\s]+', text.strip().removeprefix('[').removesuffix(']'))]
    names = [name for name in names if name]
    # The same rule as for the parameter `cameras` of the node: a name is one level of a topic.
    for name in names:
        if not re.fullmatch(r'[A-Za-z][A-Za-z0-9_]*', name):
            raise ValueError(f'cameras is {text}: {name!r} is not a camera name, expected letters, digits and _')
    if len(set(names)) < len(names):
        raise ValueError(f'cameras is {text}, expected names that differ')
    return names


def _flag(context: LaunchContext, name: str, text: str) -> bool:
    """Return whether an argument is true, in any spelling that launch conditions accept."""
    try:
        return evaluate_condition_expression(context, [TextSubstitution(text=text)])
    except InvalidConditionExpressionError as error:
        raise ValueError(f'{name} is {text}, expected true or false') from error


def _number(name: str, text: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise ValueError(f'{name} is {text}, expected a number such as 0.5') from error


def generate_launch_description() -> LaunchDescription:
    """Return the arguments and the processes."""
    return LaunchDescription([*ARGUMENTS, OpaqueFunction(function=start)])
