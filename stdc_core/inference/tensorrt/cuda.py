# SPDX-License-Identifier: Apache-2.0
"""The little of CUDA that inference needs: memory, one stream, graphs and kernels, behind one small class.

The bindings are NVIDIA's ``cuda-bindings``, or the modules that came before them (``cuda-python`` 11).
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

#: Lasting errors: every later call of the process fails. From cudaError_t, whose documentation says so.
_LASTING = (214, 220, 700, 702, 710, 714, 715, 716, 717, 718, 719)
_OUT_OF_MEMORY = 2


class CudaError(RuntimeError):
    """A CUDA call that failed.

    Attributes:
        out_of_memory: the device has too little memory left.
        lasting: the process can use CUDA no more.
    """

    def __init__(self, call: str, name: str, code: int):
        super().__init__(f'{call}: {name} ({code})')
        self.out_of_memory = code == _OUT_OF_MEMORY
        self.lasting = code in _LASTING


def missing_driver() -> str:
    """Why no NVIDIA GPU can be used here; empty: one can. To be asked first: without a driver TensorRT crashes."""
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
    """The modules of runtime, driver and NVRTC. Raises ImportError."""
    try:
        from cuda.bindings import driver, nvrtc, runtime
    except ImportError:
        from cuda import cuda as driver
        from cuda import cudart as runtime
        from cuda import nvrtc
    return runtime, driver, nvrtc


class Memory:
    """A piece of memory on the device. ``pointer`` is its address, ``size`` in bytes."""

    def __init__(self, pointer: int, size: int):
        self.pointer = pointer
        self.size = size


class Graph(NamedTuple):
    """Work that was captured: ``launch`` begins all of it with one call, ``close`` gives back what the graph takes."""

    launch: Callable[[], None]
    close: Callable[[], None]


class CudaDevice:
    """A GPU with one stream, on which everything is done in order.

    Args:
        index: of the GPU, as CUDA counts them (``CUDA_VISIBLE_DEVICES``).

    Attributes:
        name: of the GPU.
        capability: its compute capability, such as ``(9, 0)``.
        stream: handle of the stream.

    Raises:
        ImportError: no CUDA bindings are installed.
        CudaError: the GPU cannot be used.
    """

    def __init__(self, index: int = 0):
        self._runtime, self._driver, self._nvrtc = _bindings()
        self._index = index
        self.use()
        self._call('cudaFree', 0)  # makes the context, which the driver's calls need
        self._stream = self._call('cudaStreamCreateWithFlags', self._runtime.cudaStreamNonBlocking)
        self.stream = int(self._stream)
        attribute = self._runtime.cudaDeviceAttr
        kinds = (attribute.cudaDevAttrComputeCapabilityMajor, attribute.cudaDevAttrComputeCapabilityMinor)
        self.capability = tuple(self._call('cudaDeviceGetAttribute', kind, index) for kind in kinds)
        self.name = self._call('cudaGetDeviceProperties', index).name.decode().rstrip('\0')

    def _call(self, name: str, *arguments: Any) -> Any:
        error, *values = getattr(self._runtime, name)(*arguments)
        if int(error):
            self._runtime.cudaGetLastError()  # else a later call reports it again
            raise CudaError(name, getattr(error, 'name', str(error)), int(error))
        return values[0] if values else None

    def _call_driver(self, name: str, *arguments: Any) -> Any:
        error, *values = getattr(self._driver, name)(*arguments)
        if int(error):
            raise CudaError(name, getattr(error, 'name', str(error)), int(error))
        return values[0] if values else None

    def use(self) -> None:
        """To be called in each thread before anything else: CUDA keeps the current device by thread."""
        self._call('cudaSetDevice', self._index)

    def free_memory(self) -> tuple[int, int]:
        """Bytes of device memory that are free, and of all."""
        error, free, total = self._runtime.cudaMemGetInfo()
        if int(error):
            raise CudaError('cudaMemGetInfo', getattr(error, 'name', str(error)), int(error))
        return free, total

    def allocate(self, size: int) -> Memory:
        """Memory on the device, to be given back by :meth:`free`. Raises CudaError."""
        return Memory(int(self._call('cudaMalloc', size)), size)

    def pin(self, size: int) -> np.ndarray:
        """uint8 ``[size]`` in memory of the host that the GPU reads and writes itself; to be given back by free."""
        pointer = int(self._call('cudaHostAlloc', size, 0))
        return np.frombuffer((ctypes.c_uint8 * size).from_address(pointer), np.uint8)

    def free(self, *pieces: Memory | np.ndarray) -> None:
        """Give back memory."""
        for piece in pieces:
            if isinstance(piece, Memory):
                self._call('cudaFree', piece.pointer)
            else:
                self._call('cudaFreeHost', piece.ctypes.data)

    def upload(self, target: Memory, source: np.ndarray, offset: int = 0) -> None:
        """Copy pinned memory to the device, so many bytes after the beginning of ``target``, without waiting for it."""
        kind = self._runtime.cudaMemcpyKind.cudaMemcpyHostToDevice
        self._call('cudaMemcpyAsync', target.pointer + offset, source.ctypes.data, source.nbytes, kind, self._stream)

    def download(self, target: np.ndarray, source: Memory) -> None:
        """Copy to pinned memory from the device, without waiting for it."""
        kind = self._runtime.cudaMemcpyKind.cudaMemcpyDeviceToHost
        self._call('cudaMemcpyAsync', target.ctypes.data, source.pointer, target.nbytes, kind, self._stream)

    def synchronize(self) -> None:
        """Wait for all that was begun. Raises CudaError for what went wrong meanwhile."""
        self._call('cudaStreamSynchronize', self._stream)

    def compile(self, source: str, names: Sequence[str], macros: Sequence[str] = ()) -> dict[str, Any]:
        """Compile CUDA C for this GPU with NVRTC.

        Args:
            source: the text.
            names: of its ``extern "C"`` kernels.
            macros: to be defined.

        Returns:
            by name, what :meth:`launch` takes.

        Raises:
            CudaError: it does not compile; the message holds the compiler's.
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
            kernel: of :meth:`compile`.
            grid: blocks in x, y and z.
            block: threads of a block.
            shared: bytes of shared memory of a block.
            arguments: of the kernel, as ctypes.
        """
        pointers = (ctypes.c_void_p * len(arguments))(*map(ctypes.addressof, arguments))
        self._call_driver(
            'cuLaunchKernel', kernel, *grid, block, 1, 1, shared, self._stream, ctypes.addressof(pointers), 0
        )

    def capture(self, work: Callable[[], None]) -> Graph:
        """Record what ``work`` begins. Raises CudaError, and what ``work`` raises."""
        # In this mode, other threads may go on using CUDA as they like: one may be building an engine.
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
        """Milliseconds on the device of so many runs of ``work``, one after another, by CUDA's events."""
        start, end = (self._call('cudaEventCreate') for _ in range(2))
        times = []
        for _ in range(runs):
            work()  # else the clock would start on an idle GPU, and the time until the work is begun would count, too
            self._call('cudaEventRecord', start, self._stream)
            work()
            self._call('cudaEventRecord', end, self._stream)
            self._call('cudaEventSynchronize', end)
            times.append(float(self._call('cudaEventElapsedTime', start, end)))
        for event in (start, end):
            self._call('cudaEventDestroy', event)
        return times


def compile_kernels(nvrtc: Any, source: str, capability: tuple[int, int], macros: Sequence[str] = ()) -> bytes:
    """CUDA C to machine code for a compute capability, or to PTX where NVRTC is older than the GPU.

    Args:
        nvrtc: the bindings' module.

    Raises:
        CudaError: it does not compile; the message holds the compiler's.
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
        call('nvrtcCompileProgram', program, len(options), [option.encode() for option in options])
    except CudaError as error:
        log = bytes(call('nvrtcGetProgramLogSize', program))  # of its own: it is written to
        call('nvrtcGetProgramLog', program, log)
        raise CudaError(f'{error}, {log.decode().strip(chr(0))!r}', 'NVRTC', -1) from error
    kind = 'CUBIN' if native else 'PTX'
    code = bytes(call(f'nvrtcGet{kind}Size', program))
    call(f'nvrtcGet{kind}', program, code)
    call('nvrtcDestroyProgram', program)
    return code
