# SPDX-License-Identifier: Apache-2.0
"""Build and run engines with TensorRT 8.5 to 11: real graphs and parser, and a stand-in for what needs a GPU."""

from __future__ import annotations

import sys

import numpy as np
import onnx
import pytest
from fake_tensorrt import GENERATIONS, SHARING, FakeTensorRt, numpy_type, streams_of
from host_device import HostDevice, cuda_error, needs_compiler
from onnx import TensorProto, helper

from stdc_core.data.synthetic import SyntheticDrive
from stdc_core.inference import DEFAULT_MODEL, BackendError
from stdc_core.inference.input_scale import set_input_scale
from stdc_core.inference.model_file import read_model
from stdc_core.inference.onnxruntime_backend import OnnxRuntimeBackend
from stdc_core.inference.tensorrt import make_backend as tensorrt_backend
from stdc_core.inference.tensorrt.engine import Engine
from stdc_core.inference.tensorrt.engine_builder import EngineOptions, build
from stdc_core.inference.tensorrt.library import EngineError, is_weakly_typed, logger_of, takes_batches
from stdc_core.inference.tensorrt.make_backend import make_tensorrt_backend
from stdc_core.inference.tensorrt.options import GpuOptions


@pytest.fixture(params=GENERATIONS)
def trt(request) -> FakeTensorRt:
    return FakeTensorRt(request.param)


@pytest.fixture
def ten() -> FakeTensorRt:
    return FakeTensorRt('10.16.1')


def network(half: bool = False, outputs: int = 1) -> bytes:
    """Return an ONNX file that negates planes of any size."""
    dtype = TensorProto.FLOAT16 if half else TensorProto.FLOAT
    names = [f'logits{index}' for index in range(outputs)]
    free = ['batch', 3, 'height', 'width']
    values = [helper.make_tensor_value_info(name, dtype, free) for name in ('planes', *names)]
    nodes = [helper.make_node('Neg', ['planes'], [name]) for name in names]
    graph = helper.make_graph(nodes, 'negative', values[:1], values[1:])
    opset = helper.make_opsetid('', 17)
    return helper.make_model(graph, ir_version=8, opset_imports=[opset]).SerializeToString()


def options(half=False, int8=False, in_one=False, batch=1, tactics=()) -> EngineOptions:
    return EngineOptions(half, int8, in_one, (batch, 3, 4, 6), tactics)


def types_of(trt: FakeTensorRt) -> set[str]:
    """Return the types of input and outputs of the last network."""
    return {numpy_type(tensor.dtype) for tensor in trt.network.tensors()}


def built(trt, made_for=None, timings=b'', progress=lambda percent: None, **of) -> tuple[bytes, bytes]:
    return build(trt, network(**of), made_for or options(), timings, progress)


@pytest.mark.parametrize(
    ('version', 'weak', 'batches', 'creation'),
    [
        ('8.5.2', True, False, 1),
        ('8.6.1', True, True, 1),
        ('10.16.1', True, True, 1),
        ('11.4.0', False, True, 2),
        ('12.0.0', False, True, 0),
    ],
)
def test_features_of_tensorrt_generations(version, weak, batches, creation):
    trt = FakeTensorRt(version)
    assert is_weakly_typed(trt) == weak
    assert takes_batches(trt) == batches
    built(trt)
    assert trt.creation == creation


@pytest.mark.parametrize('int8', [False, True])
@pytest.mark.parametrize('half', [False, True])
def test_builder_flags(trt, half, int8):
    built(trt, options(half, int8))
    wanted = {'FP16': half, 'INT8': int8, 'TF32': half}
    assert trt.config.flags == {name for name in trt.BuilderFlag.__members__ if wanted.get(name)}


@pytest.mark.parametrize(
    ('half', 'in_one', 'dtype'), [(False, False, 'float32'), (True, False, 'float16'), (True, True, 'float32')]
)
def test_input_and_output_types(trt, half, in_one, dtype):
    typed = half and not is_weakly_typed(trt)
    built(trt, options(half, in_one=in_one), half=typed, outputs=2 if in_one else 1)
    assert types_of(trt) == {'float16' if typed else dtype}
    linear = 1 << int(trt.TensorFormat.LINEAR)
    assert [tensor.allowed_formats for tensor in trt.network.tensors()] == [linear] * (3 if in_one else 2)


def test_shapes_are_fixed_for_one_image(trt):
    built(trt)
    assert tuple(trt.network.get_input(0).shape) == (1, 3, 4, 6)
    assert trt.profiles == []
    assert trt.config.num_optimization_profiles == 0
    assert trt.config.preview == {}


def test_batches_share_one_profile(trt):
    built(trt, options(batch=5))
    assert tuple(trt.network.get_input(0).shape) == (-1, 3, 4, 6)
    (profile,) = trt.profiles
    assert list(map(tuple, profile.get_shape('planes'))) == [(1, 3, 4, 6), (5, 3, 4, 6), (5, 3, 4, 6)]
    assert trt.config.num_optimization_profiles == 1
    assert trt.config.preview == ({SHARING: True} if hasattr(trt.PreviewFeature, SHARING) else {})


def test_named_tactics_are_selected(trt):
    built(trt)
    assert trt.config.get_tactic_sources() == trt.Builder(logger_of(trt)).create_builder_config().get_tactic_sources()
    for names in (['EDGE_MASK_CONVOLUTIONS'], ['JIT_CONVOLUTIONS'], ['EDGE_MASK_CONVOLUTIONS', 'JIT_CONVOLUTIONS']):
        built(trt, options(tactics=tuple(names)))
        wanted = [1 << int(trt.TacticSource.__members__[name]) for name in names]
        assert trt.config.get_tactic_sources() == sum(wanted)


@pytest.mark.parametrize(
    ('timings', 'failing', 'left'),
    [(b'', '', b', more'), (b'old', '', b'old, more'), (b'old', 'timings', b', more')],
)
def test_timing_cache_is_read_and_returned(trt, timings, failing, left):
    trt.failing = {failing}
    engine, found = built(trt, timings=timings)
    assert (engine, found) == (trt.builds[0], left)
    cache, ignore_mismatch = trt.config.timings
    assert bytes(cache.serialize()) == left
    assert not ignore_mismatch


def test_no_timings_without_a_timing_cache():
    assert built(FakeTensorRt('10.16.1', timed=False), timings=b'old')[1] == b''


def test_progress_is_told_where_tensorrt_tells_it(trt):
    """What a real monitor of a real build tells is in test_tensorrt_rtx.py."""
    told: list[int | None] = []
    built(trt, progress=told.append)
    assert told == ([] if trt.monitored else [None])
    assert (trt.config.progress_monitor is None) == (not trt.monitored)


@pytest.mark.parametrize(
    ('step', 'said'),
    [
        ('build', 'cannot build the engine: build fails'),
        ('Builder', 'does not start, the driver is too old for it, or the GPU has no memory left: Builder fails'),
    ],
)
def test_failed_build_gives_the_message_of_tensorrt(trt, step, said):
    trt.failing = {step}
    with pytest.raises(EngineError) as error:
        built(trt)
    assert str(error.value) == f'TensorRT {trt.__version__} {said}'


def test_an_operator_that_the_library_lacks_is_named(trt):
    graph = network().replace(b'Neg', b'Nag')
    with pytest.raises(EngineError, match=r'cannot read the graph: .*Plugin not found.* \(operator Nag\)$') as error:
        build(trt, graph, options(), b'', lambda percent: None)
    assert str(error.value).startswith(f'TensorRT {trt.__version__} ')
    assert '\n' not in str(error.value)


def test_a_build_that_fails_without_a_word(ten):
    ten.failing, ten.silent = {'build'}, True
    with pytest.raises(EngineError, match=r'^TensorRT 10.16.1 cannot build the engine: it does not say why$'):
        built(ten)


def test_logger_keeps_the_last_errors(ten):
    logger = logger_of(ten)
    assert logger is logger_of(ten)
    assert logger is not logger_of(FakeTensorRt('10.16.1'))
    for kind in ten.ILogger.Severity.__members__.values():
        logger.log(kind, f'{kind.name}\n')
    assert logger.said() == 'INTERNAL_ERROR; ERROR'
    for index in range(7):
        logger.log(ten.ILogger.Severity.ERROR, str(index))
    assert logger.said() == '2; 3; 4; 5; 6'
    assert logger.said() == 'it does not say why'


class Arrays:
    """Input and output arrays of an engine, which gets their addresses."""

    def __init__(self, batch: int = 1):
        self.planes = np.random.default_rng(batch).normal(size=(batch, 3, 4, 6)).astype(np.float32)
        self.logits = np.full_like(self.planes, np.nan)

    def execution(self, engine: Engine, shape=None, output='logits0'):
        addresses = {'planes': self.planes.ctypes.data, output: self.logits.ctypes.data}
        return engine.execution(addresses, 'planes', shape or self.planes.shape, 7, lambda size: 0)


def test_engine_runs_on_the_stream(trt):
    arrays = Arrays()
    arrays.execution(Engine(trt, built(trt)[0]))()
    np.testing.assert_array_equal(arrays.logits, -arrays.planes)
    assert streams_of(trt.contexts[0]) == [7]


@pytest.mark.parametrize('version', ['8.6.1', '10.16.1', '11.4.0'])
def test_engine_runs_batches_of_several_sizes(version):
    trt = FakeTensorRt(version)
    engine = Engine(trt, built(trt, options(batch=3))[0])
    several = [Arrays(batch) for batch in (1, 3, 2)]
    for run in [arrays.execution(engine) for arrays in several]:
        run()
    for arrays in several:
        np.testing.assert_array_equal(arrays.logits, -arrays.planes)
    # With 8.6, the profile is set on the stream, but for the first.
    assert [len(streams_of(context)) for context in trt.contexts] == ([1, 2, 2] if version == '8.6.1' else [1, 1, 1])
    assert {stream for context in trt.contexts for stream in streams_of(context)} == {7}


def test_engine_of_fixed_shapes_needs_no_profile(trt):
    engine = Engine(trt, built(trt)[0])
    for _ in range(2):
        Arrays().execution(engine)()
    assert [streams_of(context) for context in trt.contexts] == [[7], [7]]


@pytest.mark.parametrize(
    ('step', 'said'),
    [
        ('Runtime', 'TensorRT 10.16.1 does not start, the driver is too old for it, or .*: Runtime fails'),
        ('deserialize', 'TensorRT 10.16.1 cannot read the engine: deserialize fails'),
        ('context', 'no memory to run the engine in: context fails'),
        ('execute', 'the engine does not run: execute fails'),
    ],
)
def test_failed_engine_gives_the_message_of_tensorrt(ten, step, said):
    data, _ = built(ten)
    ten.failing = {step}
    with pytest.raises(EngineError, match=f'^{said}$'):
        Arrays().execution(Engine(ten, data))()


def test_error_has_no_messages_of_earlier_builds(ten):
    ten.failing = {'timings'}
    built(ten, timings=b'of another GPU')
    ten.failing, ten.silent = {'deserialize'}, True
    with pytest.raises(EngineError, match='cannot read the engine: it does not say why$'):
        Engine(ten, b'')


def test_wrong_shapes_and_names_are_errors(ten):
    engine = Engine(ten, built(ten)[0])
    with pytest.raises(EngineError, match=r'^the engine was not built for \(2, 3, 4, 6\): shape fails$'):
        Arrays(2).execution(engine)
    with pytest.raises(EngineError, match='^the engine has no input or output masks: address fails$'):
        Arrays().execution(engine, output='masks')


class Gpu(HostDevice):
    name = 'Some GPU'
    capability = (8, 6)


@pytest.fixture
def install(monkeypatch, tmp_path):
    """Return a function that installs a stand-in GPU and TensorRT of a version, with a separate engine cache."""
    monkeypatch.setenv('STDC_CACHE_DIR', str(tmp_path))

    def install(version: str, **attributes) -> FakeTensorRt:
        device = Gpu()
        vars(device).update(attributes)
        trt = FakeTensorRt(version, device)
        monkeypatch.setattr(tensorrt_backend, 'CudaDevice', lambda: device)
        monkeypatch.setitem(sys.modules, 'tensorrt', trt)
        return trt

    return install


@pytest.fixture(scope='module')
def model() -> onnx.ModelProto:
    model, _ = read_model(DEFAULT_MODEL)
    set_input_scale(model, 0.5)
    return model


@needs_compiler
@pytest.mark.parametrize('precision', ['fp32', 'fp16'])
@pytest.mark.parametrize('version', ['8.5.2', '8.6.1', '10.16.1', '11.4.0'])
def test_masks_with_every_generation(install, model, version, precision):
    trt = install(version)
    drive = SyntheticDrive(seed=3, height=48, width=64, frames=60)
    images = np.stack([drive[index].image for index in (0, 30, 50)])
    expected = OnnxRuntimeBackend(model, 1)(images, True)
    backend = make_tensorrt_backend(model, precision, GpuOptions(max_batch=2))
    backend.prepare((48, 64), lambda text: None)
    assert types_of(trt) == {'float16' if precision == 'fp16' else 'float32'}
    for batch in (images, images[:1]):  # of two and one, and one: with 8.5 one by one
        mask, confidence = backend(batch, True)
        assert (mask == expected[0][: len(batch)]).mean() > (0.9999 if precision == 'fp32' else 0.99)
        assert np.abs(confidence.astype(int) - expected[1][: len(batch)]).mean() < 1
    assert len(trt.builds) == 1
    assert backend.name == f'tensorrt {precision}'
    assert backend.reason == f'Some GPU, TensorRT {version}'
    assert backend.max_batch == (1 if version == '8.5.2' else 2)


def prepare(model, precision: str = 'fp32') -> None:
    make_tensorrt_backend(model, precision, GpuOptions(kernels=False)).prepare((64, 96), lambda text: None)


@pytest.mark.parametrize(
    'changed', [('10.16.1', {}), ('8.6.1', {}), ('10.16.1', {'name': 'Other'}), ('10.16.1', {'capability': (9, 0)})]
)
def test_engine_belongs_to_version_gpu_and_capability(install, model, changed):
    install('10.16.1')
    prepare(model)
    version, attributes = changed
    other = install(version, **attributes)
    prepare(model)
    assert len(other.builds) == (0 if changed == ('10.16.1', {}) else 1)


def test_single_graph_is_float32_since_version_11(install, model, caplog):
    for version, half in (('10.16.1', True), ('11.4.0', False)):
        trt = install(version)
        prepare(model, 'fp16')
        assert trt.config.flags == ({'FP16', 'TF32'} if half else set())
        assert types_of(trt) == {'uint8'}
    assert caplog.messages == ['computing in float32: TensorRT does not make the graph in one piece half']


@pytest.mark.parametrize(
    ('precision', 'capability', 'said'),
    [
        ('int4', (8, 6), "precision 'int4', expected one of auto, fp32, bf16, fp16, int8"),
        ('bf16', (8, 6), 'precision bf16 is for CPUs, expected auto, fp32, fp16 or int8 on a GPU'),
        ('int8', (8, 6), 'precision int8 needs a quantised model'),
        ('fp16', (5, 0), 'precision fp16: a GPU of compute capability 5.0 has none'),
    ],
)
def test_unsupported_precision_is_an_error(install, model, precision, capability, said):
    install('10.16.1', capability=capability)
    with pytest.raises(BackendError, match=said):
        make_tensorrt_backend(model, precision)


def test_missing_or_unusable_parts_are_errors(install, model, monkeypatch):
    def refuse(error):
        def device():
            raise error

        return device

    install('10.16.1')
    for error, said in (
        (ImportError("No module named 'cuda'"), "No module named 'cuda'; pip install .*"),
        (cuda_error(2, 'cudaSetDevice'), r'the GPU cannot be used \(cudaSetDevice: cudaErrorMemoryAllocation \(2\)\)'),
    ):
        monkeypatch.setattr(tensorrt_backend, 'CudaDevice', refuse(error))
        with pytest.raises(BackendError, match=f'^backend tensorrt: {said}$'):
            make_tensorrt_backend(model, 'auto')
    monkeypatch.setitem(sys.modules, 'tensorrt', None)
    with pytest.raises(BackendError, match='^backend tensorrt: .*tensorrt.*; pip install .*'):
        make_tensorrt_backend(model, 'auto')
