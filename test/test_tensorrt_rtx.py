# SPDX-License-Identifier: Apache-2.0
"""TensorRT for RTX, the real one: its parser and builder take every graph that we make, on a machine without a GPU."""

from __future__ import annotations

import logging
import re
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest
from host_device import HostDevice, needs_compiler
from onnx import helper

from stdc_core.classes import class_table
from stdc_core.commands.main import main
from stdc_core.inference import DEFAULT_MODEL, BackendError, Segmenter, backend_choice
from stdc_core.inference.backend_choice import make_backend
from stdc_core.inference.input_scale import InputScale
from stdc_core.inference.model_file import read_model
from stdc_core.inference.tensorrt import make_backend as making
from stdc_core.inference.tensorrt.cuda import missing_driver
from stdc_core.inference.tensorrt.engine import Engine
from stdc_core.inference.tensorrt.engine_builder import EngineOptions, build
from stdc_core.inference.tensorrt.engine_cache import EngineCache
from stdc_core.inference.tensorrt.library import EngineError, is_rtx, is_weakly_typed, logger_of, takes_batches
from stdc_core.inference.tensorrt.make_backend import RtxEngineBuilder, make_rtx_backend
from stdc_core.inference.tensorrt.options import GpuOptions
from stdc_core.inference.tensorrt.plan import EnginePlan
from stdc_core.inference.tensorrt.rtx import is_supported, parse_target, target_of

trt = pytest.importorskip('tensorrt_rtx', reason='TensorRT for RTX is not installed')

no_driver = pytest.mark.skipif(not missing_driver(), reason='there is an NVIDIA driver')

SIZE = (96, 130)


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path) -> Path:
    """Engines are kept in a folder of the test."""
    monkeypatch.setenv('STDC_CACHE_DIR', str(tmp_path / 'engines'))
    return tmp_path / 'engines'


@pytest.fixture(scope='module')
def model() -> onnx.ModelProto:
    return read_model(DEFAULT_MODEL)[0]


@pytest.fixture(scope='module')
def stdc2(tmp_path_factory) -> onnx.ModelProto:
    """The larger network with the 19 classes of Cityscapes, of random weights."""
    pytest.importorskip('torch', reason='torch is not installed')
    from stdc_core.export.onnx import export
    from stdc_core.model.segmentation import STDCSeg
    from stdc_core.model.weights import save_weights

    folder = tmp_path_factory.mktemp('stdc2')
    save_weights(STDCSeg('stdc2', 19), folder / 'weights.safetensors', class_table('cityscapes'), {})
    export(folder / 'weights.safetensors', folder / 'model.onnx')
    return read_model(folder / 'model.onnx')[0]


def format_1(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a copy with the metadata of format 1."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    kept = {entry.key: entry.value for entry in model.metadata_props if entry.key != 'stdc.network'}
    helper.set_model_props(copy, {**kept, 'stdc.format': '1'})
    return copy


def built(model: onnx.ModelProto, size: tuple[int, int] = SIZE, **plan) -> bytes:
    """Build the engine of a plan with the real library; a graph that it refuses fails with the library's words."""
    engine_plan = EnginePlan(model, **{'half': True, 'typed': True, **plan})
    return build(trt, engine_plan.network(size), engine_plan.options(size), b'', lambda percent: None)[0]


@pytest.mark.parametrize('half', [True, False], ids=['half', 'float'])
@pytest.mark.parametrize('batch', [1, 3])
@pytest.mark.parametrize('name', ['model', 'stdc2', 'quantized'])
def test_the_builder_takes_every_network(request, name, batch, half):
    small = built(request.getfixturevalue(name), half=half, max_batch=batch)
    assert len(small) > 1_000_000


@pytest.mark.parametrize('scale', [0.5, 0.75, 1.0, 1.5, 2.0])
@pytest.mark.parametrize('in_one', [False, True], ids=['split', 'one piece'])
def test_the_builder_takes_every_input_scale(model, scale, in_one):
    assert built(model, scale=InputScale(scale), in_one=in_one, half=not in_one)


@pytest.mark.parametrize('name', ['model', 'stdc2', 'quantized'])
def test_the_builder_takes_the_graph_in_one_piece(request, name):
    assert built(request.getfixturevalue(name), in_one=True, half=False)


@pytest.mark.parametrize('in_one', [False, True], ids=['split', 'one piece'])
def test_the_builder_takes_images_larger_than_those_of_the_training(model, in_one):
    assert built(model, (140, 180), scale=InputScale(1.5, 96 * 130), in_one=in_one, half=not in_one)


@pytest.mark.parametrize('size', [(1, 1), (33, 65), (97, 131), (200, 64), (360, 480)])
def test_the_builder_takes_odd_sizes(model, size):
    assert built(model, size)


def test_a_format_1_file_gives_the_same_network_as_format_2(model):
    one, two = (EnginePlan(each, half=True, typed=True).network(SIZE) for each in (format_1(model), model))
    assert one == two
    assert built(format_1(model))


@pytest.mark.parametrize('target', ['SM75', 'SM80', 'SM86', 'SM89', 'SM120', 'SM121'])
def test_the_builder_builds_for_every_gpu_that_is_named(model, target):
    assert target in trt.ComputeCapability.__members__
    assert built(model, (64, 64), target=target)


def convolutions(engine: bytes) -> Counter:
    """Count the convolutions in the plan of an engine by the types of their two inputs, image and weights."""
    text = engine.decode('latin-1')
    types = dict(re.findall(r'tensor={ [^\n]*? name="([^"]+)" [^\n]*? type=(\w+) }', text))
    inputs = re.findall(r'corrltn={ name="[^"]*"\s+output={[^}]*}\s+input={([^}]*)}', text)
    return Counter(tuple(types[name] for name in re.findall(r'"([^"]+)"', each)[:2]) for each in inputs)


@pytest.mark.parametrize('size', [(64, 96), (256, 512)])
def test_quantised_convolutions_are_computed_in_int8(model, quantized, size):
    """36 convolutions are quantised, see test_quantize.py; the others stay in half."""
    found = convolutions(built(quantized, size, int8=True, scale=InputScale(1.0)))
    assert found[('int8', 'int8')] == 36
    assert set(found) == {('int8', 'int8'), ('half', 'half')}
    assert set(convolutions(built(model, size, scale=InputScale(1.0)))) == {('half', 'half')}


def test_the_raw_model_is_refused_in_the_words_of_the_parser(model):
    """Transpose of bytes: why ``whole`` casts first."""
    options = EngineOptions(half=False, int8=False, in_one=True, shape=(1, 96, 130, 3))
    with pytest.raises(EngineError, match=r'^TensorRT for RTX \d.* cannot read the graph: .*UInt8') as error:
        build(trt, model.SerializeToString(), options, b'', lambda percent: None)
    assert '\n' not in str(error.value)


def test_an_operator_that_the_library_lacks_is_named(model):
    plan = EnginePlan(model, half=False)
    network = onnx.load_from_string(plan.network(SIZE))
    next(node for node in network.graph.node if node.op_type == 'Relu').op_type = 'NoSuchOperator'
    with pytest.raises(EngineError, match='cannot read the graph: .*Plugin not found'):
        build(trt, network.SerializeToString(), plan.options(SIZE), b'', lambda percent: None)


def test_a_target_that_does_not_exist_is_an_error_that_names_those_that_do(model):
    with pytest.raises(EngineError, match='cannot build for SM99; expected any or one of SM75, SM80, SM86, .*SM120'):
        built(model, target='SM99')


@no_driver
def test_an_engine_cannot_be_read_without_a_gpu(model):
    with pytest.raises(EngineError, match=r'^TensorRT for RTX \d.* cannot read the engine: .*driver'):
        Engine(trt, built(model, (64, 64)))


def test_the_library_has_every_name_that_is_used():
    assert is_rtx(trt)
    assert not is_weakly_typed(trt)
    assert takes_batches(trt)
    used = {
        trt.Builder: 'create_network create_builder_config create_optimization_profile build_serialized_network',
        trt.IBuilderConfig: 'set_flag clear_flag set_tactic_sources add_optimization_profile progress_monitor '
        'num_compute_capabilities set_compute_capability',
        trt.BuilderFlag: 'TF32 REQUIRE_USER_ALLOCATION',
        trt.NetworkDefinitionCreationFlag: 'STRONGLY_TYPED',
        trt.INetworkDefinition: 'get_input get_output num_outputs',
        trt.ITensor: 'name dtype allowed_formats',
        trt.TensorFormat: 'LINEAR',
        trt.IOptimizationProfile: 'set_shape',
        trt.OnnxParser: 'parse num_errors get_error',
        trt.Runtime: 'deserialize_cuda_engine',
        trt.ICudaEngine: 'create_runtime_config create_execution_context get_tensor_shape',
        trt.IRuntimeConfig: 'set_execution_context_allocation_strategy create_runtime_cache set_runtime_cache',
        trt.ExecutionContextAllocationStrategy: 'USER_MANAGED',
        trt.IRuntimeCache: 'serialize deserialize',
        trt.IExecutionContext: 'active_optimization_profile set_optimization_profile_async set_input_shape '
        'update_device_memory_size_for_shapes set_device_memory set_tensor_address execute_async_v3 '
        'is_stream_capturable',
        trt.IProgressMonitor: 'phase_start step_complete phase_finish',
    }
    for of, names in used.items():
        assert not [name for name in names.split() if not hasattr(of, name)], of


def test_the_logger_keeps_errors_alone():
    logger = logger_of(trt)
    logger.log(trt.ILogger.Severity.ERROR, 'first\n')
    logger.log(trt.ILogger.Severity.INFO, 'second')
    assert logger.said() == 'first'
    assert logger.said() == 'it does not say why'


class Runtime:
    """The part of TensorRT for RTX that needs a GPU: read an engine, make a context, keep kernels. Notes its calls."""

    def __init__(self, kept_fit: bool = True):
        self.told: list[tuple] = []
        self._kept_fit = kept_fit

    def __getattr__(self, name):
        def call(*arguments):
            self.told.append((name, *arguments))
            results = {
                'deserialize_cuda_engine': self,
                'create_runtime_config': self,
                'create_runtime_cache': self,
                'deserialize': self._kept_fit,
                'serialize': b'kernels of this run',
                'create_execution_context': self,
                'get_tensor_shape': (1, 3, 8, 8),
                'update_device_memory_size_for_shapes': 4096,
                'is_stream_capturable': False,
            }
            return results.get(name, True)

        return call


class Kept:
    """A file of kernels in memory."""

    def __init__(self, data: bytes | None):
        self.data, self.writes = data, 0

    def read(self) -> bytes | None:
        return self.data

    def write(self, data: bytes) -> None:
        self.data, self.writes = data, self.writes + 1


@pytest.mark.parametrize(
    ('kept', 'fits', 'writes'),
    [(None, True, 1), (b'of another driver', False, 1), (b'kernels of this run', True, 0)],
)
def test_an_engine_runs_in_memory_of_ours_and_its_kernels_are_kept(monkeypatch, kept, fits, writes):
    runtime, file, sizes = Runtime(fits), Kept(kept), []
    monkeypatch.setattr('stdc_core.inference.tensorrt.engine.start', lambda library, kind: runtime)
    engine = Engine(trt, b'engine', file)
    run = engine.execution({'planes': 1, 'logits': 2}, 'planes', (1, 3, 8, 8), 7, lambda size: sizes.append(size) or 99)
    assert not run.is_capturable()
    run()
    engine.keep_kernels()
    engine.keep_kernels()
    told = [each[0] for each in runtime.told]
    strategy = ('set_execution_context_allocation_strategy', trt.ExecutionContextAllocationStrategy.USER_MANAGED)
    assert strategy in runtime.told
    assert sizes == [4096]
    assert ('set_device_memory', 99, 4096) in runtime.told
    assert (
        told.index('set_input_shape')
        < told.index('update_device_memory_size_for_shapes')
        < told.index('execute_async_v3')
    )
    assert told.index('set_runtime_cache') < told.index('create_execution_context')
    assert (file.data, file.writes) == (b'kernels of this run', writes)


@pytest.mark.parametrize(
    ('capability', 'supported', 'target'),
    [
        ((7, 0), False, 'any'),
        ((7, 5), True, 'SM75'),
        ((8, 0), True, 'any'),
        ((8, 6), True, 'any'),
        ((8, 7), False, 'any'),
        ((8, 9), True, 'any'),
        ((9, 0), False, 'any'),
        ((12, 0), True, 'any'),
        ((12, 1), True, 'any'),
        ((13, 0), True, 'any'),
    ],
)
def test_gpus_that_nvidia_names(capability, supported, target):
    assert is_supported(capability) == supported
    assert target_of(capability) == target


def test_a_target_is_typed_as_a_compute_capability():
    assert [parse_target(text) for text in ('any', '7.5', '8.6', '12.0')] == ['any', 'SM75', 'SM86', 'SM120']
    with pytest.raises(ValueError, match="^target: expected any or a compute capability such as 8.6, found 'SM86'$"):
        parse_target('SM86')


def test_stdc_engine_builds_without_a_gpu(cache, capsys):
    command = ['engine', '--size', '64x96', '--backend', 'tensorrt_rtx']
    assert main(command) == 0
    (engine,) = cache.glob('*')  # and no lock file
    assert engine.suffix == '.engine'
    told = capsys.readouterr().out
    assert f'{engine}: the engine for 96x64 images\n' in told
    assert 'is ready for GPUs: any' in told
    written = engine.stat().st_mtime_ns
    assert main(command) == 0
    assert engine.stat().st_mtime_ns == written  # found, not built
    for more in (['--target', '7.5'], ['--batch', '2'], ['--precision', 'fp32'], ['--input-scale', '0.5']):
        before = set(cache.glob('*'))
        assert main([*command, *more]) == 0
        assert len(set(cache.glob('*')) - before) == 1, more


@pytest.mark.parametrize(
    ('more', 'said'),
    [
        (
            ['--target', '9.9'],
            'backend tensorrt_rtx: TensorRT for RTX .* cannot build for SM99; expected any or one of',
        ),
        (['--target', 'best'], "target: expected any or a compute capability such as 8.6, found 'best'"),
        (['--precision', 'int8'], 'backend tensorrt_rtx: precision int8 needs a quantised model'),
        (['--precision', 'int4'], "backend tensorrt_rtx: precision 'int4', expected one of auto, fp32"),
        (['--batch', '0'], '--batch: expected 1 or more, found 0'),
        (['--input-scale', '5'], 'input scale: expected above 0 and at most 4, found 5'),
        (['--input-scale', '0.001'], 'image of 96 x 64 pixels, expected 1 x 1 to be left'),
        (['--backend', 'tensorrt', '--target', '8.6'], '--target is for --backend tensorrt_rtx'),
    ],
)
def test_mistakes_at_stdc_engine_are_told(more, said, capsys, cache):
    assert main(['engine', '--size', '64x96', '--backend', 'tensorrt_rtx', *more]) == 2
    error = capsys.readouterr().err
    assert error.startswith('stdc engine: ')
    assert error.count('\n') == 1
    assert re.search(said, error), error
    assert not list(cache.glob('*.engine'))


def test_a_cache_that_cannot_be_written_is_told_and_the_engine_is_built(tmp_path, monkeypatch, model, caplog):
    (tmp_path / 'file').write_text('in the way')
    monkeypatch.setenv('STDC_CACHE_DIR', str(tmp_path / 'file'))
    told: list[str] = []
    RtxEngineBuilder(model).prepare((64, 64), told.append)
    assert told
    assert 'cannot be kept' in caplog.text


@no_driver
def test_build_only_needs_no_gpu(cache, monkeypatch):
    segmenter = Segmenter.load(backend='tensorrt_rtx', build_only=True)
    told: list[str] = []
    segmenter.prepare((64, 96), told.append)
    assert len(list(cache.glob('*.engine'))) == len(told) == 1
    assert segmenter.backend == 'tensorrt_rtx fp16'
    with pytest.raises(BackendError, match='there is no GPU here; engines can be built, not run'):
        segmenter(np.zeros((64, 96, 3), np.uint8))
    with pytest.raises(BackendError, match=f'^backend tensorrt_rtx: {missing_driver()}$'):
        Segmenter.load(backend='tensorrt_rtx')


class Gpu(HostDevice):
    name = 'Some GPU'
    capability = (8, 6)


@pytest.fixture
def gpu(monkeypatch) -> type[Gpu]:
    """A GPU as far as the host can be one: memory and kernels, but no engine runs on it. TensorRT is not installed."""
    monkeypatch.setitem(sys.modules, 'tensorrt', None)
    monkeypatch.setattr(backend_choice, 'missing_driver', lambda: '')
    monkeypatch.setattr(making, 'CudaDevice', Gpu)
    monkeypatch.setattr(Gpu, 'capability', (8, 6))
    return Gpu


@needs_compiler
@no_driver
def test_auto_takes_rtx_where_tensorrt_is_not_and_gives_up_where_its_engine_does_not_run(gpu, model, caplog):
    caplog.set_level(logging.INFO)
    backend = make_backend('auto', model, 1, wait=False)
    assert backend.name == 'tensorrt_rtx fp16'
    assert backend.reason.startswith(f'Some GPU, TensorRT for RTX {trt.__version__}; tensorrt: ')
    assert f'using tensorrt_rtx fp16: {backend.reason}' in caplog.messages
    image = np.random.default_rng(0).integers(0, 256, (1, 64, 64, 3), np.uint8)
    mask, _ = backend(image, False)
    np.testing.assert_array_equal(mask, make_backend('onnxruntime', model, 1)(image, False)[0])
    assert backend.name == 'onnxruntime'
    assert backend.reason.startswith(f'TensorRT for RTX failed: TensorRT for RTX {trt.__version__} cannot read')


@needs_compiler
@no_driver
def test_by_name_rtx_is_the_end_where_its_engine_does_not_run(gpu, model):
    backend = make_backend('tensorrt_rtx', model, 1)
    with pytest.raises(BackendError, match='^backend tensorrt_rtx: TensorRT for RTX .* cannot read the engine'):
        backend(np.zeros((1, 64, 64, 3), np.uint8), False)
    assert backend.failure is not None


@needs_compiler
def test_auto_leaves_rtx_out_on_a_gpu_that_nvidia_does_not_name(gpu, model):
    gpu.capability = (9, 0)
    backend = make_backend('auto', model, 1)
    assert backend.name == 'onnxruntime'
    assert 'tensorrt_rtx: NVIDIA names no support for compute capability 9.0' in backend.reason
    assert make_backend('tensorrt_rtx', model, 1).name == 'tensorrt_rtx fp16'


@needs_compiler
def test_rtx_takes_a_quantised_model_in_int8(gpu, model, quantized):
    assert make_rtx_backend(quantized, 'auto').name == 'tensorrt_rtx int8'
    assert RtxEngineBuilder(quantized).name == 'tensorrt_rtx int8'
    with pytest.raises(BackendError, match='^backend tensorrt_rtx: precision int8 needs a quantised model'):
        make_rtx_backend(model, 'int8')
    lenient = make_rtx_backend(model, 'int8', GpuOptions(give_up=True))
    assert lenient.name == 'tensorrt_rtx fp16'
    assert 'in fp16, not as asked: precision int8 needs a quantised model' in lenient.reason


@needs_compiler
@pytest.mark.parametrize(('capability', 'target'), [((8, 6), 'any'), ((7, 5), '7.5'), ((12, 0), 'any')])
def test_the_gpu_finds_the_engine_that_was_built_without_one(gpu, cache, model, capability, target, monkeypatch):
    gpu.capability = capability
    assert main(['engine', '--size', '64x96', '--backend', 'tensorrt_rtx', '--target', target]) == 0
    loaded: list[bytes] = []
    monkeypatch.setattr(making, 'Engine', lambda library, data, kernels: loaded.append(data) or data)
    monkeypatch.setattr(making, 'build', lambda *_: pytest.fail('built again'))
    info = read_model(DEFAULT_MODEL)[1]
    backend = make_rtx_backend(model, 'auto', GpuOptions(scale=info.scale))
    backend.prepare((64, 96), lambda text: None)
    assert loaded == [EngineCache().read(next(cache.glob('*.engine')).name)]
