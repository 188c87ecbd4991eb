# SPDX-License-Identifier: Apache-2.0
"""Segment images with OpenVINO, which is several times as fast as ONNX Runtime on CPUs with bfloat16."""

from __future__ import annotations

from collections import OrderedDict

import numpy as np
import onnx
import openvino
from onnx.utils import Extractor

from stdc_core.inference.backend import Backend
from stdc_core.inference.onnx_graph.quantized_on_cpu import for_cpu
from stdc_core.io.cpu import cores

#: Number of compiled networks to keep, each for a shape and a set of outputs.
KEPT = 4


class OpenVinoBackend(Backend):
    """Runs a deployed graph on the CPU.

    OpenVINO computes in bfloat16 if the CPU has instructions for it (AMX, AVX-512 BF16), else in float32. In bfloat16,
    about one label in a thousand changes.

    Args:
        model: Deployed graph.
        threads: Number of CPU threads; 0 takes every core that this process may use.

    Raises:
        RuntimeError: The graph is invalid.
    """

    def __init__(self, model: onnx.ModelProto, threads: int = 0):
        model = for_cpu(model)
        self._core = openvino.Core()
        self._graphs: dict[tuple[str, ...], bytes] = {
            outputs: Extractor(model).extract_model(['image'], list(outputs)).SerializeToString()
            for outputs in (('mask',), ('mask', 'confidence'))
        }
        self._core.read_model(self._graphs[('mask',)])  # raises now if the graph is invalid
        self._settings = {
            'INFERENCE_NUM_THREADS': threads or cores(),
            'PERFORMANCE_HINT': 'LATENCY',
        }
        self._requests: OrderedDict[tuple[tuple[str, ...], tuple[int, ...]], openvino.InferRequest] = OrderedDict()
        capable = 'BF16' in self._core.get_property('CPU', 'OPTIMIZATION_CAPABILITIES')
        self.name = 'openvino bf16' if capable else 'openvino'

    def _request(self, outputs: tuple[str, ...], shape: tuple[int, ...]) -> openvino.InferRequest:
        """Return the network compiled for a shape, which takes about a second the first time."""
        key = (outputs, shape)
        if key not in self._requests:
            model = self._core.read_model(self._graphs[outputs])
            model.reshape({'image': list(shape)})
            self._requests[key] = self._core.compile_model(model, 'CPU', self._settings).create_infer_request()
            if len(self._requests) > KEPT:
                self._requests.popitem(last=False)
        self._requests.move_to_end(key)
        return self._requests[key]

    def __call__(self, images: np.ndarray, confidence: bool) -> tuple[np.ndarray, np.ndarray | None]:
        """Segment images; see :class:`Backend`."""
        outputs = ('mask', 'confidence') if confidence else ('mask',)
        results = self._request(outputs, images.shape).infer({'image': images})
        # Copied, because OpenVINO writes its next results into the same memory.
        arrays = [np.array(results[name]) for name in outputs]
        return arrays[0], arrays[1] if confidence else None
