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
from typing import TYPE_CHECKING, TypeVar

import pytest

if TYPE_CHECKING:
    import onnx

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


@pytest.fixture(scope='session')
def quantized(tmp_path_factory: pytest.TempPathFactory) -> onnx.ModelProto:
    """Deployed graph of the shipped model in int8, calibrated on three rendered frames; tests must not change it."""
    quantization = pytest.importorskip('stdc_core.export.quantize', reason='torch is not installed')
    # Late: the settings above have to be made before anything else is imported.
    from stdc_core.data.synthetic import SyntheticDrive
    from stdc_core.inference import DEFAULT_MODEL
    from stdc_core.inference.model_file import read_model
    from stdc_core.io.files import write_png

    folder = tmp_path_factory.mktemp('int8')
    drive = SyntheticDrive(seed=3, height=72, width=96, frames=40)
    for index in (0, 20, 39):
        write_png(folder / f'{index}.png', drive[index].image)
    quantization.quantize(DEFAULT_MODEL, folder / 'int8.onnx', sorted(folder.glob('*.png')), max_loss=100.0)
    return read_model(folder / 'int8.onnx')[0]


def in_own_process(function: Callable[..., Result], *arguments: object) -> Result:
    """Call a function of a test module in a new process.

    For OpenVINO: where it has computed in the process that trains afterwards, Linux ended that process (openvino 2026.4
    on a CPU with AMX: SIGSEGV from the kernel on waiting for a child).
    """
    with ProcessPoolExecutor(1, mp_context=get_context('spawn')) as pool:
        return pool.submit(function, *arguments).result()
