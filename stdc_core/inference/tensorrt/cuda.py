# SPDX-License-Identifier: Apache-2.0
"""Use the part of CUDA that inference needs: memory, one stream, graphs and kernels.

The bindings are NVIDIA's ``cuda-bindings``, or the modules that came before them (``cuda-python`` 11).
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

#: Lasting errors, after which every call of the process fails. Source: documentation of cudaError_t.
_LASTING = (214, 220, 700, 702, 710, 714, 715, 716, 717, 718, 719)
_OUT_OF_MEMORY = 2


class CudaError(RuntimeError):
    """A CUDA call that failed.

    Attributes:
        out_of_memory: Whether the device has too little memory left.
        lasting: Whether the process cannot use CUDA any more.
    """

    def __init__(self, call: str, name: str, code: int):
        super().__init__(f'{call}: {name} ({code})')
        self.out_of_memory = code == _OUT_OF_MEMORY
        self.lasting = code in _LASTING


def missing_driver() -> str:
    """Return why no NVIDIA GPU can be used here, or an empty text.

    Ask this before anything else of TensorRT, which crashes without a driver. TensorRT for RTX does not.
    """
    try:
        driver = ctypes.CDLL('libcuda.so.1')
    except OSError:
        return 'no NVIDIA driver is installed'
    code = driver.cuInit(0)
    if code:
        return f'the NVIDIA driver finds no usable GPU (cuInit returns {code})'
    count = ctypes.c_int()
    driver.cuDeviceGetCount(ctypes.byref(count))
    return '' if count.value else 'the NVIDIA driver finds no GPU'


def _bindings() -> tuple[Any, Any, Any]:
    """Return the modules of runtime, driver and NVRTC. Raises ImportError."""
    try:
        from cuda.bindings import driver, nvrtc, runtime
    except ImportError:
        from cuda import cuda as driver
        from cuda import cudart as runtime
        from cuda import nvrtc
    return runtime, driver, nvrtc


class Memory:
    """A piece of memory on the device.

    Args:
        pointer: Address on the device.
        size: Size in bytes.
    """

    def __init__(self, pointer: int, size: int):
        self.pointer = pointer
        self.size = size


class Graph(NamedTuple):
    """Captured work: ``launch`` begins all of it with one call, ``close`` gives back the memory of the graph."""

    launch: Callable[[], None]
    close: Callable[[], None]


class CudaDevice:
    """A GPU with one stream, on which all work runs in order.

    Args:
        index: Index of the GPU as CUDA counts them (``CUDA_VISIBLE_DEVICES``).

    Attributes:
        name: Name of the GPU.
        capability: Compute capability, such as ``(9, 0)``.
        stream: Handle of the stream.

    Raises:
        ImportError: No CUDA bindings are installed.
        CudaError: The GPU cannot be used.
    """

    def __init__(self, index: int = 0):
        self._runtime, self._driver, self._nvrtc = _bindings()
        self._index = index
        self.use()
        self._call('cudaFree', 0)  # creates the context, which the driver API needs
        self._stream = self._call('cudaStreamCreateWithFlags', self._runtime.cudaStreamNonBlocking)
        self.stream = int(self._stream)
        attribute = self._runtime.cudaDeviceAttr
        kinds = (attribute.cudaDevAttrComputeCapabilityMajor, attribute.cudaDevAttrComputeCapabilityMinor)
        self.capability = tuple(self._call('cudaDeviceGetAttribute', kind, index) for kind in kinds)
        self.name = self._call('cudaGetDeviceProperties', index).name.decode().rstrip('\0')

    def _call(self, name: str, *arguments: Any) -> Any:
        error, *values = getattr(self._runtime, name)(*arguments)
        if int(error):
            self._runtime.cudaGetLastError()  # else a later call reports the error again
            raise CudaError(name, getattr(error, 'name', str(error)), int(error))
        return values[0] if values else None

    def _call_driver(self, name: str, *arguments: Any) -> Any:
        error, *values = getattr(self._driver, name)(*arguments)
        if int(error):
            raise CudaError(name, getattr(error, 'name', str(error)), int(error))
        return values[0] if values else None

    def use(self) -> None:
        """Select the device. To be called first in each thread: CUDA keeps the current device per thread."""
        self._call('cudaSetDevice', self._index)

    def free_memory(self) -> tuple[int, int]:
        """Return the free and the total bytes of device memory. Raises CudaError."""
        error, free, total = self._runtime.cudaMemGetInfo()
        if int(error):
            raise CudaError('cudaMemGetInfo', getattr(error, 'name', str(error)), int(error))
        return free, total

    def allocate(self, size: int) -> Memory:
        """Allocate bytes on the device, to be given back by :meth:`free`. Raises CudaError."""
        return Memory(int(self._call('cudaMalloc', size)), size)

    def pin(self, size: int) -> np.ndarray:
        """Allocate pinned memory of the host, uint8 ``[size]``, to be given back by :meth:`free`. Raises CudaError."""
        pointer = int(self._call('cudaHostAlloc', size, 0))
        return np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(pointer))

    def free(self, *pieces: Memory | np.ndarray) -> None:
        """Give back memory of the device or pinned memory. Raises CudaError."""
        for piece in pieces:
            if isinstance(piece, Memory):
                self._call('cudaFree', piece.pointer)
            else:
                self._call('cudaFreeHost', piece.ctypes.data)

    def upload(self, target: Memory, source: np.ndarray, offset: int = 0) -> None:
        """Begin to copy pinned memory to the device.

        Args:
            target: Memory on the device.
            source: Pinned memory.
            offset: Offset in ``target`` in bytes.
        """
        kind = self._runtime.cudaMemcpyKind.cudaMemcpyHostToDevice
        self._call('cudaMemcpyAsync', target.pointer + offset, source.ctypes.data, source.nbytes, kind, self._stream)

    def download(self, target: np.ndarray, source: Memory) -> None:
        """Begin to copy from the device to pinned memory."""
        kind = self._runtime.cudaMemcpyKind.cudaMemcpyDeviceToHost
        self._call('cudaMemcpyAsync', target.ctypes.data, source.pointer, target.nbytes, kind, self._stream)

    def synchronize(self) -> None:
        """Wait for all work that was begun. Raises CudaError if some of it failed."""
        self._call('cudaStreamSynchronize', self._stream)

    def compile(self, source: str, names: Sequence[str], macros: Sequence[str] = ()) -> dict[str, Any]:
        """Compile CUDA C for this GPU with NVRTC.

        Args:
            source: Source text.
            names: Names of its ``extern "C"`` kernels.
            macros: Macros to define.

        Returns:
            Kernels for :meth:`launch` by name.

        Raises:
            CudaError: The source does not compile; the message holds the compiler's.
            RuntimeError: NVRTC is not installed.
        """
        binary = compile_kernels(self._nvrtc, source, self.capability, macros)
        module = self._call_driver('cuModuleLoadData', np.frombuffer(binary, np.uint8).ctypes.data)
        return {name: self._call_driver('cuModuleGetFunction', module, name.encode()) for name in names}

    def launch(
        self,
        kernel: Any,
        grid: tuple[int, int, int],
        block: int,
        shared: int,
        arguments: Sequence[ctypes._SimpleCData | ctypes.Structure],
    ) -> None:
        """Start a kernel.

        Args:
            kernel: Kernel of :meth:`compile`.
            grid: Numbers of blocks in x, y and z.
            block: Number of threads in a block.
            shared: Bytes of shared memory of a block.
            arguments: Arguments of the kernel as ctypes.
        """
        pointers = (ctypes.c_void_p * len(arguments))(*map(ctypes.addressof, arguments))
        self._call_driver(
            'cuLaunchKernel', kernel, *grid, block, 1, 1, shared, self._stream, ctypes.addressof(pointers), 0
        )

    def capture(self, work: Callable[[], None]) -> Graph:
        """Record the work that ``work`` begins as a graph. Raises CudaError, and what ``work`` raises."""
        # In this mode, other threads may use CUDA meanwhile: one may be building an engine.
        mode = self._runtime.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        graph = None
        self._call('cudaStreamBeginCapture', self._stream, mode)
        try:
            try:
                work()
            finally:
                graph = self._call('cudaStreamEndCapture', self._stream)
            executable = self._call('cudaGraphInstantiateWithFlags', graph, 0)
        finally:
            if graph is not None:
                self._call('cudaGraphDestroy', graph)
        return Graph(
            launch=lambda: self._call('cudaGraphLaunch', executable, self._stream),
            close=lambda: self._call('cudaGraphExecDestroy', executable),
        )

    def time(self, work: Callable[[], None], runs: int) -> list[float]:
        """Return the milliseconds on the device of each of several runs of ``work``, by CUDA's events."""
        start, end = (self._call('cudaEventCreate') for _ in range(2))
        times = []
        for _ in range(runs):
            work()  # on an idle GPU, the time until the work begins would count too
            self._call('cudaEventRecord', start, self._stream)
            work()
            self._call('cudaEventRecord', end, self._stream)
            self._call('cudaEventSynchronize', end)
            times.append(float(self._call('cudaEventElapsedTime', start, end)))
        for event in (start, end):
            self._call('cudaEventDestroy', event)
        return times


def compile_kernels(nvrtc: Any, source: str, capability: tuple[int, int], macros: Sequence[str] = ()) -> bytes:
    """Compile CUDA C to machine code for a compute capability, or to PTX where NVRTC is older than the GPU.

    Args:
        nvrtc: Module of the bindings.
        source: Source text.
        capability: Compute capability of the GPU.
        macros: Macros to define.

    Returns:
        The machine code (ELF) or the PTX.

    Raises:
        CudaError: The source does not compile; the message holds the compiler's.
    """

    def call(name: str, *arguments: Any) -> Any:
        error, *values = getattr(nvrtc, name)(*arguments)
        if int(error):
            raise CudaError(name, getattr(error, 'name', str(error)), int(error))
        return values[0] if values else None

    known = call('nvrtcGetSupportedArchs') if hasattr(nvrtc, 'nvrtcGetSupportedArchs') else []
    wanted = 10 * capability[0] + capability[1]
    native = not known or wanted in known
    architecture = wanted if native else max((arch for arch in known if arch <= wanted), default=wanted)
    options = [f'--gpu-architecture={"sm" if native else "compute"}_{architecture}', *(f'-D{name}' for name in macros)]
    program = call('nvrtcCreateProgram', source.encode(), b'kernels.cu', 0, [], [])
    try:
        try:
            call('nvrtcCompileProgram', program, len(options), [option.encode() for option in options])
        except CudaError as error:
            log = bytes(call('nvrtcGetProgramLogSize', program))  # a new object: NVRTC writes into it
            call('nvrtcGetProgramLog', program, log)
            raise CudaError(f'{error}, {log.decode().strip(chr(0))!r}', 'NVRTC', -1) from error
        kind = 'CUBIN' if native else 'PTX'
        code = bytes(call(f'nvrtcGet{kind}Size', program))
        call(f'nvrtcGet{kind}', program, code)
        return code
    finally:
        call('nvrtcDestroyProgram', program)
