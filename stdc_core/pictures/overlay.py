# SPDX-License-Identifier: Apache-2.0
"""Draw masks as pictures. Images are uint8 BGR, as in OpenCV."""

from __future__ import annotations

import cv2
import numpy as np

from stdc_core.classes import IGNORE, ClassTable


def colorize(mask: np.ndarray, classes: ClassTable) -> np.ndarray:
    """Return the class colours of a mask; ignored pixels are black.

    Args:
        mask: Class ids, uint8 ``[H, W]``.
        classes: Class table of the mask.

    Returns:
        uint8 BGR ``[H, W, 3]``.
    """
    return cv2.applyColorMap(mask, classes.palette_bgr()[:, None])


def overlay(image: np.ndarray, mask: np.ndarray, classes: ClassTable, opacity: float = 0.5) -> np.ndarray:
    """Return the image with the class colours of its mask blended in; ignored pixels show the image.

    Args:
        image: uint8 BGR ``[H, W, 3]``.
        mask: Class ids, uint8 ``[H, W]``.
        classes: Class table of the mask.
        opacity: Weight of the colours, 0 (image alone) to 1 (colours alone).

    Returns:
        uint8 BGR ``[H, W, 3]``.
    """
    blended = cv2.addWeighted(image, 1.0 - opacity, colorize(mask, classes), opacity, 0.0)
    ignored = mask == IGNORE
    if ignored.any():
        cv2.copyTo(image, ignored.view(np.uint8), blended)
    return blended
