# SPDX-License-Identifier: Apache-2.0
"""Make GPU backends for this machine, and build engines for other machines."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx

from stdc_core.inference.backend import Backend, BackendError
from stdc_core.inference.input_scale import InputScale
from stdc_core.inference.onnx_graph.quantized import is_quantized
from stdc_core.inference.tensorrt.backend import TensorRtBackend
from stdc_core.inference.tensorrt.cuda import CudaDevice, CudaError
from stdc_core.inference.tensorrt.engine import Engine
from stdc_core.inference.tensorrt.engine_builder import EngineOptions, build
from stdc_core.inference.tensorrt.engine_cache import EngineCache, key_of
from stdc_core.inference.tensorrt.engine_store import EngineStore, KeptFile
from stdc_core.inference.tensorrt.library import (
    PACKAGES,
    TENSORRT,
    TENSORRT_RTX,
    EngineError,
    is_weakly_typed,
    load_library,
    takes_batches,
    title_of,
)
from stdc_core.inference.tensorrt.options import GpuOptions
from stdc_core.inference.tensorrt.plan import EnginePlan
from stdc_core.inference.tensorrt.precision import best_precision, dotted
from stdc_core.inference.tensorrt.progress import Progress
from stdc_core.inference.tensorrt.rtx import ANY_TARGET, OLDEST, is_supported, target_of

Build = Callable[[bytes, EngineOptions, bytes, Progress], tuple[bytes, bytes]]


def make_tensorrt_backend(model: onnx.ModelProto, precision: str, options: GpuOptions | None = None) -> TensorRtBackend:
    """Make the TensorRT backend on this machine's GPU, with the user's engine cache.

    Call it only where ``missing_driver`` returns nothing: without a driver, TensorRT crashes.

    Args:
        model: Deployed graph.
        precision: One of ``PRECISIONS``.
        options: How the backend is used.

    Raises:
        BackendError: The GPU, TensorRT or the precision is missing.
        ValueError: The graph is not as ``stdc export`` writes it.
    """
    options = options or GpuOptions()
    trt, device = load_library(TENSORRT), _device(TENSORRT)
    typed = not is_weakly_typed(trt)
    conditions = {
        'tensorrt': trt.__version__,
        'gpu': device.name,
        'capability': dotted(device.capability),
        'typed': typed,
    }
    engines = EngineStore(EngineCache(), _builder(trt), lambda data: Engine(trt, data), conditions)
    chosen, note = _precision(TENSORRT, model, precision, device.capability, options.give_up)
    if not takes_batches(trt):
        options = dataclasses.replace(options, max_batch=1)
    backend = TensorRtBackend(model, device, engines, chosen, options, typed)
    backend.reason = f'{device.name}, {title_of(trt)}{note}'
    return backend


def make_rtx_backend(
    model: onnx.ModelProto, precision: str, options: GpuOptions | None = None, listed: bool = False
) -> TensorRtBackend:
    """Make the TensorRT for RTX backend on this machine's GPU, with the user's engine cache.

    Args:
        model: Deployed graph.
        precision: One of ``PRECISIONS``.
        options: How the backend is used. An image always waits for its engine, which takes about a second to build.
        listed: Whether the GPU has to be one that NVIDIA names for TensorRT for RTX. If false, any GPU is tried.

    Raises:
        BackendError: The GPU, the library or the precision is missing.
        ValueError: The graph is not as ``stdc export`` writes it.
    """
    options = dataclasses.replace(options or GpuOptions(), wait=True)
    trt, device = load_library(TENSORRT_RTX), _device(TENSORRT_RTX)
    if listed and not is_supported(device.capability):
        capability = dotted(device.capability)
        raise BackendError(f'backend {TENSORRT_RTX}: NVIDIA names no support for compute capability {capability}')
    chosen, note = _precision(TENSORRT_RTX, model, precision, device.capability, options.give_up)
    cache = EngineCache()

    def load(data: bytes) -> Engine:
        gpu = {'gpu': device.name, 'capability': dotted(device.capability)}
        return Engine(trt, data, KeptFile(cache, f'{key_of(hashlib.sha256(data).digest(), **gpu)}.kernels'))

    engines = EngineStore(cache, _builder(trt), load, _rtx_conditions(trt))
    target = target_of(device.capability)
    backend = TensorRtBackend(model, device, engines, chosen, options, True, TENSORRT_RTX, target)
    backend.reason = f'{device.name}, {title_of(trt)}{note}'
    return backend


class RtxEngineBuilder(Backend):
    """Builds engines of TensorRT for RTX on a machine without a GPU, for machines with one. It segments no images.

    The engine is for our kernels around the network, which are compiled on the machine with the GPU.

    Args:
        model: Deployed graph.
        precision: One of ``PRECISIONS``.
        max_batch: Largest number of images in one call.
        scale: Scale at which the network sees images; None takes the scale of the model.
        target: GPUs to build for: ``'any'`` or a name of ``tensorrt_rtx.ComputeCapability``.

    Raises:
        BackendError: The library is not installed, or it does not have the precision.
        ValueError: The graph is not as ``stdc export`` writes it.
    """

    def __init__(
        self,
        model: onnx.ModelProto,
        precision: str = 'auto',
        max_batch: int = 1,
        scale: InputScale | None = None,
        target: str = ANY_TARGET,
    ):
        trt = load_library(TENSORRT_RTX)
        chosen, _ = _precision(TENSORRT_RTX, model, precision, OLDEST, False)
        self.name = f'{TENSORRT_RTX} {chosen}'
        self.reason = f'{title_of(trt)} without a GPU'
        self.max_batch = max_batch
        half, int8 = chosen != 'fp32', chosen == 'int8'
        self._plan = EnginePlan(
            model, half=half, int8=int8, typed=True, max_batch=max_batch, scale=scale, target=target
        )
        self._cache = EngineCache()
        self._engines = EngineStore(self._cache, _builder(trt), lambda data: data, _rtx_conditions(trt))

    def file(self, size: tuple[int, int]) -> Path:
        """Return the path of the engine for images of (height, width)."""
        return self._cache.path(self._engines.file(self._plan.network(size), self._plan.options(size)))

    def prepare(self, size: tuple[int, int], progress: Callable[[str], None]) -> None:
        """Build the engine for images of (height, width) unless it is in the cache. Raises BackendError."""
        try:
            self._engines.get(self._plan.network(size), self._plan.options(size), lambda percent: None)
        except EngineError as error:
            raise BackendError(f'backend {TENSORRT_RTX}: {error}') from error
        progress(f'{self.file(size)}: the engine for {size[1]}x{size[0]} images')

    def __call__(self, images: np.ndarray, confidence: bool) -> tuple[np.ndarray, np.ndarray | None]:
        """Raise BackendError: there is no GPU to segment images on."""
        raise BackendError(f'backend {TENSORRT_RTX}: there is no GPU here; engines can be built, not run')


def _builder(trt: ModuleType) -> Build:
    return lambda network, options, timings, progress: build(trt, network, options, timings, progress)


def _device(library: str) -> Any:
    """Return the GPU. Raises BackendError."""
    try:
        return CudaDevice()
    except ImportError as error:
        raise BackendError(f'backend {library}: {error}; pip install {PACKAGES[library]}') from error
    except CudaError as error:
        raise BackendError(f'backend {library}: the GPU cannot be used ({error})') from error


def _precision(
    library: str, model: onnx.ModelProto, precision: str, capability: tuple[int, int], lenient: bool
) -> tuple[str, str]:
    """Return the precision and a note for the log, see :func:`best_precision`. Raises BackendError."""
    try:
        return best_precision(precision, is_quantized(model), capability, lenient)
    except BackendError as error:
        raise BackendError(f'backend {library}: {error}') from error


def _rtx_conditions(trt: ModuleType) -> dict[str, Any]:
    """Return what every engine depends on. The target is in ``EngineOptions``; the GPU does not matter."""
    return {TENSORRT_RTX: trt.__version__}
