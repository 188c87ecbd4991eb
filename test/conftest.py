# SPDX-License-Identifier: Apache-2.0
"""Fixtures and settings of all tests; ros_helpers.py isolates ROS 2."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from importlib.util import find_spec
from multiprocessing import get_context
from pathlib import Path
from typing import TypeVar

import pytest

Result = TypeVar('Result')

# Before the first import of a message: the message classes read it then. Wrong field types are errors, not garbage.
os.environ['ROS_PYTHON_CHECK_FIELDS'] = '1'

# Before the first logger: those of launch, which the pytest plugin of ROS 2 imports, keep their records from caplog.
logging.setLoggerClass(logging.Logger)

# A robot has no torch: `colcon test` there tests all but training and export.
_NEED_TORCH = [
    f'test_{name}.py'
    for name in ('export', 'losses', 'model', 'pretrain', 'quantize', 'reference', 'resident', 'resume', 'training')
]
collect_ignore = [] if find_spec('torch') else _NEED_TORCH

REPOSITORY = Path(__file__).resolve().parent.parent


def pytest_configure(config: pytest.Config) -> None:
    """Hide GPUs unless ``pytest -m gpu`` is asked for: tests compare masks of the CPU byte for byte."""
    if config.option.markexpr != 'gpu':
        os.environ['CUDA_VISIBLE_DEVICES'] = ''


def pytest_report_header() -> str | None:
    return f'torch is not installed, left out: {", ".join(collect_ignore)}' if collect_ignore else None


@pytest.fixture(scope='session')
def camvid() -> Path:
    """Return the folder of the CamVid images, which are not in the repository; skip the test where they are missing."""
    folder = Path(os.environ.get('CAMVID_DIR', REPOSITORY.parent / 'shared' / 'data' / 'camvid'))
    if not (folder / 'val' / 'images').is_dir():
        pytest.skip(f'CamVid is not at {folder}; set CAMVID_DIR to where it is')
    return folder


@pytest.fixture(autouse=True)
def root_logger_at_warning() -> Iterator[None]:
    """Start every test with Python's own log level; launch, which the pytest plugin of ROS 2 imports, sets INFO."""
    root = logging.getLogger()
    before = root.level
    root.setLevel(logging.WARNING)
    yield
    root.setLevel(before)


def in_own_process(function: Callable[..., Result], *arguments: object) -> Result:
    """Call a function of a test module in a new process.

    For OpenVINO: where it has computed in the process that trains afterwards, Linux ended that process (openvino 2026.4
    on a CPU with AMX: SIGSEGV from the kernel on waiting for a child).
    """
    with ProcessPoolExecutor(1, mp_context=get_context('spawn')) as pool:
        return pool.submit(function, *arguments).result()
