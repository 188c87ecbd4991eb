# SPDX-License-Identifier: Apache-2.0
"""Generate the textures of scenes other than the town: long walls, concrete, grass."""

from __future__ import annotations

import numpy as np

from stdc_core.data.synthetic.textures import noise, wall


def long_wall(rng: np.random.Generator, color: np.ndarray, kind: str) -> np.ndarray:
    """Return a piece of a wall along a road, six metres long, uint8 BGR.

    Args:
        rng: Source of the random numbers.
        color: BGR colour.
        kind: ``'panels'`` for boards between posts, or a kind of :func:`wall`.
    """
    tex = wall(rng, 96, 144, color, 'plaster' if kind == 'panels' else kind)
    if kind == 'panels':
        tex[::12] *= 0.8
        tex[:, :6] *= 0.75
        tex[:, 6:8] *= 0.55
    tex[:4] *= 0.85
    return np.clip(tex, 0, 255).astype(np.uint8)


def concrete(rng: np.random.Generator, color: np.ndarray) -> np.ndarray:
    """Return a piece of a concrete barrier, six metres long, uint8 BGR: its foot is wider, and so is brighter."""
    light = np.interp(np.arange(48), [0, 3, 4, 30, 31, 47], [1.15, 1.15, 0.92, 0.86, 1.05, 0.9]).astype(np.float32)
    tex = light[:, None] * (1 + 0.12 * noise(rng, 48, 192, 4, 4))
    streaks = np.repeat(rng.normal(0, 0.06, 48), 4).astype(np.float32)
    tex = tex * (1 + streaks) * (1 + 0.03 * rng.standard_normal((48, 192), np.float32))
    tex[:, :2] *= 0.6
    return np.clip(tex[..., None] * color, 0, 255).astype(np.uint8)


def grass(rng: np.random.Generator, color: np.ndarray) -> np.ndarray:
    """Return a slope with grass and bushes, uint8 BGR."""
    light = 1 + 0.3 * noise(rng, 96, 192, 8, 4) + 0.12 * rng.standard_normal((96, 192), np.float32)
    bushes = np.clip(noise(rng, 96, 192, 6, 2) - 0.35, 0, 0.5)
    return np.clip((light - bushes)[..., None] * color, 0, 255).astype(np.uint8)
