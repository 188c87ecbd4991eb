# SPDX-License-Identifier: Apache-2.0
"""Building and running engines with TensorRT 8.5 to 11.

Call nothing here before :func:`stdc_core.inference.tensorrt.cuda.missing_driver` has found a driver.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from dataclasses import asdict, dataclass
from types import ModuleType
from typing import Any

import onnx

#: Called with the percentage that is done; None where TensorRT does not tell.
Progress = Callable[['int | None'], None]


class EngineError(RuntimeError):
    """TensorRT could not build, read or run an engine; the message holds what it says."""


@dataclass(frozen=True)
class EngineOptions:
    """What an engine is built for.

    Args:
        half: compute in float16 where TensorRT finds it faster, else in float32 alone; input and output are so too.
        int8: the network is quantised.
        in_one: the graph goes from image to mask; else from planes to logits.
        shape: of the input, with the largest batch.
        tactics: names of the ``TacticSource`` to choose from; empty: TensorRT's own choice.
    """

    half: bool
    int8: bool
    in_one: bool
    shape: tuple[int, int, int, int]
    tactics: tuple[str, ...] = ()

    def conditions(self) -> dict[str, Any]:
        """For the cache's key."""
        return asdict(self)


def is_weakly_typed(trt: ModuleType) -> bool:
    """Whether a flag lets TensorRT choose float16; from version 11 on, the graph itself says what is computed in it."""
    return hasattr(trt.BuilderFlag, 'FP16')


def takes_batches(trt: ModuleType) -> bool:
    """Whether several contexts can run one engine for batches of any size: not with TensorRT 8.5."""
    return _sharing(trt) is not None or not is_weakly_typed(trt)


def _sharing(trt: ModuleType) -> Any:
    """The feature that lets contexts share an engine's profile, which 8.6 has to be asked for; None: unknown to it."""
    return getattr(trt.PreviewFeature, 'PROFILE_SHARING_0806', None)


def build(
    trt: ModuleType, network_file: bytes, options: EngineOptions, timings: bytes, progress: Progress
) -> tuple[bytes, bytes]:
    """Build an engine: minutes.

    Args:
        trt: the module.
        network_file: ONNX; of float16 where TensorRT is not weakly typed and ``options.half`` is set.
        timings: of an earlier build on this GPU, see the result; empty: none.

    Returns:
        the engine, and what was learnt of the speed of layers (empty if TensorRT keeps no such thing).

    Raises:
        EngineError: TensorRT refuses the graph, or cannot build it.
    """
    logger = logger_of(trt)
    builder = _made(trt, 'Builder')
    network = builder.create_network(_creation_flags(trt))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse(sized(network_file, options.shape)):
        errors = [parser.get_error(index).desc() for index in range(parser.num_errors)]
        raise EngineError(f'TensorRT {trt.__version__} cannot read the graph: {"; ".join(errors) or logger.said()}')
    config = builder.create_builder_config()
    _configure(trt, network, config, options)
    if options.shape[0] > 1:
        _add_profile(trt, builder, config, network, options.shape)
    cache = None
    if hasattr(config, 'create_timing_cache'):
        cache = config.create_timing_cache(timings) or config.create_timing_cache(b'')  # None: TensorRT refuses them
        config.set_timing_cache(cache, False)
    if hasattr(trt, 'IProgressMonitor'):
        monitor = _make_monitor(trt, progress)  # which has to live as long as the build
        config.progress_monitor = monitor
    else:
        progress(None)
    engine = builder.build_serialized_network(network, config)
    if engine is None:
        raise EngineError(f'TensorRT {trt.__version__} cannot build the engine: {logger.said()}')
    return bytes(engine), bytes(cache.serialize()) if cache is not None else b''


def sized(network_file: bytes, shape: tuple[int, int, int, int]) -> bytes:
    """The ONNX file for images of one size alone, and one at a time where the largest batch is 1.

    All shapes inside are then constants, which is faster, and every version of TensorRT runs such an engine in as many
    contexts as one likes.

    Args:
        shape: of the input, with the largest batch.
    """
    model = onnx.load_from_string(network_file)
    for index, dimension in enumerate(model.graph.input[0].type.tensor_type.shape.dim):
        if index or shape[0] == 1:
            dimension.dim_value = shape[index]
    return model.SerializeToString()


def _made(trt: ModuleType, kind: str) -> Any:
    """A builder or a runtime. Raises EngineError."""
    logger_of(trt).said()  # what was kept of earlier work, which succeeded all the same
    try:
        return getattr(trt, kind)(logger_of(trt))
    except TypeError as error:  # which pybind11 makes of a null pointer
        said = logger_of(trt).said()
        reason = f'the driver is too old for it, or the GPU has no memory left: {said}'
        raise EngineError(f'TensorRT {trt.__version__} does not start, {reason}') from error


def _creation_flags(trt: ModuleType) -> int:
    wanted = 'EXPLICIT_BATCH' if is_weakly_typed(trt) else 'STRONGLY_TYPED'
    kind = getattr(trt.NetworkDefinitionCreationFlag, wanted, None)  # gone where it is the only way
    return 0 if kind is None else 1 << int(kind)


def _configure(trt: ModuleType, network: Any, config: Any, options: EngineOptions) -> None:
    if is_weakly_typed(trt):
        for wanted, flag in ((options.half, 'FP16'), (options.int8, 'INT8')):
            if wanted:
                config.set_flag(getattr(trt.BuilderFlag, flag))
        if options.half and not options.in_one:
            network.get_input(0).dtype = network.get_output(0).dtype = trt.float16
    if not options.half and hasattr(trt.BuilderFlag, 'TF32'):
        config.clear_flag(trt.BuilderFlag.TF32)  # float32 is to be float32
    # Version 8 may choose else how channels lie in memory.
    for tensor in (network.get_input(0), *map(network.get_output, range(network.num_outputs))):
        tensor.allowed_formats = 1 << int(trt.TensorFormat.LINEAR)
    if options.tactics:
        config.set_tactic_sources(sum(1 << int(getattr(trt.TacticSource, name)) for name in options.tactics))


def _add_profile(trt: ModuleType, builder: Any, config: Any, network: Any, most: tuple[int, int, int, int]) -> None:
    profile = builder.create_optimization_profile()
    profile.set_shape(network.get_input(0).name, (1, *most[1:]), most, most)
    config.add_optimization_profile(profile)
    if _sharing(trt) is not None:
        config.set_preview_feature(_sharing(trt), True)


@functools.cache
def logger_of(trt: ModuleType) -> Any:
    """The TensorRT logger, which keeps errors. There is one: TensorRT goes on using the first that it is given.

    ``said()`` gives what was kept since it was last asked.
    """

    class Logger(trt.ILogger):
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self._errors: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            if severity in (trt.ILogger.Severity.INTERNAL_ERROR, trt.ILogger.Severity.ERROR):
                self._errors = [*self._errors[-4:], message.strip()]

        def said(self) -> str:
            errors, self._errors = self._errors, []
            return '; '.join(errors) or 'it does not say why'

    return Logger()


def _make_monitor(trt: ModuleType, progress: Progress) -> Any:
    """Of the phases without a parent, TensorRT's own longest is the search for the fastest kernels."""

    class Monitor(trt.IProgressMonitor):
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self._share = PhaseShare()

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            self._share.start(phase_name, parent_phase, num_steps)

        def step_complete(self, phase_name: str, step: int) -> bool:
            progress(self._share.complete(phase_name, step))
            return True  # go on

        def phase_finish(self, phase_name: str) -> None:
            progress(self._share.finish(phase_name))

    return Monitor()


class PhaseShare:
    """What share of nested phases is done. Called from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._phases: dict[str, list[Any]] = {}  # parent, steps, steps done
        self._most = 0

    def start(self, name: str, parent: str | None, steps: int) -> None:
        """A phase begins."""
        with self._lock:
            self._phases[name] = [parent, max(steps, 1), 0]

    def complete(self, name: str, step: int) -> int:
        """A step of a phase is done. Returns the percentage of all, which never falls."""
        with self._lock:
            if name in self._phases:
                self._phases[name][2] = step + 1
            return self._percent()

    def finish(self, name: str) -> int:
        """A phase is done; steps of it may have been left out. Returns the percentage of all."""
        with self._lock:
            if name in self._phases:
                parent, steps, _ = self._phases[name]
                self._phases[name][2] = steps
                percent = self._percent()
                if parent is not None:  # counted as a step of its parent from now on
                    del self._phases[name]
                return percent
            return self._percent()

    def _percent(self) -> int:
        tops = [name for name, (parent, _, _) in self._phases.items() if parent not in self._phases]
        if tops:
            # A later phase at the top begins when the one before is done: the last one tells.
            self._most = max(self._most, int(100 * self._done(tops[-1])))
        return self._most

    def _done(self, name: str) -> float:
        _, steps, done = self._phases[name]
        inside = [self._done(child) for child, (parent, _, _) in self._phases.items() if parent == name]
        return min(1.0, (done + min(sum(inside), steps - done)) / steps)


class Engine:
    """An engine in GPU memory.

    Args:
        trt: the module.
        data: of :func:`build`.

    Raises:
        EngineError: TensorRT cannot read it: of another version or GPU.
    """

    def __init__(self, trt: ModuleType, data: bytes):
        self._logger = logger_of(trt)
        self._runtime = _made(trt, 'Runtime')
        self._engine = self._runtime.deserialize_cuda_engine(data)
        if self._engine is None:
            raise EngineError(f'TensorRT {trt.__version__} cannot read the engine: {self._logger.said()}')

    def execution(
        self, addresses: dict[str, int], name: str, shape: tuple[int, ...], stream: int
    ) -> Callable[[], None]:
        """Make ready to run with inputs and outputs at these addresses on the GPU.

        Args:
            addresses: by name.
            name: of the input; ``shape``: of the input.
            stream: handle of the stream to run on.

        Returns:
            begins to run; may raise EngineError.

        Raises:
            EngineError: the engine was not built for the shape, or there is too little memory.
        """
        context = self._engine.create_execution_context()
        if context is None:
            raise EngineError(f'no memory to run the engine in: {self._logger.said()}')
        # With 8.6, all contexts but the first begin without a profile.
        if -1 in tuple(self._engine.get_tensor_shape(name)) and context.active_optimization_profile < 0:
            context.set_optimization_profile_async(0, stream)
        if not context.set_input_shape(name, shape):
            raise EngineError(f'the engine was not built for {shape}: {self._logger.said()}')
        for each, address in addresses.items():
            if not context.set_tensor_address(each, address):
                raise EngineError(f'the engine has no input or output {each}: {self._logger.said()}')

        def enqueue() -> None:
            if not context.execute_async_v3(stream):
                raise EngineError(f'the engine does not run: {self._logger.said()}')

        return enqueue
