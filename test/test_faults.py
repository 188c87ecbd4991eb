# SPDX-License-Identifier: Apache-2.0
"""Test that the node recovers within 5 s when cameras or listeners die, clocks jump or memory runs out."""

from __future__ import annotations

import os
import re
import resource
import signal
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import pytest
import soak
from builtin_interfaces.msg import Time
from conftest import REPOSITORY
from ros_helpers import CONFIG, Client, NodeProcess
from rosgraph_msgs.msg import Clock
from scenes import message_of, pixels, scene
from sensor_msgs.msg import Image

from stdc_core.inference import Segmenter
from stdc_ros.playback.isolation import profile_variable

# Promised recovery time in seconds, on an idle machine.
RECOVERY = 5.0

IMAGE, MASK = '/left/image', '/left/segmentation/mask'


def stamps(client: Client) -> list[int]:
    """Return the stamps of the received masks in nanoseconds."""
    return [message.header.stamp.sec * 10**9 + message.header.stamp.nanosec for message in client.received['mask']]


def wait_for_masks(client: Client, count: int = 5) -> None:
    wanted = len(client.received['mask']) + count
    client.spin_until(lambda: len(client.received['mask']) >= wanted, f'{count} more masks')


def own_memory(pid: int) -> float:
    """Return the memory of a process in MB, without shared memory."""
    return soak.look(pid, 0.0).memory


@pytest.fixture
def short_lease(tmp_path, monkeypatch):
    """Let other processes count as dead after 2 s of silence instead of 20 s, for processes started from now on."""
    profile = (CONFIG / 'fastdds.xml').read_text()
    at = '<leaseAnnouncement>'
    assert profile.count(at) == 1
    path = tmp_path / 'fastdds.xml'
    path.write_text(profile.replace(at, f'<leaseDuration><sec>2</sec></leaseDuration>{at}'))
    monkeypatch.setenv(profile_variable(), str(path))


def test_camera_dies_and_comes_back():
    with NodeProcess('-p', 'stale_after:=0.5', namespace='/left') as process, Client('/left') as client:
        client.listen('mask')
        with soak.camera_process(IMAGE, (96, 128), 10) as camera:
            wait_for_masks(client)
            camera.send_signal(signal.SIGKILL)
            camera.wait()
        client.spin(1.0)
        died, count = time.time_ns(), len(client.received['mask'])
        client.spin_until(lambda: 'no image on /left/image for' in process.output, 'a warning that no image arrives')
        assert len(client.received['mask']) == count, 'masks without images'
        seen: list[Image] = []
        client.node.create_subscription(Image, IMAGE, seen.append, 1)
        with soak.camera_process(IMAGE, (96, 128), 10):
            client.spin_until(lambda: bool(seen), 'an image of the new camera')
            first = time.monotonic()
            wait_for_masks(client, 1)
            assert time.monotonic() - first < RECOVERY
            wait_for_masks(client)
        found = stamps(client)
        assert found == sorted(set(found)), 'an old mask was published again'
        assert all(stamp > died for stamp in found[count:])


LISTENER = f"""
import rclpy
from sensor_msgs.msg import Image
rclpy.init()
node = rclpy.create_node('listener')
node.create_subscription(Image, '{MASK}', lambda _: None, 5)
rclpy.spin(node)
"""


@contextmanager
def listener():
    """Run a process that subscribes to the masks."""
    process = subprocess.Popen([sys.executable, '-c', LISTENER])
    try:
        yield process
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize('number', [signal.SIGKILL, signal.SIGSTOP], ids=['killed', 'stopped'])
def test_listener_vanishes(number, short_lease):
    with NodeProcess(namespace='/left') as process, Client('/left') as client:
        with listener() as other:
            client.spin_until(lambda: client.camera_subscriptions == 1, 'the node subscribes to the camera')
            for _ in range(20):  # until the memory has reached its final size
                client.send(message_of(scene()))
                client.spin(0.05)
            before = own_memory(process.process.pid)
            other.send_signal(number)
            for _ in range(600):
                if client.camera_subscriptions == 0:
                    break
                client.send(message_of(scene()))
                client.spin(0.05)
            assert client.camera_subscriptions == 0, 'the node still works for a listener that has died'
        assert own_memory(process.process.pid) < before + 20
        client.listen('mask')
        client.segment(message_of(scene()))


def test_suspended_node_recovers():
    with (
        NodeProcess(namespace='/left') as process,
        Client('/left') as client,
        soak.camera_process(IMAGE, (96, 128), 10),
    ):
        client.listen('mask')
        wait_for_masks(client)
        process.process.send_signal(signal.SIGSTOP)
        client.spin(3.0)  # shorter than its lease, see docs/reliability.md
        client.received['mask'].clear()
        woken = time.time_ns()
        process.process.send_signal(signal.SIGCONT)
        client.spin_until(lambda: any(stamp > woken for stamp in stamps(client)), 'a mask of a new image')
        assert (time.time_ns() - woken) / 1e9 < RECOVERY
        wait_for_masks(client)
        assert stamps(client) == sorted(set(stamps(client)))


def test_clock_jumps():
    settings = ('-p', 'use_sim_time:=true', '-p', 'max_frame_age:=5.0')
    with NodeProcess(*settings, namespace='/left') as process, Client('/left') as client:
        client.listen('mask')
        clock = client.node.create_publisher(Clock, '/clock', 1)
        client.spin_until(lambda: clock.get_subscription_count() == 1, 'the node listens to /clock')

        def send(now: int, second: int) -> None:
            clock.publish(Clock(clock=Time(sec=now)))
            client.spin(0.05)
            message = message_of(scene())
            message.header.stamp = Time(sec=second)
            client.send(message)

        # Forwards, then a bag that starts again, twice.
        for second in (100, 101, 5000, 5001, 100, 101, 100):
            client.received['mask'].clear()
            begin = time.monotonic()

            def mask_came(second: int = second) -> bool:
                if any(message.header.stamp.sec == second for message in client.received['mask']):
                    return True
                send(second, second)
                client.spin(0.1)
                return False

            client.spin_until(mask_came, f'a mask of second {second}')
            assert time.monotonic() - begin < RECOVERY
        client.spin(0.5)
        client.received['mask'].clear()
        before = int(client.diagnostics()['frames too old'])
        send(5000, 100)  # only the clock has jumped so far
        client.wait_for_diagnostics('frames too old', str(before + 1))
        assert not client.received['mask']
        assert 'Traceback' not in process.output


def test_camera_changes_size_and_encoding():
    segmenter = Segmenter.load()
    with NodeProcess(namespace='/left'), Client('/left') as client:
        client.listen('mask')
        for index, (height, width) in enumerate([(96, 128), (240, 320), (33, 57), (96, 128)] * 2):
            image = scene(height, width, seed=index) if height != 33 else scene()[:33, :57].copy()
            encoding = ('bgr8', 'rgb8')[index // 4]
            sent = image if encoding == 'bgr8' else np.ascontiguousarray(image[..., ::-1])
            mask = client.segment(message_of(sent, encoding))
            np.testing.assert_array_equal(pixels(mask), segmenter(image).mask, f'{height} x {width} {encoding}')


@pytest.mark.skipif(not hasattr(resource, 'prlimit'), reason='only Linux can set limits of other processes')
def test_too_little_memory_for_an_image():
    with NodeProcess('-p', 'threads:=1', namespace='/left') as process, Client('/left') as client:
        client.listen('mask')
        client.segment(message_of(scene()))
        pid = process.process.pid
        status = Path(f'/proc/{pid}/status').read_text()
        size = int(status.split('VmSize:')[1].split()[0]) << 10
        resource.prlimit(pid, resource.RLIMIT_AS, (size + (20 << 20), resource.RLIM_INFINITY))
        large = scene(720, 1280)
        client.send(message_of(large))
        client.wait_for_diagnostics('frames failed', '1')
        assert 'image on /left/image is left out' in process.output and 'allocate' in process.output
        client.segment(message_of(scene()))  # the memory is enough for a small image
        resource.prlimit(pid, resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        client.segment(message_of(large))
        assert 'Traceback' not in process.output


def test_shared_memory_of_killed_nodes_is_removed():
    with Client('/left') as client:
        living, dead = segments_and_locks(os.getpid()), set()
        for _ in range(3):
            with NodeProcess(namespace='/left') as process:
                client.listen('mask', camera=False)
                process.wait_for_output('/left/image -> /left/segmentation/mask')
                assert not [path for path in dead if path.exists()]
                # Not by `segment`: the killed node counts as a subscriber for up to 20 s.
                client.spin_until(
                    lambda: bool(client.received['mask']) or client.send(message_of(scene())) or client.spin(0.1),
                    'a mask',
                )
                dead = segments_and_locks(process.process.pid) - living
                process.end(signal.SIGKILL)
            assert sum(path.stat().st_size for path in dead) > 60e6  # there is something to remove
            for path in living | dead:
                os.utime(path, (0, 0))  # old enough to be removed; those of living processes must stay
        assert living and all(path.exists() for path in living)


def segments_and_locks(pid: int) -> set[Path]:
    """Return the Fast DDS segments of a process, without those of ports, and their lock files."""
    locks = set()
    for descriptor in Path(f'/proc/{pid}/fd').iterdir():
        with suppress(FileNotFoundError):  # closed in the meantime
            name = os.readlink(descriptor)
            if re.fullmatch(r'/dev/shm/\w+_[0-9a-f]{16}_el', name):
                locks.add(Path(name))
    return locks | {path.with_name(path.name.removesuffix('_el')) for path in locks}


@pytest.mark.skipif(os.geteuid() != 0, reason='only root can mount a small /dev/shm')
def test_full_shared_memory():
    ready = subprocess.run(['unshare', '-m', 'mount', '-t', 'tmpfs', '-o', 'size=100k', 'none', '/dev/shm'])
    if ready.returncode:
        pytest.skip('this container may not mount')
    inside = 'mount -t tmpfs -o size=100k none /dev/shm && exec "$@"'
    node = [sys.executable, '-m', 'stdc_ros.node.main', '--ros-args', '-r', '__ns:=/left']
    environment = {**os.environ, 'PYTHONPATH': str(REPOSITORY)}
    with Client('/left') as client:
        process = subprocess.Popen(['unshare', '-m', 'sh', '-c', inside, 'sh', *node], env=environment)
        try:
            client.listen('mask')
            client.segment(message_of(scene()))
        finally:
            process.terminate()
            assert process.wait(30) == 0


def test_unwritable_log(tmp_path, monkeypatch):
    with open('/dev/full', 'w') as full:
        command = [sys.executable, '-m', 'stdc_ros.node.main', '--ros-args', '-r', '__ns:=/left']
        environment = {**os.environ, 'PYTHONPATH': str(REPOSITORY)}
        process = subprocess.Popen(command, stdout=full, stderr=full, env=environment)
        try:
            with Client('/left') as client:
                client.listen('mask')
                client.segment(message_of(scene()))
        finally:
            process.terminate()
            assert process.wait(30) == 0
    (tmp_path / 'file').touch()
    monkeypatch.setenv('ROS_LOG_DIR', str(tmp_path / 'file' / 'log'))
    with NodeProcess(namespace='/left') as process:
        assert process.wait() == 1
        assert f"Failed to create log directory '{tmp_path / 'file' / 'log'}'" in process.output
        assert len(process.output.strip().splitlines()) == 1
