# SPDX-License-Identifier: Apache-2.0
"""Test the SROS 2 policy against the running node, and that user input is never executed."""

from __future__ import annotations

import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

import onnx
import pytest
import yaml
from conftest import REPOSITORY
from launch_helpers import LAUNCH_FILE, LAUNCHER, needs_launch
from onnx.external_data_helper import set_external_data
from rclpy.node import NodeNameNonExistentError
from ros_helpers import TIMEOUT, Client, NodeProcess
from sensor_msgs.msg import CameraInfo, PointCloud2

from stdc_core.inference import DEFAULT_MODEL, Segmenter
from stdc_core.inference.model_file import ModelError

POLICY = REPOSITORY / 'config' / 'sros2' / 'segmentation.policy.xml'

#: Query of rclpy by kind of permission in SROS 2, which finds the names that a node uses.
KINDS = {
    ('topics', 'publish'): 'get_publisher_names_and_types_by_node',
    ('topics', 'subscribe'): 'get_subscriber_names_and_types_by_node',
    ('services', 'reply'): 'get_service_names_and_types_by_node',
    ('services', 'request'): 'get_client_names_and_types_by_node',
}


#: Names that would run a command in a shell.
NASTY = ('$(touch made).onnx', '; touch made', '`touch made`', 'a\ntouch made', '| touch made')

#: Executable that writes its arguments to a file beside itself, each followed by a zero byte.
RECORDER = """#!/bin/sh
printf '%s\\0' "$@" > "$0.arguments.part"
mv "$0.arguments.part" "$0.arguments"
"""


def allowed(enclave: str) -> dict[tuple[str, str], set[str]]:
    """Return the full names that the policy allows, by kind."""
    found: dict[tuple[str, str], set[str]] = {kind: set() for kind in KINDS}
    (profile,) = ElementTree.parse(POLICY).getroot().findall(f"enclaves/enclave[@path='{enclave}']/profiles/profile")
    start, node = profile.get('ns'), profile.get('node')
    for group in profile:
        for way in group.attrib:
            assert group.get(way) == 'ALLOW'
            names = found[group.tag, way]
            for name in (element.text for element in group):
                full = name.replace('~', f'{start}{node}', 1) if name.startswith('~') else name
                full = full if full.startswith('/') else start + full
                assert full not in names, f'{full} is there twice'
                names.add(full)
    return found


def used(*arguments: str, cameras: tuple[str, ...] = ('',), managed: bool = False) -> dict[tuple[str, str], set[str]]:
    """Return the full names that a node uses while somebody listens to its outputs, by kind.

    Args:
        arguments: Arguments after ``--ros-args``.
        cameras: Names of the cameras.
        managed: Whether the node runs with ``--lifecycle``, activated.
    """
    if cameras != ('',):
        arguments = (*arguments, '-p', f'cameras:=[{", ".join(cameras)}]')
    with Client() as client, NodeProcess(*arguments, options=['--lifecycle'] if managed else []) as node:
        if managed:
            client.activate()
        client.node.create_subscription(PointCloud2, 'segmentation/points', lambda _: None, 1)
        for camera in cameras:
            client.node.create_subscription(CameraInfo, f'{camera}/segmentation/camera_info', lambda _: None, 1)

        def names(kind: tuple[str, str]) -> set[str]:
            try:
                return {name for name, _ in getattr(client.node, KINDS[kind])('segmentation', '/')}
            except NodeNameNonExistentError:  # not discovered yet
                return set()

        node.wait_for_output(' -> ')  # the last log line of its start
        # The node subscribes to the image first, then to its CameraInfo.
        wanted = {f'/{camera}/camera_info'.replace('//', '/') for camera in cameras}
        client.spin_until(lambda: wanted <= names(('topics', 'subscribe')), f'the node subscribes to {wanted}')
        before, found = None, {}
        while found != before:  # until nothing new is discovered
            client.spin(0.5)
            before, found = found, {kind: names(kind) for kind in KINDS}
        return found


@pytest.mark.parametrize(
    ('enclave', 'cameras'), [('/segmentation', ('',)), ('/segmentation_cameras', ('front', 'left'))]
)
def test_policy_matches_the_running_node(enclave, cameras):
    poses = ', '.join(['0.0'] * 6 * len(cameras))
    settings = ('-p', 'use_sim_time:=true', '-p', 'drivable_grid:=true', '-p', f'grid_camera_pose:=[{poses}]')
    settings += ('-p', 'points:=true')
    found = used(*settings, cameras=cameras)
    compressed = used('-p', 'image_transport:=compressed', cameras=cameras, managed=True)
    found = {kind: found[kind] | compressed[kind] for kind in KINDS}
    policy = allowed(enclave)
    for kind in KINDS:
        assert found[kind] <= policy[kind], kind
        # Names that exist since Jazzy, and names of packages that are not on PyPI.
        unseen = {name for name in policy[kind] - found[kind] if not name.endswith('/get_type_description')}
        assert unseen <= {'/tf', '/tf_static', *(name for name in unseen if name.endswith('/label_info'))}, kind


def test_node_without_keys_ends_if_security_is_enforced(tmp_path, monkeypatch):
    """The node does not fall back to unencrypted communication."""
    monkeypatch.setenv('ROS_SECURITY_ENABLE', 'true')
    monkeypatch.setenv('ROS_SECURITY_STRATEGY', 'Enforce')
    monkeypatch.setenv('ROS_SECURITY_KEYSTORE', str(tmp_path))
    with NodeProcess('--enclave', '/segmentation') as node:
        assert node.wait() == 1
        (line,) = node.output.strip().splitlines()
        assert str(tmp_path) in line and 'SECURITY' in line


@pytest.mark.parametrize('location', ['../secret.bin', '/etc/hostname', 'weights.bin'])
def test_model_reads_no_other_file(tmp_path, location):
    model = onnx.load(DEFAULT_MODEL)
    tensor = model.graph.initializer[0]
    set_external_data(tensor, location)
    tensor.ClearField('raw_data')
    path = tmp_path / 'model.onnx'
    path.write_bytes(model.SerializeToString())
    for file in (tmp_path / 'weights.bin', tmp_path.parent / 'secret.bin'):
        file.write_bytes(bytes(10**6))
    with pytest.raises(ModelError, match='in another file; expected one file'):
        Segmenter.load(path)


@pytest.mark.parametrize(
    'name', ['$(touch made).onnx', '; touch made', '`touch made`', 'a\ntouch made', '| touch made']
)
def test_model_path_is_not_interpreted(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    parameters = tmp_path / 'parameters.yaml'
    parameters.write_text(yaml.safe_dump({'/**': {'ros__parameters': {'model': name}}}))
    with NodeProcess('--params-file', str(parameters)) as node:
        assert node.wait() == 1
        (line,) = node.output.strip().splitlines()
        assert ' '.join(name.split()) in line and 'no such model file' in line
    assert [path.name for path in tmp_path.iterdir()] == ['parameters.yaml']


@needs_launch
@pytest.mark.parametrize('name', NASTY)
def test_launch_arguments_reach_the_programs_unchanged(tmp_path, name):
    """No shell interprets them: bag and model are one argument each. An image topic must be a valid name."""
    (tmp_path / 'share/ament_index/resource_index/packages').mkdir(parents=True)
    (tmp_path / 'share/ament_index/resource_index/packages/stdc_ros').touch()
    node, ros2 = tmp_path / 'lib/stdc_ros/segmentation_node', tmp_path / 'bin/ros2'
    for program in (node, ros2):
        program.parent.mkdir(parents=True)
        program.write_text(RECORDER)
        program.chmod(0o755)
    environment = {
        **os.environ,
        'PATH': f'{ros2.parent}:{os.environ["PATH"]}',
        'AMENT_PREFIX_PATH': f'{tmp_path}:{os.environ.get("AMENT_PREFIX_PATH", "")}',
    }
    (tmp_path / name).touch()  # a missing bag is an error

    def launch(*arguments: str) -> int:
        command = [sys.executable, '-c', LAUNCHER, str(LAUNCH_FILE), '', *arguments]
        return subprocess.run(command, cwd=tmp_path, env=environment, timeout=TIMEOUT).returncode

    assert launch(f'image:={name}') == 1
    assert not Path(f'{node}.arguments').exists()
    assert launch(f'bag:={name}', f'model:={name}') == 0
    assert recorded(ros2)[:7] == ['bag', 'play', '--clock', '100', '--delay', '3', name]
    files = [value for flag, value in pairwise(recorded(node)) if flag == '--params-file']
    # The parameter files of the user and of launch. The latter are deleted by now; test_launch.py checks their content.
    assert len(files) == 3
    assert not list(tmp_path.rglob('made'))


def recorded(program: Path) -> list[str]:
    """Return the arguments that an executable was called with."""
    return Path(f'{program}.arguments').read_text().split('\0')[:-1]
