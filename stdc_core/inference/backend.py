# SPDX-License-Identifier: Apache-2.0
"""Define what every backend of the segmenter can do."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

import numpy as np

#: Precisions. ``auto`` takes what is fast: on a GPU float16, in OpenVINO bfloat16 where the CPU has it, else float32; a
#: model from ``stdc quantize`` runs in int8. ``fp32`` is exact, ``fp16`` is for TensorRT and ``bf16`` for OpenVINO.
#: ``int8`` needs a model from ``stdc quantize``.
PRECISIONS = ('auto', 'fp32', 'bf16', 'fp16', 'int8')

#: Largest number of CPU threads.
MAX_THREADS = 256


class BackendError(ValueError):
    """A backend that does not exist, cannot run here, or has failed. The message says what is missing or wrong."""


def check_threads(threads: int) -> None:
    """Raise ValueError unless ``threads`` is a number of CPU threads, or 0 for all."""
    if not 0 <= threads <= MAX_THREADS:
        raise ValueError(f'threads: expected 0 to {MAX_THREADS}, found {threads}')


class Backend(ABC):
    """Runs a deployed graph.

    Attributes:
        name: Name for logs, such as ``tensorrt fp16``.
        reason: Reason for the choice of this backend, if it was automatic.
        activity: Work besides images, such as building an engine; empty if there is none.
        max_batch: Largest number of images that are faster in one call than one after another.
        failure: Error that the backend cannot recover from, or None.
    """

    name: str
    reason = ''
    activity = ''
    max_batch = 1
    failure: BackendError | None = None

    @abstractmethod
    def __call__(self, images: np.ndarray, confidence: bool) -> tuple[np.ndarray, np.ndarray | None]:
        """Segment images.

        Args:
            images: uint8 BGR ``[N, H, W, 3]``.
            confidence: Whether the confidence is wanted.

        Returns:
            Mask and confidence, both uint8 ``[N, H, W]``; the confidence is None if it is not wanted.
        """

    def overlay(self, index: int, blending: np.ndarray) -> np.ndarray | None:
        """Draw the overlay of an image of the last call, if the backend still has the image where it draws fast.

        Args:
            index: Index of the image in its batch.
            blending: Array of ``ClassTable.blending_bgr``.

        Returns:
            uint8 BGR ``[H, W, 3]``, or None if the caller has to draw.
        """
        return None

    def prepare(self, size: tuple[int, int], progress: Callable[[str], None]) -> None:  # noqa: B027  (most need nothing)
        """Do the work now that the first image of a size would otherwise wait for.

        Args:
            size: (height, width) of the images, pixels.
            progress: Function that receives messages about the progress.
        """

    def release(self) -> None:  # noqa: B027  (most have no memory on a GPU)
        """Give back memory on the GPU. The backend takes it again when the next image comes."""
