# SPDX-License-Identifier: Apache-2.0
"""Programs that end in order, whatever number of signals they get and whenever."""

from __future__ import annotations

import signal
import subprocess
import sys
import time

import pytest

# The clean-up and the end of the interpreter take a while: many signals arrive in both.
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
# Destroyed while the interpreter takes itself apart, after Python's own handlers are back.
SLOW_END = """
class Slow:
    def __del__(self, sleep=time.sleep):
        sleep(0.2)
sys.slow = Slow()
sys.exit(7)
"""


@pytest.mark.parametrize('numbers', ['INT INT', 'TERM TERM', 'INT TERM', 'TERM INT'])
@pytest.mark.parametrize('program', PROGRAMS)
def test_later_signals_neither_disturb_the_clean_up_nor_change_the_status(program, numbers):
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
