# SPDX-License-Identifier: Apache-2.0
"""Run the kernels of ``kernels.cu``, which surround the network on the GPU."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

SOURCE = Path(__file__).with_name('kernels.cu')
NAMES = ('prepare', 'classify', 'draw')

#: Number of threads of a block, and the bytes of shared memory that every GPU gives a block by default.
BLOCK = 128
SHARED = 48 << 10


class Normalization(NamedTuple):
    """Numbers that turn the bytes of an image into the planes of a network.

    Attributes:
        channel: Channel of the image for each plane.
        gain: Factor for each plane.
        offset: Summand for each plane.
    """

    channel: tuple[int, int, int]
    gain: tuple[float, float, float]
    offset: tuple[float, float, float]


class _Normalization(ctypes.Structure):
    """Struct of the same name in ``kernels.cu``."""

    _fields_ = [('channel', ctypes.c_int * 3), ('gain', ctypes.c_float * 3), ('offset', ctypes.c_float * 3)]


class Device(Protocol):
    """The part of :class:`stdc_core.inference.tensorrt.cuda.CudaDevice` that runs kernels."""

    def compile(self, source: str, names: Sequence[str], macros: Sequence[str] = ()) -> dict[str, Any]:
        """Compile kernels."""
        ...

    def launch(
        self, kernel: Any, grid: tuple[int, int, int], block: int, shared: int, arguments: Sequence[Any]
    ) -> None:
        """Start a kernel."""
        ...


class Kernels:
    """The kernels, compiled for a device.

    Args:
        device: GPU.
        half: Whether the network's planes and logits are float16, else float32.

    Raises:
        RuntimeError: The kernels cannot be compiled for it; CudaError is a subclass.
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
        """Begin to turn images into planes.

        Args:
            images: Address of the images, uint8 BGR ``[N, H, W, 3]``.
            planes: Address of the planes, ``[N, 3, h, w]``.
            count: Number of images, N.
            size: (H, W) of the images.
            network_size: (h, w) of the planes.
            normalization: Numbers that turn bytes into planes.
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
        """Begin to turn logits into mask and confidence.

        Args:
            logits: Address of the logits, ``[N, C, h, w]``.
            mask: Address of the mask, uint8 ``[N, H, W]``.
            confidence: Address of the confidence, uint8 ``[N, H, W]``; 0 if it is not wanted.
            count: Number of images, N.
            classes: Number of classes, C.
            logits_size: (h, w) of the logits.
            size: (H, W) of the mask.
        """
        span, columns = spans(classes, logits_size[1], size[1])
        sizes = [ctypes.c_int(side) for side in (classes, *logits_size, *size, span, columns)]
        arguments = [ctypes.c_void_p(logits), ctypes.c_void_p(mask), ctypes.c_void_p(confidence), *sizes]
        grid = (-(-size[1] // span), size[0], count)
        self._device.launch(self._kernels['classify'], grid, BLOCK, 4 * classes * columns, arguments)

    def draw(self, image: int, mask: int, blending: int, overlay: int, pixels: int) -> None:
        """Begin to draw class colours over an image.

        Args:
            image: Address of the image, uint8 BGR ``[H, W, 3]``.
            mask: Address of its mask, uint8 ``[H, W]``.
            blending: Address of the blending table, float32 ``[256, 4]``, see ``ClassTable.blending_bgr``.
            overlay: Address of the overlay, uint8 BGR ``[H, W, 3]``.
            pixels: Number of pixels, H * W.
        """
        addresses = [ctypes.c_void_p(address) for address in (image, mask, blending, overlay)]
        grid = (-(-pixels // BLOCK), 1, 1)
        self._device.launch(self._kernels['draw'], grid, BLOCK, 0, [*addresses, ctypes.c_int(pixels)])


def spans(classes: int, width: int, to_width: int) -> tuple[int, int]:
    """Return the pixels of a row that one block takes, and the columns of logits that it needs, to fit its memory.

    Args:
        classes: Number of classes.
        width: Width of the logits.
        to_width: Width of the mask.
    """
    for span in (1024, 512, 256, 128, 64, 32, 16, 8, 4, 2, 1):
        # Columns under the pixels, plus one on each side for rounding.
        columns = min(width, (span - 1) * (width - 1) // max(to_width - 1, 1) + 3)
        if 4 * classes * columns <= SHARED:
            break
    return span, columns
