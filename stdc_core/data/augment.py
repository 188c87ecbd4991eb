# SPDX-License-Identifier: Apache-2.0
"""Change training samples at random: scale, crop, flip and light."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np

from stdc_core.classes import IGNORE

#: Grey of the area outside an image, BGR.
PADDING = (128, 128, 128)


@dataclass(frozen=True)
class Augmentation:
    """Scales, crops, mirrors and relights one sample.

    Args:
        crop: (height, width) of the result, pixels.
        scale: Range of the random enlargement.
        brightness: Largest relative change of the brightness, 0 to 1.
        contrast: Largest relative change of the contrast, 0 to 1.
        saturation: Largest relative change of the saturation, 0 to 1.
        uniform: Whether the enlargement is drawn uniformly; if false, its logarithm is.
        pad: Whether a crop may extend beyond the image; if false, the image is enlarged until it covers the crop.
        pixels: Number of pixels that every image is scaled to before the enlargement; None keeps its size.

    Example:
        >>> augment = Augmentation(crop=(256, 320))
        >>> image, label = augment(image, label, np.random.default_rng(0))
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
        """Return a random crop of a sample.

        Args:
            image: uint8 BGR ``[H, W, 3]``.
            label: uint8 ``[H, W]``.
            rng: Source of the random numbers.

        Returns:
            Image and label of the size ``crop``. Outside the image, the label is 255 (ignored).
        """
        return self.apply(image, label, self.placement(label.shape, rng), rng)

    def apply(
        self, image: np.ndarray, label: np.ndarray, matrix: np.ndarray, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """Crop and relight a sample.

        Args:
            image: uint8 BGR ``[H, W, 3]``.
            label: uint8 ``[H, W]``.
            matrix: Affine map ``[2, 3]`` of ``placement``.
            rng: Source of the random numbers for the light.

        Returns:
            Image and label of the size ``crop``.
        """
        height, width = self.crop
        # Scales and crops in one step, so that pixels outside the crop are not computed.
        size, border = (width, height), cv2.BORDER_CONSTANT
        image = cv2.warpAffine(image, matrix, size, flags=cv2.INTER_LINEAR, borderMode=border, borderValue=PADDING)
        label = cv2.warpAffine(label, matrix, size, flags=cv2.INTER_NEAREST, borderMode=border, borderValue=IGNORE)
        light = draw_light(self.brightness, self.contrast, self.saturation, rng)
        return relight(image, *light), label

    def placement(self, size: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
        """Draw the place of a crop.

        Args:
            size: (height, width) of the image, pixels.
            rng: Source of the random numbers.

        Returns:
            Affine map, float64 ``[2, 3]``, from pixels of the image to pixels of the crop.
        """
        factor = rng.uniform(*self.scale) if self.uniform else float(np.exp(rng.uniform(*np.log(self.scale))))
        (crop_height, crop_width), (height, width) = self.crop, size
        if self.pixels is not None:
            # The factor with which InputScale.of shrinks a larger image, or that enlarges a smaller one as much.
            factor *= math.sqrt(self.pixels / (height * width))
        if not self.pad:
            factor = max(factor, crop_height / height, crop_width / width)
        # A negative difference is padding. It is divided at random between both sides.
        left = rng.uniform() * (width * factor - crop_width)
        top = rng.uniform() * (height * factor - crop_height)
        # Pixel centres are at half-integers of the scaled plane.
        matrix = np.array([[factor, 0, (factor - 1) / 2 - left], [0, factor, (factor - 1) / 2 - top]])
        if rng.uniform() < 0.5:
            matrix[0] = -matrix[0]
            matrix[0, 2] += crop_width - 1
        return matrix


def draw_light(
    brightness: float, contrast: float, saturation: float, rng: np.random.Generator
) -> tuple[np.ndarray, float]:
    """Draw a random change of the light.

    Args:
        brightness: Largest relative change of the brightness, 0 to 1.
        contrast: Largest relative change of the contrast, 0 to 1.
        saturation: Largest relative change of the saturation, 0 to 1.
        rng: Source of the random numbers.

    Returns:
        Colour matrix, float64 ``[3, 3]`` for BGR, and the multiple of the mean of the image to add to every channel.
    """
    gain, stretch, colourful = 1 + np.array([brightness, contrast, saturation]) * rng.uniform(-1, 1, 3)
    # Gain, contrast around the mean and saturation around the grey value, in this order, are one affine map.
    colour = colourful * np.eye(3) + (1 - colourful) * np.array([0.114, 0.587, 0.299])
    return gain * stretch * colour, float(gain * (1 - stretch))


def relight(image: np.ndarray, colour: np.ndarray, lift: float) -> np.ndarray:
    """Return an image under another light.

    Args:
        image: uint8 BGR ``[H, W, 3]``.
        colour: Colour matrix of ``draw_light``.
        lift: Multiple of the mean, from ``draw_light``.
    """
    return cv2.transform(image, np.hstack([colour, np.full((3, 1), lift * image.mean())]))
