# SPDX-License-Identifier: Apache-2.0
"""Segment images with OpenVINO, which is several times as fast as ONNX Runtime on CPUs with bfloat16."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

import numpy as np
import onnx
import openvino
from onnx.utils import Extractor

from stdc_core.inference.backend import Backend, BackendError
from stdc_core.inference.cpu_choice import BFLOAT16
from stdc_core.inference.onnx_graph.quantized_on_cpu import for_cpu
from stdc_core.io.cpu import cores, cpu_flags

#: Number of compiled networks to keep, each for a shape and a set of outputs.
KEPT = 4


class OpenVinoBackend(Backend):
    """Runs a deployed graph on the CPU.

    OpenVINO computes in bfloat16 if the CPU has instructions for it (AMX, AVX-512 BF16), else in float32. In bfloat16,
    about one label in a thousand changes.

    Args:
        model: Deployed graph.
        threads: Number of CPU threads; 0 takes every core that this process may use.
        precision: Precision ``fp32`` or ``bf16`` of layers that are not in int8; others take what is fastest.

    Attributes:
        bfloat16: Whether it computes in bfloat16.

    Raises:
        BackendError: The CPU does not have bfloat16.
        RuntimeError: The graph is invalid.
    """

    def __init__(self, model: onnx.ModelProto, threads: int = 0, precision: str = 'auto'):
        model = for_cpu(model)
        self._core = openvino.Core()
        self._graphs: dict[tuple[str, ...], bytes] = {
            outputs: Extractor(model).extract_model(['image'], list(outputs)).SerializeToString()
            for outputs in (('mask',), ('mask', 'confidence'))
        }
        self._core.read_model(self._graphs[('mask',)])  # raises now if the graph is invalid
        # OpenVINO names bfloat16 also where it would have to emulate it.
        flags = cpu_flags()
        capable = 'BF16' in self._core.get_property('CPU', 'OPTIMIZATION_CAPABILITIES')
        capable = capable and (not flags or bool(flags & BFLOAT16))
        if precision == 'bf16' and not capable:
            raise BackendError('backend openvino: precision bf16: this CPU has none, expected auto or fp32')
        self.bfloat16 = capable and precision != 'fp32'
        self.name = 'openvino bf16' if self.bfloat16 else 'openvino'
        self._settings: dict[str, str | int | bool] = {
            'INFERENCE_NUM_THREADS': threads or cores(),
            'PERFORMANCE_HINT': 'LATENCY',
            # Every process would bind its threads to the same cores, and wait there for others while cores are idle.
            'ENABLE_CPU_PINNING': False,
        }
        if precision == 'fp32' or self.bfloat16:
            self._settings['INFERENCE_PRECISION_HINT'] = 'bf16' if self.bfloat16 else 'f32'
        self._requests: OrderedDict[tuple[tuple[str, ...], tuple[int, ...]], openvino.InferRequest] = OrderedDict()

    def prepare(self, size: tuple[int, int], progress: Callable[[str], None]) -> None:
        """Compile the network for images of (height, width); see :class:`Backend`."""
        self._request(('mask',), (1, *size, 3))

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
