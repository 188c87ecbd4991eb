# SPDX-License-Identifier: Apache-2.0
"""Test that programs end cleanly, however many signals they receive and whenever."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

# Never finishes its clean-up after an interrupt.
STUCK = """
import time
from stdc_core.io import signals
signals.PATIENCE = 0.3
signals.interrupt_once()
try:
    print('ready', flush=True)
    while True:  # a signal just before a sleep does not end it
        time.sleep(0.1)
finally:
    print('cleaning up', flush=True)
    time.sleep(30)
"""

#: Sends a signal to the process when it imports a module whose name ends so.
AT_IMPORT = """
import os, sys
class Signal:
    def find_spec(self, name, path=None, target=None):
        if name.endswith('{name}'):
            sys.meta_path.remove(self)
            try:
                os.kill(os.getpid(), {number})
            finally:
                print('sent', flush=True)
sys.meta_path.insert(0, Signal())
"""

# Clean-up and interpreter shutdown take a while, so that signals arrive in both.
PROGRAMS = {
    'recorded': """
import sys, time
from stdc_core.io.signals import keep_signals
signals = keep_signals()
print('ready', flush=True)
while not signals:
    time.sleep(0.01)
time.sleep(0.1)
""",
    'raised once': """
import sys, time
from stdc_core.io.signals import interrupt_once
interrupt_once()
try:
    print('ready', flush=True)
    time.sleep(30)
except KeyboardInterrupt:
    time.sleep(0.1)
    print('cleaned up', flush=True)
""",
}
# Destroyed during the interpreter shutdown, after Python's default signal handlers are restored.
SLOW_END = """
class Slow:
    def __del__(self, sleep=time.sleep):
        sleep(0.2)
sys.slow = Slow()
sys.exit(7)
"""


#: Imported by numpy's C code, which turns a KeyboardInterrupt inside into an ImportError.
IN_NUMPY = '._exceptions'

STDC = 'stdc_core.commands.main'


@pytest.mark.parametrize(
    ('module', 'arguments', 'place', 'numbers'),
    [
        ('stdc_ros.offline.segment_bag', 'in.mcap out.mcap', IN_NUMPY, 'INT TERM'),
        ('stdc_ros.offline.segment_bag', 'in.mcap out.mcap', 'onnxruntime', 'TERM INT'),
        ('stdc_ros.playback.play_bag', 'in.mcap', 'rclpy', 'TERM INT'),
        ('stdc_ros.playback.demo', '--bag in.mcap', IN_NUMPY, 'INT INT'),
        (STDC, 'evaluate model.onnx --data data', IN_NUMPY, 'TERM INT'),
        (STDC, 'evaluate model.onnx --data data', 'cv2', 'INT INT'),
        (STDC, 'quantize model.onnx out.onnx --images data', 'onnx', 'INT TERM'),
        (STDC, 'export weights.safetensors out.onnx', 'torch', 'TERM TERM'),
        (STDC, 'pretrain --data data --out out', 'lightning', 'INT TERM'),
    ],
)
def test_signals_during_the_imports_end_a_program(module, arguments, place, numbers, tmp_path):
    first, second = (signal.Signals[f'SIG{name}'] for name in numbers.split())
    prelude = AT_IMPORT.format(name=place, number=int(first))
    # On a busy machine the imports may take longer than the patience with which later signals are ignored.
    program = f'from stdc_core.io import signals\nsignals.PATIENCE = 60.0\nfrom {module} import main\nsys.exit(main())'
    command = [sys.executable, '-c', prelude + program, *arguments.split()]
    path = os.pathsep.join([str(Path(__file__).parent.parent), os.environ.get('PYTHONPATH', '')])
    environment = {**os.environ, 'PYTHONPATH': path}
    streams = {'stdout': subprocess.PIPE, 'stderr': subprocess.STDOUT}
    with subprocess.Popen(command, cwd=tmp_path, env=environment, text=True, **streams) as process:
        assert process.stdout is not None
        before = process.stdout.readline()
        deadline = time.monotonic() + 60
        while process.poll() is None and time.monotonic() < deadline:
            process.send_signal(second)
            time.sleep(0.005)
        rest = process.stdout.read()
    assert process.returncode == 128 + first, before + rest
    assert before == 'sent\n' and 'Traceback' not in rest
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize('numbers', ['INT INT', 'TERM TERM', 'INT TERM', 'TERM INT'])
@pytest.mark.parametrize('program', PROGRAMS)
def test_later_signals_do_not_disturb_the_clean_up(program, numbers):
    first, second = (signal.Signals[f'SIG{name}'] for name in numbers.split())
    command = [sys.executable, '-c', PROGRAMS[program] + SLOW_END]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == 'ready\n'
        process.send_signal(first)
        deadline = time.monotonic() + 20
        while process.poll() is None and time.monotonic() < deadline:
            process.send_signal(second)
            time.sleep(0.005)
        rest = process.stdout.read()
    assert process.returncode == 7, rest
    assert rest == ('cleaned up\n' if program == 'raised once' else '')


def test_a_signal_much_later_ends_a_clean_up_that_hangs():
    with subprocess.Popen([sys.executable, '-c', STUCK], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == 'ready\n'
        process.send_signal(signal.SIGINT)
        assert process.stdout.readline() == 'cleaning up\n'
        process.send_signal(signal.SIGTERM)
        time.sleep(0.4)
        assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == -signal.SIGTERM


def started(command: str, folder: Path) -> subprocess.Popen[str]:
    """Start a command of stdc that writes many files into ``folder / 'out'``, and wait for the first one."""
    arguments = [command, str(folder / 'out')]
    if command == 'predict':
        for index in range(500):
            cv2.imwrite(str(folder / f'{index}.png'), np.zeros((64, 96, 3), np.uint8))
        arguments = [command, str(folder), '--out', str(folder / 'out'), '--threads', '1']
    program = [sys.executable, '-m', 'stdc_core.commands.main', *arguments]
    process = subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    deadline = time.monotonic() + 60
    while not list((folder / 'out').rglob('*.png')):
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()[0]
        time.sleep(0.02)
    return process


@pytest.mark.parametrize(
    ('command', 'first', 'second'),
    [
        ('render', signal.SIGINT, signal.SIGINT),
        ('render', signal.SIGINT, signal.SIGTERM),
        # Not SIGTERM and SIGINT: of signals that arrive in one step of C code, Python handles the lower number first.
        ('predict', signal.SIGTERM, signal.SIGTERM),
    ],
)
def test_later_signals_change_nothing_about_the_end_of_a_command(command, first, second, tmp_path):
    with started(command, tmp_path) as process:
        process.send_signal(first)
        time.sleep(0.05)
        deadline = time.monotonic() + 20
        while process.poll() is None and time.monotonic() < deadline:
            process.send_signal(second)
            time.sleep(0.005)
        output = process.stdout.read()
    assert process.returncode == 128 + first, output
    assert 'Traceback' not in output and 'Error' not in output
    assert not list(tmp_path.rglob('.*'))  # no file that is not complete
