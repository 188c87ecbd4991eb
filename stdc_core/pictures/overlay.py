# SPDX-License-Identifier: Apache-2.0
"""Draw masks as pictures. Images are uint8 BGR, as in OpenCV."""

from __future__ import annotations

import cv2
import numpy as np

from stdc_core.classes import IGNORE, ClassTable
from stdc_core.pictures.drawing import BLACK, Color, canvas

#: Colour of wrong pixels, BGR.
WRONG: Color = (48, 48, 235)


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


def errors(image: np.ndarray, wrong: np.ndarray, unlabelled: np.ndarray) -> np.ndarray:
    """Return the dimmed image with wrong pixels in red and unlabelled ones hatched.

    Args:
        image: uint8 BGR ``[H, W, 3]``.
        wrong: bool ``[H, W]``, pixels whose class is wrong.
        unlabelled: bool ``[H, W]``, pixels that do not count.

    Returns:
        uint8 BGR ``[H, W, 3]``.
    """
    dimmed = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR) // 2
    picture = dimmed.copy()
    picture[wrong] = cv2.addWeighted(dimmed, 0.3, canvas(wrong.shape[0], wrong.shape[1], WRONG), 0.85, 0)[wrong]
    return hatch(picture, unlabelled)


def hatch(picture: np.ndarray, where: np.ndarray) -> np.ndarray:
    """Return the picture, uint8 BGR ``[H, W, 3]``, with diagonal stripes where ``where``, bool ``[H, W]``, is true."""
    rows, columns = np.indices(where.shape)
    stripes = (rows + columns) // 3 % 3 == 0
    picture = picture.copy()
    picture[where] = BLACK
    picture[where & stripes] = (112, 108, 104)
    return picture


def heat_map(strength: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return a heat map: blue where a feature is weak, red where it is strong.

    The colours go from the 1st to the 99th percentile of the map, so maps of different networks have different scales.

    Args:
        strength: float ``[h, w]``.
        size: (height, width) of the picture in pixels.

    Returns:
        uint8 BGR ``[*size, 3]``.
    """
    low, high = np.percentile(strength, (1, 99))
    scaled = np.clip((strength - low) / max(float(high - low), 1e-12), 0, 1).astype(np.float32)
    enlarged = cv2.resize(scaled, (size[1], size[0]), interpolation=cv2.INTER_LINEAR)
    return cv2.applyColorMap((enlarged * 255).round().astype(np.uint8), cv2.COLORMAP_TURBO)
