# SPDX-License-Identifier: Apache-2.0
"""Build engines with TensorRT 8.5 to 11 and with TensorRT for RTX.

TensorRT needs a GPU: call :func:`stdc_core.inference.tensorrt.cuda.missing_driver` first. TensorRT for RTX does not.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from types import ModuleType
from typing import Any

import onnx

from stdc_core.inference.tensorrt.library import (
    EngineError,
    is_rtx,
    is_weakly_typed,
    logger_of,
    profile_sharing,
    start,
    title_of,
)
from stdc_core.inference.tensorrt.progress import Progress, make_monitor
from stdc_core.inference.tensorrt.rtx import ANY_TARGET
from stdc_core.io.text import one_line

# Characters of what a parser or builder said.
_SAID = 1000


@dataclass(frozen=True)
class EngineOptions:
    """The properties that an engine is built with.

    Args:
        half: Compute in float16 where the library finds it faster, else in float32 alone. Input and output follow.
        int8: Whether the network is quantised and the library computes in int8.
        in_one: Whether the graph goes from image to mask; else it goes from planes to logits.
        shape: Shape of the input with the largest batch.
        tactics: Names of the ``TacticSource`` to choose from; empty leaves the choice to the library.
        target: GPUs that TensorRT for RTX builds for: ``'any'`` or a name of ``ComputeCapability``.
    """

    half: bool
    int8: bool
    in_one: bool
    shape: tuple[int, int, int, int]
    tactics: tuple[str, ...] = ()
    target: str = ANY_TARGET

    def conditions(self) -> dict[str, Any]:
        """Return the properties for the key of the engine cache."""
        return asdict(self)


def build(
    trt: ModuleType, network_file: bytes, options: EngineOptions, timings: bytes, progress: Progress
) -> tuple[bytes, bytes]:
    """Build an engine. TensorRT takes minutes, TensorRT for RTX about a second.

    Args:
        trt: Library.
        network_file: ONNX file. Its floats are float16 where the library is strongly typed and ``options.half`` is set.
        timings: Timing cache of an earlier build on this GPU, see the result; empty if there is none.
        progress: Function that is told the percentage.

    Returns:
        The engine and the timing cache, which is empty if the library keeps none.

    Raises:
        EngineError: The library refuses the graph, or cannot build it.
    """
    logger = logger_of(trt)
    builder = start(trt, 'Builder')
    network = builder.create_network(_creation_flags(trt))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse(sized(network_file, options.shape)):
        errors = [_described(parser.get_error(index)) for index in range(parser.num_errors)]
        said = one_line('; '.join(errors) or logger.said(), _SAID)
        raise EngineError(f'{title_of(trt)} cannot read the graph: {said}')
    config = builder.create_builder_config()
    _configure(trt, network, config, options)
    if is_rtx(trt):
        _configure_rtx(trt, config, options)
    if options.shape[0] > 1:
        _add_profile(trt, builder, config, network, options.shape)
    cache = None
    # TensorRT for RTX has a timing cache too, but times nothing: it chooses kernels on the user's GPU.
    if hasattr(config, 'create_timing_cache') and not is_rtx(trt):
        cache = config.create_timing_cache(timings) or config.create_timing_cache(b'')  # None: the cache is refused
        config.set_timing_cache(cache, False)
    if hasattr(trt, 'IProgressMonitor'):
        monitor = make_monitor(trt, progress)  # has to live as long as the build
        config.progress_monitor = monitor
    else:
        progress(None)
    engine = builder.build_serialized_network(network, config)
    if engine is None:
        raise EngineError(f'{title_of(trt)} cannot build the engine: {one_line(logger.said(), _SAID)}')
    return bytes(engine), bytes(cache.serialize()) if cache is not None else b''


def sized(network_file: bytes, shape: tuple[int, int, int, int]) -> bytes:
    """Return the ONNX file with a fixed input size; the batch is fixed too where the largest batch is 1.

    All shapes inside the graph are then constants, which is faster, and every version of TensorRT runs such an engine
    in any number of contexts.

    Args:
        network_file: ONNX file.
        shape: Shape of the input with the largest batch.
    """
    model = onnx.load_from_string(network_file)
    for index, dimension in enumerate(model.graph.input[0].type.tensor_type.shape.dim):
        if index or shape[0] == 1:
            dimension.dim_value = shape[index]
    return model.SerializeToString()


def _described(error: Any) -> str:
    """Return what the parser says, and the operator that it is about. Before TensorRT 10, it does not name it."""
    operator = error.node_operator() if hasattr(error, 'node_operator') else ''
    return f'{error.desc()} (operator {operator})' if operator else error.desc()


def _creation_flags(trt: ModuleType) -> int:
    wanted = 'EXPLICIT_BATCH' if is_weakly_typed(trt) else 'STRONGLY_TYPED'
    kind = getattr(trt.NetworkDefinitionCreationFlag, wanted, None)  # absent where it is the only way
    return 0 if kind is None else 1 << int(kind)


def _configure(trt: ModuleType, network: Any, config: Any, options: EngineOptions) -> None:
    """Set precision, memory layout and tactics."""
    if is_weakly_typed(trt):
        for wanted, flag in ((options.half, 'FP16'), (options.int8, 'INT8')):
            if wanted:
                config.set_flag(getattr(trt.BuilderFlag, flag))
        if options.half and not options.in_one:
            network.get_input(0).dtype = network.get_output(0).dtype = trt.float16
    if not options.half and hasattr(trt.BuilderFlag, 'TF32'):
        config.clear_flag(trt.BuilderFlag.TF32)  # TF32 rounds to 10 bits, and float32 is to be float32
    # TensorRT 8 may otherwise choose another layout of the channels in memory.
    for tensor in (network.get_input(0), *map(network.get_output, range(network.num_outputs))):
        tensor.allowed_formats = 1 << int(trt.TensorFormat.LINEAR)
    if options.tactics:
        config.set_tactic_sources(sum(1 << int(getattr(trt.TacticSource, name)) for name in options.tactics))


def _configure_rtx(trt: ModuleType, config: Any, options: EngineOptions) -> None:
    """Set the target GPUs, and user allocation, which the capture of a CUDA graph needs.

    Raises:
        EngineError: The library does not know the target.
    """
    if hasattr(trt.BuilderFlag, 'REQUIRE_USER_ALLOCATION'):  # since version 1.2
        config.set_flag(trt.BuilderFlag.REQUIRE_USER_ALLOCATION)
    if options.target == ANY_TARGET:
        return
    known = [name for name in trt.ComputeCapability.__members__ if name.startswith('SM')]
    if options.target not in known:
        raise EngineError(
            f'{title_of(trt)} cannot build for {options.target}; expected {ANY_TARGET} or one of {", ".join(known)}'
        )
    config.num_compute_capabilities = 1
    config.set_compute_capability(getattr(trt.ComputeCapability, options.target), 0)


def _add_profile(trt: ModuleType, builder: Any, config: Any, network: Any, most: tuple[int, int, int, int]) -> None:
    """Add an optimisation profile for batches from 1 to the largest one."""
    profile = builder.create_optimization_profile()
    profile.set_shape(network.get_input(0).name, (1, *most[1:]), most, most)
    config.add_optimization_profile(profile)
    sharing = profile_sharing(trt)
    if sharing is not None:
        config.set_preview_feature(sharing, True)
