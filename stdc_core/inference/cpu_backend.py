# SPDX-License-Identifier: Apache-2.0
"""Start OpenVINO on a CPU: measure what its precision changes, and let ONNX Runtime take over where it fails."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

from stdc_core.inference.backend import Backend
from stdc_core.io.text import one_line

#: Rendered street that OpenVINO and ONNX Runtime are compared on, 192 x 320 pixels. A small one, because it delays the
#: start.
STREET = Path(__file__).with_name('street.jpg')

#: Largest share of labels that may differ. bfloat16 changes about one in a thousand; more than this is a fault.
MAX_DIFFERENCE = 0.05

_log = logging.getLogger(__name__)


class DifferenceError(RuntimeError):
    """Two backends disagree about too many labels."""


def difference(backend: Backend, other: Backend) -> float | None:
    """Return the share of the labels of :data:`STREET` in which two backends differ, 0 to 1.

    The result is None if the other backend cannot segment it, because nothing of it is left at the input scale.
    """
    image = np.asarray(cv2.imread(str(STREET)))[None]
    try:
        expected = other(image, False)[0]
    except Exception:  # ONNX Runtime's errors have no common base class
        return None
    return float(np.mean(backend(image, False)[0] != expected))


def describe_difference(share: float, quantized: bool) -> str:
    """Return the result of :func:`difference` for the log.

    Args:
        share: Share of the labels, 0 to 1.
        quantized: Whether the model is in int8, so that the other backend computes in int8, too.
    """
    other = "those of ONNX Runtime's int8" if quantized else "float32's"
    return f'{100 * share:.2f} % of the labels of a rendered street differ from {other}'


class ReplaceableBackend(Backend):
    """Runs a backend until it fails, and another one from then on.

    If the other backend fails on the same images, they are at fault, and the first one stays.

    Args:
        first: Backend to run.
        make_other: Function that makes the other backend.
    """

    def __init__(self, first: Backend, make_other: Callable[[], Backend]):
        self._backend = first
        self._make_other: Callable[[], Backend] | None = make_other
        self.name = first.name

    def prepare(self, size: tuple[int, int], progress: Callable[[str], None]) -> None:
        """Prepare for images of (height, width); see :class:`Backend`."""
        try:
            self._backend.prepare(size, progress)
        except Exception as error:
            if self._make_other is None:
                raise
            self._replace(self._make_other(), error)

    def __call__(self, images: np.ndarray, confidence: bool) -> tuple[np.ndarray, np.ndarray | None]:
        """Segment images; see :class:`Backend`."""
        try:
            return self._backend(images, confidence)
        except Exception as error:
            if self._make_other is None:
                raise
            other = self._make_other()
            results = other(images, confidence)
            self._replace(other, error)
            return results

    def _replace(self, other: Backend, error: Exception) -> None:
        """Run another backend from now on, because the first one has failed with an error."""
        failed = f'{self.name} failed ({one_line(error, 300)})'
        _log.warning('%s; using %s instead', failed, other.name)
        self._backend, self._make_other, self.name = other, None, other.name
        self.reason = f'{self.reason}; {failed}' if self.reason else failed
