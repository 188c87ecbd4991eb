# SPDX-License-Identifier: Apache-2.0
"""Run engines of TensorRT and of TensorRT for RTX."""

from __future__ import annotations

import logging
from collections.abc import Callable
from types import ModuleType
from typing import Any, Protocol

from stdc_core.inference.tensorrt.library import EngineError, is_rtx, logger_of, start, title_of
from stdc_core.io.text import one_line

_SAID = 1000

_log = logging.getLogger(__name__)


class KernelFile(Protocol):
    """Where TensorRT for RTX keeps the kernels that it compiled for this GPU."""

    def read(self) -> bytes | None:
        """Return the kernels, or None if there are none."""
        ...

    def write(self, data: bytes) -> None:
        """Keep the kernels."""
        ...


class Execution:
    """Runs an engine with inputs and outputs at fixed addresses on the GPU, on one stream.

    Args:
        context: Execution context with shape and addresses set.
        stream: Handle of the stream.
        logger: Logger of the library.
        asks: Whether the context can say if its stream can be captured.
    """

    def __init__(self, context: Any, stream: int, logger: Any, asks: bool):
        self._context, self._stream, self._logger, self._asks = context, stream, logger, asks

    def __call__(self) -> None:
        """Begin to run. Raises EngineError."""
        if not self._context.execute_async_v3(self._stream):
            raise EngineError(f'the engine does not run: {one_line(self._logger.said(), _SAID)}')

    def is_capturable(self) -> bool:
        """Return whether a run can be captured as a CUDA graph."""
        return not self._asks or self._context.is_stream_capturable(self._stream)


class Engine:
    """An engine in GPU memory.

    Args:
        trt: Library.
        data: Engine of :func:`stdc_core.inference.tensorrt.engine_builder.build`.
        kernels: File of compiled kernels; None keeps none. TensorRT for RTX alone has them.

    Raises:
        EngineError: The library cannot read the engine: it is for another version or GPU.
    """

    def __init__(self, trt: ModuleType, data: bytes, kernels: KernelFile | None = None):
        self._trt, self._logger = trt, logger_of(trt)
        self._runtime = start(trt, 'Runtime')
        self._engine = self._runtime.deserialize_cuda_engine(data)
        if self._engine is None:
            raise EngineError(f'{title_of(trt)} cannot read the engine: {one_line(self._logger.said(), _SAID)}')
        self._kernels = kernels
        self._kept = b''
        self._cache: Any = None
        self._config = self._rtx_config() if is_rtx(trt) else None

    def _rtx_config(self) -> Any:
        """Return the runtime configuration: memory that we allocate, and the kernels of earlier runs."""
        config = self._engine.create_runtime_config()
        config.set_execution_context_allocation_strategy(self._trt.ExecutionContextAllocationStrategy.USER_MANAGED)
        if self._kernels is not None:
            self._cache = config.create_runtime_cache()
            self._kept = self._kernels.read() or b''
            if self._kept and not self._cache.deserialize(self._kept):
                self._kept = b''
                _log.info('compiling kernels again: the kept ones are for another driver or version')
            config.set_runtime_cache(self._cache)
        return config

    def execution(
        self,
        addresses: dict[str, int],
        name: str,
        shape: tuple[int, ...],
        stream: int,
        allocate: Callable[[int], int],
    ) -> Execution:
        """Prepare a run with inputs and outputs at fixed addresses on the GPU.

        Args:
            addresses: Address by name of input or output.
            name: Name of the input.
            shape: Shape of the input.
            stream: Handle of the stream to run on.
            allocate: Function that allocates bytes on the GPU and returns their address.

        Raises:
            EngineError: The engine was not built for the shape, or there is too little memory.
        """
        if self._config is None:
            context = self._engine.create_execution_context()
        else:
            context = self._engine.create_execution_context(self._config)
        if context is None:
            raise EngineError(f'no memory to run the engine in: {one_line(self._logger.said(), _SAID)}')
        # In TensorRT 8.6, every context but the first begins without a profile.
        if -1 in tuple(self._engine.get_tensor_shape(name)) and context.active_optimization_profile < 0:
            context.set_optimization_profile_async(0, stream)
        if not context.set_input_shape(name, shape):
            raise EngineError(f'the engine was not built for {shape}: {one_line(self._logger.said(), _SAID)}')
        if self._config is not None:
            size = context.update_device_memory_size_for_shapes()
            context.set_device_memory(allocate(max(size, 1)), size)
        for each, address in addresses.items():
            if not context.set_tensor_address(each, address):
                raise EngineError(f'the engine has no input or output {each}: {one_line(self._logger.said(), _SAID)}')
        return Execution(context, stream, self._logger, asks=hasattr(context, 'is_stream_capturable'))

    def keep_kernels(self) -> None:
        """Write the kernels that were compiled since the engine was read. To be called after the first run."""
        if self._cache is None or self._kernels is None:
            return
        data = bytes(self._cache.serialize())
        if data != self._kept:
            self._kernels.write(data)
            self._kept = data
