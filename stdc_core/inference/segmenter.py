# SPDX-License-Identifier: Apache-2.0
"""Turn images into masks, with one object for the node, bags, files and benchmarks."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from stdc_core.inference.backend import Backend, BackendError, check_threads
from stdc_core.inference.backend_choice import make_backend
from stdc_core.inference.cpu_choice import NotQuantizedError
from stdc_core.inference.input_scale import InputScale, check_input_scale, scaled_size
from stdc_core.inference.int8_file import int8_path, quantize_command, read_model_for
from stdc_core.inference.model_file import ModelError, ModelInfo
from stdc_core.io.text import one_line

#: Path of the shipped model: STDC1 for the eleven classes of CamVid.
DEFAULT_MODEL = Path(__file__).parent.parent / 'weights' / 'stdc1_streets.onnx'

#: Largest number of pixels of an image, and of the image at its input scale: 8K at input scale 1, which takes several
#: GB of memory.
MAX_PIXELS = 1 << 25

# Side of the black image that a model is tried on, pixels. It is larger at scales where the network would see no pixel.
_TRIAL = 32
_LARGEST_TRIAL = 1024

_log = logging.getLogger(__name__)


class SizeError(ValueError):
    """An image with too few or too many pixels for the network. The message names the number and the limit."""


class Segmentation(NamedTuple):
    """Mask and its confidence. For a batch, the arrays have a leading dimension ``N``.

    Attributes:
        mask: Class ids, uint8 ``[H, W]``.
        confidence: Probability of the class in the mask, 0 to 1 as 0 to 255, uint8 ``[H, W]``; None if it was not
            wanted.
    """

    mask: np.ndarray
    confidence: np.ndarray | None


def check_size(height: int, width: int, scale: float) -> None:
    """Check that the network takes images of a size.

    Args:
        height: Height of the image, pixels.
        width: Width of the image, pixels.
        scale: Input scale.

    Raises:
        SizeError: No pixel is left at the input scale, or there are more than ``MAX_PIXELS``.
    """
    if not all(scaled_size((height, width), scale)):
        raise SizeError(f'image of {width} x {height} pixels, expected 1 x 1 to be left at input scale {scale:g}')
    if height * width * max(1, scale) ** 2 > MAX_PIXELS:
        seen = f', {width * scale:.0f} x {height * scale:.0f} for the network at input scale {scale:g}'
        raise SizeError(f'image of {width} x {height} pixels{seen if scale > 1 else ""}, expected at most {MAX_PIXELS}')


class Segmenter:
    """Segments images with a model file. ``Segmenter.load`` makes one.

    Attributes:
        info: Description in the model file, with its classes.
        scale: Scale at which the network sees images.
        backend: Name of the backend.
        reason: Reason for the choice of the backend, if it was automatic.
        activity: Work besides images, such as building an engine; empty if there is none.
        max_batch: Largest number of images that are faster in one call than one after another.
        failure: Error that the backend cannot recover from, or None.
    """

    def __init__(self, info: ModelInfo, backend: Backend):
        self.info = info
        self.scale = info.scale
        self._backend = backend

    @property
    def backend(self) -> str:
        """Return the name of the backend, such as ``onnxruntime``."""
        return self._backend.name

    @property
    def reason(self) -> str:
        """Return the reason for the choice of the backend, if it was automatic."""
        return self._backend.reason

    @property
    def activity(self) -> str:
        """Return the work besides images, such as building an engine; empty if there is none."""
        return self._backend.activity

    @property
    def max_batch(self) -> int:
        """Return the largest number of images that are faster in one call than one after another."""
        return self._backend.max_batch

    @property
    def failure(self) -> BackendError | None:
        """Return the error that the backend cannot recover from, or None."""
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
        build_only: bool = False,
    ) -> Segmenter:
        """Read a model file and start a backend for it.

        Args:
            path: Path of a ``model.onnx`` from ``stdc export``.
            threads: Number of CPU threads, at most 256; 0 takes every core that this process may use.
            input_scale: Scale at which the network sees the image, above 0 and at most 4. Time grows with its square.
                None takes the scale of the model, and less for larger images than in its training.
            backend: Name of the backend, one of ``BACKENDS``. ``auto`` takes the one that the environment variable
                ``STDC_BACKEND`` names, or else the fastest.
            precision: One of ``PRECISIONS``. ``int8`` takes the file ``model.int8.onnx`` beside ``model.onnx``, unless
                the model is in int8 itself.
            max_batch: Largest number of images in one call, on a GPU that takes several together.
            wait: Whether images of a new size wait until TensorRT has built its engine. If false, another backend
                segments them meanwhile.
            build_only: Whether only :meth:`prepare` is called. TensorRT for RTX then needs no GPU.

        Raises:
            ValueError: The number of threads is out of its range.
            FileNotFoundError: The file does not exist.
            ModelError: The file is not a model or is damaged, the input scale is out of its range, or the int8 file was
                made from another model.
            BackendError: The backend or precision does not exist, or what it needs is missing, such as the int8 file.

        Example:
            >>> segmenter = Segmenter.load()
            >>> segmenter(cv2.imread('street.png')).mask.shape
            (360, 480)
        """
        check_threads(threads)
        asked, (path, model, info) = Path(path), read_model_for(Path(path), precision)
        own = InputScale(info.input_scale)
        if input_scale is not None:
            try:
                check_input_scale(input_scale)
            except ValueError as error:
                raise ModelError(f'{path}: {error}') from error
            info = info.at(input_scale)
        try:
            scale = None if info.scale == own else info.scale
            segmenter = cls(info, make_backend(backend, model, threads, precision, max_batch, wait, scale, build_only))
            side = max(_TRIAL, math.ceil(1 / info.input_scale))
            # Other backends would compile for the shape of this image, which takes a second or more.
            if segmenter.backend == 'onnxruntime' and side <= _LARGEST_TRIAL:
                segmenter(np.zeros((side, side, 3), np.uint8))
        except NotQuantizedError as error:
            raise BackendError(
                f'{path}: precision int8 needs {int8_path(path).name} beside it, which does not exist; '
                f'make it: {quantize_command(path)}'
            ) from error
        except BackendError:
            raise
        except Exception as error:  # ONNX Runtime's errors on a bad graph have no common base class
            raise ModelError(f'{path}: the backend {backend} cannot run it ({one_line(error, 600)})') from error
        if path != asked:
            _log.info('precision int8: using %s', path)
        return segmenter

    def overlay(self, index: int, opacity: float) -> np.ndarray | None:
        """Draw class colours over an image of the last call on the GPU, if the GPU segmented it.

        Args:
            index: Index of the image in its batch.
            opacity: Weight of the colours, 0 to 1.

        Returns:
            uint8 BGR ``[H, W, 3]``, as ``stdc_core.pictures.overlay.overlay`` draws it, or None if the caller has to
            call that function.

        Raises:
            ValueError: The opacity is out of its range.
        """
        if not 0 <= opacity <= 1:
            raise ValueError(f'opacity: expected 0 to 1, found {opacity}')
        return self._backend.overlay(index, self.info.classes.blending_bgr(opacity))

    def prepare(self, size: tuple[int, int], progress: Callable[[str], None]) -> None:
        """Do the work now that the first image of a size would otherwise wait for, such as building an engine.

        Args:
            size: (height, width) of the images, pixels.
            progress: Function that receives messages about the progress.

        Raises:
            SizeError: The network does not take images of this size.
            BackendError: The engine cannot be built.
        """
        self.check_size(*size)
        self._backend.prepare(size, progress)

    def check_size(self, height: int, width: int) -> None:
        """Raise SizeError if the network does not take images of this size; see :func:`check_size`."""
        check_size(height, width, self.scale.of((height, width)))

    def __call__(self, image: np.ndarray, confidence: bool = False) -> Segmentation:
        """Segment one image or a batch.

        Args:
            image: uint8 BGR, ``[H, W, 3]`` or ``[N, H, W, 3]``, of a size that :meth:`check_size` accepts.
            confidence: Whether the confidence is wanted.

        Raises:
            TypeError: The image is not an array of uint8.
            ValueError: The image has another shape.
            SizeError: The image has too few or too many pixels.
            ModelError: The model cannot be run on the image: its graph is damaged, or there is too little memory.
            BackendError: The GPU has failed, and no other backend may take over.
        """
        if not isinstance(image, np.ndarray) or image.dtype != np.uint8:
            found = f'an array of {image.dtype}' if isinstance(image, np.ndarray) else type(image).__name__
            raise TypeError(f'image: expected a numpy array of uint8, found {found}')
        if image.ndim not in (3, 4) or image.shape[-1] != 3:
            raise ValueError(f'image: expected shape [H, W, 3] or [N, H, W, 3], found {list(image.shape)}')
        self.check_size(*image.shape[-3:-1])
        if not len(image):
            raise ValueError(f'image: expected one image or more, found shape {list(image.shape)}')
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
        # Every mask is checked, since a hostile graph may depend on the image. The check takes 0.06 ms at 1080p.
        shapes = [array.shape for array in (mask, probability) if array is not None]
        if any(shape != images.shape[:3] for shape in shapes) or mask.max() >= len(self.info.classes):
            raise ModelError(
                f'the model makes a mask of shape {list(mask.shape)} with ids up to {mask.max(initial=0)} from images '
                f'of shape {list(images.shape)}, expected their size and {len(self.info.classes)} classes'
            )
        if single:
            return Segmentation(mask[0], None if probability is None else probability[0])
        return Segmentation(mask, probability)
