# SPDX-License-Identifier: Apache-2.0
"""Segment images with ONNX Runtime, on any CPU, and on an NVIDIA GPU where its CUDA provider is installed."""

from __future__ import annotations

import threading

import numpy as np
import onnx
import onnxruntime
from onnx.utils import Extractor

from stdc_core.inference.backend import Backend, BackendError
from stdc_core.inference.heap_memory import give_back_freed_memory
from stdc_core.inference.onnx_graph.quantized_on_cpu import for_cpu
from stdc_core.io.cpu import cores

_CPU, _CUDA = 'CPUExecutionProvider', 'CUDAExecutionProvider'


class OnnxRuntimeBackend(Backend):
    """Runs a deployed graph.

    ONNX Runtime computes all outputs of a graph. Therefore there is one session without the confidence, and a second
    one with it, which is made when the confidence is first needed.

    Args:
        model: Deployed graph.
        threads: Number of CPU threads; 0 takes every core that this process may use.
        cuda: Whether to run on the GPU.

    Raises:
        BackendError: The CUDA provider is not installed, or it does not start.
        Exception: The graph is invalid, and ONNX Runtime raises an exception of its own.
    """

    def __init__(self, model: onnx.ModelProto, threads: int = 0, cuda: bool = False):
        self.name = 'onnxruntime_cuda' if cuda else 'onnxruntime'
        if cuda and _CUDA not in onnxruntime.get_available_providers():
            raise BackendError(
                f'backend {self.name}: the installed ONNX Runtime has no CUDA provider; pip install onnxruntime-gpu'
            )
        self._cuda = cuda
        self._model = model if cuda else for_cpu(model)
        self._threads = threads or cores()
        self._sessions: dict[tuple[str, ...], onnxruntime.InferenceSession] = {}
        self._lock = threading.Lock()
        self._session(('mask',))

    def _session(self, outputs: tuple[str, ...]) -> onnxruntime.InferenceSession:
        """Return the session for these outputs, and make it if it does not exist."""
        with self._lock:
            if outputs not in self._sessions:
                self._sessions[outputs] = self._make_session(outputs)
                give_back_freed_memory()  # tens of MB after loading a model
            return self._sessions[outputs]

    def _make_session(self, outputs: tuple[str, ...]) -> onnxruntime.InferenceSession:
        """Make a session for these outputs. Raises BackendError if the CUDA provider does not start."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self._threads
        # Threads that spin between frames save a few percent of latency, but take a quarter of the CPU time, which a
        # robot needs for other work.
        options.add_session_config_entry('session.intra_op.allow_spinning', '0')
        # Warnings of the graph optimiser do not help a user, and errors are raised as exceptions.
        options.log_severity_level = 4
        graph = Extractor(self._model).extract_model(['image'], list(outputs)).SerializeToString()
        providers = [_CUDA, _CPU] if self._cuda else [_CPU]
        session = onnxruntime.InferenceSession(graph, options, providers=providers, enable_fallback=0)
        # Without the CUDA libraries, ONNX Runtime would use the CPU and say so only in its own log.
        if self._cuda and session.get_providers()[0] != _CUDA:
            raise BackendError(f'backend {self.name}: the CUDA provider does not start; are CUDA and cuDNN installed?')
        return session

    def __call__(self, images: np.ndarray, confidence: bool) -> tuple[np.ndarray, np.ndarray | None]:
        """Segment images; see :class:`Backend`."""
        outputs = ('mask', 'confidence') if confidence else ('mask',)
        results = self._session(outputs).run(outputs, {'image': images})
        return results[0], results[1] if confidence else None
