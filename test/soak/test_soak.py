# SPDX-License-Identifier: Apache-2.0
"""Test the soak: a short run, and its verdicts on synthetic measurements. `make soak` runs it for long."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soak
from conftest import REPOSITORY

pytestmark = pytest.mark.soak


def test_growth_is_distinguished_from_noise():
    times = np.arange(0.0, 1800.0)
    noise = np.random.default_rng(0).normal(0, 0.02, len(times))
    for growth, expected in ((0.0, 'flat'), (4.0, 'grows')):  # MB an hour
        line = soak.fit(*soak.parts(times, 300 + growth * times / 3600 + noise))
        assert soak.verdict(soak.Line(3600 * line.slope, 3600 * line.error), soak.MEMORY_LIMIT) == expected
        assert abs(3600 * line.slope - growth) < 3600 * line.error
    line = soak.fit(*soak.parts(times[:30], 300 + noise[:30]))
    assert soak.verdict(soak.Line(3600 * line.slope, 3600 * line.error), soak.MEMORY_LIMIT).startswith('undecided')


def test_nothing_grows_with_four_cameras():
    """Run for 24 s with 400 images/s, twice what two cores can process.

    In that time, only a leak of whole masks (5000 MB an hour) or of descriptors, threads and segments is found. Memory
    that settles and latency that other programs disturb stay below these limits.
    """
    command = [sys.executable, str(Path(soak.__file__)), '--minutes', '0.4', '--warm-up', '0.13']
    command += ['--memory-limit', '1000', '--latency-limit', '10', '--size', '96x128', '--rate', '100']
    environment = {**os.environ, 'PYTHONPATH': str(REPOSITORY)}
    run = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
