# SPDX-License-Identifier: Apache-2.0
"""What every backend of the segmenter is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

import numpy as np

#: Of TensorRT; other backends compute in what the model has. ``auto`` is float16 where the GPU is fast in it; int8
#: needs a model from ``stdc quantize``.
PRECISIONS = ('auto', 'fp32', 'fp16', 'int8')

#: CPU threads, at most.
MAX_THREADS = 256


class BackendError(ValueError):
    """A backend that nobody knows, or that cannot run here; the message says what it lacks."""


def check_threads(threads: int) -> None:
    """Raise ValueError unless this is a number of CPU threads, or 0: all."""
    if not 0 <= threads <= MAX_THREADS:
        raise ValueError(f'threads: expected 0 to {MAX_THREADS}, found {threads}')


class Backend(ABC):
    """Runs a deployed graph.

    Attributes:
        name: what it is called in logs.
        reason: why it was taken where the user left it open.
        activity: what it is busy with besides images, such as building an engine; empty: nothing.
        max_batch: so many images in one call are faster than one after another.
        failure: what it cannot recover from; None: nothing.
    """

    name: str
    reason = ''
    activity = ''
    max_batch = 1
    failure: BackendError | None = None

    @abstractmethod
    def __call__(self, images: np.ndarray, confidence: bool) -> tuple[np.ndarray, np.ndarray | None]:
        """uint8 BGR ``[N, H, W, 3]`` to mask and confidence, both uint8 ``[N, H, W]``, the latter None if unwanted."""

    def overlay(self, index: int, blending: np.ndarray) -> np.ndarray | None:
        """The overlay of an image of the last call, if the backend still has image and mask where it draws fast.

        Args:
            index: of the image in its batch.
            blending: of ``ClassTable.blending_bgr``.

        Returns:
            uint8 BGR ``[H, W, 3]``, or None: others have to draw it.
        """
        return None

    def prepare(self, size: tuple[int, int], progress: Callable[[str], None]) -> None:  # noqa: B027  (most need nothing)
        """Do now what the first image of (height, width) would else wait for; ``progress`` is told how far it is."""
