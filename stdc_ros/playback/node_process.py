# SPDX-License-Identifier: Apache-2.0
"""Start the segmentation node as a separate process, and a ROS 2 node to talk to it from this one.

Used by the demo, the soak and the benchmarks.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import rclpy
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions

import stdc_ros
from stdc_core.inference import DEFAULT_MODEL
from stdc_ros.playback.isolation import isolated_environment, profile_variable

#: Seconds to wait for the node to end before it is killed.
STOP_TIMEOUT = 10.0

#: Number of lines of the node's log that an error shows.
LOG_LINES = 15


class NodeProcessError(RuntimeError):
    """The segmentation node ended or does not answer; the message tells the user why."""


class NodeProcess:
    """Running segmentation node.

    Args:
        process: Process of the node.
        log: File that receives its output.

    Attributes:
        pid: Process id.
    """

    def __init__(self, process: subprocess.Popen, log: Path):
        self.pid = process.pid
        self._process = process
        self._log = log

    def error(self, problem: str) -> NodeProcessError:
        """Return an error about the node, with the end of its log."""
        lines = self._log.read_text(errors='replace').splitlines()[-LOG_LINES:]
        return NodeProcessError('\n  '.join([f'{problem}. The end of its log:', *lines]))

    def status(self) -> str:
        """Return the content of ``/proc/PID/status`` (Linux)."""
        return Path(f'/proc/{self.pid}/status').read_text()

    def check(self) -> None:
        """Check that the node is running.

        Raises:
            NodeProcessError: The node has ended.
        """
        if self._process.poll() is not None:
            raise self.error(f'the segmentation node ended with status {self._process.returncode}')


@contextmanager
def node_process(
    model: Path, camera: str, log: Path, input_scale: float = 0.0, arguments: Sequence[str] = ()
) -> Iterator[NodeProcess]:
    """Run the segmentation node in a process that ends with the block, also after an exception.

    Args:
        model: Path of the model file.
        camera: Image topic.
        log: File for the output of the node.
        input_scale: Parameter ``input_scale``; 0 for the default.
        arguments: More ROS arguments, such as ``'-p', 'threads:=1'``.
    """
    command = [sys.executable, '-m', 'stdc_ros.node.main', '--ros-args', '-r', f'image:={camera}', *arguments]
    if model != DEFAULT_MODEL:
        command += ['-p', f'model:={model.resolve()}']
    if input_scale:
        command += ['-p', f'input_scale:={input_scale}']
    python_path = [str(Path(stdc_ros.__file__).parent.parent), os.environ.get('PYTHONPATH', '')]
    environment = {**os.environ, 'PYTHONPATH': os.pathsep.join(filter(None, python_path))}
    with log.open('wb') as file:
        # In a new session, so that Ctrl-C reaches only this process.
        process = subprocess.Popen(
            command, stdout=file, stderr=subprocess.STDOUT, env=environment, start_new_session=True
        )
        try:
            yield NodeProcess(process, log)
        finally:
            process.terminate()
            try:
                process.wait(STOP_TIMEOUT)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@contextmanager
def ros_node(name: str) -> Iterator[Node]:
    """Make a ROS 2 node that a background thread spins, isolated from all other ROS 2 systems.

    Args:
        name: Name of the node.
    """
    os.environ.update(isolated_environment())
    os.environ.setdefault(profile_variable(), str(fast_dds_profile()))
    rclpy.init(args=[], signal_handler_options=SignalHandlerOptions.NO)
    node = Node(name)
    executor = SingleThreadedExecutor()
    executor.add_node(node)

    def spin() -> None:
        with suppress(ExternalShutdownException):
            executor.spin()

    thread = threading.Thread(target=spin, daemon=True)
    thread.start()
    try:
        yield node
    finally:
        executor.shutdown()
        thread.join()
        node.destroy_node()
        rclpy.try_shutdown()


def fast_dds_profile() -> Path:
    """Return the path of ``config/fastdds.xml``: in the repository, or where the package is installed.

    Raises:
        FileNotFoundError: The file is in neither place.
    """
    repository = Path(stdc_ros.__file__).parent.parent
    prefixes = [*os.environ.get('AMENT_PREFIX_PATH', '').split(os.pathsep), sys.prefix]
    folders = [repository / 'config', *(Path(prefix) / 'share/stdc_ros/config' for prefix in prefixes if prefix)]
    for folder in folders:
        if (folder / 'fastdds.xml').is_file():
            return folder / 'fastdds.xml'
    raise FileNotFoundError(
        f'no fastdds.xml in {", ".join(map(str, folders))}; install the package, or source its install/setup.bash'
    )
