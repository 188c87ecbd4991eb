# SPDX-License-Identifier: Apache-2.0
"""Choose the backend that a deployed graph runs on."""

from __future__ import annotations

import copy
import logging
import os
from collections.abc import Callable, Sequence
from importlib.util import find_spec

import onnx

from stdc_core.inference.backend import Backend, BackendError
from stdc_core.inference.cpu_choice import VNNI, check_cpu_precision, choose_cpu_backend
from stdc_core.inference.input_scale import InputScale, set_input_scale
from stdc_core.inference.onnx_graph.quantized import is_quantized, quantization_loss
from stdc_core.inference.tensorrt.cuda import missing_driver
from stdc_core.inference.tensorrt.options import GpuOptions
from stdc_core.inference.tensorrt.precision import check_precision
from stdc_core.io.cpu import cpu_flags
from stdc_core.io.text import one_line

#: Names of the backends. ``auto`` takes the first of these that is installed and fits the GPU: TensorRT, which is the
#: fastest once its engine is built; TensorRT for RTX; ONNX Runtime on the GPU; OpenVINO on a CPU that it is faster on;
#: ONNX Runtime on the CPU, which every installation has.
BACKENDS = ('auto', 'onnxruntime', 'onnxruntime_cuda', 'openvino', 'tensorrt', 'tensorrt_rtx')

#: Environment variable that names the backend for ``auto``, so that all machines of a fleet compute the same masks.
BACKEND_VARIABLE = 'STDC_BACKEND'

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
        NotQuantizedError: The precision is int8, and the model is in float.
        ValueError: The graph is not as ``stdc export`` writes it, so that a GPU backend cannot split it.
        Exception: The graph is invalid, and ONNX Runtime or OpenVINO raises an exception of its own.
    """
    if name not in BACKENDS:
        raise BackendError(f'backend {name!r}, expected one of {", ".join(BACKENDS)}')
    check_precision(precision)
    pinned = _pinned(name)
    if pinned and pinned not in BACKENDS:
        raise BackendError(
            f'environment variable {BACKEND_VARIABLE}: backend {pinned!r}, expected one of {", ".join(BACKENDS)}'
        )
    name = pinned or name
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
    backend = makers[name]()
    return choice.chosen(backend, [f'{BACKEND_VARIABLE}={pinned}' if pinned else '', backend.reason])


def prefers_int8(name: str) -> bool:
    """Return whether int8 is the fastest precision here: for ``auto`` on a CPU with VNNI, where OpenVINO is installed.

    Args:
        name: One of :data:`BACKENDS`.
    """
    return (
        (_pinned(name) or name) == 'auto'
        and bool(cpu_flags() & VNNI)
        and find_spec('openvino') is not None
        and bool(missing_driver())
    )


def _pinned(name: str) -> str:
    """Return the backend that the environment names for ``auto``; empty for another name, or if it names none."""
    return os.environ.get(BACKEND_VARIABLE, '') if name == 'auto' else ''


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
        self._quantized = is_quantized(model)

    def auto(self) -> Backend:
        """Make the first backend that is installed and fits the GPU. Its reason says why the ones before it do not."""
        missing = missing_driver()
        if missing:
            return self._chosen_on_cpu([missing])
        refused: list[str] = []
        makers: list[tuple[str, Callable[[], Backend]]] = [
            ('tensorrt', lambda: self.tensorrt(give_up=True)),
            ('tensorrt_rtx', lambda: self.tensorrt_rtx(give_up=True, listed=True)),
            ('onnxruntime_cuda', self.onnxruntime_cuda),
        ]
        for name, make in makers:
            try:
                backend = make()
                return self.chosen(backend, [backend.reason, *refused])
            except BackendError as error:
                said = str(error).removeprefix(f'backend {name}: ')
                if name != 'onnxruntime_cuda' or _INSTALL not in said:
                    refused.append(f'{name}: {said.partition(_INSTALL)[0]}')
            except Exception as error:  # a GPU backend may fail on a graph that ONNX Runtime runs on the CPU
                refused.append(f'{name}: {one_line(error, 600)}')
        return self._chosen_on_cpu(refused)

    def _chosen_on_cpu(self, refused: list[str]) -> Backend:
        """Make the backend on the CPU; ``refused`` are the reasons against those on the GPU."""
        backend = self._on_cpu()
        return self.chosen(backend, [*refused, backend.reason])

    def _on_cpu(self) -> Backend:
        """Make the backend that is fastest on this CPU: OpenVINO, which ONNX Runtime replaces if it fails, or that."""
        precision = check_cpu_precision(self._precision, self._quantized, lenient=True)
        chosen = choose_cpu_backend(cpu_flags(), self._quantized, precision, find_spec('openvino') is not None)
        if chosen.backend == 'openvino':
            try:
                return self._replaceable_openvino(precision, chosen.reason)
            except Exception as error:  # OpenVINO's errors have no common base class
                failed = f'openvino failed ({one_line(error, 300)})'
                _log.warning('%s; using onnxruntime instead', failed)
                chosen = chosen._replace(reason=f'{chosen.reason}; {failed}')
        backend = self._plain_onnxruntime()
        backend.reason = '; '.join(filter(None, [chosen.reason, backend.reason]))
        return backend

    def _replaceable_openvino(self, precision: str, reason: str) -> Backend:
        """Make the OpenVINO backend, and try it beside ONNX Runtime.

        Raises:
            DifferenceError: Their masks differ too much.
            Exception: OpenVINO does not start, or does not run the model.
        """
        from stdc_core.inference.cpu_backend import (
            MAX_DIFFERENCE,
            DifferenceError,
            ReplaceableBackend,
            describe_difference,
            difference,
        )
        from stdc_core.inference.openvino_backend import OpenVinoBackend

        first = OpenVinoBackend(self._scaled(), self._threads, precision)
        share = difference(first, self._plain_onnxruntime())
        described = '' if share is None else describe_difference(share, self._quantized)
        if share is not None and share > MAX_DIFFERENCE:
            raise DifferenceError(f'{described}, expected at most {100 * MAX_DIFFERENCE:g} %')
        backend = ReplaceableBackend(first, self._plain_onnxruntime)
        backend.reason = '; '.join(filter(None, [reason, described, quantization_loss(self._model)]))
        return backend

    @staticmethod
    def chosen(backend: Backend, reasons: Sequence[str]) -> Backend:
        """Log a backend with the reasons for its choice, and return it with these reasons."""
        backend.reason = '; '.join(filter(None, reasons))
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

        return make_rtx_backend(self._model, self._precision, self._options(give_up, self._plain_onnxruntime), listed)

    def _substitute(self) -> Backend:
        """Make the backend that segments images while TensorRT builds its engine, and after a failure of TensorRT."""
        try:
            return self.tensorrt_rtx(give_up=True, listed=True)
        except Exception as error:  # usually because it is not installed
            _log.debug('TensorRT for RTX cannot stand in: %s', error)
            return self._plain_onnxruntime()

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
        """Make the ONNX Runtime backend on the CPU. Raises BackendError if it does not have the precision."""
        if self._cpu_precision('onnxruntime') == 'bf16':
            raise BackendError('backend onnxruntime: precision bf16 needs OpenVINO, expected auto or fp32')
        return self._plain_onnxruntime()

    def _plain_onnxruntime(self) -> Backend:
        """Make the ONNX Runtime backend on the CPU, in the precision of the model."""
        from stdc_core.inference.onnxruntime_backend import OnnxRuntimeBackend

        backend = OnnxRuntimeBackend(self._scaled(), self._threads)
        backend.reason = quantization_loss(self._model)
        return backend

    def _cpu_precision(self, name: str) -> str:
        """Return the precision on a CPU of a backend that is asked for by name.

        Raises:
            NotQuantizedError: The precision is int8, and the model is in float.
            BackendError: The model does not have the precision.
        """
        try:
            return check_cpu_precision(self._precision, self._quantized, lenient=False)
        except BackendError as error:
            raise type(error)(f'backend {name}: {error}') from error

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
        from stdc_core.inference.cpu_backend import describe_difference, difference

        backend = OpenVinoBackend(self._scaled(), self._threads, self._cpu_precision('openvino'))
        share = difference(backend, self._plain_onnxruntime()) if backend.bfloat16 else None
        described = '' if share is None else describe_difference(share, self._quantized)
        backend.reason = '; '.join(filter(None, [described, quantization_loss(self._model)]))
        return backend

    def _scaled(self) -> onnx.ModelProto:
        """Return the graph with the input scale inside, for backends that run the whole graph."""
        if self._scale is None:
            return self._model
        model = copy.deepcopy(self._model)
        set_input_scale(model, self._scale)
        return model
