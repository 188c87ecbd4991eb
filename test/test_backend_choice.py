# SPDX-License-Identifier: Apache-2.0
"""Test the backend that `auto` chooses with a GPU that TensorRT may not support; GPU and TensorRT are stand-ins."""

from __future__ import annotations

import logging
import sys
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
from host_device import HostDevice, needs_compiler
from onnx import helper

from stdc_core.inference import DEFAULT_MODEL, BackendError
from stdc_core.inference import backend_choice as backends
from stdc_core.inference.backend_choice import make_backend
from stdc_core.inference.model_file import read_model
from stdc_core.inference.network_description import METADATA_KEY
from stdc_core.inference.tensorrt import make_backend as tensorrt_backend

pytestmark = needs_compiler


def format_1(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a copy without the network description, so that the backend must find the network in the graph."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    kept = {entry.key: entry.value for entry in model.metadata_props if entry.key != METADATA_KEY}
    helper.set_model_props(copy, {**kept, 'stdc.format': '1'})
    return copy


class Gpu(HostDevice):
    name = 'Some GPU'
    capability = (9, 0)


@pytest.fixture
def gpu(monkeypatch) -> type[Gpu]:
    """Install a stand-in GPU with a TensorRT that enables float16 by a flag."""
    flags = SimpleNamespace(FP16=0)
    tensorrt = SimpleNamespace(__name__='tensorrt', __version__='10.3.0', BuilderFlag=flags)
    monkeypatch.setitem(sys.modules, 'tensorrt', tensorrt)
    monkeypatch.setitem(sys.modules, 'tensorrt_rtx', None)
    monkeypatch.setattr(backends, 'missing_driver', lambda: '')
    monkeypatch.setattr(backends, 'cpu_flags', frozenset)
    monkeypatch.delenv(backends.BACKEND_VARIABLE)
    monkeypatch.setattr(tensorrt_backend, 'CudaDevice', Gpu)
    monkeypatch.setattr(Gpu, 'capability', (9, 0))
    return Gpu


@pytest.fixture(scope='module')
def model() -> onnx.ModelProto:
    return read_model(DEFAULT_MODEL)[0]


def test_auto_uses_the_gpu(gpu, model, caplog):
    caplog.set_level(logging.INFO)
    backend = make_backend('auto', model, 1)
    assert (backend.name, backend.reason) == ('tensorrt fp16', 'Some GPU, TensorRT 10.3.0')
    assert 'using tensorrt fp16: Some GPU, TensorRT 10.3.0' in caplog.messages


@pytest.mark.parametrize(
    ('precision', 'capability', 'name', 'why'),
    [
        ('int8', (9, 0), 'tensorrt fp16', 'precision int8 needs a quantised model: stdc quantize makes one'),
        ('fp16', (5, 0), 'tensorrt fp32', 'precision fp16: a GPU of compute capability 5.0 has none, expected fp32'),
    ],
)
def test_unsupported_precision_falls_back_on_the_gpu(gpu, model, precision, capability, name, why):
    gpu.capability = capability
    backend = make_backend('auto', model, 1, precision)
    assert backend.name == name
    assert backend.reason == f'Some GPU, TensorRT 10.3.0, in {name[-4:]}, not as asked: {why}'
    with pytest.raises(BackendError, match=f'^backend tensorrt: {why}$'):
        make_backend('tensorrt', model, 1, precision)


def test_quantised_model_on_a_gpu_without_int8_runs_on_the_cpu(gpu, model, monkeypatch):
    monkeypatch.setattr(tensorrt_backend, 'is_quantized', lambda model: True)
    gpu.capability = (6, 0)
    backend = make_backend('auto', model, 1)
    assert backend.name == 'onnxruntime'
    assert backend.reason == (
        'tensorrt: precision int8: a GPU of compute capability 6.0 has none; '
        'tensorrt_rtx: import of tensorrt_rtx halted; None in sys.modules; the CPU lacks bfloat16'
    )


def test_graph_that_only_onnx_runtime_can_run(gpu, model):
    changed = format_1(model)
    choice = next(node for node in changed.graph.node if node.op_type == 'ArgMax')
    changed.graph.node.insert(
        list(changed.graph.node).index(choice), helper.make_node('Identity', [choice.input[0]], ['between'])
    )
    choice.input[0] = 'between'
    backend = make_backend('auto', changed, 1)
    assert backend.name == 'onnxruntime'
    assert backend.reason.startswith('tensorrt: its graph is not a network between an image and an ArgMax')
    image = np.random.default_rng(0).integers(0, 256, (1, 64, 64, 3), np.uint8)
    np.testing.assert_array_equal(backend(image, False)[0], make_backend('onnxruntime', model, 1)(image, False)[0])
    with pytest.raises(ValueError, match='^its graph is not a network'):
        make_backend('tensorrt', changed, 1)
