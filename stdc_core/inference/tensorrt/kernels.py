# SPDX-License-Identifier: Apache-2.0
"""The kernels of ``kernels.cu``: what surrounds the network on the GPU."""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import NamedTuple, Protocol

SOURCE = Path(__file__).with_name('kernels.cu')
NAMES = ('prepare', 'classify', 'draw')

#: Threads of a block, and the most shared memory that every GPU gives a block without being asked specially, in bytes.
BLOCK = 128
SHARED = 48 << 10


class Normalization(NamedTuple):
    """How bytes become what a network takes: of each of its planes, the image's channel, a factor and a summand."""

    channel: tuple[int, int, int]
    gain: tuple[float, float, float]
    offset: tuple[float, float, float]


class _Normalization(ctypes.Structure):
    """The struct of the kernel."""

    _fields_ = [('channel', ctypes.c_int * 3), ('gain', ctypes.c_float * 3), ('offset', ctypes.c_float * 3)]


class Device(Protocol):
    """What :class:`stdc_core.inference.tensorrt.cuda.CudaDevice` does with kernels."""

    def compile(self, source, names, macros): ...

    def launch(self, kernel, grid, block, shared, arguments): ...


class Kernels:
    """The kernels, compiled for a device.

    Args:
        half: the network's planes and logits are float16, else float32.

    Raises:
        RuntimeError: they cannot be compiled there; CudaError is one.
    """

    def __init__(self, device: Device, half: bool):
        self._device = device
        macros = ('HALF',) if half else ()
        self._kernels = device.compile(SOURCE.read_text(), NAMES, macros)

    def prepare(
        self,
        images: int,
        planes: int,
        count: int,
        size: tuple[int, int],
        network_size: tuple[int, int],
        normalization: Normalization,
    ) -> None:
        """Images at one address, uint8 BGR ``[N, H, W, 3]``, to planes at another one, ``[N, 3, h, w]``.

        Args:
            count: N.
            size: (H, W); ``network_size``: (h, w).
        """
        sizes = [ctypes.c_int(side) for side in (*size, *network_size)]
        struct = _Normalization(*map(tuple, normalization))
        arguments = [ctypes.c_void_p(images), ctypes.c_void_p(planes), *sizes, struct]
        grid = (-(-network_size[1] // BLOCK), network_size[0], count)
        self._device.launch(self._kernels['prepare'], grid, BLOCK, 0, arguments)

    def classify(
        self,
        logits: int,
        mask: int,
        confidence: int,
        count: int,
        classes: int,
        logits_size: tuple[int, int],
        size: tuple[int, int],
    ) -> None:
        """Logits at one address, ``[N, C, h, w]``, to mask and confidence at others, both uint8 ``[N, H, W]``.

        Args:
            confidence: 0: none.
            count: N.
            logits_size: (h, w); ``size``: (H, W).
        """
        span, columns = spans(classes, logits_size[1], size[1])
        sizes = [ctypes.c_int(side) for side in (classes, *logits_size, *size, span, columns)]
        arguments = [ctypes.c_void_p(logits), ctypes.c_void_p(mask), ctypes.c_void_p(confidence), *sizes]
        grid = (-(-size[1] // span), size[0], count)
        self._device.launch(self._kernels['classify'], grid, BLOCK, 4 * classes * columns, arguments)

    def draw(self, image: int, mask: int, blending: int, overlay: int, pixels: int) -> None:
        """An image at one address, uint8 BGR ``[H, W, 3]``, and its mask to class colours over it, at another one.

        Args:
            mask: uint8 ``[H, W]``.
            blending: float32 ``[256, 4]``, see ``ClassTable.blending_bgr``.
            overlay: uint8 BGR ``[H, W, 3]``.
            pixels: H * W.
        """
        addresses = [ctypes.c_void_p(address) for address in (image, mask, blending, overlay)]
        grid = (-(-pixels // BLOCK), 1, 1)
        self._device.launch(self._kernels['draw'], grid, BLOCK, 0, [*addresses, ctypes.c_int(pixels)])


def spans(classes: int, width: int, to_width: int) -> tuple[int, int]:
    """Pixels of a row that one block takes, and columns of logits that it needs for them, to fit into its memory.

    Args:
        width: of the logits; ``to_width``: of the mask.
    """
    for span in (1024, 512, 256, 128, 64, 32, 16, 8, 4, 2, 1):
        # Columns under the pixels, and one more on each side for rounding.
        columns = min(width, (span - 1) * (width - 1) // max(to_width - 1, 1) + 3)
        if 4 * classes * columns <= SHARED:
            break
    return span, columns
