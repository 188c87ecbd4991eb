# SPDX-License-Identifier: Apache-2.0
"""Test the launch file with real processes."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from launch_helpers import (
    BAG,
    LAUNCH_FILE,
    LAUNCHER,
    ROOT,
    TIMEOUT,
    launched,
    needs_launch,
    on_exit,
)
from ros_helpers import Client
from sensor_msgs.msg import Image

import stdc_ros


def test_launch_file_executes_no_other_code():
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


#: Driver of a robot, which ends by itself after some seconds unless the launch ends first.
DRIVER = "import time; print('driver starts', flush=True); time.sleep({seconds}); print('driver is done', flush=True)"

#: Ends a moment after the other process of the launch, however long that one takes.
PATIENT_DRIVER = """
import os, time
from pathlib import Path
launch = os.getppid()
others = lambda: len(Path(f'/proc/{launch}/task/{launch}/children').read_text().split()) - 1
print('driver starts', flush=True)
while not others():
    time.sleep(0.02)
while others():
    time.sleep(0.02)
time.sleep(2)
print('driver is done', flush=True)
"""


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
                client.spin_until(lambda: bool(received) or camera.publish(image) or client.spin(0.2), 'an overlay')
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
    status, output = run_launch(installed, 'model:=/nowhere.onnx', driver=PATIENT_DRIVER)
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
@pytest.mark.parametrize('name', ['params_file', 'bag'])
def test_missing_file_is_an_error(installed, name):
    status, output = run_launch(installed, f'{name}:=/nowhere/mine')
    assert status == 1
    assert f'{name} /nowhere/mine: no such file' in output
    assert 'process started' not in output


def children(pid: int) -> list[int]:
    """Return the ids of the child processes of a process (Linux)."""
    return [int(child) for child in Path(f'/proc/{pid}/task/{pid}/children').read_text().split()]


def child_environment(pid: int) -> dict[str, str]:
    """Return the environment of the only child of a process (Linux)."""
    (child,) = children(pid)
    entries = Path(f'/proc/{child}/environ').read_bytes().decode().split('\0')
    return dict(entry.split('=', 1) for entry in entries if entry)


@needs_launch
def test_profile_is_set_for_our_processes_only(installed):
    names = ('FASTRTPS_DEFAULT_PROFILES_FILE', 'FASTDDS_DEFAULT_PROFILES_FILE')
    driver = f'import os; print("driver sees", [os.environ.get(name) for name in {names}])'
    _, output = run_launch(installed, 'model:=/nowhere.onnx', driver=driver)
    assert 'driver sees [None, None]' in output
    processes, _ = launched(bag=BAG, rviz='true')
    assert [bool(process.additional_env) for process in processes] == [False, True, True]
