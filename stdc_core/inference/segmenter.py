# SPDX-License-Identifier: Apache-2.0
"""The one object that turns images into masks: for the node, bags, files and benchmarks alike."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from stdc_core.inference.backend import Backend, BackendError, check_threads
from stdc_core.inference.backend_choice import make_backend
from stdc_core.inference.input_scale import InputScale, check_input_scale, scaled_size
from stdc_core.inference.model_file import ModelError, ModelInfo, read_model
from stdc_core.io.text import one_line

#: The model that is shipped: STDC1 for the eleven classes of CamVid.
DEFAULT_MODEL = Path(__file__).parent.parent / 'weights' / 'stdc1_camvid.onnx'

#: Pixels of an image, and of what the network sees of it: 8K at input scale 1. In all they take some GB of memory.
MAX_PIXELS = 1 << 25

# A model is tried on a black image of this height and width, or of the first at which the network sees a pixel.
_TRIAL = 32
_LARGEST_TRIAL = 1024


class SizeError(ValueError):
    """An image with too few pixels for the network, or too many; the message says how many, and how many may be."""


class Segmentation(NamedTuple):
    """A mask and, if it was asked for, its confidence.

    ``mask`` uint8 ``[H, W]`` class ids; ``confidence`` uint8 ``[H, W]``, the probability of the mask's class, 0 ... 1
    as 0 ... 255, or None. With a leading ``N`` for a batch.
    """

    mask: np.ndarray
    confidence: np.ndarray | None


def check_size(height: int, width: int, scale: float) -> None:
    """Raise SizeError unless images of this size keep a pixel after the input scale, and at most MAX_PIXELS."""
    if not all(scaled_size((height, width), scale)):
        raise SizeError(f'image of {width} x {height} pixels, expected 1 x 1 to be left at input scale {scale:g}')
    if height * width * max(1, scale) ** 2 > MAX_PIXELS:
        seen = f', {width * scale:.0f} x {height * scale:.0f} for the network at input scale {scale:g}'
        raise SizeError(f'image of {width} x {height} pixels{seen if scale > 1 else ""}, expected at most {MAX_PIXELS}')


class Segmenter:
    """Segments images with a model file; made by ``Segmenter.load``.

    Attributes:
        info: what the model file says of itself, its classes among it.
        scale: at which the network sees images.
        backend: name of what computes; ``reason``: why that, where it was left open; ``activity``: what it is busy with
            besides images; ``max_batch``: so many images in one call are faster than one after another; ``failure``:
            what it cannot recover from, or None.
    """

    def __init__(self, info: ModelInfo, backend: Backend):
        self.info = info
        self.scale = info.scale
        self._backend = backend

    @property
    def backend(self) -> str:
        return self._backend.name

    @property
    def reason(self) -> str:
        return self._backend.reason

    @property
    def activity(self) -> str:
        return self._backend.activity

    @property
    def max_batch(self) -> int:
        return self._backend.max_batch

    @property
    def failure(self) -> BackendError | None:
        return self._backend.failure

    @classmethod
    def load(
        cls,
        path: str | Path = DEFAULT_MODEL,
        threads: int = 0,
        input_scale: float | None = None,
        backend: str = 'auto',
        precision: str = 'auto',
        max_batch: int = 1,
        wait: bool = True,
    ) -> Segmenter:
        """Read a model file.

        Args:
            path: a ``model.onnx`` from ``stdc export``.
            threads: CPU threads, at most 256; 0 takes every core that this process may use.
            input_scale: the network sees the image at this scale, above 0 and at most 4; time grows with its square.
                None: the model's own, and of larger images than in its training as many pixels as there.
            backend: what computes, one of ``BACKENDS``.
            precision: of TensorRT, one of ``PRECISIONS``.
            max_batch: images in one call, at most, where a GPU takes them together.
            wait: images of a size that TensorRT has no engine for yet wait until it is built; else ONNX Runtime
                answers meanwhile.

        Raises:
            ValueError: the number of threads is out of its range.
            FileNotFoundError: there is no such file.
            ModelError: it is not such a model, or damaged, or the input scale is out of its range.
            BackendError: there is no such backend or precision, or what it needs is not there.
        """
        check_threads(threads)
        model, info = read_model(path)
        own = InputScale(info.input_scale)
        if input_scale is not None:
            try:
                check_input_scale(input_scale)
            except ValueError as error:
                raise ModelError(f'{path}: {error}') from error
            info = info.at(input_scale)
        try:
            scale = None if info.scale == own else info.scale
            segmenter = cls(info, make_backend(backend, model, threads, precision, max_batch, wait, scale))
            side = max(_TRIAL, math.ceil(1 / info.input_scale))
            # OpenVINO compiles for a shape, which takes a second.
            if segmenter.backend == 'onnxruntime' and side <= _LARGEST_TRIAL:
                segmenter(np.zeros((side, side, 3), np.uint8))
        except BackendError:
            raise
        except Exception as error:  # ONNX Runtime has no common base class for what it raises on a bad graph.
            raise ModelError(f'{path}: the backend {backend} cannot run it ({one_line(error, 600)})') from error
        return segmenter

    def overlay(self, index: int, opacity: float) -> np.ndarray | None:
        """Class colours over an image of the last call, drawn on the GPU if that segmented it.

        Args:
            index: of the image in its batch.
            opacity: weight of the colours, 0 to 1.

        Returns:
            uint8 BGR ``[H, W, 3]`` as of ``stdc_core.pictures.overlay.overlay``, or None: that has to draw it.

        Raises:
            ValueError: there is no such opacity.
        """
        if not 0 <= opacity <= 1:
            raise ValueError(f'opacity: expected 0 to 1, found {opacity}')
        return self._backend.overlay(index, self.info.classes.blending_bgr(opacity))

    def prepare(self, size: tuple[int, int], progress: Callable[[str], None]) -> None:
        """Build what images of (height, width) need, if that takes long, now; ``progress`` is told how far it is.

        Raises:
            SizeError: see :meth:`check_size`.
            BackendError: it cannot be built.
        """
        self.check_size(*size)
        self._backend.prepare(size, progress)

    def check_size(self, height: int, width: int) -> None:
        """:func:`check_size` at the input scale of such images."""
        check_size(height, width, self.scale.of((height, width)))

    def __call__(self, image: np.ndarray, confidence: bool = False) -> Segmentation:
        """Segment one image or a batch.

        Args:
            image: uint8 BGR, ``[H, W, 3]`` or ``[N, H, W, 3]``, of a size that
                :meth:`check_size` accepts.
            confidence: compute the confidence too.

        Raises:
            TypeError: not an array of uint8.
            ValueError: another shape; SizeError: too few pixels or too many.
            ModelError: the model cannot be run on it: its graph is damaged, or there is too little memory.
        """
        if not isinstance(image, np.ndarray) or image.dtype != np.uint8:
            found = f'an array of {image.dtype}' if isinstance(image, np.ndarray) else type(image).__name__
            raise TypeError(f'image: expected a numpy array of uint8, found {found}')
        if image.ndim not in (3, 4) or image.shape[-1] != 3:
            raise ValueError(f'image: expected shape [H, W, 3] or [N, H, W, 3], found {list(image.shape)}')
        self.check_size(*image.shape[-3:-1])
        if not len(image):
            raise ValueError(f'image: of shape {list(image.shape)}, expected one image or more')
        single = image.ndim == 3
        images = np.ascontiguousarray(image[None] if single else image)
        try:
            mask, probability = self._backend(images, confidence)
        except BackendError:
            raise
        except Exception as error:  # see load
            raise ModelError(
                f'the model cannot be run on images of {list(images.shape)} ({one_line(error, 600)})'
            ) from error
        # Every mask, not only that of the trial: a made graph's may depend on the image. 0.06 ms at 1080 x 1920.
        shapes = [array.shape for array in (mask, probability) if array is not None]
        if any(shape != images.shape[:3] for shape in shapes) or mask.max() >= len(self.info.classes):
            raise ModelError(
                f'the model makes of images of {list(images.shape)} a mask of {list(mask.shape)} '
                f'with ids up to {mask.max(initial=0)}, expected their size and {len(self.info.classes)} classes'
            )
        if single:
            return Segmentation(mask[0], None if probability is None else probability[0])
        return Segmentation(mask, probability)
