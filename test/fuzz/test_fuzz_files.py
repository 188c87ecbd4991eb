# SPDX-License-Identifier: Apache-2.0
"""Test a few damaged files of each kind. `make fuzz` tests thousands."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec

import fuzz_files
import pytest
from conftest import REPOSITORY

pytestmark = pytest.mark.fuzz
needs_torch = pytest.mark.skipif(not find_spec('torch'), reason='torch is not installed')


@pytest.mark.parametrize(
    ('kinds', 'count'), [(['onnx', 'yaml', 'bag'], 80), pytest.param(['weights'], 12, marks=needs_torch)]
)
def test_mutated_files_are_loaded_or_refused(kinds, count):
    command = [sys.executable, fuzz_files.__file__, '--count', str(count), '--kind', *kinds]
    environment = {**os.environ, 'PYTHONPATH': os.pathsep.join([str(REPOSITORY), *sys.path])}
    found = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert found.returncode == 0, found.stdout + found.stderr
    rows = [line.split('|')[1:-1] for line in found.stdout.splitlines()[2:]]
    assert [row[0].strip() for row in rows] == kinds
    for _, mutated, loaded, refused, findings, _ in rows:
        assert (int(mutated), int(findings)) == (count, 0)
        assert int(loaded) > 0 and int(refused) > 0
