# SPDX-License-Identifier: Apache-2.0
"""The segmenter's backend on OpenVINO: on CPUs that compute in bfloat16, several times as fast as ONNX Runtime."""

from __future__ import annotations

from collections import OrderedDict

import numpy as np
import onnx
import openvino
from onnx.utils import Extractor

from stdc_core.inference.backend import Backend
from stdc_core.inference.onnx_graph.quantized_on_cpu import for_cpu
from stdc_core.io.cpu import cores

#: Networks are compiled for a shape and a set of outputs; so many of the last ones are kept.
KEPT = 4


class OpenVinoBackend(Backend):
    """Runs a deployed graph on the CPU.

    OpenVINO computes in bfloat16 where the CPU has instructions for it (AMX, AVX-512 BF16), else in float32. In
    bfloat16, about one label in a thousand is another one.

    Args:
        model: the deployed graph.
        threads: CPU threads; 0 takes every core that this process may use.

    Raises:
        RuntimeError: the graph is invalid.
    """

    def __init__(self, model: onnx.ModelProto, threads: int = 0):
        model = for_cpu(model)
        self._core = openvino.Core()
        self._graphs = {
            outputs: Extractor(model).extract_model(['image'], list(outputs)).SerializeToString()
            for outputs in (('mask',), ('mask', 'confidence'))
        }
        self._core.read_model(self._graphs[('mask',)])  # an invalid graph is found out here
        self._settings = {
            'INFERENCE_NUM_THREADS': threads or cores(),
            'PERFORMANCE_HINT': 'LATENCY',
        }
        self._requests: OrderedDict[tuple, openvino.InferRequest] = OrderedDict()
        capable = 'BF16' in self._core.get_property('CPU', 'OPTIMIZATION_CAPABILITIES')
        self.name = 'openvino bf16' if capable else 'openvino'

    def _request(self, outputs: tuple[str, ...], shape: tuple[int, ...]) -> openvino.InferRequest:
        """Compiled for this shape: about a second the first time."""
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
        """uint8 BGR ``[N, H, W, 3]`` to mask and confidence, both uint8 ``[N, H, W]``, the latter None if unwanted."""
        outputs = ('mask', 'confidence') if confidence else ('mask',)
        results = self._request(outputs, images.shape).infer({'image': images})
        # Copies: OpenVINO writes its next results into the same memory.
        arrays = [np.array(results[name]) for name in outputs]
        return arrays[0], arrays[1] if confidence else None
