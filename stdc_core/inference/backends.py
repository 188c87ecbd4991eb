"""What a deployed graph runs on."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import onnx

#: ``auto`` is ONNX Runtime: it is always there, and its masks are the same on every machine.
BACKENDS = ('auto', 'onnxruntime', 'openvino')


class BackendError(ValueError):
    """A backend that nobody knows, or that cannot run here; the message says what it lacks."""


class Backend(Protocol):
    """Runs a deployed graph; ``name`` is what it is called in logs."""

    name: str

    def __call__(self, images: np.ndarray, confidence: bool) -> tuple[np.ndarray, np.ndarray | None]:
        """uint8 BGR ``[N, H, W, 3]`` to mask and confidence, both uint8 ``[N, H, W]``, the latter None if unwanted."""


def make_backend(name: str, model: onnx.ModelProto, threads: int) -> Backend:
    """A backend by its name in :data:`BACKENDS`.

    Args:
        model: the deployed graph.
        threads: CPU threads; 0 takes every core that this process may use.

    Raises:
        BackendError: there is no backend of that name, or what it needs is not installed.
        the backend's own exceptions: the graph is invalid.
    """
    if name not in BACKENDS:
        raise BackendError(f'backend {name!r}, expected one of {", ".join(BACKENDS)}')
    if name == 'openvino':
        try:
            from stdc_core.inference.openvino_backend import OpenVinoBackend
        except ImportError as error:
            raise BackendError(f'backend openvino: {error}; pip install openvino') from error
        return OpenVinoBackend(model, threads)
    from stdc_core.inference.onnxruntime_backend import OnnxRuntimeBackend

    return OnnxRuntimeBackend(model, threads)
