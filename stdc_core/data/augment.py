# SPDX-License-Identifier: Apache-2.0
"""Random changes to a training sample: scale, crop, flip and light."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np

from stdc_core.classes import IGNORE

#: Grey that stands for what lies outside an image.
PADDING = (128, 128, 128)


@dataclass(frozen=True)
class Augmentation:
    """Scale, crop, mirror and relight one sample.

    Args:
        crop: (height, width) of the result, in pixels.
        scale: range of the random enlargement.
        pixels: Pixels that every image is brought to before the enlargement is drawn; None: images keep their size.
        brightness, contrast, saturation: largest relative change of each.
        uniform: the enlargement is drawn uniformly, else its logarithm is.
        pad: a crop may reach beyond the image; else the image is enlarged until it covers the crop.
    """

    crop: tuple[int, int]
    scale: tuple[float, float] = (0.5, 2.0)
    brightness: float = 0.3
    contrast: float = 0.3
    saturation: float = 0.3
    uniform: bool = False
    pad: bool = True
    pixels: int | None = None

    def __call__(self, image: np.ndarray, label: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """uint8 ``[H, W, 3]`` and ``[H, W]`` to the same of size ``crop``; what lies outside the image is ignored."""
        return self.apply(image, label, self.placement(label.shape, rng), rng)

    def apply(
        self, image: np.ndarray, label: np.ndarray, matrix: np.ndarray, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """Crop and relight a sample by a map that ``placement`` drew; arguments and result as of a call."""
        height, width = self.crop
        # Scaling and cropping in one step: the pixels that the crop leaves out are never computed.
        size, border = (width, height), cv2.BORDER_CONSTANT
        image = cv2.warpAffine(image, matrix, size, flags=cv2.INTER_LINEAR, borderMode=border, borderValue=PADDING)
        label = cv2.warpAffine(label, matrix, size, flags=cv2.INTER_NEAREST, borderMode=border, borderValue=IGNORE)
        light = draw_light(self.brightness, self.contrast, self.saturation, rng)
        return relight(image, *light), label

    def placement(self, size: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
        """Affine map ``[2, 3]`` from pixels of the source, of ``size`` (height, width), to pixels of the crop."""
        factor = rng.uniform(*self.scale) if self.uniform else float(np.exp(rng.uniform(*np.log(self.scale))))
        (crop_height, crop_width), (height, width) = self.crop, size
        if self.pixels is not None:
            # The factor by which InputScale.of shrinks a larger image, and its counterpart for a smaller one.
            factor *= math.sqrt(self.pixels / (height * width))
        if not self.pad:
            factor = max(factor, crop_height / height, crop_width / width)
        # A negative slack is padding; either is split at random.
        left = rng.uniform() * (width * factor - crop_width)
        top = rng.uniform() * (height * factor - crop_height)
        # Pixel centres lie at half-integers of the plane that is scaled.
        matrix = np.array([[factor, 0, (factor - 1) / 2 - left], [0, factor, (factor - 1) / 2 - top]])
        if rng.uniform() < 0.5:
            matrix[0] = -matrix[0]
            matrix[0, 2] += crop_width - 1
        return matrix


def draw_light(
    brightness: float, contrast: float, saturation: float, rng: np.random.Generator
) -> tuple[np.ndarray, float]:
    """A random change of the light; the arguments are the largest relative changes.

    Returns:
        The colour matrix, float64 ``[3, 3]`` for BGR, and the multiple of the image's mean that is added to all.
    """
    gain, stretch, colourful = 1 + np.array([brightness, contrast, saturation]) * rng.uniform(-1, 1, 3)
    # Gain, contrast around the mean and saturation around the grey value, in this order, are one affine map.
    colour = colourful * np.eye(3) + (1 - colourful) * np.array([0.114, 0.587, 0.299])
    return gain * stretch * colour, float(gain * (1 - stretch))


def relight(image: np.ndarray, colour: np.ndarray, lift: float) -> np.ndarray:
    """uint8 BGR ``[H, W, 3]`` under the light that ``draw_light`` drew."""
    return cv2.transform(image, np.hstack([colour, np.full((3, 1), lift * image.mean())]))
