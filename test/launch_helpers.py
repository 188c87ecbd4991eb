# SPDX-License-Identifier: Apache-2.0
"""Run the launch file, and read what it starts, in tests."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent
LAUNCH_FILE = ROOT / 'launch' / 'segmentation.launch.py'
TIMEOUT = 60.0

#: Any existing folder; it is not played.
BAG = str(ROOT / 'test' / 'data')

# Not find_spec('launch'), which finds the folder launch/ of this repository if the package is not installed.
needs_launch = pytest.mark.skipif(
    find_spec('launch_ros') is None, reason='launch and launch_ros come with ROS 2 and are not on PyPI'
)


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


def on_exit(process: Any, event: Any, context: Any) -> list[Any]:
    return process._ExecuteLocal__on_exit(event, context)


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


def parameters_of(**given: str) -> dict[str, Any]:
    """Return the parameters that the node gets in addition to the parameter file."""
    from launch_ros.utilities import evaluate_parameters

    processes, context = launched(**given)
    _, *parameters = evaluate_parameters(context, processes[-1]._Node__parameters)
    return {name: value for table in parameters for name, value in table.items()}
