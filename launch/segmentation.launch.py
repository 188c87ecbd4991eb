"""Starts the segmentation node: ros2 launch stdc_ros segmentation.launch.py image:=/camera/image_raw."""

from __future__ import annotations

import os
from pathlib import Path

from launch.actions import DeclareLaunchArgument, OpaqueFunction, SetEnvironmentVariable
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue

from launch import LaunchContext, LaunchDescription

# Beside this folder both in the repository and where the package is installed.
CONFIG = Path(__file__).resolve().parent.parent / 'config'

#: Where Fast DDS 2 (Humble to Jazzy) and 3 (Kilted and later) look for profiles. Other middlewares ignore both.
PROFILE_VARIABLES = ('FASTRTPS_DEFAULT_PROFILES_FILE', 'FASTDDS_DEFAULT_PROFILES_FILE')

ARGUMENTS = (
    DeclareLaunchArgument('image', default_value='image', description='Camera topic, sensor_msgs/msg/Image.'),
    DeclareLaunchArgument(
        'model',
        default_value='',
        description='Path of a model.onnx from `stdc export`; empty: as params_file says, which is the shipped model.',
    ),
    DeclareLaunchArgument(
        'params_file', default_value=str(CONFIG / 'segmentation.yaml'), description='YAML file of node parameters.'
    ),
    DeclareLaunchArgument('namespace', default_value='', description='Namespace of the node and its topics.'),
    DeclareLaunchArgument(
        'use_sim_time',
        default_value='false',
        choices=['true', 'false'],
        description='Take the time from /clock, as with `ros2 bag play --clock`.',
    ),
)


def start_node(context: LaunchContext) -> list[Node]:
    """The node. A function, because an empty ``model`` must not override the one in the parameter file."""
    given = {'use_sim_time': ParameterValue(LaunchConfiguration('use_sim_time'), value_type=bool)}
    if LaunchConfiguration('model').perform(context):
        given['model'] = ParameterValue(LaunchConfiguration('model'), value_type=str)
    node = Node(
        package='stdc_ros',
        executable='segmentation_node',
        name='segmentation',
        namespace=LaunchConfiguration('namespace'),
        parameters=[LaunchConfiguration('params_file'), given],
        remappings=[('image', LaunchConfiguration('image'))],
        output='screen',
    )
    return [node]


def generate_launch_description() -> LaunchDescription:
    """Arguments, the Fast DDS profile unless the user has one, and the node."""
    profile = []
    if not any(os.environ.get(name) for name in PROFILE_VARIABLES):
        profile = [SetEnvironmentVariable(name, str(CONFIG / 'fastdds.xml')) for name in PROFILE_VARIABLES]
    return LaunchDescription([*ARGUMENTS, *profile, OpaqueFunction(function=start_node)])
