# SPDX-License-Identifier: Apache-2.0
"""Run the contenders of TensorRT and of TensorRT for RTX: the backend as the node uses it."""

from __future__ import annotations

import platform
import statistics
import time
from collections.abc import Callable
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from gpu_comparison.plan import RTX, Contender
from gpu_comparison.timing import TRIAL_SHAPE, WARM_UP, check_trial, host_times, trial_network
from gpu_comparison.worker import ImpossibleError
from gpu_comparison.workload import read_frames, read_workload_model

#: Weight of the class colours in an overlay.
OPACITY = 0.3


def make_backend(model: onnx.ModelProto, library: str, precision: str, **settings: Any) -> Any:
    """Make the backend as the segmenter does, with the settings of a contender."""
    from stdc_core.inference.tensorrt.make_backend import make_rtx_backend, make_tensorrt_backend
    from stdc_core.inference.tensorrt.options import GpuOptions

    make = make_rtx_backend if library == RTX else make_tensorrt_backend
    return make(model, precision, GpuOptions(**settings))


class EngineRunner:
    """Runs engines.

    Args:
        library: ``'tensorrt'`` or ``'tensorrt_rtx'``.
        work: Folder of models and frames.
        tactics: Names of TensorRT's ``TacticSource`` to choose from; empty leaves the choice to TensorRT.
        make: Function that makes the backend, see :func:`make_backend`.
    """

    def __init__(
        self, library: str, work: Path, tactics: tuple[str, ...] = (), make: Callable[..., Any] = make_backend
    ):
        self._library, self._work, self._tactics, self._make = library, work, tactics, make

    def probe(self) -> dict[str, str]:
        """Build, read and run an engine of one convolution."""
        from stdc_core.inference.tensorrt.cuda import CudaDevice, missing_driver
        from stdc_core.inference.tensorrt.engine import Engine
        from stdc_core.inference.tensorrt.engine_builder import EngineOptions, build
        from stdc_core.inference.tensorrt.library import load_library, title_of

        trt = load_library(self._library)
        missing = missing_driver()  # TensorRT crashes without a driver
        if missing:
            raise RuntimeError(missing)
        device = CudaDevice()
        options = EngineOptions(half=False, int8=False, in_one=False, shape=TRIAL_SHAPE)
        run_trial(device, Engine(trt, build(trt, trial_network(), options, b'', lambda percent: None)[0]))
        return {'device': device.name, 'on': f'{title_of(trt)}, {versions()}'}

    def prepare(self, contender: Contender) -> PreparedEngine:
        """Build the engine, or read it from the cache."""
        settings = {'kernels': contender.kernels, 'max_batch': contender.batch, 'tactics': self._tactics}
        model = read_workload_model(self._work, contender.model)
        backend = self._make(model, self._library, contender.precision, **settings)
        reason = impossible(contender, backend)
        if reason:
            raise ImpossibleError(f'not possible with {backend.reason}: {reason}')
        if backend.name.rpartition(' ')[2] != contender.precision:
            raise RuntimeError(f'would run as {backend.name}')
        if contender.kernels and backend.kernels is None:
            raise RuntimeError('would run without kernels: is NVRTC installed?')
        return PreparedEngine(backend, contender, read_frames(self._work, contender.model))


def run_trial(device: Any, engine: Any) -> None:
    """Run the engine of the trial network on ones. Raises RuntimeError if it fails or gives other numbers."""
    sizes = [4 * int(np.prod(TRIAL_SHAPE)), 4 * 8 * int(np.prod(TRIAL_SHAPE[2:]))]
    planes, logits = (device.allocate(size) for size in sizes)
    host_planes, host_logits = (device.pin(size) for size in sizes)
    more: list[Any] = []

    def allocate(size: int) -> int:
        more.append(device.allocate(size))
        return more[-1].pointer

    addresses = {'planes': planes.pointer, 'logits': logits.pointer}
    execution = engine.execution(addresses, 'planes', TRIAL_SHAPE, device.stream, allocate)
    host_planes.view(np.float32)[:] = 1
    device.upload(planes, host_planes)
    execution()
    device.download(host_logits, logits)
    device.synchronize()
    check_trial(host_logits.view(np.float32).copy())
    device.free(planes, logits, host_planes, host_logits, *more)


def impossible(contender: Contender, backend: Any) -> str:
    """Return why this version of the library cannot run a contender; empty if it can."""
    if backend.max_batch != contender.batch:
        return f'batches of {backend.max_batch} at most'
    if not contender.kernels and contender.precision == 'fp16' and backend.name.endswith(' fp32'):
        return 'it computes in the types of the graph, which in one piece are float32'
    return ''


def versions() -> str:
    """Return the versions of Python and of the packages that engines need."""
    found = [f'Python {platform.python_version()}']
    for package in ('numpy', 'onnx', 'cuda-bindings'):
        with suppress(PackageNotFoundError):
            found.append(f'{package} {version(package)}')
    return ', '.join(found)


class PreparedEngine:
    """An engine with its pipeline for the mask alone.

    Args:
        backend: Backend of the contender.
        contender: Contender.
        frames: Images of the model.

    Attributes:
        about: Seconds to build or read the engine, memory on the device, and whether runs are captured as a CUDA graph.
    """

    def __init__(self, backend: Any, contender: Contender, frames: np.ndarray):
        self._backend, self._device = backend, backend.device
        self._batch, self._shape = contender.batch, frames.shape[1:]
        free, start = self._device.free_memory()[0], time.perf_counter()
        backend.prepare(frames.shape[1:3], lambda text: None)
        seconds = time.perf_counter() - start
        repeated = np.concatenate([frames] * contender.batch)
        self._images = [repeated[first : first + contender.batch] for first in range(len(frames))]
        self._pipeline = backend.pipeline((contender.batch, *self._shape), False)
        memory = (free - self._device.free_memory()[0]) / 1e6
        self._graph = self._device.capture(self._pipeline.compute) if self._pipeline.captured else None
        self.about = {'engine_s': seconds, 'memory_mb': memory, 'graph': self._graph is not None}

    def device_ms(self, runs: int) -> list[float]:
        """See ``Prepared``; by CUDA's events."""
        work = self._pipeline.compute if self._graph is None else self._graph.launch
        return self._device.time(work, runs + WARM_UP)[WARM_UP:]

    def host_ms(self, runs: int) -> list[float]:
        """See ``Prepared``."""
        return host_times(lambda run: self._pipeline(self._images[run % len(self._images)]), runs)

    def masks(self, images: np.ndarray) -> np.ndarray:
        """See ``Prepared``."""
        return np.concatenate([self._pipeline(image[None])[0] for image in images])

    def details(self, runs: int) -> dict[str, float]:
        """Return milliseconds without a CUDA graph, with the confidence, and for an overlay up to the host."""
        from stdc_core.classes import class_table

        found = {'no_graph_ms': statistics.median(self._device.time(self._pipeline.compute, runs + WARM_UP)[WARM_UP:])}
        confident = self._backend.pipeline((self._batch, *self._shape), True)
        found['confidence_ms'] = statistics.median(self._device.time(confident.compute, runs + WARM_UP)[WARM_UP:])
        confident.close()
        blending = class_table('cityscapes').blending_bgr(OPACITY)
        if self._pipeline.overlay(0, blending) is not None:
            found['overlay_ms'] = statistics.median(host_times(lambda run: self._pipeline.overlay(0, blending), runs))
        return found

    def close(self) -> None:
        """See ``Prepared``."""
        if self._graph is not None:
            self._graph.close()
        self._pipeline.close()
        self._backend.release()
