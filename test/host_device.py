# SPDX-License-Identifier: Apache-2.0
"""Stand in for a GPU with the CPU: the same calls, and kernels of the same source."""

from __future__ import annotations

import ctypes
import functools
import platform
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

from stdc_core.classes import class_table
from stdc_core.data.synthetic import SyntheticDrive
from stdc_core.inference import DEFAULT_MODEL
from stdc_core.inference.input_scale import set_input_scale
from stdc_core.inference.model_file import read_model
from stdc_core.inference.tensorrt import kernels
from stdc_core.inference.tensorrt.backend import TensorRtBackend
from stdc_core.inference.tensorrt.cuda import CudaError, Graph, Memory
from stdc_core.inference.tensorrt.engine_builder import EngineOptions
from stdc_core.inference.tensorrt.engine_cache import EngineCache
from stdc_core.inference.tensorrt.engine_store import EngineStore
from stdc_core.inference.tensorrt.options import GpuOptions
from stdc_core.pictures.overlay import overlay

# Barriers between CPU threads are much slower than on a GPU.
kernels.BLOCK = 8

HEADER = Path(__file__).with_name('host_device.h')

#: The two instructions of the kernels that are not C++, and what replaces them.
HALF = {
    'asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(bits));': 'value = _cvtsh_ss(bits);',
    'asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(value));': 'bits = _cvtss_sh(value, 0);',
}

needs_compiler = pytest.mark.skipif(
    shutil.which('g++') is None or platform.machine() != 'x86_64', reason='g++ for x86-64 is not installed'
)


@functools.cache
def _compile(source: str, names: tuple[str, ...], macros: tuple[str, ...]) -> ctypes.CDLL:
    if 'HALF' in macros:
        for cuda, cpp in HALF.items():
            assert cuda in source
            source = source.replace(cuda, cpp)
    with tempfile.TemporaryDirectory() as folder:
        file, library = Path(folder, 'kernels.cpp'), Path(folder, 'kernels.so')
        file.write_text('\n'.join([f'#include "{HEADER}"', source, *(f'LAUNCH({name})' for name in names)]))
        options = ['-std=c++20', '-O1', '-mf16c', '-ffp-contract=off', '-shared', '-fPIC', '-pthread', '-Werror']
        options += [f'-D{macro}' for macro in macros]
        subprocess.run(['g++', *options, str(file), '-o', str(library)], check=True)
        return ctypes.CDLL(str(library))


class HostDevice:
    """Do at once, on the CPU, what ``CudaDevice`` begins on a GPU.

    Attributes:
        fail: Function of a test that gets the name of each call before it is made, and may raise ``CudaError``.
        allocated: Pieces of memory that have not been given back, by address.
        graphs: Number of graphs that have not been given back.
        calls: Names of the calls that were made.
    """

    name = 'CPU'
    capability = (0, 0)
    stream = 0

    def __init__(self) -> None:
        self.fail: Callable[[str], None] = lambda name: None
        self.allocated: dict[int, np.ndarray] = {}
        self.graphs = 0
        self.calls: list[str] = []
        self._recording: list[Callable[[], None]] | None = None

    def _begin(self, name: str) -> None:
        self.calls.append(name)
        self.fail(name)

    def do(self, name: str, work: Callable[[], None]) -> None:
        """Do something on the device, or record it while a graph is captured."""
        self._begin(name)
        if self._recording is None:
            work()
        else:
            self._recording.append(work)

    def use(self) -> None:
        self._begin('use')

    def free_memory(self) -> tuple[int, int]:
        return 1 << 30, 1 << 31

    def allocate(self, size: int) -> Memory:
        self._begin('allocate')
        array = np.full(size, 0xA5, np.uint8)  # not zeros, which would hide memory that is never written
        self.allocated[array.ctypes.data] = array
        return Memory(array.ctypes.data, size)

    def pin(self, size: int) -> np.ndarray:
        memory = self.allocate(size)
        return self.allocated[memory.pointer]

    def free(self, *pieces: Memory | np.ndarray) -> None:
        for piece in pieces:
            del self.allocated[piece.pointer if isinstance(piece, Memory) else piece.ctypes.data]

    def upload(self, target: Memory, source: np.ndarray, offset: int = 0) -> None:
        assert offset + source.nbytes <= target.size
        self.do('upload', lambda: ctypes.memmove(target.pointer + offset, source.ctypes.data, source.nbytes))

    def download(self, target: np.ndarray, source: Memory) -> None:
        self.do('download', lambda: ctypes.memmove(target.ctypes.data, source.pointer, target.nbytes))

    def synchronize(self) -> None:
        self._begin('synchronize')

    def compile(self, source: str, names: Sequence[str], macros: Sequence[str] = ()) -> dict[str, Any]:
        self._begin('compile')
        loaded = _compile(source, tuple(names), tuple(macros))
        return {name: getattr(loaded, f'launch_{name}') for name in names}

    def launch(
        self, kernel: Any, grid: tuple[int, int, int], block: int, shared: int, arguments: Sequence[Any]
    ) -> None:
        assert shared <= 48 << 10
        pointers = (ctypes.c_void_p * len(arguments))(*map(ctypes.addressof, arguments))
        kept = arguments, pointers  # kept alive as long as the recorded graph

        def work() -> None:
            kernel((ctypes.c_uint * 3)(*grid), ctypes.c_uint(block), kept[1])

        self.do('launch', work)

    def capture(self, work: Callable[[], None]) -> Graph:
        self._begin('capture')
        self._recording = recording = []
        try:
            work()
        finally:
            self._recording = None
        self.graphs += 1

        def launch() -> None:
            self._begin('launch graph')
            for step in recording:
                step()

        def close() -> None:
            self.graphs -= 1

        return Graph(launch, close)

    def time(self, work: Callable[[], None], runs: int) -> list[float]:
        for _ in range(runs):
            work()
        return [1.0] * runs


def cuda_error(code: int, call: str = 'cudaMalloc') -> CudaError:
    """Return an error: 2 is out of memory; 700 is an illegal address, which is lasting."""
    return CudaError(call, {2: 'cudaErrorMemoryAllocation', 700: 'cudaErrorIllegalAddress'}[code], code)


class HostExecution:
    """A run of a :class:`HostEngine`. A test may say that it cannot be captured."""

    capturable = True

    def __init__(self, run: Callable[[], None]):
        self._run = run

    def __call__(self) -> None:
        self._run()

    def is_capturable(self) -> bool:
        return self.capturable


class HostEngine:
    """An engine for a :class:`HostDevice`, run by ONNX Runtime."""

    def __init__(self, device: HostDevice, model: bytes):
        self._device = device
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(model, options, providers=['CPUExecutionProvider'])
        self._types = {
            each.name: {'tensor(float)': np.float32, 'tensor(float16)': np.float16, 'tensor(uint8)': np.uint8}[
                each.type
            ]
            for each in (*self._session.get_inputs(), *self._session.get_outputs())
        }

    def execution(
        self,
        addresses: dict[str, int],
        name: str,
        shape: tuple[int, ...],
        stream: int,
        allocate: Callable[[int], int],
    ) -> HostExecution:
        outputs = [each for each in addresses if each != name]

        def at(address: int, like: np.dtype, shape: tuple[int, ...]) -> np.ndarray:
            size = int(np.prod(shape)) * np.dtype(like).itemsize
            return np.frombuffer((ctypes.c_uint8 * size).from_address(address), like).reshape(shape)

        def run() -> None:
            feed = {name: at(addresses[name], self._types[name], shape)}
            for output, value in zip(outputs, self._session.run(outputs, feed), strict=True):
                at(addresses[output], self._types[output], value.shape)[:] = value

        return HostExecution(lambda: self._device.do('enqueue', run))

    def keep_kernels(self) -> None:
        self._device.calls.append('keep kernels')


class Bench:
    """A backend on the CPU, with its device and the builds that it asked for."""

    def __init__(self, model, folder, precision='fp32', typed=False, library='tensorrt', **options):
        self.device = HostDevice()
        self.building = threading.Event()  # builds wait until it is set
        self.building.set()
        self.built: list[EngineOptions] = []
        self.failing: list[Exception] = []
        cache = EngineCache(folder)
        engines = EngineStore(cache, self.build, lambda data: HostEngine(self.device, data), {})
        self.backend = TensorRtBackend(
            model, self.device, engines, precision, GpuOptions(**options), typed, library=library
        )

    def build(self, network, options, timings, progress):
        self.built.append(options)
        if self.failing:
            raise self.failing.pop()
        progress(10)
        assert self.building.wait(60)
        progress(90)
        return network, b''

    def fail_next(self, call: str, *codes: int) -> None:
        """Let the next calls of a name fail with these codes."""
        left = list(codes)

        def fail(name: str) -> None:
            if name == call and left:
                raise cuda_error(left.pop(0), call)

        self.device.fail = fail


def half_scale_model() -> onnx.ModelProto:
    """Return the deployed graph of the shipped model at half the scale."""
    model, _ = read_model(DEFAULT_MODEL)
    set_input_scale(model, 0.5)
    return model


def three_images() -> np.ndarray:
    """Return rendered images of an even height and an odd half width, uint8 BGR ``[3, 96, 130, 3]``."""
    drive = SyntheticDrive(seed=3, height=96, width=130, frames=60)
    return np.stack([drive[0].image, drive[30].image, drive[50].image])


def assert_equal(found: tuple, expected: Sequence, share: float = 0.9999) -> None:
    """Check that masks and, where there are any, confidences are equal but for rounding."""
    assert found[0].shape == expected[0].shape
    assert (found[0] == expected[0]).mean() >= share
    if found[1] is not None:
        assert (np.abs(found[1].astype(int) - expected[1]) <= 1).mean() >= share


def assert_drawn(found: np.ndarray, image: np.ndarray, mask: np.ndarray, opacity: float) -> None:
    """Check that an overlay of CamVid's colours is that of the CPU but for rounding."""
    assert np.abs(found.astype(int) - overlay(image, mask, class_table('camvid'), opacity)).max() <= 1


def until(condition: Callable[[], object]) -> None:
    """Wait until a condition holds, at most half a minute."""
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)
