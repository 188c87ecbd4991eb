# SPDX-License-Identifier: Apache-2.0
"""Test a few hostile messages of each kind. `make fuzz` tests a million."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import fuzz_messages
import pytest
import ros_helpers
from conftest import REPOSITORY

pytestmark = pytest.mark.fuzz


@pytest.mark.parametrize('direct', [False, True])
@pytest.mark.parametrize('transport', ['raw', 'compressed'])
def test_fuzzing_finds_nothing(transport, direct):
    command = [sys.executable, fuzz_messages.__file__, '--messages', '1500', '--seed', '5']
    # Decoders keep some memory of the largest picture, which may come late in such a short run.
    command += ['--growth', '200', '--camera', transport, *(['--direct'] if direct else [])]
    environment = {**ros_helpers.ros_environment(), 'PYTHONPATH': os.pathsep.join([str(REPOSITORY), *sys.path])}
    run = subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stdout + run.stderr
    found = dict(re.findall('^(.+): ([0-9]+)$', run.stdout, re.MULTILINE))
    assert found['good frames'] == found['of these right'] == '5'
    assert int(found['node: bad images']) > (1000 if direct else 0)
