# SPDX-License-Identifier: Apache-2.0
"""Masks as pictures. Images are uint8 BGR, as OpenCV has them."""

from __future__ import annotations

import cv2
import numpy as np

from stdc_core.classes import IGNORE, ClassTable


def colorize(mask: np.ndarray, classes: ClassTable) -> np.ndarray:
    """Class colours of a mask: uint8 ``[H, W]`` ids to uint8 ``[H, W, 3]`` BGR; ignored pixels are black."""
    return cv2.applyColorMap(mask, classes.palette_bgr()[:, None])


def overlay(image: np.ndarray, mask: np.ndarray, classes: ClassTable, opacity: float = 0.5) -> np.ndarray:
    """Class colours laid over the image: uint8 ``[H, W, 3]`` and ``[H, W]`` to uint8 ``[H, W, 3]`` BGR.

    Args:
        opacity: weight of the colours, 0 (image alone) to 1 (colours alone). Ignored pixels show the image.
    """
    blended = cv2.addWeighted(image, 1.0 - opacity, colorize(mask, classes), opacity, 0.0)
    ignored = mask == IGNORE
    if ignored.any():
        cv2.copyTo(image, ignored.view(np.uint8), blended)
    return blended
