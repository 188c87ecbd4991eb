# SPDX-License-Identifier: Apache-2.0
"""Run images of one shape on the GPU: bytes up, kernels and engine as one CUDA graph, mask down."""

from __future__ import annotations

import logging
from typing import Any, NamedTuple

import numpy as np

from stdc_core.inference.onnx_graph.network_split import LOGITS, PLANES, Parts
from stdc_core.inference.tensorrt.kernels import Kernels

#: Number of bytes of an image that are copied to pinned memory at a time. The GPU fetches them while the CPU copies the
#: next ones.
PIECE = 1 << 20

_log = logging.getLogger(__name__)


class _Drawing(NamedTuple):
    """Memory for an overlay and its blending table, on the device and on the host."""

    blending: Any
    overlay: Any
    blending_host: np.ndarray
    overlay_host: np.ndarray


class Pipeline:
    """Memory, engine and kernels for images of one shape. Everything after the upload is captured as one CUDA graph.

    Args:
        device: GPU, a ``CudaDevice``.
        engine: Engine from planes to logits; without kernels, from image to mask and confidence.
        parts: Parts of the deployed graph.
        kernels: Kernels around the network; None if the engine does everything.
        half: Whether planes and logits are float16, else float32.
        shape: Shape of the images, ``[N, H, W, 3]``.
        confidence: Whether the confidence is wanted.

    Attributes:
        outputs: Mask and, if wanted, confidence: memory on the device, and memory on the host that it is copied to.

    Raises:
        CudaError, EngineError: There is too little memory, or the engine does not run.
    """

    def __init__(
        self,
        device: Any,
        engine: Any,
        parts: Parts,
        kernels: Kernels | None,
        half: bool,
        shape: tuple[int, int, int, int],
        confidence: bool,
    ):
        self._device, self._parts, self._kernels = device, parts, kernels
        self._count, self._size = shape[0], (shape[1], shape[2])
        self._memory: list[Any] = []
        self._graph: Any = None
        self._drawing: _Drawing | None = None
        try:
            pixels = self._count * self._size[0] * self._size[1]
            self._image, self._image_host = self._allocate(3 * pixels), self._pin(3 * pixels)
            self._mask = self._allocate(pixels)
            # An engine in one piece writes the confidence anyway.
            self._confidence = self._allocate(pixels) if confidence or kernels is None else None
            wanted = [self._mask, self._confidence] if confidence else [self._mask]
            self.outputs = [(memory, self._pin(pixels)) for memory in wanted]
            if kernels is None:
                addresses = {'image': self._image, 'mask': self._mask, 'confidence': self._confidence}
                name, input_shape = 'image', shape
            else:
                height, width = parts.network_size(self._size)
                self._network_size, self._logits_size = (height, width), (-(-height // 8), -(-width // 8))
                size = 2 if half else 4
                addresses = {
                    PLANES: self._allocate(size * self._count * 3 * height * width),
                    LOGITS: self._allocate(size * self._count * parts.classes * np.prod(self._logits_size, dtype=int)),
                }
                name, input_shape = PLANES, (self._count, 3, height, width)
            self._addresses = {each: memory.pointer for each, memory in addresses.items()}
            self._enqueue = engine.execution(
                self._addresses, name, input_shape, device.stream, lambda size: self._allocate(size).pointer
            )
            self._capture()
        except Exception:
            self.close()
            raise

    @property
    def captured(self) -> bool:
        """Whether runs are captured as a CUDA graph."""
        return self._graph is not None

    def _allocate(self, size: int) -> Any:
        self._memory.append(self._device.allocate(int(size)))
        return self._memory[-1]

    def _pin(self, size: int) -> np.ndarray:
        self._memory.append(self._device.pin(size))
        return self._memory[-1]

    def _capture(self) -> None:
        # The first run does things that cannot be captured: TensorRT for RTX compiles its kernels.
        self._image_host[:] = 0
        self._device.upload(self._image, self._image_host)
        self._begin()
        self._device.synchronize()
        if not self._enqueue.is_capturable():
            _log.info('running without a CUDA graph: the engine cannot be captured')
            return
        try:
            self._graph = self._device.capture(self._begin)
        except RuntimeError as error:  # CudaError and EngineError
            if getattr(error, 'lasting', False):
                raise
            _log.info('running without a CUDA graph: %s', error)

    def _upload(self, images: np.ndarray) -> None:
        """Begin to copy images to the device, by way of pinned memory."""
        for first in range(0, images.size, PIECE):
            piece = self._image_host[first : first + PIECE]
            np.copyto(piece, images[first : first + PIECE])
            self._device.upload(self._image, piece, first)

    def _begin(self) -> None:
        """Begin every step after the upload."""
        self.compute()
        for memory, host in self.outputs:
            self._device.download(host, memory)

    def compute(self) -> None:
        """Begin the steps between upload and download: from the image on the device to the mask there."""
        if self._kernels is None:
            self._enqueue()
            return
        images, planes = self._image.pointer, self._addresses[PLANES]
        self._kernels.prepare(images, planes, self._count, self._size, self._network_size, self._parts.normalization)
        self._enqueue()
        confidence = self._confidence.pointer if self._confidence is not None else 0
        logits = self._addresses[LOGITS]
        self._kernels.classify(
            logits, self._mask.pointer, confidence, self._count, self._parts.classes, self._logits_size, self._size
        )

    def __call__(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        """Segment images of the shape, uint8 ``[N, H, W, 3]``.

        Returns:
            Mask and confidence, both uint8 ``[N, H, W]``; the confidence is None if it is not wanted.

        Raises:
            CudaError, EngineError: The GPU failed.
        """
        self._upload(images.reshape(-1))
        if self._graph is None:
            self._begin()
        else:
            self._graph.launch()
        self._device.synchronize()
        # Copies, since the next images overwrite the pinned memory.
        found = [host.reshape(images.shape[:3]).copy() for _, host in self.outputs]
        return found[0], found[1] if len(found) > 1 else None

    def overlay(self, index: int, blending: np.ndarray) -> np.ndarray | None:
        """See ``Backend.overlay``. Returns None without kernels. Raises CudaError."""
        if self._kernels is None:
            return None
        pixels = self._size[0] * self._size[1]
        if self._drawing is None:
            sizes = (blending.nbytes, 3 * pixels)
            self._drawing = _Drawing(*map(self._allocate, sizes), *map(self._pin, sizes))
        drawing = self._drawing
        np.copyto(drawing.blending_host.view(np.float32), blending.reshape(-1))
        self._device.upload(drawing.blending, drawing.blending_host)
        image, mask = self._image.pointer + 3 * pixels * index, self._mask.pointer + pixels * index
        self._kernels.draw(image, mask, drawing.blending.pointer, drawing.overlay.pointer, pixels)
        self._device.download(drawing.overlay_host, drawing.overlay)
        self._device.synchronize()
        return drawing.overlay_host.reshape(*self._size, 3).copy()

    def close(self) -> None:
        """Give back the memory and the graph. Raises CudaError."""
        if self._graph is not None:
            self._graph.close()
            self._graph = None
        self._device.free(*self._memory)
        self._memory.clear()
