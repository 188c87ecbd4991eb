# SPDX-License-Identifier: Apache-2.0
"""Choose and make the backend for TensorRT for RTX on a GPU that the host stands in for."""

from __future__ import annotations

import logging
import sys

import numpy as np
import pytest
from host_device import HostDevice, needs_compiler

from stdc_core.commands.main import main
from stdc_core.inference import DEFAULT_MODEL, BackendError, backend_choice
from stdc_core.inference.backend_choice import make_backend
from stdc_core.inference.model_file import read_model
from stdc_core.inference.tensorrt import make_backend as making
from stdc_core.inference.tensorrt.cuda import missing_driver
from stdc_core.inference.tensorrt.engine_cache import EngineCache
from stdc_core.inference.tensorrt.make_backend import RtxEngineBuilder, make_rtx_backend
from stdc_core.inference.tensorrt.options import GpuOptions

trt = pytest.importorskip('tensorrt_rtx', reason='TensorRT for RTX is not installed')

pytestmark = pytest.mark.usefixtures('engine_folder')

no_driver = pytest.mark.skipif(not missing_driver(), reason='there is an NVIDIA driver')

SIZE = (96, 130)


class Gpu(HostDevice):
    name = 'Some GPU'
    capability = (8, 6)


@pytest.fixture
def gpu(monkeypatch) -> type[Gpu]:
    """A GPU as far as the host can be one: memory and kernels, but no engine runs on it. TensorRT is not installed."""
    monkeypatch.delenv(backend_choice.BACKEND_VARIABLE, raising=False)
    monkeypatch.setattr(backend_choice, 'cpu_flags', frozenset)
    monkeypatch.setitem(sys.modules, 'tensorrt', None)
    monkeypatch.setattr(backend_choice, 'missing_driver', lambda: '')
    monkeypatch.setattr(making, 'CudaDevice', Gpu)
    monkeypatch.setattr(Gpu, 'capability', (8, 6))
    return Gpu


@needs_compiler
@no_driver
def test_auto_takes_rtx_where_tensorrt_is_not_and_gives_up_where_its_engine_does_not_run(gpu, shipped_model, caplog):
    caplog.set_level(logging.INFO)
    backend = make_backend('auto', shipped_model, 1, wait=False)
    assert backend.name == 'tensorrt_rtx fp16'
    assert backend.reason.startswith(f'Some GPU, TensorRT for RTX {trt.__version__}; tensorrt: ')
    assert f'using tensorrt_rtx fp16: {backend.reason}' in caplog.messages
    image = np.random.default_rng(0).integers(0, 256, (1, 64, 64, 3), np.uint8)
    mask, _ = backend(image, False)
    np.testing.assert_array_equal(mask, make_backend('onnxruntime', shipped_model, 1)(image, False)[0])
    assert backend.name == 'onnxruntime'
    assert backend.reason.startswith(f'TensorRT for RTX failed: TensorRT for RTX {trt.__version__} cannot read')


@needs_compiler
@no_driver
def test_by_name_rtx_is_the_end_where_its_engine_does_not_run(gpu, shipped_model):
    backend = make_backend('tensorrt_rtx', shipped_model, 1)
    with pytest.raises(BackendError, match='^backend tensorrt_rtx: TensorRT for RTX .* cannot read the engine'):
        backend(np.zeros((1, 64, 64, 3), np.uint8), False)
    assert backend.failure is not None


@needs_compiler
def test_auto_leaves_rtx_out_on_a_gpu_that_nvidia_does_not_name(gpu, shipped_model):
    gpu.capability = (9, 0)
    backend = make_backend('auto', shipped_model, 1)
    assert backend.name == 'onnxruntime'
    assert 'tensorrt_rtx: NVIDIA names no support for compute capability 9.0' in backend.reason
    assert make_backend('tensorrt_rtx', shipped_model, 1).name == 'tensorrt_rtx fp16'


@needs_compiler
def test_rtx_takes_a_quantised_model_in_int8(gpu, shipped_model, quantized):
    assert make_rtx_backend(quantized, 'auto').name == 'tensorrt_rtx int8'
    assert RtxEngineBuilder(quantized).name == 'tensorrt_rtx int8'
    with pytest.raises(BackendError, match='^backend tensorrt_rtx: precision int8 needs a quantised model'):
        make_rtx_backend(shipped_model, 'int8')
    lenient = make_rtx_backend(shipped_model, 'int8', GpuOptions(give_up=True))
    assert lenient.name == 'tensorrt_rtx fp16'
    assert 'in fp16, not as asked: precision int8 needs a quantised model' in lenient.reason


@needs_compiler
@pytest.mark.parametrize(('capability', 'target'), [((8, 6), 'any'), ((7, 5), '7.5'), ((12, 0), 'any')])
def test_the_gpu_finds_the_engine_that_was_built_without_one(
    gpu, engine_folder, shipped_model, capability, target, monkeypatch
):
    gpu.capability = capability
    assert main(['engine', '--size', '64x96', '--backend', 'tensorrt_rtx', '--target', target]) == 0
    loaded: list[bytes] = []
    monkeypatch.setattr(making, 'Engine', lambda library, data, kernels: loaded.append(data) or data)
    monkeypatch.setattr(making, 'build', lambda *_: pytest.fail('built again'))
    info = read_model(DEFAULT_MODEL)[1]
    backend = make_rtx_backend(shipped_model, 'auto', GpuOptions(scale=info.scale))
    backend.prepare((64, 96), lambda text: None)
    assert loaded == [EngineCache().read(next(engine_folder.glob('*.engine')).name)]
