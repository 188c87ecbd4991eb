# SPDX-License-Identifier: Apache-2.0
"""Segment images on NVIDIA GPUs: TensorRT or TensorRT for RTX for the network, our own kernels around it."""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx

from stdc_core.inference.backend import Backend, BackendError
from stdc_core.inference.tensorrt.cuda import CudaError
from stdc_core.inference.tensorrt.engine_store import EngineStore
from stdc_core.inference.tensorrt.failure_state import FailureState
from stdc_core.inference.tensorrt.kernels import Kernels
from stdc_core.inference.tensorrt.library import TENSORRT, TITLES, EngineError
from stdc_core.inference.tensorrt.options import GpuOptions
from stdc_core.inference.tensorrt.pipeline import Pipeline
from stdc_core.inference.tensorrt.plan import EnginePlan
from stdc_core.inference.tensorrt.precision import FIRST_HALF
from stdc_core.inference.tensorrt.progress import BuildState
from stdc_core.inference.tensorrt.rtx import ANY_TARGET

#: Number of pipelines, each for one shape of images, that are kept ready. The memory of older ones is given back.
KEPT = 4

_log = logging.getLogger(__name__)


class TensorRtBackend(Backend):
    """Runs a deployed graph on an NVIDIA GPU.

    An engine fits one size of the network's input. It is built when the first image of that size comes, unless it is in
    the cache. After a GPU error everything on the GPU is made again, once. If that fails before an image was segmented,
    or the process cannot use CUDA any more, another backend takes over for good, or :attr:`failure` is set.

    Args:
        model: Deployed graph.
        device: GPU, a ``CudaDevice``.
        engines: Store that gives the engines.
        precision: Precision to compute in: ``'fp32'``, ``'fp16'`` or ``'int8'``.
        options: How the backend is used.
        typed: Whether the network itself has to be of float16 for the library to compute in it.
        library: Name of the library, ``'tensorrt'`` or ``'tensorrt_rtx'``.
        target: GPUs that TensorRT for RTX builds for, see ``EngineOptions``.

    Attributes:
        device: GPU as given.
        kernels: Kernels around the network; None if the engine does everything.

    Raises:
        ValueError: The graph is not as ``stdc export`` writes it.
    """

    def __init__(
        self,
        model: onnx.ModelProto,
        device: Any,
        engines: EngineStore,
        precision: str,
        options: GpuOptions | None = None,
        typed: bool = False,
        library: str = TENSORRT,
        target: str = ANY_TARGET,
    ):
        self._given = options or GpuOptions()
        self.max_batch = self._given.max_batch
        self.device, self._engines, self._library = device, engines, library
        half = precision == 'fp16' or (precision == 'int8' and device.capability >= FIRST_HALF)
        self.kernels = self._make_kernels(half) if self._given.kernels else None
        if typed and half and self.kernels is None:
            _log.warning('computing in float32: %s does not make the graph in one piece half', TITLES[library])
            half, precision = False, 'int8' if precision == 'int8' else 'fp32'
        self._precision = precision
        self._plan = EnginePlan(
            model,
            half=half,
            int8=precision == 'int8',
            typed=typed,
            in_one=self.kernels is None,
            max_batch=self.max_batch,
            scale=self._given.scale,
            tactics=self._given.tactics,
            target=target,
        )
        # Engines by shape of their input; pipelines by shape of the images and whether the confidence is wanted.
        self._ready: dict[tuple[int, ...], Any] = {}
        self._pipelines: OrderedDict[tuple, Pipeline] = OrderedDict()
        self._last: Pipeline | None = None  # holds the images of the last call
        self._draws = True
        self._builder: threading.Thread | None = None
        self._building = BuildState()
        self._failures = FailureState()
        self._other: Backend | None = None
        self._other_lock = threading.Lock()
        self._other_answered = False

    def _make_kernels(self, half: bool) -> Kernels | None:
        try:
            return Kernels(self.device, half)
        except RuntimeError as error:
            _log.warning('the engine does everything, which is slower, as kernels cannot be compiled: %s', error)
            return None

    @property
    def name(self) -> str:  # type: ignore[override]  # other backends set the attribute
        """Name of the backend; that of the other backend once it has taken over."""
        return self._other.name if self._failures.lost and self._other else f'{self._library} {self._precision}'

    @property
    def activity(self) -> str:  # type: ignore[override]  # other backends keep the class's
        """Which engine is being built, and how much of it is done."""
        return self._building.activity

    def _build(self, size: tuple[int, int], progress: Callable[[str], None]) -> None:
        """Make an engine ready. Raises EngineError, CudaError."""
        self._building.begin(size)

        def on_progress(percent: int | None) -> None:
            if self._building.advance(percent):
                progress(self.activity)

        try:
            self.device.use()
            options = self._plan.options(size)
            self._ready[options.shape] = self._engines.get(self._plan.network(size), options, on_progress)
        finally:
            seconds = self._building.end()
        _log.info('the engine for %dx%d images is ready after %.1f s', size[1], size[0], seconds)

    def prepare(self, size: tuple[int, int], progress: Callable[[str], None]) -> None:
        """Build the engine for images of (height, width), or find it in the cache. Raises BackendError."""
        try:
            if self._plan.options(size).shape not in self._ready:
                self._build(size, progress)
        except (EngineError, CudaError) as error:
            raise BackendError(f'backend {self._library}: {error}') from error

    def __call__(self, images: np.ndarray, confidence: bool) -> tuple[np.ndarray, np.ndarray | None]:
        """Segment images.

        Args:
            images: uint8 BGR ``[N, H, W, 3]``.
            confidence: Whether the confidence is wanted.

        Returns:
            Mask and confidence, both uint8 ``[N, H, W]``; the confidence is None if it is not wanted.

        Raises:
            BackendError: The GPU has failed, and no other backend may take over.
        """
        self._last = None
        if len(images) > self.max_batch:
            runs = [self(images[i : i + self.max_batch], confidence) for i in range(0, len(images), self.max_batch)]
            masks, confidences = zip(*runs, strict=True)
            self._last = None
            return np.concatenate(masks), np.concatenate(confidences) if confidence else None
        if self._failures.lost:
            return self._run_other(images, confidence)
        failed = None
        try:
            size = (images.shape[1], images.shape[2])
            if self._plan.options(size).shape not in self._ready:
                if not self._given.wait:
                    self._build_beside(size)
                    self._other_answered = True
                    return self._run_other(images, confidence)
                self._build(size, _log.info)
            result = self._run(images, confidence)
        except (EngineError, CudaError) as error:
            failed = error
        if failed is not None:
            # The traceback would keep alive what the library holds for the pipeline that failed.
            failed.__traceback__ = failed.__context__ = None
            self._recover(failed)
            return self(images, confidence)
        self._failures.succeeded()
        if self._other_answered and self._other is not None:
            self._other.release()
            self._other_answered = False
        return result

    def _run_other(self, images: np.ndarray, confidence: bool) -> tuple[np.ndarray, np.ndarray | None]:
        if self.failure is not None:
            raise self.failure
        return self._get_other()(images, confidence)

    def _get_other(self) -> Backend:
        # The thread that builds asks for it too, after a failure.
        with self._other_lock:
            if self._other is None:
                if self._given.other is None:
                    raise BackendError(f'backend {self._library}: no other backend can take over')
                self._other = self._given.other()
            return self._other

    def _build_beside(self, size: tuple[int, int]) -> None:
        """Build an engine in a thread, one at a time."""
        if self._builder is not None and self._builder.is_alive():
            return

        def work() -> None:
            try:
                self._build(size, _log.info)
            except Exception as error:  # no error may be lost in a thread
                self._fail(error)

        self._builder = threading.Thread(target=work, name='engine', daemon=True)
        self._builder.start()

    def _run(self, images: np.ndarray, confidence: bool) -> tuple[np.ndarray, np.ndarray | None]:
        self.device.use()
        key = (images.shape, confidence)
        if key not in self._pipelines:
            self._trim(KEPT - 1)
            self._pipelines[key] = self._roomy_pipeline(images.shape, confidence)
        self._pipelines.move_to_end(key)
        result = self._pipelines[key](images)
        self._last = self._pipelines[key]
        return result

    def overlay(self, index: int, blending: np.ndarray) -> np.ndarray | None:
        """See :meth:`Backend.overlay`. After an error here, the CPU draws overlays, and the GPU goes on segmenting."""
        if self._last is None:
            return self._other.overlay(index, blending) if self._other_answered and self._other else None
        if not self._draws:
            return None
        try:
            self.device.use()
            return self._last.overlay(index, blending)
        except CudaError as error:
            _log.warning('drawing overlays on the CPU: %s', error)
            self._draws = False
            return None

    def _roomy_pipeline(self, shape: tuple[int, ...], confidence: bool) -> Pipeline:
        try:
            return self.pipeline(shape, confidence)
        except CudaError as error:
            if not (error.out_of_memory and self._pipelines):
                raise
        # Pipelines of other shapes can be made again. Not in the handler: its error keeps the failed pipeline alive.
        self._trim(0)
        return self.pipeline(shape, confidence)

    def pipeline(self, shape: tuple[int, ...], confidence: bool) -> Pipeline:
        """Return a new pipeline for images of a size that was prepared.

        Args:
            shape: Shape of the images, ``[N, H, W, 3]``.
            confidence: Whether the confidence is wanted.

        Raises:
            CudaError, EngineError: See :class:`Pipeline`.
        """
        count, height, width, channels = shape
        size = count, height, width, channels
        engine = self._ready[self._plan.options((height, width)).shape]
        pipeline = Pipeline(self.device, engine, self._plan.parts, self.kernels, self._plan.half, size, confidence)
        engine.keep_kernels()
        return pipeline

    def release(self) -> None:
        """Give back the memory on the GPU. It is taken again when the next image comes."""
        self._last = None
        self._ready.clear()
        try:
            self._trim(0)
        except CudaError as error:
            _log.warning('memory on the GPU cannot be given back: %s', error)

    def _trim(self, count: int) -> None:
        """Close the oldest pipelines until so many are left. Raises CudaError."""
        while len(self._pipelines) > count:
            self._pipelines.popitem(last=False)[1].close()

    def _recover(self, error: Exception) -> None:
        """Give back everything on the GPU, so that it is made again; after the second failure give up."""
        if not self._failures.may_retry(error):
            self._fail(error)
            return
        _log.warning('starting again on the GPU, which failed: %s', error)
        try:
            self._trim(0)
        except CudaError as again:
            self._fail(again)
        self._ready.clear()

    def _fail(self, error: Exception) -> None:
        title = TITLES[self._library]
        if self._given.give_up:
            self.reason = f'{title} failed: {error}'
            _log.error('%s failed, %s takes over: %s', title, self._get_other().name, error)
        else:
            self.failure = BackendError(f'backend {self._library}: {error}')
        self._failures.lost = True
