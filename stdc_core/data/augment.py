"""Random changes to a training sample: scale, crop, flip and light."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from stdc_core.classes import IGNORE


@dataclass(frozen=True)
class Augmentation:
    """Scale, crop, mirror and relight one sample.

    Args:
        crop: (height, width) of the result, in pixels.
        scale: range of the random enlargement, drawn log-uniformly.
        brightness, contrast, saturation: largest relative change of each.
    """

    crop: tuple[int, int]
    scale: tuple[float, float] = (0.5, 2.0)
    brightness: float = 0.3
    contrast: float = 0.3
    saturation: float = 0.3

    def __call__(self, image: np.ndarray, label: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """uint8 ``[H, W, 3]`` and ``[H, W]`` to the same of size ``crop``; what lies outside the image is ignored."""
        factor = float(np.exp(rng.uniform(*np.log(self.scale))))
        image = cv2.resize(image, None, fx=factor, fy=factor, interpolation=cv2.INTER_LINEAR)
        label = cv2.resize(label, (image.shape[1], image.shape[0]), interpolation=cv2.INTER_NEAREST)
        image, label = self._crop(image, label, rng)
        if rng.random() < 0.5:
            image, label = image[:, ::-1], label[:, ::-1]
        return self._relight(image, rng), np.ascontiguousarray(label)

    def _crop(self, image: np.ndarray, label: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        height, width = self.crop
        pad_y, pad_x = max(height - image.shape[0], 0), max(width - image.shape[1], 0)
        if pad_y or pad_x:
            top, left = int(rng.integers(pad_y + 1)), int(rng.integers(pad_x + 1))
            border = (top, pad_y - top, left, pad_x - left)
            image = cv2.copyMakeBorder(image, *border, cv2.BORDER_CONSTANT, value=(128, 128, 128))
            label = cv2.copyMakeBorder(label, *border, cv2.BORDER_CONSTANT, value=IGNORE)
        top = int(rng.integers(image.shape[0] - height + 1))
        left = int(rng.integers(image.shape[1] - width + 1))
        window = np.s_[top : top + height, left : left + width]
        return image[window], label[window]

    def _relight(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        gain, contrast, saturation = 1 + np.array([self.brightness, self.contrast, self.saturation]) * rng.uniform(
            -1, 1, 3
        )
        x = image.astype(np.float32) * np.float32(gain)
        mean = x.mean(dtype=np.float32)
        x = mean + (x - mean) * np.float32(contrast)
        grey = cv2.cvtColor(x, cv2.COLOR_BGR2GRAY)[..., None]
        return np.clip(grey + (x - grey) * np.float32(saturation), 0, 255).astype(np.uint8)
