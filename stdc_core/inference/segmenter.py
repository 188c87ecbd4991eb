"""The one object that turns images into masks: for the node, bags, files and benchmarks alike."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import NamedTuple

import numpy as np

from stdc_core.inference.backends import Backend, BackendError, make_backend
from stdc_core.inference.input_scale import set_input_scale
from stdc_core.inference.model_file import ModelError, ModelInfo, read_model

#: The model that is shipped: STDC1 for the eleven classes of CamVid.
DEFAULT_MODEL = Path(__file__).parent.parent / 'weights' / 'stdc1_camvid.onnx'


class Segmentation(NamedTuple):
    """A mask and, if it was asked for, its confidence.

    ``mask`` uint8 ``[H, W]`` class ids; ``confidence`` uint8 ``[H, W]``, the probability of the mask's class, 0 ... 1
    as 0 ... 255, or None. With a leading ``N`` for a batch.
    """

    mask: np.ndarray
    confidence: np.ndarray | None


class Segmenter:
    """Segments images with a model file; made by ``Segmenter.load``.

    Attributes:
        info: what the model file says of itself, its classes among it.
        backend: name of what computes.
    """

    def __init__(self, info: ModelInfo, backend: Backend):
        self.info = info
        self._backend = backend

    @property
    def backend(self) -> str:
        return self._backend.name

    @classmethod
    def load(
        cls,
        path: str | Path = DEFAULT_MODEL,
        threads: int = 0,
        input_scale: float | None = None,
        backend: str = 'auto',
    ) -> Segmenter:
        """Read a model file.

        Args:
            path: a ``model.onnx`` from ``stdc export``.
            threads: CPU threads; 0 takes every core that this process may use.
            input_scale: the network sees the image at this scale, above 0 and at most 4; None: the model's own. Time
                grows with its square.
            backend: what computes: ``'auto'``, ``'onnxruntime'`` or ``'openvino'``.

        Raises:
            FileNotFoundError: there is no such file.
            ModelError: it is not such a model, or damaged, or the input scale is out of its range.
            BackendError: there is no such backend, or what it needs is not installed.
        """
        model, info = read_model(path)
        if input_scale is not None and input_scale != info.input_scale:
            try:
                set_input_scale(model, input_scale)
            except ValueError as error:
                raise ModelError(f'{path}: {error}') from error
            info = dataclasses.replace(info, input_scale=input_scale)
        try:
            return cls(info, make_backend(backend, model, threads))
        except BackendError:
            raise
        except Exception as error:  # ONNX Runtime has no common base class for what it raises on a bad graph.
            raise ModelError(f'{path}: the backend {backend} cannot run it ({error})') from error

    def __call__(self, image: np.ndarray, confidence: bool = False) -> Segmentation:
        """Segment one image or a batch.

        Args:
            image: uint8 BGR, ``[H, W, 3]`` or ``[N, H, W, 3]``, of any size that keeps a pixel after the input scale.
            confidence: compute the confidence too.

        Raises:
            TypeError: not an array of uint8.
            ValueError: another shape.
        """
        if not isinstance(image, np.ndarray) or image.dtype != np.uint8:
            found = f'an array of {image.dtype}' if isinstance(image, np.ndarray) else type(image).__name__
            raise TypeError(f'image: expected a numpy array of uint8, found {found}')
        if image.ndim not in (3, 4) or image.shape[-1] != 3:
            raise ValueError(f'image: expected shape [H, W, 3] or [N, H, W, 3], found {list(image.shape)}')
        if not image.size or min(image.shape[-3:-1]) * self.info.input_scale < 1:
            raise ValueError(
                f'image: of shape {list(image.shape)}, nothing is left at input scale {self.info.input_scale}'
            )
        single = image.ndim == 3
        images = np.ascontiguousarray(image[None] if single else image)
        mask, probability = self._backend(images, confidence)
        if single:
            return Segmentation(mask[0], None if probability is None else probability[0])
        return Segmentation(mask, probability)
