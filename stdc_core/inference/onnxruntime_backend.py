# SPDX-License-Identifier: Apache-2.0
"""The segmenter's backend on ONNX Runtime: any CPU."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
from onnx.utils import Extractor

from stdc_core.inference.backend import Backend
from stdc_core.inference.heap_memory import give_back_freed_memory
from stdc_core.inference.onnx_graph.quantized_on_cpu import for_cpu
from stdc_core.io.cpu import cores


class OnnxRuntimeBackend(Backend):
    """Runs a deployed graph on the CPU.

    ONNX Runtime computes all that a graph holds, wanted or not. So there is one session without the confidence, and a
    second one with it, made when the confidence is first asked for.

    Args:
        model: the deployed graph.
        threads: CPU threads; 0 takes every core that this process may use.

    Raises:
        onnxruntime's exceptions: the graph is invalid.
    """

    name = 'onnxruntime'

    def __init__(self, model: onnx.ModelProto, threads: int = 0):
        self._model = for_cpu(model)
        self._threads = threads or cores()
        self._sessions: dict[tuple[str, ...], onnxruntime.InferenceSession] = {}
        self._session(('mask',))

    def _session(self, outputs: tuple[str, ...]) -> onnxruntime.InferenceSession:
        if outputs not in self._sessions:
            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = self._threads
            # Threads that spin between frames cost a quarter of the CPU time, which a robot has better use for, and
            # save a few per cent of latency.
            options.add_session_config_entry('session.intra_op.allow_spinning', '0')
            # Warnings of the graph optimiser tell a user nothing that he could act on; errors are raised besides.
            options.log_severity_level = 4
            graph = Extractor(self._model).extract_model(['image'], list(outputs))
            self._sessions[outputs] = onnxruntime.InferenceSession(
                graph.SerializeToString(), options, providers=['CPUExecutionProvider'], enable_fallback=0
            )
            give_back_freed_memory()  # tens of MB, after loading a model
        return self._sessions[outputs]

    def __call__(self, images: np.ndarray, confidence: bool) -> tuple[np.ndarray, np.ndarray | None]:
        """uint8 BGR ``[N, H, W, 3]`` to mask and confidence, both uint8 ``[N, H, W]``, the latter None if unwanted."""
        outputs = ('mask', 'confidence') if confidence else ('mask',)
        results = self._session(outputs).run(outputs, {'image': images})
        return results[0], results[1] if confidence else None
