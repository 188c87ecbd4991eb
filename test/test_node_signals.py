# SPDX-License-Identifier: Apache-2.0
"""Test SIGINT and SIGTERM in every phase of the node: exit status 0, no traceback, no leftovers in shared memory."""

from __future__ import annotations

import re
import signal
import time
from pathlib import Path

import pytest
from ros_helpers import TIMEOUT, Client, NodeProcess
from scenes import message_of, scene
from test_signals import AT_IMPORT

SHARED_MEMORY = Path('/dev/shm')


def earlier_files() -> set[str]:
    """Return the names in shared memory before a node starts. A node opens those of others in its ROS domain, too."""
    return {path.name for path in SHARED_MEMORY.glob('fast*')}


def shared_files(process: NodeProcess) -> set[str]:
    """Return the names of the middleware's shared memory segments that a process has open (Linux)."""
    maps = Path(f'/proc/{process.process.pid}/maps')
    if not maps.exists():
        pytest.skip('/proc tells which files a process has open; this system has none')
    return set(re.findall(r'/dev/shm/(fast\w+_[0-9a-f]{16})', maps.read_text()))


def check_clean_end(process: NodeProcess, status: int, shared: set[str] = frozenset()) -> None:
    """Check that the process ended without an error and has removed its shared memory segments."""
    assert status == 0, process.output
    for words in ('Traceback', 'terminate called', 'Exception'):
        assert words not in process.output
    assert not [name for name in shared if (SHARED_MEMORY / name).exists()]


@pytest.mark.parametrize(
    'module',
    ['stdc_ros.node.segmentation_node', 'rclpy', 'onnxruntime'],
    ids=['before the imports', 'among the imports', 'while the model is loaded'],
)
def test_signal_at_the_start_ends_the_node(module):
    with NodeProcess(namespace='/left', prelude=AT_IMPORT.format(name=module, number=int(signal.SIGINT))) as process:
        check_clean_end(process, process.wait())


def test_signal_during_load_ends_build_only():
    arguments = ['-p', 'build_only:=true', '-p', 'image_size:=64x48']
    prelude = AT_IMPORT.format(name='onnxruntime', number=int(signal.SIGINT))
    with NodeProcess(*arguments, namespace='/left', prelude=prelude) as process:
        check_clean_end(process, process.wait())
        assert 'built' not in process.output


@pytest.mark.parametrize('times', [1, 3])
def test_signals_end_an_idle_node(times):
    earlier = earlier_files()
    with NodeProcess(namespace='/left') as process:
        process.wait_for_output('/left/image -> /left/segmentation/mask')
        shared = shared_files(process) - earlier
        assert shared
        for _ in range(times - 1):
            process.process.send_signal(signal.SIGINT)
        check_clean_end(process, process.end(signal.SIGINT), shared)


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_signals_end_a_busy_node(number):
    earlier = earlier_files()
    with NodeProcess('-p', 'threads:=1', namespace='/left') as process:
        with Client('/left') as client:
            client.listen('overlay')
            client.segment(message_of(scene()), 'overlay')
            for _ in range(3):
                client.send(message_of(scene(480, 640)))
                client.spin(0.02)
            shared = shared_files(process) - earlier
            process.process.send_signal(number)
            client.spin(0.05)  # shorter than a frame takes, so the second signal arrives during the shutdown
            status = process.end(number)
        check_clean_end(process, status, shared)


@pytest.mark.parametrize('second', [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize('first', [signal.SIGINT, signal.SIGTERM])
def test_later_signals_keep_the_exit_status(first, second):
    with NodeProcess(namespace='/left') as process:
        process.wait_for_output('/left/image -> /left/segmentation/mask')
        process.process.send_signal(first)
        deadline = time.monotonic() + TIMEOUT
        # Until the process has ended, also during the shutdown of the interpreter.
        while process.process.poll() is None and time.monotonic() < deadline:
            process.process.send_signal(second)
            time.sleep(0.005)
        check_clean_end(process, process.wait())


#: Network that never returns in a thread, except for the test image of each model. Any time counts as quick.
HANGING = """
import threading
import time
import numpy as np
from stdc_core.inference import Segmentation, Segmenter
from stdc_ros.node import latest_frame_worker
latest_frame_worker.QUICK = 1000
segment = Segmenter.__call__
def hang(self, image, confidence=False):
    if image.ndim == 3:
        return segment(self, image, confidence)
    if threading.current_thread().name == '{thread}':
        print('hangs', flush=True)
        time.sleep(1000)
    return Segmentation(np.zeros(image.shape[:3], np.uint8), None)
Segmenter.__call__ = hang
"""


@pytest.mark.parametrize(
    ('thread', 'hanging'),
    [('segmentation', 'the current frame'), ('executor', 'a callback')],
    ids=['worker', 'executor'],
)
@pytest.mark.parametrize('options', [[], ['--lifecycle']], ids=['plain', 'managed'])
def test_hanging_frame_ends_the_process(options, thread, hanging):
    prelude = HANGING.format(thread=thread)
    with NodeProcess(namespace='/left', prelude=prelude, options=options) as process, Client('/left') as client:
        if options:
            client.activate()
        client.listen('mask')
        client.spin_until(lambda: 'hangs' in process.output or client.send(message_of(scene())), 'a frame at work')
        assert process.end(signal.SIGINT) == 1
        assert f'{hanging} has not finished within 5 s' in process.output
        assert 'Traceback' not in process.output and 'terminate called' not in process.output
