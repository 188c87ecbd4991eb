# SPDX-License-Identifier: Apache-2.0
"""What a deployed graph runs on."""

from __future__ import annotations

import copy
from functools import partial
from typing import Any

import onnx

from stdc_core.inference.backend import PRECISIONS, Backend, BackendError
from stdc_core.inference.input_scale import InputScale, set_input_scale
from stdc_core.inference.tensorrt.cuda import missing_driver
from stdc_core.io.text import one_line

#: ``auto`` is TensorRT where there is an NVIDIA GPU with it, else ONNX Runtime, which is always there.
BACKENDS = ('auto', 'onnxruntime', 'openvino', 'tensorrt')


def make_backend(
    name: str,
    model: onnx.ModelProto,
    threads: int,
    precision: str = 'auto',
    max_batch: int = 1,
    wait: bool = True,
    scale: InputScale | None = None,
) -> Backend:
    """A backend by its name in :data:`BACKENDS`.

    Args:
        model: the deployed graph.
        threads: CPU threads; 0 takes every core that this process may use.
        precision: one of ``PRECISIONS``.
        max_batch: images in one call, at most, where a GPU takes them together.
        wait: what an engine has yet to be built for waits for it; else ONNX Runtime answers meanwhile.
        scale: at which the network sees images; None: at the graph's own.

    Raises:
        BackendError: there is no backend or precision of that name, or what it needs is not there.
        the backend's own exceptions: the graph is invalid.
    """
    if name not in BACKENDS:
        raise BackendError(f'backend {name!r}, expected one of {", ".join(BACKENDS)}')
    if precision not in PRECISIONS:
        raise BackendError(f'precision {precision!r}, expected one of {", ".join(PRECISIONS)}')
    on_cpu = partial(_scaled, model, scale)
    if name == 'openvino':
        return _openvino(on_cpu(), threads)
    if name == 'onnxruntime':
        return _onnxruntime(on_cpu(), threads)
    settings = {'max_batch': max_batch, 'wait': wait, 'give_up': name == 'auto', 'scale': scale}
    try:
        return _tensorrt(model, precision, other=lambda: _onnxruntime(on_cpu(), threads), **settings)
    except Exception as error:  # TensorRT's part may also fail on a graph that ONNX Runtime runs
        if name != 'auto':
            raise
        backend = _onnxruntime(on_cpu(), threads)
        known = isinstance(error, BackendError)
        backend.reason = (
            str(error).partition('backend tensorrt: ')[2] if known else f'TensorRT is not used: {one_line(error, 600)}'
        )
        return backend


def _scaled(model: onnx.ModelProto, scale: InputScale | None) -> onnx.ModelProto:
    """The graph for backends that find the scale of an image in it."""
    if scale is None:
        return model
    model = copy.deepcopy(model)
    set_input_scale(model, scale)
    return model


def _tensorrt(model: onnx.ModelProto, precision: str, **settings: Any) -> Backend:
    reason = missing_driver()
    if reason:
        raise BackendError(f'backend tensorrt: {reason}')
    from stdc_core.inference.tensorrt.backend import make_tensorrt_backend

    return make_tensorrt_backend(model, precision, **settings)


def _onnxruntime(model: onnx.ModelProto, threads: int) -> Backend:
    from stdc_core.inference.onnxruntime_backend import OnnxRuntimeBackend

    return OnnxRuntimeBackend(model, threads)


def _openvino(model: onnx.ModelProto, threads: int) -> Backend:
    try:
        from stdc_core.inference.openvino_backend import OpenVinoBackend
    except ImportError as error:
        raise BackendError(f'backend openvino: {error}; pip install openvino') from error
    return OpenVinoBackend(model, threads)
