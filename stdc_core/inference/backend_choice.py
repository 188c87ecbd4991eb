# SPDX-License-Identifier: Apache-2.0
"""Choose the backend that a deployed graph runs on."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable

import onnx

from stdc_core.inference.backend import Backend, BackendError
from stdc_core.inference.input_scale import InputScale, set_input_scale
from stdc_core.inference.tensorrt.cuda import missing_driver
from stdc_core.inference.tensorrt.options import GpuOptions
from stdc_core.inference.tensorrt.precision import check_precision
from stdc_core.io.text import one_line

#: Names of the backends. ``auto`` takes the first of these that is installed and fits the GPU: TensorRT, which is the
#: fastest once its engine is built; TensorRT for RTX; ONNX Runtime on the GPU; ONNX Runtime on the CPU, which every
#: installation has.
BACKENDS = ('auto', 'onnxruntime', 'onnxruntime_cuda', 'openvino', 'tensorrt', 'tensorrt_rtx')

# Beginning of the advice in an error, which `auto` leaves out.
_INSTALL = '; pip install'

_log = logging.getLogger(__name__)


def make_backend(
    name: str,
    model: onnx.ModelProto,
    threads: int,
    precision: str = 'auto',
    max_batch: int = 1,
    wait: bool = True,
    scale: InputScale | None = None,
    build_only: bool = False,
) -> Backend:
    """Make a backend.

    Args:
        name: One of :data:`BACKENDS`.
        model: Deployed graph, as ``read_model`` returns it.
        threads: Number of CPU threads; 0 takes every core that this process may use.
        precision: One of ``PRECISIONS``.
        max_batch: Largest number of images in one call, on a GPU that takes several together.
        wait: Whether an image waits until its engine is built. If false, another backend segments it meanwhile:
            TensorRT for RTX where it is installed, else ONNX Runtime.
        scale: Scale at which the network sees images; None takes the scale of the graph.
        build_only: Whether the backend only builds engines. ``tensorrt_rtx`` then needs no GPU.

    Raises:
        BackendError: The backend or precision does not exist, or what it needs is missing.
        ValueError: The graph is not as ``stdc export`` writes it, so that a GPU backend cannot split it.
        Exception: The graph is invalid, and ONNX Runtime or OpenVINO raises an exception of its own.
    """
    if name not in BACKENDS:
        raise BackendError(f'backend {name!r}, expected one of {", ".join(BACKENDS)}')
    check_precision(precision)
    choice = _Choice(model, threads, precision, max_batch, wait, scale)
    if name == 'auto':
        return choice.auto()
    if name == 'tensorrt_rtx' and build_only and missing_driver():
        from stdc_core.inference.tensorrt.make_backend import RtxEngineBuilder

        return RtxEngineBuilder(model, precision, max_batch, scale)
    makers: dict[str, Callable[[], Backend]] = {
        'onnxruntime': choice.onnxruntime,
        'onnxruntime_cuda': choice.onnxruntime_cuda,
        'openvino': choice.openvino,
        'tensorrt': choice.tensorrt,
        'tensorrt_rtx': choice.tensorrt_rtx,
    }
    return makers[name]()


class _Choice:
    """Makes each backend from the same arguments; see :func:`make_backend`."""

    def __init__(
        self,
        model: onnx.ModelProto,
        threads: int,
        precision: str,
        max_batch: int,
        wait: bool,
        scale: InputScale | None,
    ):
        self._model, self._threads, self._precision = model, threads, precision
        self._max_batch, self._wait, self._scale = max_batch, wait, scale

    def auto(self) -> Backend:
        """Make the first backend that is installed and fits the GPU. Its reason says why the ones before it do not."""
        missing = missing_driver()
        if missing:
            return self._chosen(self.onnxruntime(), [missing])
        refused: list[str] = []
        makers: list[tuple[str, Callable[[], Backend]]] = [
            ('tensorrt', lambda: self.tensorrt(give_up=True)),
            ('tensorrt_rtx', lambda: self.tensorrt_rtx(give_up=True, listed=True)),
            ('onnxruntime_cuda', self.onnxruntime_cuda),
        ]
        for name, make in makers:
            try:
                return self._chosen(make(), refused)
            except BackendError as error:
                said = str(error).removeprefix(f'backend {name}: ')
                if name != 'onnxruntime_cuda' or _INSTALL not in said:
                    refused.append(f'{name}: {said.partition(_INSTALL)[0]}')
            except Exception as error:  # a GPU backend may fail on a graph that ONNX Runtime runs on the CPU
                refused.append(f'{name}: {one_line(error, 600)}')
        return self._chosen(self.onnxruntime(), refused)

    @staticmethod
    def _chosen(backend: Backend, refused: list[str]) -> Backend:
        """Log a backend and the reasons against the ones before it, and return it with these reasons."""
        backend.reason = '; '.join(filter(None, [backend.reason, *refused]))
        _log.info('using %s%s', backend.name, f': {backend.reason}' if backend.reason else '')
        return backend

    def tensorrt(self, give_up: bool = False) -> Backend:
        """Make the TensorRT backend.

        Args:
            give_up: Whether another backend takes over after a failure (see ``GpuOptions``).

        Raises:
            BackendError: It is not installed or cannot run on this GPU.
        """
        self._check_driver('tensorrt')
        from stdc_core.inference.tensorrt.make_backend import make_tensorrt_backend

        return make_tensorrt_backend(self._model, self._precision, self._options(give_up, self._substitute))

    def tensorrt_rtx(self, give_up: bool = False, listed: bool = False) -> Backend:
        """Make the TensorRT for RTX backend.

        Args:
            give_up: Whether another backend takes over after a failure (see ``GpuOptions``).
            listed: Whether the GPU must be one that NVIDIA lists for TensorRT for RTX.

        Raises:
            BackendError: It is not installed or cannot run on this GPU.
        """
        self._check_driver('tensorrt_rtx')
        from stdc_core.inference.tensorrt.make_backend import make_rtx_backend

        return make_rtx_backend(self._model, self._precision, self._options(give_up, self.onnxruntime), listed)

    def _substitute(self) -> Backend:
        """Make the backend that segments images while TensorRT builds its engine, and after a failure of TensorRT."""
        try:
            return self.tensorrt_rtx(give_up=True, listed=True)
        except Exception as error:  # usually because it is not installed
            _log.debug('TensorRT for RTX cannot stand in: %s', error)
            return self.onnxruntime()

    def _options(self, give_up: bool, other: Callable[[], Backend]) -> GpuOptions:
        """Return the options of a TensorRT backend; ``other`` makes the backend that stands in for it."""
        return GpuOptions(max_batch=self._max_batch, other=other, wait=self._wait, give_up=give_up, scale=self._scale)

    @staticmethod
    def _check_driver(name: str) -> None:
        """Raise BackendError if the driver of the GPU is missing."""
        reason = missing_driver()
        if reason:
            raise BackendError(f'backend {name}: {reason}')

    def onnxruntime(self) -> Backend:
        """Make the ONNX Runtime backend on the CPU."""
        from stdc_core.inference.onnxruntime_backend import OnnxRuntimeBackend

        return OnnxRuntimeBackend(self._scaled(), self._threads)

    def onnxruntime_cuda(self) -> Backend:
        """Make the ONNX Runtime backend on the GPU. Raises BackendError."""
        self._check_driver('onnxruntime_cuda')
        from stdc_core.inference.onnxruntime_backend import OnnxRuntimeBackend

        return OnnxRuntimeBackend(self._scaled(), self._threads, cuda=True)

    def openvino(self) -> Backend:
        """Make the OpenVINO backend. Raises BackendError."""
        try:
            from stdc_core.inference.openvino_backend import OpenVinoBackend
        except ImportError as error:
            raise BackendError(f'backend openvino: {error}; pip install openvino') from error
        return OpenVinoBackend(self._scaled(), self._threads)

    def _scaled(self) -> onnx.ModelProto:
        """Return the graph with the input scale inside, for backends that run the whole graph."""
        if self._scale is None:
            return self._model
        model = copy.deepcopy(self._model)
        set_input_scale(model, self._scale)
        return model
