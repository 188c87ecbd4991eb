# SPDX-License-Identifier: Apache-2.0
"""Stand in for what TensorRT 8.5 to 11 does on a GPU: build an engine, read it, run it, and fail at that.

Graphs are parsed by the real library of TensorRT for RTX. Networks, profiles, configurations, loggers and progress
monitors are real, too. What stands in here, and what a version of TensorRT has more or less than TensorRT for RTX, is
compared with the real modules by test_fake_tensorrt.py.
"""

from __future__ import annotations

from enum import Enum
from functools import partial
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
from host_device import HostDevice, HostEngine

from stdc_core.inference.onnx_graph.network_split import to_half
from stdc_core.inference.tensorrt.library import logger_of

real = pytest.importorskip('tensorrt_rtx', reason='TensorRT for RTX is not installed')

#: Flags and features of TensorRT that TensorRT for RTX does not have, with their values in NVIDIA's Python packages.
WEAK, SHARING = {'FP16': 0, 'INT8': 1}, 'PROFILE_SHARING_0806'

#: By version: flags of builder and network, preview features, and whether it tells progress. As in NVIDIA's packages of
#: 8.6.1, 10.16 and 11.4. Version 12 does not exist yet: it stands for one where what 11 has as the only way is not
#: named any more.
GENERATIONS = {
    '8.5.2': ([*WEAK, 'TF32'], {'EXPLICIT_BATCH': 0}, ['FASTER_DYNAMIC_SHAPES_0805'], False),
    '8.6.1': ([*WEAK, 'TF32'], {'EXPLICIT_BATCH': 0}, ['FASTER_DYNAMIC_SHAPES_0805', SHARING], False),
    '10.16.1': ([*WEAK, 'TF32'], {'EXPLICIT_BATCH': 0, 'STRONGLY_TYPED': 1}, [SHARING], True),
    '11.4.0': (['TF32'], {'STRONGLY_TYPED': 1}, [], True),
    '12.0.0': (['REFIT'], {'PREFER_AOT_PYTHON_PLUGINS': 2}, [], True),
}


class Flag(Enum):
    """A flag with a number, as pybind11 makes them."""

    def __int__(self) -> int:
        return self.value


class FakeTensorRt(ModuleType):
    """TensorRT of a version. Everything that is not replaced here is of TensorRT for RTX.

    Args:
        version: One of ``GENERATIONS``.
        device: Device that engines run on, by ONNX Runtime.
        timed: Whether it has timing caches.

    Attributes:
        failing: Names of steps that fail.
        silent: Whether they fail without a word.
        builds: Networks that were built, as ONNX files.
        config: Configuration of the last build.
        network: Network of the last build.
        profiles: Optimisation profiles that were created.
        contexts: Execution contexts that were created.
    """

    def __init__(self, version: str, device: HostDevice | None = None, timed: bool = True):
        super().__init__('tensorrt')
        flags, creation, features, self.monitored = GENERATIONS[version]
        self.__version__, self.device, self.timed = version, device or HostDevice(), timed
        self.failing: set[str] = set()
        self.silent = False
        self.builds: list[bytes] = []
        self.profiles: list[Any] = []
        self.contexts: list[Context] = []
        self.config: Config | None = None
        self.network: Network | None = None
        self.BuilderFlag = Flag('BuilderFlag', {name: WEAK.get(name, index + 5) for index, name in enumerate(flags)})
        self.NetworkDefinitionCreationFlag = Flag('NetworkDefinitionCreationFlag', creation)
        self.PreviewFeature = Flag('PreviewFeature', [*features, 'ALIASED_PLUGIN_IO_10_03'])
        self.Builder, self.Runtime = partial(Builder, self), partial(Runtime, self)
        self.OnnxParser = lambda network, logger: network.parser(logger)

    def __getattr__(self, name: str) -> Any:
        if name.startswith('__') or (name == 'IProgressMonitor' and not self.monitored):
            raise AttributeError(name)
        return getattr(real, name)

    def fails(self, step: str, wrong: bool = False) -> bool:
        """Return whether a step fails, because a test wants it or what is asked for is wrong. The logger is told."""
        failing = wrong or step in self.failing
        if failing and not self.silent:
            logger_of(self).log(real.ILogger.Severity.WARNING, 'slow')
            logger_of(self).log(real.ILogger.Severity.ERROR, f'{step} fails\n')
        return failing

    def start(self, step: str, logger: Any) -> None:
        """Check the logger: TensorRT goes on using the first one."""
        assert logger is logger_of(self)
        if self.fails(step):
            raise TypeError('pybind11::init(): factory function returned nullptr')


class Builder:
    """TensorRT's builder, which needs a GPU. It parses with the real library, and keeps the network as it is."""

    def __init__(self, trt: FakeTensorRt, logger: Any):
        trt.start('Builder', logger)
        self._trt, self._real = trt, real.Builder(logger_of(real))

    def create_network(self, flags: int) -> Network:
        self._trt.creation = flags
        typed = 1 << int(real.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
        self._trt.network = Network(self._trt, self._real.create_network(typed))
        return self._trt.network

    def create_builder_config(self) -> Config:
        kind = Timed if self._trt.timed else Config
        self._trt.config = kind(self._trt, self._real.create_builder_config())
        return self._trt.config

    def create_optimization_profile(self) -> Any:
        self._trt.profiles.append(self._real.create_optimization_profile())
        return self._trt.profiles[-1]

    def build_serialized_network(self, network: Network, config: Config) -> memoryview | None:
        if self._trt.fails('build'):
            return None
        model = network.model
        if {tensor.dtype for tensor in network.tensors()} == {real.float16} and 'FP16' in config.flags:
            model = to_half(model)
        self._trt.builds.append(model.SerializeToString())
        return memoryview(self._trt.builds[-1])


class Network:
    """A real network, whose inputs and outputs may change their type where TensorRT is weakly typed."""

    def __init__(self, trt: FakeTensorRt, network: Any):
        self._network, self._kind = network, Tensor if hasattr(trt.BuilderFlag, 'FP16') else None
        self._tensors: dict[str, Any] = {}

    def parser(self, logger: Any) -> Any:
        """Return a real parser for this network, which keeps the graph."""
        network = self

        class Parser(real.OnnxParser):
            def parse(self, model: bytes) -> bool:
                network.model = onnx.load_from_string(model)
                return super().parse(model)

        return Parser(self._network, logger_of(real))

    @property
    def num_outputs(self) -> int:
        return self._network.num_outputs

    def _tensor(self, tensor: Any) -> Any:
        return self._tensors.setdefault(tensor.name, self._kind(tensor) if self._kind else tensor)

    def get_input(self, index: int) -> Any:
        return self._tensor(self._network.get_input(index))

    def get_output(self, index: int) -> Any:
        return self._tensor(self._network.get_output(index))

    def tensors(self) -> list[Any]:
        """Return input and outputs."""
        return [self.get_input(0), *map(self.get_output, range(self.num_outputs))]


class Tensor:
    """A real tensor, whose type can be set."""

    def __init__(self, tensor: Any):
        self._tensor, self.dtype = tensor, tensor.dtype

    name = property(lambda self: self._tensor.name)
    shape = property(lambda self: self._tensor.shape)
    allowed_formats = property(
        lambda self: self._tensor.allowed_formats,
        lambda self, formats: setattr(self._tensor, 'allowed_formats', formats),
    )


class Config:
    """A real configuration, with the flags and preview features of a version.

    Attributes:
        flags: Names of the flags that are set.
        preview: Preview features that were switched, by name.
        monitor: Progress monitor.
    """

    def __init__(self, trt: FakeTensorRt, config: Any):
        self._trt, self._real = trt, config
        self.flags = {'TF32'} & set(trt.BuilderFlag.__members__)
        self.preview: dict[str, bool] = {}

    def __getattr__(self, name: str) -> Any:
        if name in ('create_timing_cache', 'set_timing_cache'):
            raise AttributeError(name)
        return getattr(self._real, name)

    def set_flag(self, flag: Flag) -> None:
        self.flags.add(self._trt.BuilderFlag(flag).name)

    def clear_flag(self, flag: Flag) -> None:
        self.flags.discard(self._trt.BuilderFlag(flag).name)

    def set_preview_feature(self, feature: Flag, enable: bool) -> None:
        self.preview[self._trt.PreviewFeature(feature).name] = enable


class Timed(Config):
    """A configuration with timing caches: TensorRT times kernels on the GPU."""

    def create_timing_cache(self, serialized_timing_cache: bytes) -> SimpleNamespace | None:
        if serialized_timing_cache and self._trt.fails('timings'):
            return None
        return SimpleNamespace(serialize=lambda: memoryview(serialized_timing_cache + b', more'))

    def set_timing_cache(self, cache: SimpleNamespace, ignore_mismatch: bool) -> bool:
        self.timings = cache, ignore_mismatch
        return True


class Runtime:
    """TensorRT's runtime, which needs a GPU."""

    def __init__(self, trt: FakeTensorRt, logger: Any):
        trt.start('Runtime', logger)
        self._trt = trt

    def deserialize_cuda_engine(self, serialized_engine: bytes) -> CudaEngine | None:
        return None if self._trt.fails('deserialize') else CudaEngine(self._trt, serialized_engine)


class CudaEngine:
    """An engine: the graph that it was built of, run by ONNX Runtime."""

    def __init__(self, trt: FakeTensorRt, data: bytes):
        self._trt, self._host = trt, HostEngine(trt.device, data)
        graph = onnx.load_from_string(data).graph
        self._shapes = {
            value.name: tuple(each.dim_value or -1 for each in value.type.tensor_type.shape.dim)
            for value in (*graph.input, *graph.output)
        }

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return self._shapes[name]

    def create_execution_context(self) -> Context | None:
        if self._trt.fails('context'):
            return None
        bare = self._trt.__version__.startswith('8.') and bool(self._trt.contexts)
        self._trt.contexts.append(Context(self._trt, self._host, self._shapes, bare))
        return self._trt.contexts[-1]


class Context:
    """An execution context. From TensorRT 8.6's second one on, it is bare: it begins without a profile."""

    def __init__(self, trt: FakeTensorRt, host: HostEngine, shapes: dict[str, tuple[int, ...]], bare: bool):
        self._trt, self._host, self._shapes = trt, host, shapes
        self.active_optimization_profile = -1 if bare else 0
        self._addresses: dict[str, int] = {}
        self._streams: list[int] = []

    def set_optimization_profile_async(self, profile_index: int, stream_handle: int) -> bool:
        self.active_optimization_profile = profile_index
        self._streams.append(stream_handle)
        return True

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        fits = shape == self._shapes[name]
        if -1 in self._shapes[name] and self.active_optimization_profile == 0:
            least, _, most = map(tuple, self._trt.profiles[0].get_shape(name))
            fits = least[0] <= shape[0] <= most[0] and shape[1:] == most[1:]
        self._input, self._shape = name, shape
        return not self._trt.fails('shape', not fits)

    def set_tensor_address(self, name: str, memory: int) -> bool:
        self._addresses[name] = memory
        return not self._trt.fails('address', name not in self._shapes)

    def execute_async_v3(self, stream_handle: int) -> bool:
        self._streams.append(stream_handle)
        if self._trt.fails('execute'):
            return False
        self._host.execution(self._addresses, self._input, self._shape, stream_handle, int)()
        return True


def streams_of(context: Context) -> list[int]:
    """Return the streams that a context was told to work on."""
    return context._streams


def numpy_type(dtype: Any) -> str:
    """Return the name of a library's type as NumPy calls it."""
    return np.dtype(real.nptype(dtype)).name
