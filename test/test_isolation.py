# SPDX-License-Identifier: Apache-2.0
"""Test that isolated runs on one machine have different ROS domains."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from stdc_ros.playback import isolation

CLAIM = 'from stdc_ros.playback.isolation import claim_domain; print(claim_domain(), flush=True)'


def test_parallel_runs_have_different_domains(monkeypatch):
    folder = Path(__file__).parent.parent
    program = [sys.executable, '-c', f'{CLAIM}; input()']
    runs = [
        subprocess.Popen(program, cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    domains = [int(run.stdout.readline()) for run in runs]
    assert len(set(domains)) == 3
    assert set(domains) <= set(isolation.DOMAINS)
    monkeypatch.setattr(isolation, 'DOMAINS', range(domains[0], domains[0] + 1))
    with pytest.raises(RuntimeError, match=f'all ROS domains from {domains[0]} to {domains[0]} are in use'):
        isolation.claim_domain()
    for run in runs:
        run.kill()
        run.communicate()
    assert isolation.claim_domain() == domains[0]
