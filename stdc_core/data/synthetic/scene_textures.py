# SPDX-License-Identifier: Apache-2.0
"""Generate the textures of scenes other than the town: long walls, barriers, slopes and palms."""

from __future__ import annotations

from itertools import pairwise

import cv2
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


def striped(rng: np.random.Generator, colors: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """Return a low barrier with stripes of two colours, six metres long, uint8 BGR."""
    stripes = np.repeat(np.arange(192) // 16 % 2, 1)
    tex = np.where(stripes[None, :, None] == 0, colors[0], colors[1]).astype(np.float32).repeat(24, 0)
    tex *= (1 + 0.18 * noise(rng, 24, 192, 6, 3))[..., None]
    tex[-6:] = tex[-6:] * 0.5 + np.array([60.0, 74, 84])  # dust gathers at the foot
    return np.clip(tex, 0, 255).astype(np.uint8)


def palm(rng: np.random.Generator, color: np.ndarray, fan: bool) -> np.ndarray:
    """Return a palm, uint8 BGRA ``[256, 192, 4]``.

    Args:
        rng: Source of the random numbers.
        color: BGR colour of the leaves.
        fan: Whether its leaves are short fans, as those of a Washingtonia, rather than long feathers.
    """
    picture = np.zeros((512, 384, 4), np.uint8)
    top = np.array([192 + rng.uniform(-40, 40), 96 if fan else 150])
    bend = rng.uniform(-25, 25)
    share = np.linspace(0, 1, 24)[:, None]
    trunk = np.array([192.0, 511]) * (1 - share) + top * share + np.sin(share * np.pi) * (bend, 0)
    for k, (a, b) in enumerate(pairwise(trunk)):
        tone = np.array([92.0, 108, 120]) * rng.uniform(0.75, 1.1)
        wide = int(round(17 - 6 * k / 23))
        cv2.line(picture, np.rint(a).astype(int).tolist(), np.rint(b).astype(int).tolist(), (*tone.tolist(), 255), wide)
    count = int(rng.integers(26, 34) if fan else rng.integers(15, 22))
    for k in rng.permutation(count):
        angle = -np.pi / 2 + (k / (count - 1) - 0.5) * 2 * (2.5 if fan else 2.1) + rng.normal(0, 0.08)
        length = rng.uniform(60, 85) if fan else rng.uniform(130, 170)
        along = np.linspace(0, 1, 9)[:, None]
        droop = (0.25 if fan else 0.85) * length * along**2 * (0.4 + 0.6 * abs(np.cos(angle)))
        leaf = top + along * length * (np.cos(angle), np.sin(angle)) + np.hstack([0 * droop, droop])
        tone = color * rng.uniform(0.55, 1.25) * (0.75 if np.sin(angle) > 0 else 1)
        ink = (*np.clip(tone, 0, 255).tolist(), 255)
        cv2.polylines(picture, [np.rint(leaf).astype(np.int32)], False, ink, 5, cv2.LINE_AA)
        across = np.array([-np.sin(angle), np.cos(angle)])
        for a, b in pairwise(leaf[1:]):  # leaflets hang from the rib
            for side in (-1, 1):
                for part in (a, (a + b) / 2):
                    tip = part + side * across * length * (0.2 if fan else 0.13) + (0, length * 0.1)
                    ends = np.rint(np.stack([part, tip])).astype(np.int32)
                    cv2.polylines(picture, [ends], False, ink, 6 if fan else 4, cv2.LINE_AA)
    return cv2.resize(picture, (192, 256), interpolation=cv2.INTER_AREA)
