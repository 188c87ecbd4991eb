# SPDX-License-Identifier: Apache-2.0
"""Fixtures and settings for all tests; ros_helpers.py isolates ROS 2."""

from __future__ import annotations

import logging
import os
import re
import signal
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

# Message classes read this at their first import. It makes wrong field types an error.
os.environ['ROS_PYTHON_CHECK_FIELDS'] = '1'

# Before the first logger. The loggers of launch, which ROS 2's pytest plugin imports, would hide records from caplog.
logging.setLoggerClass(logging.Logger)

# A robot has no torch. `colcon test` there leaves out the files that import it, or a room that does.
_IMPORTS_TORCH = re.compile(r'^(?:import|from) (?:torch|stdc_core\.(?:export|model))\b', re.MULTILINE)
collect_ignore = (
    []
    if find_spec('torch')
    else sorted(
        path.name for path in Path(__file__).parent.glob('test_*.py') if _IMPORTS_TORCH.search(path.read_text())
    )
)

REPOSITORY = Path(__file__).resolve().parent.parent


def pytest_configure(config: pytest.Config) -> None:
    """Hide GPUs unless ``pytest -m gpu`` is running, pin the backend of ``auto``, and let Ctrl-C work.

    Tests compare masks of the CPU byte for byte. On a CPU with bfloat16, ``auto`` would take OpenVINO, see also
    :func:`in_own_process`.
    """
    if config.option.markexpr != 'gpu':
        os.environ['CUDA_VISIBLE_DEVICES'] = ''
        os.environ['STDC_BACKEND'] = 'onnxruntime'
    # A shell that runs the tests in the background ignores SIGINT, for all processes that the tests start, too.
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_report_header() -> str | None:
    return f'torch is not installed, left out: {", ".join(collect_ignore)}' if collect_ignore else None


@pytest.fixture(scope='session')
def camvid() -> Path:
    """Return the folder of the CamVid images. Skip the test without them; they are not in the repository."""
    folder = Path(os.environ.get('CAMVID_DIR', REPOSITORY.parent / 'shared' / 'data' / 'camvid'))
    if not (folder / 'val' / 'images').is_dir():
        pytest.skip(f'CamVid is not at {folder}; set CAMVID_DIR to where it is')
    return folder


@pytest.fixture(autouse=True)
def root_logger_at_warning() -> Iterator[None]:
    """Start every test with Python's default log level. launch, which ROS 2's pytest plugin imports, sets INFO."""
    root = logging.getLogger()
    before = root.level
    root.setLevel(logging.WARNING)
    yield
    root.setLevel(before)


@pytest.fixture(autouse=True)
def unchanged_signal_handlers() -> Iterator[None]:
    """Fail a test that leaves handlers of signals behind; they would change the tests after it."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = [signal.getsignal(number) for number in numbers]
    yield
    after = [signal.getsignal(number) for number in numbers]
    for number, earlier, later in zip(numbers, before, after, strict=True):
        if later != earlier:
            signal.signal(number, earlier)
    assert after == before


@pytest.fixture(scope='session')
def quantized(tmp_path_factory: pytest.TempPathFactory) -> onnx.ModelProto:
    """Return the int8 graph of the shipped model, calibrated on three rendered frames. Tests must not change it."""
    quantization = pytest.importorskip('stdc_core.export.quantize', reason='torch is not installed')
    # Imported here, because the settings above must come before all other imports.
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


@pytest.fixture(scope='session')
def shipped_model() -> onnx.ModelProto:
    """Return the graph of the shipped model. Tests must not change it."""
    from stdc_core.inference import DEFAULT_MODEL
    from stdc_core.inference.model_file import read_model

    return read_model(DEFAULT_MODEL)[0]


@pytest.fixture
def engine_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Keep the engines of the test in a folder of its own, and return the folder."""
    monkeypatch.setenv('STDC_CACHE_DIR', str(tmp_path / 'engines'))
    return tmp_path / 'engines'


def in_own_process(function: Callable[..., Result], *arguments: object) -> Result:
    """Call a function of a test module in a new process.

    Needed for OpenVINO: Linux kills a process that trains after it has run OpenVINO (openvino 2026.4 on a CPU with AMX:
    SIGSEGV from the kernel while the process waits for a child).
    """
    with ProcessPoolExecutor(1, mp_context=get_context('spawn')) as pool:
        return pool.submit(function, *arguments).result()
