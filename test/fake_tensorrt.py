# SPDX-License-Identifier: Apache-2.0
"""Stand-ins for TensorRT 8.5 to 11: each has what that version has, and no more, and notes what it is told."""

from __future__ import annotations

import weakref
from enum import Enum
from functools import partial
from types import ModuleType, SimpleNamespace

import numpy as np
import onnx
from host_device import HostDevice, HostEngine
from onnx import helper

from stdc_core.inference.onnx_graph.network_split import to_half

# By version: flags of builder and network, preview features, and whether it tells progress. As in NVIDIA's wheels of
# 8.6.1, 10.16 and 11.4; of 12, which there is not, that what 11 has as the only way may be asked for no more.
WEAK, SHARING = {'FP16': 0, 'INT8': 1, 'TF32': 7}, 'PROFILE_SHARING_0806'
GENERATIONS = {
    '8.5.2': (WEAK, {'EXPLICIT_BATCH': 0}, ['FASTER_DYNAMIC_SHAPES_0805'], False),
    '8.6.1': (WEAK, {'EXPLICIT_BATCH': 0}, ['FASTER_DYNAMIC_SHAPES_0805', SHARING], False),
    '10.16.1': (WEAK, {'EXPLICIT_BATCH': 0, 'STRONGLY_TYPED': 1}, [SHARING, 'ALIASED_PLUGIN_IO_10_03'], True),
    '11.4.0': ({'TF32': 7}, {'STRONGLY_TYPED': 1}, ['ALIASED_PLUGIN_IO_10_03'], True),
    '12.0.0': ({'REFIT': 5}, {'PREFER_AOT_PYTHON_PLUGINS': 2}, ['ALIASED_PLUGIN_IO_10_03'], True),
}


class Flag(Enum):
    """Like those of pybind11: no number, but it has one."""

    def __int__(self) -> int:
        return self.value


class FakeTensorRt(ModuleType):
    """TensorRT of a version, which notes what it is told. What that version lacks is an AttributeError.

    Attributes:
        failing: names of steps that fail; ``silent``: without a word.
        device: its engines run there, by ONNX Runtime.
    """

    def __init__(self, version: str, device: HostDevice | None = None, timed: bool = True):
        super().__init__('tensorrt')
        flags, creation, features, self.monitored = GENERATIONS[version]
        self.__version__, self.device, self.timed = version, device or HostDevice(), timed
        self.failing: set[str] = set()
        self.silent = False
        self.builds: list[bytes] = []
        self.contexts: list[Context] = []
        self.logger = None
        self.BuilderFlag = Flag('BuilderFlag', flags)
        self.NetworkDefinitionCreationFlag = Flag('NetworkDefinitionCreationFlag', creation)
        self.PreviewFeature = Flag('PreviewFeature', features)
        self.TensorFormat = Flag('TensorFormat', {'LINEAR': 0, 'CHW2': 1})
        self.TacticSource = Flag('TacticSource', {'CUBLAS': 0, 'EDGE_MASK_CONVOLUTIONS': 3, 'JIT_CONVOLUTIONS': 4})
        self.float16 = 'float16'
        self.ILogger = ILogger
        self.Builder, self.Runtime = partial(Builder, self), partial(Runtime, self)
        self.OnnxParser = partial(OnnxParser, self)
        if self.monitored:
            self.IProgressMonitor = IProgressMonitor

    def fails(self, step: str, wrong: bool = False) -> bool:
        """Whether a step is to fail, or has to, as what is asked for is wrong; the log says so then."""
        failing = wrong or step in self.failing
        if failing and not self.silent:
            self.logger.log(ILogger.Severity.WARNING, 'slow')
            self.logger.log(ILogger.Severity.ERROR, f'{step} fails\n')
        return failing

    def start(self, step: str, logger: ILogger) -> None:
        assert logger.initialized
        assert self.logger in (None, logger)  # TensorRT goes on using the first
        self.logger = logger
        if self.fails(step):
            raise TypeError('pybind11::init(): factory function returned nullptr')


class ILogger:
    initialized = False
    Severity = Enum('Severity', ['INTERNAL_ERROR', 'ERROR', 'WARNING', 'INFO', 'VERBOSE'])

    def __init__(self) -> None:
        self.initialized = True


class IProgressMonitor:
    initialized = False

    def __init__(self) -> None:
        self.initialized = True


class Builder:
    def __init__(self, trt: FakeTensorRt, logger: ILogger):
        trt.start('Builder', logger)
        self._trt = trt

    def create_network(self, flags: int) -> Network:
        self._trt.creation, self._trt.network = flags, Network()
        return self._trt.network

    def create_builder_config(self) -> Config:
        kinds = (Monitored,) * self._trt.monitored + (Timed,) * self._trt.timed
        self._trt.config = type('IBuilderConfig', (*kinds, Config), {'__slots__': ()})(self._trt)
        return self._trt.config

    def create_optimization_profile(self) -> Profile:
        return Profile()

    def build_serialized_network(self, network: Network, config: Config) -> memoryview | None:
        if self._trt.monitored and not config.build():
            return None
        if self._trt.fails('build'):
            return None
        model = network.model
        if {each.dtype for each in network.tensors} == {'float16'} and 'FP16' in config.flags:
            model = to_half(model)
        self._trt.builds.append(model.SerializeToString())
        return memoryview(self._trt.builds[-1])


class Network:
    def read(self, trt: FakeTensorRt, model: onnx.ModelProto) -> None:
        self.model = model
        self.inputs = [Tensor(trt, value) for value in model.graph.input]
        self.outputs = [Tensor(trt, value) for value in model.graph.output]
        self.tensors = self.inputs + self.outputs
        self.num_outputs = len(self.outputs)

    def get_input(self, index: int) -> Tensor:
        return self.inputs[index]

    def get_output(self, index: int) -> Tensor:
        return self.outputs[index]


class Tensor:
    __slots__ = ('_dtype', '_strong', 'allowed_formats', 'name', 'shape')

    def __init__(self, trt: FakeTensorRt, value: onnx.ValueInfoProto):
        self.name = value.name
        kind = value.type.tensor_type
        self._dtype = np.dtype(helper.tensor_dtype_to_np_dtype(kind.elem_type)).name
        self.shape = tuple(each.dim_value if each.HasField('dim_value') else -1 for each in kind.shape.dim)
        self.allowed_formats = 0b11
        self._strong = not hasattr(trt.BuilderFlag, 'FP16')

    @property
    def dtype(self) -> str:
        return self._dtype

    @dtype.setter
    def dtype(self, dtype: str) -> None:
        assert not self._strong
        self._dtype = dtype


class OnnxParser:
    def __init__(self, trt: FakeTensorRt, network: Network, logger: ILogger):
        assert logger is trt.logger
        self._trt, self._network = trt, network
        self._errors = ['no such layer', 'no such type'] if 'parse' in trt.failing else []
        self.num_errors = len(self._errors)

    def parse(self, data: bytes) -> bool:
        self._network.read(self._trt, onnx.load_from_string(data))
        return not self._errors and not self._trt.fails('read')

    def get_error(self, index: int) -> SimpleNamespace:
        return SimpleNamespace(desc=lambda: self._errors[index])


class Profile:
    def set_shape(self, name: str, least: tuple, best: tuple, most: tuple) -> None:
        self.shapes = name, least, best, most


class Config:
    __slots__ = ('flags', 'monitor', 'preview', 'profiles', 'tactics', 'timings', 'trt')

    def __init__(self, trt: FakeTensorRt):
        self.trt = trt
        self.flags = {'TF32'} & set(trt.BuilderFlag.__members__)
        self.preview: dict[str, bool] = {}
        self.profiles: list[Profile] = []
        self.tactics = None

    def set_flag(self, flag: Flag) -> None:
        self.flags.add(self.trt.BuilderFlag(flag).name)

    def clear_flag(self, flag: Flag) -> None:
        self.flags.discard(self.trt.BuilderFlag(flag).name)

    def add_optimization_profile(self, profile: Profile) -> int:
        self.profiles.append(profile)
        return len(self.profiles) - 1

    def set_preview_feature(self, feature: Flag, on: bool) -> None:
        self.preview[self.trt.PreviewFeature(feature).name] = on

    def set_tactic_sources(self, sources: int) -> bool:
        self.tactics = sources
        return True


class Timed:
    __slots__ = ()

    def create_timing_cache(self, data: bytes) -> SimpleNamespace | None:
        assert isinstance(data, bytes)
        if data and self.trt.fails('timings'):
            return None
        return SimpleNamespace(serialize=lambda: memoryview(data + b', more'))

    def set_timing_cache(self, cache: SimpleNamespace, ignore_mismatch: bool) -> bool:
        self.timings = cache, ignore_mismatch
        return True


class Monitored:
    __slots__ = ()

    @property
    def progress_monitor(self) -> IProgressMonitor | None:
        return self.monitor()

    @progress_monitor.setter
    def progress_monitor(self, monitor: IProgressMonitor) -> None:
        assert monitor.initialized
        self.monitor = weakref.ref(monitor)

    def build(self) -> bool:
        """Tell the progress. Returns whether to go on."""
        monitor = self.progress_monitor
        monitor.phase_start('build', None, 2)
        goes_on = monitor.step_complete('build', 0)
        monitor.phase_start('tactics', 'build', 4)
        goes_on &= all(monitor.step_complete('tactics', step) for step in range(3))
        monitor.phase_finish('tactics')
        monitor.phase_finish('build')
        return goes_on


class Runtime:
    def __init__(self, trt: FakeTensorRt, logger: ILogger):
        trt.start('Runtime', logger)
        self._trt = trt

    def deserialize_cuda_engine(self, data: bytes) -> CudaEngine | None:
        return None if self._trt.fails('deserialize') else CudaEngine(self._trt, data)


class CudaEngine:
    def __init__(self, trt: FakeTensorRt, data: bytes):
        self.trt, self.host = trt, HostEngine(trt.device, data)
        self.network = Network()
        self.network.read(trt, onnx.load_from_string(data))

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return next(tensor.shape for tensor in self.network.tensors if tensor.name == name)

    def create_execution_context(self) -> Context | None:
        if self.trt.fails('context'):
            return None
        self.trt.contexts.append(Context(self, self.trt.__version__.startswith('8.') and bool(self.trt.contexts)))
        return self.trt.contexts[-1]


class Context:
    def __init__(self, engine: CudaEngine, bare: bool):
        self._engine, self._trt = engine, engine.trt
        self.active_optimization_profile = -1 if bare else 0
        self.addresses: dict[str, int] = {}
        self.streams: list[int] = []

    def set_optimization_profile_async(self, index: int, stream: int) -> bool:
        self.active_optimization_profile = index
        self.streams.append(stream)
        return True

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        fits = shape == self._engine.get_tensor_shape(name)
        if -1 in self._engine.get_tensor_shape(name) and self.active_optimization_profile == 0:
            _, least, _, most = self._trt.config.profiles[0].shapes
            fits = least[0] <= shape[0] <= most[0] and shape[1:] == most[1:]
        self.input, self.shape = name, shape
        return not self._trt.fails('shape', not fits)

    def set_tensor_address(self, name: str, address: int) -> bool:
        self.addresses[name] = address
        return not self._trt.fails('address', name not in {tensor.name for tensor in self._engine.network.tensors})

    def execute_async_v3(self, stream: int) -> bool:
        self.streams.append(stream)
        if self._trt.fails('execute'):
            return False
        self._engine.host.execution(self.addresses, self.input, self.shape, stream, int)()
        return True
