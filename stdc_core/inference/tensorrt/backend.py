# SPDX-License-Identifier: Apache-2.0
"""The segmenter's backend on NVIDIA GPUs: TensorRT for the network, kernels of our own for what surrounds it."""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx

from stdc_core.inference.backend import PRECISIONS, Backend, BackendError
from stdc_core.inference.input_scale import InputScale
from stdc_core.inference.onnx_graph.network_split import Parts, split, to_half, whole, widen
from stdc_core.inference.onnx_graph.quantized import is_quantized
from stdc_core.inference.tensorrt.cuda import CudaDevice, CudaError
from stdc_core.inference.tensorrt.engine_builder import (
    Engine,
    EngineError,
    EngineOptions,
    build,
    is_weakly_typed,
    takes_batches,
)
from stdc_core.inference.tensorrt.engine_cache import EngineCache
from stdc_core.inference.tensorrt.engine_store import EngineStore
from stdc_core.inference.tensorrt.kernels import Kernels
from stdc_core.inference.tensorrt.pipeline import Pipeline

#: Pipelines, each for a shape of images, that are kept ready; their memory is given back after that.
KEPT = 4

# GPUs whose float16 is slower than their float32: compute capability 6.1 is GTX 10.
_SLOW_HALF = ((6, 1),)
_FIRST_HALF = (5, 3)
# Since which GPUs multiply bytes, and one later that does not: Jetson TX2.
_FIRST_INT8, _NO_INT8 = (6, 1), ((6, 2),)

_log = logging.getLogger(__name__)


def choose_precision(precision: str, quantized: bool, capability: tuple[int, int]) -> str:
    """``'fp32'``, ``'fp16'`` or ``'int8'``.

    Args:
        precision: of ``PRECISIONS``.
        quantized: the model comes from ``stdc quantize``.
        capability: compute capability of the GPU.

    Raises:
        BackendError: the model or the GPU has no such precision.
    """
    if precision not in PRECISIONS:
        raise BackendError(f'precision {precision!r}, expected one of {", ".join(PRECISIONS)}')
    if precision == 'int8' and not quantized:
        raise BackendError('precision int8 needs a quantised model: stdc quantize makes one')
    if quantized and precision in ('fp32', 'fp16'):
        raise BackendError(f'precision {precision}, but the model is quantised: expected int8 or auto')
    if precision == 'fp16' and capability < _FIRST_HALF:
        raise BackendError(f'precision fp16: a GPU of compute capability {_dotted(capability)} has none, expected fp32')
    if quantized and (capability < _FIRST_INT8 or capability in _NO_INT8):
        raise BackendError(f'precision int8: a GPU of compute capability {_dotted(capability)} has none')
    if precision == 'auto' and not quantized:
        return 'fp16' if capability >= _FIRST_HALF and capability not in _SLOW_HALF else 'fp32'
    return 'int8' if quantized else precision


def _best_precision(precision: str, quantized: bool, capability: tuple[int, int], lenient: bool) -> tuple[str, str]:
    """What :func:`choose_precision` says, or if that is an error and one may be lenient, what it says of ``auto``.

    And why it is another one than that asked for.
    """
    try:
        return choose_precision(precision, quantized, capability), ''
    except BackendError as error:
        if not lenient:
            raise
        chosen = choose_precision('auto', quantized, capability)
        return chosen, f', in {chosen}, not as asked: {error}'


def _dotted(capability: tuple[int, int]) -> str:
    return '.'.join(map(str, capability))


class TensorRtBackend(Backend):
    """Runs a deployed graph on an NVIDIA GPU.

    An engine is good for one size of the network's input. It is built when the first image of that size comes, unless
    it is in the cache. What fails on the GPU is made anew once; if it fails again before an image was segmented, or the
    process can use CUDA no more, that was it: then another backend goes on for good, or :attr:`failure` is set.

    Args:
        model: the deployed graph.
        device: a ``CudaDevice``.
        engines: where engines come from.
        precision: of :func:`choose_precision`.
        typed: the network has to be of float16 itself for TensorRT to compute in it.
        max_batch: images in one call.
        other: makes another backend; None: there is none.
        wait: what an engine has yet to be built for waits for it; else the other backend answers meanwhile.
        give_up: the other backend goes on after a failure.
        tactics: see ``EngineOptions``.
        kernels: False: the engine does all, which is slower; to compare with.
        scale: at which the network sees images; None: at the graph's own.

    Attributes:
        device: as given.
        kernels: None: the engine does all.

    Raises:
        ValueError: the graph is not as ``stdc export`` makes it.
    """

    def __init__(
        self,
        model: onnx.ModelProto,
        device: Any,
        engines: EngineStore,
        precision: str,
        typed: bool = False,
        max_batch: int = 1,
        other: Callable[[], Backend] | None = None,
        wait: bool = True,
        give_up: bool = False,
        tactics: tuple[str, ...] = (),
        kernels: bool = True,
        scale: InputScale | None = None,
    ):
        self.max_batch = max_batch
        self.device, self._engines, self._tactics = device, engines, tactics
        self._precision, self._wait, self._give_up = precision, wait, give_up
        self._make_other = other
        self._other: Backend | None = None
        self._half = precision == 'fp16' or precision == 'int8' and device.capability >= _FIRST_HALF
        self._parts: Parts = split(model, scale)
        self.kernels: Kernels | None = None
        try:
            self.kernels = Kernels(device, self._half) if kernels else None
        except RuntimeError as error:
            _log.warning('without kernels of our own, so slower: %s', error)
        if typed and self._half and self.kernels is None:
            _log.warning('in float32: from TensorRT 11 on, the graph in one piece is not made half')
            self._half = False
            self._precision = 'int8' if precision == 'int8' else 'fp32'
        self._typed = typed
        # The graph in one piece is another one for each scale.
        self._model = None if self.kernels else model
        self._network = self._serialized(self._parts.network if self.kernels else whole(model, scale and scale.own))
        # By shape of the engine's input, engines; by shape of the images and confidence, pipelines.
        self._ready: dict[tuple[int, ...], Any] = {}
        self._pipelines: OrderedDict[tuple, Pipeline] = OrderedDict()
        self._last: Pipeline | None = None  # which has the images of the last call
        self._draws = True
        self._builder: threading.Thread | None = None
        self._building: tuple[int, int] | None = None
        self._percent: int | None = None
        self._began = 0.0
        self._shaky = False  # failed since the last image that was segmented
        self._lost = False

    @property
    def name(self) -> str:
        """That of the other backend once that goes on alone."""
        return self._other.name if self._lost and self._other else f'tensorrt {self._precision}'

    @property
    def activity(self) -> str:
        """Which engine is being built, and how much of it is done."""
        size, percent = self._building, self._percent
        if size is None:
            return ''
        done = f'{percent} %' if percent is not None else f'{time.monotonic() - self._began:.0f} s so far'
        return f'building the engine for {size[1]}x{size[0]} images: {done}'

    def _options(self, size: tuple[int, int]) -> EngineOptions:
        inner = self._parts.network_size(size)
        shape = (self.max_batch, 3, *inner) if self.kernels else (self.max_batch, *size, 3)
        return EngineOptions(self._half, self._precision == 'int8', not self.kernels, shape, tactics=self._tactics)

    def _serialized(self, network: onnx.ModelProto) -> bytes:
        """What TensorRT is given of a graph, which is changed."""
        if is_quantized(network):
            network = widen(network)
        if self._typed and self._half:
            network = to_half(network)
        return network.SerializeToString()

    def _network_of(self, size: tuple[int, int]) -> bytes:
        seen = self._parts.scale.of(size)
        if self._model is None or seen == self._parts.scale.own:
            return self._network
        return self._serialized(whole(self._model, seen))

    def _build(self, size: tuple[int, int], progress: Callable[[str], None]) -> None:
        """Make an engine ready. Raises EngineError, CudaError."""
        self._percent, self._began, self._building = None, time.monotonic(), size

        def on_progress(percent: int | None) -> None:
            told = self._percent
            self._percent = percent
            if percent is None or told is None or percent // 10 > told // 10:
                progress(self.activity)

        try:
            self.device.use()
            options = self._options(size)
            self._ready[options.shape] = self._engines.get(self._network_of(size), options, on_progress)
        finally:
            self._building = None
        _log.info('the engine for %dx%d images is ready after %.1f s', size[1], size[0], time.monotonic() - self._began)

    def prepare(self, size: tuple[int, int], progress: Callable[[str], None]) -> None:
        """Build the engine for images of (height, width), or find it in the cache. Raises BackendError."""
        try:
            if self._options(size).shape not in self._ready:
                self._build(size, progress)
        except (EngineError, CudaError) as error:
            raise BackendError(f'backend tensorrt: {error}') from error

    def __call__(self, images: np.ndarray, confidence: bool) -> tuple[np.ndarray, np.ndarray | None]:
        """uint8 BGR ``[N, H, W, 3]`` to mask and confidence, both uint8 ``[N, H, W]``, the latter None if unwanted.

        Raises:
            BackendError: the GPU has failed, and no other backend may go on.
        """
        self._last = None
        if len(images) > self.max_batch:
            runs = [self(images[i : i + self.max_batch], confidence) for i in range(0, len(images), self.max_batch)]
            masks, confidences = zip(*runs)  # noqa: B905  (Python 3.9 has no strict)
            self._last = None
            return np.concatenate(masks), np.concatenate(confidences) if confidence else None
        if self._lost:
            return self._run_other(images, confidence)
        failed = None
        try:
            size = images.shape[1:3]
            if self._options(size).shape not in self._ready:
                if not self._wait:
                    self._build_beside(size)
                    return self._run_other(images, confidence)
                self._build(size, _log.info)
            result = self._run(images, confidence)
        except (EngineError, CudaError) as error:
            failed = error
        if failed is not None:
            # Its traceback would keep alive what TensorRT has for the pipeline that failed.
            failed.__traceback__ = failed.__context__ = None
            self._recover(failed)
            return self(images, confidence)
        self._shaky = False
        return result

    def _run_other(self, images: np.ndarray, confidence: bool) -> tuple[np.ndarray, np.ndarray | None]:
        if self.failure is not None:
            raise self.failure
        return self._get_other()(images, confidence)

    def _get_other(self) -> Backend:
        if self._other is None:
            self._other = self._make_other()
        return self._other

    def _build_beside(self, size: tuple[int, int]) -> None:
        """Build in a thread, one engine at a time."""
        if self._builder is not None and self._builder.is_alive():
            return

        def work() -> None:
            try:
                self._build(size, _log.info)
            except Exception as error:  # whatever it is, it must not end unheard in a thread
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
        """See :class:`Backend`. What goes wrong with it leaves overlays to others, and the GPU to the next image."""
        if self._last is None or not self._draws:
            return None
        try:
            self.device.use()
            return self._last.overlay(index, blending)
        except CudaError as error:
            _log.warning('overlays are left to the CPU: %s', error)
            self._draws = False
            return None

    def _roomy_pipeline(self, shape: tuple[int, ...], confidence: bool) -> Pipeline:
        try:
            return self.pipeline(shape, confidence)
        except CudaError as error:
            if not (error.out_of_memory and self._pipelines):
                raise
        # Those of other shapes can be made again. Not above: the error would keep alive what was made before it.
        self._trim(0)
        return self.pipeline(shape, confidence)

    def pipeline(self, shape: tuple[int, ...], confidence: bool) -> Pipeline:
        """A new pipeline, for images of a size that was prepared; see :class:`Pipeline`."""
        engine = self._ready[self._options(shape[1:3]).shape]
        return Pipeline(self.device, engine, self._parts, self.kernels, self._half, shape, confidence)

    def _trim(self, count: int) -> None:
        while len(self._pipelines) > count:
            self._pipelines.popitem(last=False)[1].close()

    def _recover(self, error: Exception) -> None:
        """Give back everything on the GPU, so that it is made anew; the second time without success, give up."""
        if self._shaky or getattr(error, 'lasting', False):
            self._fail(error)
            return
        self._shaky = True
        _log.warning('the GPU failed, everything on it is made anew: %s', error)
        try:
            self._trim(0)
        except CudaError as again:
            self._fail(again)
        self._ready.clear()

    def _fail(self, error: Exception) -> None:
        if self._give_up:
            self.reason = f'TensorRT failed: {error}'
            _log.error('TensorRT failed, %s goes on: %s', self._get_other().name, error)
        else:
            self.failure = BackendError(f'backend tensorrt: {error}')
        self._lost = True


def make_tensorrt_backend(model: onnx.ModelProto, precision: str, **settings: Any) -> TensorRtBackend:
    """The backend on this machine's GPU, with the user's engine cache.

    To be called only where ``missing_driver`` has nothing to say.

    Args:
        precision: one of ``PRECISIONS``.
        settings: see :class:`TensorRtBackend`.

    Raises:
        BackendError: there is no GPU, no TensorRT, or no such precision.
    """
    try:
        import tensorrt

        device = CudaDevice()
    except ImportError as error:
        raise BackendError(f'backend tensorrt: {error}; pip install tensorrt cuda-bindings[all]') from error
    except CudaError as error:
        raise BackendError(f'backend tensorrt: the GPU cannot be used ({error})') from error
    typed = not is_weakly_typed(tensorrt)
    conditions = {
        'tensorrt': tensorrt.__version__,
        'gpu': device.name,
        'capability': _dotted(device.capability),
        'typed': typed,
    }
    engines = EngineStore(
        EngineCache(),
        lambda *arguments: build(tensorrt, *arguments),
        lambda data: Engine(tensorrt, data),
        conditions,
    )
    try:
        chosen, why = _best_precision(precision, is_quantized(model), device.capability, settings.get('give_up', False))
    except BackendError as error:
        raise BackendError(f'backend tensorrt: {error}') from error
    if not takes_batches(tensorrt):
        settings['max_batch'] = 1
    backend = TensorRtBackend(model, device, engines, chosen, typed, **settings)
    backend.reason = f'{device.name}, TensorRT {tensorrt.__version__}{why}'
    return backend
