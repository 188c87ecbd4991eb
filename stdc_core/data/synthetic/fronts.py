# SPDX-License-Identifier: Apache-2.0
"""Generate the fronts of buildings of other cities than the town."""

from __future__ import annotations

import numpy as np

from stdc_core.data.synthetic.textures import PIXELS_PER_METRE, box, wall, window

STOREY = 3.0  # height of a storey, metres


def _canvas(rng: np.random.Generator, width: float, floors: int, color: np.ndarray) -> np.ndarray:
    """Return a plastered wall for so many floors, float32 BGR, with ``PIXELS_PER_METRE``."""
    rows, cols = int((floors * STOREY + 0.6) * PIXELS_PER_METRE), int(width * PIXELS_PER_METRE)
    return wall(rng, rows, cols, color, 'plaster')


def _paint(rng: np.random.Generator) -> np.ndarray:
    """Draw the colour of a painted board, BGR: not as bright as the paint once was."""
    color = rng.uniform(20, 235, 3)
    return color * 0.65 + color.mean() * 0.35


def _lettering(rng: np.random.Generator, tex: np.ndarray, x: float, y: float, width: float, height: float) -> None:
    """Draw lettering that is too small to read; sizes are in metres."""
    ink = rng.choice([20.0, 235.0]) + np.zeros(3) if rng.random() < 0.7 else np.array([30.0, 210, 245])
    end = x + width * rng.uniform(0.6, 0.95)
    while x < end:
        wide = rng.uniform(0.12, 0.4)
        box(tex, x, y, wide, height, ink)
        x += wide + rng.choice([0.07, 0.07, 0.3])


def low_front(rng: np.random.Generator, width: float, floors: int, color: np.ndarray) -> np.ndarray:
    """Return the front of a low building with shops, as in streets of India or Africa, uint8 BGR.

    Args:
        rng: Source of the random numbers.
        width: Width, metres.
        floors: Number of floors.
        color: BGR colour of the plaster.
    """
    tex = _canvas(rng, width, floors, color)
    stain = 1 - 0.25 * np.clip(rng.normal(0, 1, tex.shape[1]), 0, 1)  # rain leaves dark streaks
    tex *= np.convolve(stain, np.ones(5) / 5, 'same')[None, :, None]
    bays = max(1, round(width / 3.2))
    step = width / bays
    for floor in range(floors - 1):
        y = 0.5 + floor * STOREY
        box(tex, 0, y + STOREY - 0.25, width, 0.25, color * 0.75)
        for bay in range(bays):
            x = bay * step
            if rng.random() < 0.35:  # a balcony in the shade of its own roof
                box(tex, x + 0.2, y + 0.3, step - 0.4, 2.4, color * 0.42)
                box(tex, x + 0.2, y + 1.7, step - 0.4, 0.9, color * rng.uniform(0.7, 1.1))
                for _ in range(int(rng.integers(3))):  # washing
                    box(tex, x + rng.uniform(0.3, step - 0.8), y + 1.4, 0.35, 0.6, rng.uniform(40, 230, 3))
            else:
                window(rng, tex, x + step / 2 - 0.5, y + 0.8, 1.0, 1.2, color * 0.8)
        if rng.random() < 0.5:
            sign = rng.uniform(0.2, 0.9) * width
            at = rng.uniform(0, width - sign)
            box(tex, at, y + STOREY - 0.9, sign, 0.9, _paint(rng))
            _lettering(rng, tex, at + 0.2, y + STOREY - 0.65, sign - 0.4, 0.4)
    y = 0.5 + (floors - 1) * STOREY
    for bay in range(bays):
        x = bay * step + 0.12
        draw, wide = rng.random(), step - 0.24
        if draw < 0.35:  # a shutter
            tone = np.array([(150, 140, 120), (140, 142, 140), (90, 130, 80), (150, 110, 60)][rng.integers(4)]) * 1.0
            box(tex, x, y + 0.8, wide, 2.3, tone)
            for k in range(12):
                box(tex, x, y + 0.8 + k * 0.19, wide, 0.05, tone * 0.75)
        elif draw < 0.85:  # an open shop
            box(tex, x, y + 0.7, wide, 2.4, np.array([40.0, 44, 46]) * rng.uniform(0.6, 1.4))
            for _ in range(int(rng.integers(8, 18))):
                goods = rng.uniform(0.15, 0.5, 2)
                at = x + rng.uniform(0, wide - goods[0])
                box(tex, at, y + rng.uniform(1.0, 2.7), goods[0], goods[1], rng.uniform(30, 220, 3))
        else:
            box(tex, x + wide / 2 - 0.5, y + 0.9, 1.0, 2.2, rng.uniform(40, 140, 3))
        board = _paint(rng)
        box(tex, x, y + 0.05, wide, 0.7, board)
        _lettering(rng, tex, x + 0.15, y + 0.22, wide - 0.3, 0.34)
        if rng.random() < 0.35:  # a sheet against the sun
            cloth = _paint(rng)
            for k in range(int(wide / 0.4)):
                box(tex, x + k * 0.4, y + 0.7, 0.4, 0.55, cloth * (1.0 if k % 2 else rng.uniform(0.6, 1.0)))
    dust = np.linspace(0, 1, 24)[:, None, None] ** 2 * 0.6
    tex[-24:] = tex[-24:] * (1 - dust) + np.array([126.0, 150, 168]) * dust
    return np.clip(tex, 0, 255).astype(np.uint8)


def tall_front(rng: np.random.Generator, width: float, floors: int, color: np.ndarray, kind: str) -> np.ndarray:
    """Return the front of a tall building of a large city, uint8 BGR.

    Args:
        rng: Source of the random numbers.
        width: Width, metres.
        floors: Number of floors.
        color: BGR colour of the plaster.
        kind: ``'balconies'``, ``'shutters'`` for windows with coloured shutters, or ``'glass'``.
    """
    tex = _canvas(rng, width, floors, color)
    trim = np.clip(color * 1.18, 0, 245)
    bays = max(2, round(width / 3.0))
    step = width / bays
    slab, rail = np.clip(color * rng.uniform(0.8, 1.15), 0, 240), color * rng.uniform(0.35, 0.9)
    blind = np.array([(60.0, 96, 60), (96, 92, 86), (70, 90, 130), (196, 204, 206)][rng.integers(4)])
    with_balcony = rng.random(bays) < 0.55
    box(tex, 0, 0, width, 0.35, trim * 0.9)
    for floor in range(floors - 1):
        y = 0.6 + floor * STOREY
        if kind == 'glass':
            box(tex, 0, y + 0.5, width, 2.1, (112, 100, 84))
            for k in range(bays * 2):
                pane = np.array([120.0, 106, 88]) * rng.uniform(0.6, 1.4)
                box(tex, k * step / 2 + 0.06, y + 0.5, step / 2 - 0.12, 2.1, pane)
            continue
        if kind == 'shutters':
            box(tex, 0, y - 0.1, width, 0.12, trim * 0.85)
        for bay in range(bays):
            x = bay * step
            if kind == 'balconies' and with_balcony[bay]:
                box(tex, x + 0.1, y + 0.2, step - 0.2, 2.5, color * 0.5)
                box(tex, x + 0.5, y + 0.5, step - 1.2, 2.0, (64, 58, 52))
                box(tex, x + 0.05, y + 1.65, step - 0.1, 0.95, rail)
                for k in range(int(step / 0.24)) if rail.mean() < 110 else ():
                    box(tex, x + 0.12 + k * 0.24, y + 1.75, 0.13, 0.75, color * 0.62)
                box(tex, x, y + 2.6, step, 0.22, slab)
                if rng.random() < 0.3:  # an awning
                    box(tex, x + 0.1, y + 0.2, step - 0.2, 0.8, _paint(rng) * 0.5 + 100)
                continue
            wide = min(1.2, step - 1.4)
            window(rng, tex, x + (step - wide) / 2, y + 0.7, wide, 1.6, trim)
            if kind == 'shutters':
                for at in (x + (step - wide) / 2 - 0.6, x + (step + wide) / 2 + 0.12):
                    box(tex, at, y + 0.6, 0.48, 1.8, blind)
            elif rng.random() < 0.35:  # a roller blind, partly down, or an air conditioner below
                box(tex, x + (step - wide) / 2, y + 0.7, wide, rng.uniform(0.3, 1.5), blind)
            elif rng.random() < 0.2:
                box(tex, x + (step - 0.8) / 2, y + 2.45, 0.8, 0.5, (186, 190, 190))
    y = 0.6 + (floors - 1) * STOREY
    box(tex, 0, y - 0.25, width, 0.3, trim * 0.8)
    shop = rng.random() < 0.6
    for bay in range(bays):
        x, wide = bay * step + 0.2, step - 0.4
        box(tex, x, y + 0.75, wide, 2.3, np.array([70.0, 64, 58]) * rng.uniform(0.6, 1.4))
        if shop:
            board = _paint(rng)
            box(tex, x, y + 0.1, wide, 0.6, board)
            _lettering(rng, tex, x + 0.2, y + 0.22, wide - 0.4, 0.32)
            if rng.random() < 0.4:
                box(tex, x - 0.1, y + 0.65, wide + 0.2, 0.6, _paint(rng) * 0.7 + 60)
        else:
            box(tex, x + wide * 0.3, y + 0.9, wide * 0.4, 2.2, rng.uniform(30, 120, 3))
    return np.clip(tex, 0, 255).astype(np.uint8)
