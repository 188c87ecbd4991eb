# SPDX-License-Identifier: Apache-2.0
"""Use the real library of TensorRT for RTX as far as it goes without a GPU, and `stdc engine`."""

from __future__ import annotations

import re

import numpy as np
import onnx
import pytest

from stdc_core.commands.main import main
from stdc_core.inference import BackendError, Segmenter
from stdc_core.inference.tensorrt import make_backend as making
from stdc_core.inference.tensorrt.cuda import missing_driver
from stdc_core.inference.tensorrt.engine import Engine
from stdc_core.inference.tensorrt.engine_builder import EngineOptions, build
from stdc_core.inference.tensorrt.engine_cache import EngineCache
from stdc_core.inference.tensorrt.engine_store import EngineStore, KeptFile
from stdc_core.inference.tensorrt.library import EngineError, is_rtx, is_weakly_typed, logger_of, takes_batches
from stdc_core.inference.tensorrt.make_backend import RtxEngineBuilder
from stdc_core.inference.tensorrt.rtx import is_supported, parse_target, target_of

trt = pytest.importorskip('tensorrt_rtx', reason='TensorRT for RTX is not installed')

pytestmark = pytest.mark.usefixtures('engine_folder')

no_driver = pytest.mark.skipif(not missing_driver(), reason='there is an NVIDIA driver')

SIZE = (96, 130)


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
    logger.said()  # all tests of a process share the logger
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


def test_stdc_engine_builds_without_a_gpu(engine_folder, capsys):
    command = ['engine', '--size', '64x96', '--backend', 'tensorrt_rtx']
    assert main(command) == 0
    (engine,) = engine_folder.glob('*')  # and no lock file
    assert engine.suffix == '.engine'
    told = capsys.readouterr().out
    assert f'{engine}: the engine for 96x64 images\n' in told
    assert 'is ready for GPUs: any' in told
    written = engine.stat().st_mtime_ns
    assert main(command) == 0
    assert engine.stat().st_mtime_ns == written  # found, not built
    precisions = (['--precision', 'fp32'], ['--precision', 'int8'])  # int8 takes the file beside the shipped model
    for more in (['--target', '7.5'], ['--batch', '2'], *precisions, ['--input-scale', '0.5']):
        before = set(engine_folder.glob('*'))
        assert main([*command, *more]) == 0
        assert len(set(engine_folder.glob('*')) - before) == 1, more


@pytest.mark.parametrize(
    ('more', 'said'),
    [
        (
            ['--target', '9.9'],
            'backend tensorrt_rtx: TensorRT for RTX .* cannot build for SM99; expected any or one of',
        ),
        (['--target', 'best'], "target: expected any or a compute capability such as 8.6, found 'best'"),
        (['--precision', 'int4'], "backend tensorrt_rtx: precision 'int4', expected one of auto, fp32"),
        (['--batch', '0'], '--batch: expected 1 or more, found 0'),
        (['--input-scale', '5'], 'input scale: expected above 0 and at most 4, found 5'),
        (['--input-scale', '0.001'], 'image of 96 x 64 pixels, expected 1 x 1 to be left'),
        (['--backend', 'tensorrt', '--target', '8.6'], '--target is for --backend tensorrt_rtx'),
    ],
)
def test_mistakes_at_stdc_engine_are_told(more, said, capsys, engine_folder):
    assert main(['engine', '--size', '64x96', '--backend', 'tensorrt_rtx', *more]) == 2
    error = capsys.readouterr().err
    assert error.startswith('stdc engine: ')
    assert error.count('\n') == 1
    assert re.search(said, error), error
    assert not list(engine_folder.glob('*.engine'))


def test_a_cache_that_cannot_be_written_is_told_and_the_engine_is_built(tmp_path, monkeypatch, shipped_model, caplog):
    (tmp_path / 'file').write_text('in the way')
    monkeypatch.setenv('STDC_CACHE_DIR', str(tmp_path / 'file'))
    told: list[str] = []
    RtxEngineBuilder(shipped_model).prepare((64, 64), told.append)
    assert told
    assert 'cannot be kept' in caplog.text


@no_driver
def test_build_only_needs_no_gpu(engine_folder, monkeypatch):
    segmenter = Segmenter.load(backend='tensorrt_rtx', build_only=True)
    told: list[str] = []
    segmenter.prepare((64, 96), told.append)
    assert len(list(engine_folder.glob('*.engine'))) == len(told) == 1
    assert segmenter.backend == 'tensorrt_rtx fp16'
    with pytest.raises(BackendError, match='there is no GPU here; engines can be built, not run'):
        segmenter(np.zeros((64, 96, 3), np.uint8))
    with pytest.raises(BackendError, match=f'^backend tensorrt_rtx: {missing_driver()}$'):
        Segmenter.load(backend='tensorrt_rtx')


#: A network of one operator, and what its engine is built with.
TINY = onnx.parser.parse_model(
    '<ir_version: 8, opset_import: ["": 17]> tiny (float[1, 3, 4, 6] planes) => (float[1, 3, 4, 6] logits)'
    '{ logits = Neg(planes) }'
).SerializeToString()
TINY_OPTIONS = EngineOptions(half=False, int8=False, in_one=False, shape=(1, 3, 4, 6))


@pytest.mark.parametrize(
    ('damage', 'said'),
    [
        (lambda data: data[:1000], 'Serialization assertion plan.header.size'),
        (lambda data: b'x' * len(data), 'incompatible serialization version'),
        (lambda data: b'', 'empty memory buffer'),
    ],
    ids=['cut', 'of another program', 'empty'],
)
def test_a_damaged_engine_is_refused_in_the_words_of_the_library(damage, said):
    data, _ = build(trt, TINY, TINY_OPTIONS, b'', lambda percent: None)
    with pytest.raises(EngineError, match=f'^TensorRT for RTX .* cannot read the engine: .*{said}'):
        Engine(trt, damage(data))


@no_driver
def test_a_kept_engine_that_the_library_refuses_is_built_again_and_the_log_says_why(caplog):
    """As far as it goes without a GPU: the new engine cannot be read either."""
    built: list[bytes] = []

    def build_noted(*arguments):
        built.append(build(trt, *arguments)[0])
        return built[-1], b''

    store = EngineStore(EngineCache(), build_noted, lambda data: Engine(trt, data), making._rtx_conditions(trt))
    EngineCache().write(store.file(TINY, TINY_OPTIONS), b'x' * 1000)
    with pytest.raises(EngineError, match='cannot read the engine'):
        store.get(TINY, TINY_OPTIONS, lambda percent: None)
    assert len(built) == 1
    assert re.search('built again: TensorRT for RTX .* incompatible serialization version', caplog.text)


def test_an_engine_of_another_version_is_not_taken(engine_folder, shipped_model, monkeypatch):
    monkeypatch.setattr(making, 'build', lambda *_: (b'engine', b''))
    RtxEngineBuilder(shipped_model).prepare((64, 64), lambda text: None)
    monkeypatch.setattr(trt, '__version__', '1.7.2')
    other = RtxEngineBuilder(shipped_model)
    assert not other.file((64, 64)).exists()
    other.prepare((64, 64), lambda text: None)
    assert len(list(engine_folder.glob('*.engine'))) == 2


def test_the_progress_of_a_real_build_rises_to_the_end():
    told: list[int | None] = []
    build(trt, TINY, TINY_OPTIONS, b'', told.append)
    assert told == sorted(told)
    assert told[-1] == 100


def test_kernels_that_cannot_be_kept_are_a_warning(tmp_path, caplog):
    (tmp_path / 'file').write_text('in the way')
    KeptFile(EngineCache(tmp_path / 'file'), 'a.kernels').write(b'kernels')
    assert caplog.messages == [f'{tmp_path}/file/a.kernels cannot be kept, so it is made again next time: File exists']
