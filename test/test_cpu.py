# SPDX-License-Identifier: Apache-2.0
"""Test the features of the CPU, and the number of cores with affinity and the CPU quotas of both cgroup versions."""

from __future__ import annotations

import os

import pytest

from stdc_core.io import cpu


@pytest.fixture
def cgroups(tmp_path, monkeypatch):
    """Write the cgroup file of the process and files below the cgroup folder; 64 cores are allowed by affinity."""
    monkeypatch.setattr(os, 'sched_getaffinity', lambda _: set(range(64)))
    monkeypatch.setattr(cpu, '_CGROUPS', tmp_path / 'cgroup')
    monkeypatch.setattr(cpu, '_OWN_CGROUP', tmp_path / 'own')

    def write(own: str, **files: str) -> None:
        (tmp_path / 'own').write_text(own)
        for name, text in files.items():
            file = tmp_path / 'cgroup' / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)

    return write


def test_affinity_counts_without_cgroups(cgroups):
    assert cpu.cores() == 64


@pytest.mark.parametrize(
    ('quota', 'count'),
    [('200000 100000', 2), ('150000 100000', 2), ('10000 100000', 1), ('max 100000', 64), ('9900000 100000', 64)],
)
def test_quota_of_version_2_limits_the_cores(cgroups, quota, count):
    cgroups('0::/\n', **{'cpu.max': f'{quota}\n'})
    assert cpu.cores() == count


def test_smallest_quota_of_all_parents_counts(cgroups):
    cgroups('0::/user/job\n', **{'user/job/cpu.max': 'max 100000', 'user/cpu.max': '300000 100000'})
    assert cpu.cores() == 3


def test_path_outside_the_container_does_not_hide_the_quota(cgroups):
    cgroups('0::/../../system.slice/docker\n', **{'cpu.max': '400000 100000'})
    assert cpu.cores() == 4


@pytest.mark.parametrize(('quota', 'count'), [('250000', 3), ('-1', 64)])
def test_quota_of_version_1_limits_the_cores(cgroups, quota, count):
    files = {'cpu,cpuacct/docker/cpu.cfs_quota_us': quota, 'cpu,cpuacct/docker/cpu.cfs_period_us': '100000'}
    cgroups('4:memory:/docker\n3:cpu,cpuacct:/docker\n', **files)
    assert cpu.cores() == count


@pytest.mark.parametrize('damage', ['', 'nonsense', '1 0', '1'])
def test_damaged_quota_is_ignored(cgroups, damage):
    cgroups('0::/\nnonsense\n', **{'cpu.max': damage})
    assert cpu.cores() == 64


@pytest.mark.parametrize(
    ('text', 'flags'),
    [
        ('processor\t: 0\nvmx flags\t: vnmi\nflags\t\t: fpu avx512_bf16\n\nflags\t\t: fpu\n', {'fpu', 'avx512_bf16'}),
        ('processor\t: 0\nBogoMIPS\t: 50.00\nFeatures\t: fp asimd bf16 i8mm\n', set()),
        ('', set()),
    ],
)
def test_features_of_the_cpu(text, flags, tmp_path, monkeypatch):
    monkeypatch.setattr(cpu, '_CPU_INFO', tmp_path / 'cpuinfo')
    assert cpu.cpu_flags() == set()
    (tmp_path / 'cpuinfo').write_text(text)
    assert cpu.cpu_flags() == flags
