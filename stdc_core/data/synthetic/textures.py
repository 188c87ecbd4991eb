# SPDX-License-Identifier: Apache-2.0
"""Generate textures from noise and rectangles: walls, ground, foliage and clouds."""

from __future__ import annotations

import cv2
import numpy as np

PIXELS_PER_METRE = 24


def noise(rng: np.random.Generator, height: int, width: int, cells: int, octaves: int = 3) -> np.ndarray:
    """Return smooth noise that tiles, float32 ``[height, width]`` with mean 0, about -1 to 1.

    The coarsest octave has ``cells`` random values along each side.
    """
    total = np.zeros((height, width), np.float32)
    for octave in range(octaves):
        n = min(cells << octave, height, width)
        small = rng.uniform(-1, 1, (n, n)).astype(np.float32)
        pad = max(2, n // 8)
        rows, cols = -(-height * (n + 2 * pad) // n), -(-width * (n + 2 * pad) // n)
        big = cv2.resize(np.pad(small, pad, mode='wrap'), (cols, rows), interpolation=cv2.INTER_CUBIC)
        top, left = pad * height // n, pad * width // n
        total += big[top : top + height, left : left + width] * 0.6**octave
    return total


def pyramid(texture: np.ndarray, levels: int = 6) -> list[np.ndarray]:
    """Return a texture and copies of it, each half the size of the one before, down to four pixels."""
    result = [texture]
    while len(result) < levels and min(result[-1].shape[:2]) >= 8:
        h, w = result[-1].shape[:2]
        result.append(cv2.resize(result[-1], (w // 2, h // 2), interpolation=cv2.INTER_AREA))
    return result


def box(texture: np.ndarray, x: float, y: float, w: float, h: float, color: np.ndarray | tuple) -> None:
    """Fill a rectangle, given in metres from the top left corner of the texture."""
    k = PIXELS_PER_METRE
    x0, y0, x1, y1 = (int(round(v * k)) for v in (x, y, x + w, y + h))
    texture[max(y0, 0) : max(y1, 0), max(x0, 0) : max(x1, 0)] = color


def wall(rng: np.random.Generator, height: int, width: int, color: np.ndarray, kind: str) -> np.ndarray:
    """Return a wall without windows.

    Args:
        rng: Source of the random numbers.
        height: Height, pixels.
        width: Width, pixels.
        color: BGR colour.
        kind: ``'brick'``, ``'plaster'`` or ``'stone'``.

    Returns:
        float32 BGR ``[height, width, 3]``.
    """
    shade = 1 + 0.10 * noise(rng, height, width, 3) + 0.04 * rng.standard_normal((height, width), np.float32)
    if kind != 'plaster':
        bw, bh = (6, 2) if kind == 'brick' else (14, 7)
        rows, cols = -(-height // bh), -(-width // bw) + 1
        bricks = rng.normal(0, 0.11, (rows, cols)).astype(np.float32)
        bricks = np.repeat(np.repeat(bricks, bh, 0), bw, 1)
        half = np.arange(rows).repeat(bh) % 2 * (bw // 2)
        columns = np.arange(width)[None] + half[:height, None]
        shade += np.take_along_axis(bricks[:height], columns, 1)
        if kind == 'stone':
            shade[::bh] *= 0.85
    # Rain and soot darken the foot of a wall.
    shade *= 1 - 0.18 * np.linspace(0, 1, height, dtype=np.float32)[:, None] ** 3
    return shade[..., None] * color


def window(rng: np.random.Generator, tex: np.ndarray, x: float, y: float, w: float, h: float, trim: np.ndarray) -> None:
    """Draw a window, placed in metres from the top left corner of the texture."""
    box(tex, x - 0.12, y - 0.14, w + 0.24, h + 0.26, trim)
    box(tex, x - 0.18, y + h + 0.06, w + 0.36, 0.12, trim * 1.08)
    box(tex, x, y, w, h, np.array([52.0, 46, 42]) * rng.uniform(0.7, 1.3))
    # The upper panes mirror the sky, or have a blind.
    box(tex, x, y, w, h * rng.uniform(0.15, 0.6), rng.uniform(0.8, 1.25) * np.array([120.0, 108, 98]))
    if rng.random() < 0.3:
        box(tex, x, y, w * 0.25, h, (165, 175, 180))
        box(tex, x + w * 0.75, y, w * 0.25, h, (165, 175, 180))
    frame = np.array([225.0, 228, 228])
    box(tex, x + w / 2 - 0.03, y, 0.07, h, frame)
    box(tex, x, y + h / 2 - 0.03, w, 0.07, frame)


def _shop(rng: np.random.Generator, tex: np.ndarray, width: float, top: float, height: float) -> None:
    """Draw a shop front on the ground floor; sizes are in metres."""
    accent = np.array([(120, 40, 30), (30, 30, 140), (40, 90, 30), (40, 40, 40), (150, 110, 30), (40, 120, 190)])
    color = accent[rng.integers(len(accent))].astype(np.float64)
    box(tex, 0, top, width, height, color * 0.8)
    box(tex, 0, top, width, 0.75, color)
    x = width * rng.uniform(0.1, 0.2)
    while x < width * 0.8:  # lettering, too small to read
        w = rng.uniform(0.15, 0.4)
        box(tex, x, top + 0.22, w, rng.uniform(0.28, 0.36), (225, 235, 235))
        x += w + rng.choice([0.08, 0.08, 0.35])
    panes = max(2, int(width / 2.0))
    door = rng.integers(panes)
    step = width / panes
    for i in range(panes):
        y, h = top + 0.95, height - 0.95 - (0.05 if i == door else 0.5)
        glass = np.array([75.0, 70, 64]) * rng.uniform(0.6, 1.2)
        box(tex, i * step + 0.1, y, step - 0.2, h, glass)
        for _ in range(4):  # goods in the window
            box(
                tex,
                i * step + rng.uniform(0.15, step * 0.7),
                y + h * rng.uniform(0.35, 0.8),
                rng.uniform(0.2, 0.5),
                rng.uniform(0.2, 0.5),
                rng.uniform(60, 190, 3),
            )
        box(tex, i * step + 0.1, y, step * 0.35, h * 0.25, glass * 1.7)


def facade(rng: np.random.Generator, width: float, floors: int, kind: str, color: np.ndarray, shop: bool) -> np.ndarray:
    """Return a house front.

    Args:
        rng: Source of the random numbers.
        width: Width, metres.
        floors: Number of floors.
        kind: Kind of :func:`wall`, or ``'office'``.
        color: BGR colour.
        shop: Whether there is a shop on the ground floor.

    Returns:
        uint8 BGR, with ``PIXELS_PER_METRE``.
    """
    storey = 3.0
    height = floors * storey + 0.6
    rows, cols = int(height * PIXELS_PER_METRE), int(width * PIXELS_PER_METRE)
    tex = wall(rng, rows, cols, color, 'plaster' if kind == 'office' else kind)
    trim = np.clip(color * rng.uniform(1.15, 1.7), 0, 235)
    box(tex, 0, 0, width, 0.3, trim * 0.85)
    box(tex, 0, 0.3, width, 0.1, color * 0.5)
    bays = max(2, int(round(width / 2.7)))
    step = width / bays
    w, h = rng.uniform(0.9, min(1.35, step - 0.8)), rng.uniform(1.3, 1.75)
    door = int(rng.integers(bays))
    for floor in range(floors):
        y = 0.6 + floor * storey
        ground = floor == floors - 1
        if ground and shop:
            _shop(rng, tex, width, y - 0.2, height - y + 0.2)
            continue
        if kind == 'office':
            box(tex, 0.2, y + 0.7, width - 0.4, 1.7, (70, 62, 54))
            for i in range(bays * 2):
                glass = rng.uniform(0.75, 1.5) * np.array([92.0, 80, 68])
                box(tex, 0.25 + i * (width - 0.4) / (bays * 2), y + 0.75, step / 2 - 0.15, 1.6, glass)
            continue
        for bay in range(bays):
            x = (bay + 0.5) * step - w / 2
            if ground and bay == door:
                paint = rng.uniform(20, 130, 3)
                box(tex, x - 0.12, y + 0.25, w + 0.24, 2.8, trim)
                box(tex, x, y + 0.4, w, 2.6, paint)
                box(tex, x, y + 0.4, w, 0.4, (110, 100, 90))
                box(tex, x + 0.15, y + 1.0, w - 0.3, 0.7, paint * 0.75)
            else:
                window(rng, tex, x, y + 0.75, w, h, trim)
    if not shop:
        box(tex, 0, height - 0.3, width, 0.3, color * 0.55)
    if rng.random() < 0.6:
        box(tex, rng.choice([0.1, width - 0.2]), 0.4, 0.1, height, (48, 48, 50))  # drain pipe
    return np.clip(tex, 0, 255).astype(np.uint8)


def roof(rng: np.random.Generator, color: np.ndarray) -> np.ndarray:
    """Return slates or roof tiles, uint8 BGR."""
    tex = wall(rng, 96, 240, color, 'brick')
    tex[::6] *= 0.82
    return np.clip(tex, 0, 255).astype(np.uint8)


def planks(rng: np.random.Generator, color: np.ndarray) -> np.ndarray:
    """Return upright boards with gaps, uint8 BGR, two metres high."""
    tex = np.ones((48, 144, 3), np.float32) * color
    tex *= np.repeat(rng.uniform(0.75, 1.15, 36), 4)[None, :, None]
    tex *= 1 + 0.08 * rng.standard_normal((48, 144, 1), np.float32)
    tex[:, ::4] *= 0.45
    tex[8:11] *= 0.8
    return np.clip(tex, 0, 255).astype(np.uint8)


def railing(color: np.ndarray) -> np.ndarray:
    """Return close upright bars between two rails, uint8 BGR, to be drawn half transparent."""
    tex = np.ones((48, 192, 3), np.float32) * color * 1.35
    tex[:, ::6] = tex[:, 1::6] = color * 0.45
    tex[:5] = tex[-9:-6] = color * 0.5
    tex[:, :5] = color * 0.4
    return np.clip(tex, 0, 255).astype(np.uint8)


def _shaded(alpha: np.ndarray, light: np.ndarray, color: np.ndarray) -> np.ndarray:
    """Return a picture of one colour under a light map, uint8 BGRA."""
    picture = np.empty((*alpha.shape, 4), np.uint8)
    picture[..., :3] = np.clip(light[..., None] * color, 0, 255)
    picture[..., 3] = np.clip(alpha, 0, 255)
    return picture


def crown(rng: np.random.Generator, color: np.ndarray, conifer: bool) -> np.ndarray:
    """Return a leafy tree with its trunk, uint8 BGRA ``[256, 192, 4]``."""
    h, w = 256, 192
    field = np.full((h, w), -1.0, np.float32)
    light = np.full((h, w), 0.4, np.float32)
    yy, xx = np.mgrid[:h, :w].astype(np.float32)
    for _ in range(26):
        v = rng.uniform(0, 1)
        if conifer:
            spread, y = 62 * v + 4, 12 + 190 * v
            r = 10 + 22 * v
        else:
            spread, y = 62 * np.sin(np.pi * (0.12 + 0.76 * v)), 38 + 130 * v
            r = rng.uniform(20, 36)
        x = w / 2 + rng.uniform(-1, 1) * spread
        blob = 1 - np.hypot(xx - x, (yy - y) * 1.1) / r
        lit = 0.55 + 0.75 * np.clip((y - yy) / r * 0.6 + (xx - x) / r * 0.25 + 0.4, 0, 1)
        light = np.where(blob > np.maximum(field, 0), lit, light)
        field = np.maximum(field, blob)
    ragged = noise(rng, h, w, 12, 4)
    alpha = (field + 0.30 * ragged - 0.05) * 900
    light *= 1 + 0.35 * noise(rng, h, w, 24, 3) + 0.12 * rng.standard_normal((h, w), np.float32)
    picture = _shaded(alpha, np.clip(light, 0.15, 1.7), color)
    trunk = (np.abs(xx - w / 2 + 3 * np.sin(yy / 23)) < 4 + 6 * (yy / h) ** 6) & (yy > 110) & (alpha < 100)
    bark = np.array([42.0, 52, 62]) * (1 + 0.25 * rng.standard_normal((h, w, 1), np.float32))
    picture[trunk, :3] = np.clip(bark, 10, 120)[trunk]
    picture[trunk, 3] = 255
    return picture


def bare_tree(rng: np.random.Generator, color: np.ndarray) -> np.ndarray:
    """Return a winter tree with trunk, branches and a haze of twigs, uint8 BGRA ``[256, 192, 4]``."""
    h, w = 512, 384
    picture = np.zeros((h, w, 4), np.uint8)
    stack = [(w / 2, float(h), -np.pi / 2 + rng.normal(0, 0.04), 118.0, 13.0, 0)]
    while stack:
        x, y, angle, length, width, depth = stack.pop()
        x1, y1 = x + length * np.cos(angle), y + length * np.sin(angle)
        tone = color * rng.uniform(0.75, 1.25)
        line = [int(round(v * 8)) for v in (x, y, x1, y1)]
        cv2.line(
            picture,
            tuple(line[:2]),
            tuple(line[2:]),
            (*np.clip(tone, 0, 255).tolist(), 255),
            max(2, int(round(width))),
            cv2.LINE_AA,
            3,
        )
        if depth >= 6:
            continue
        for side in (-1, 1) if depth else (-1, 0, 1):
            turn = angle + side * rng.uniform(0.2, 0.62) + rng.normal(0, 0.12)
            stack.append((x1, y1, turn, length * rng.uniform(0.64, 0.84), width * 0.66, depth + 1))
        if depth >= 1:
            turn = angle + rng.choice([-1, 1]) * rng.uniform(0.5, 1.0)
            mx, my = x + (x1 - x) * 0.55, y + (y1 - y) * 0.55
            stack.append((mx, my, turn, length * 0.6, width * 0.5, depth + 1))
    return cv2.resize(picture, (192, 256), interpolation=cv2.INTER_AREA)


def hedge(rng: np.random.Generator, color: np.ndarray) -> np.ndarray:
    """Return a clipped hedge, uint8 BGR."""
    light = np.linspace(1.25, 0.55, 48, dtype=np.float32)[:, None] * (1 + 0.35 * noise(rng, 48, 192, 12, 3))
    light *= 1 + 0.2 * rng.standard_normal((48, 192), np.float32)
    return np.clip(light[..., None] * color, 0, 255).astype(np.uint8)


def ground_textures(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the brightness of asphalt, slabs and wear.

    Returns:
        Three textures that tile, float32 ``[512, 512]`` around 1. They are 8, 8 and 48 metres wide.
    """
    asphalt = 1 + 0.09 * rng.standard_normal((512, 512), np.float32) + 0.05 * noise(rng, 512, 512, 32, 3)
    for _ in range(7):  # cracks
        points = np.cumsum(rng.normal(0, 14, (14, 2)), 0) + rng.uniform(0, 512, 2)
        cv2.polylines(asphalt, [points.astype(np.int32)], False, 0.7, 1, cv2.LINE_AA)
    slabs = 1 + 0.06 * rng.standard_normal((512, 512), np.float32)
    slabs *= np.repeat(np.repeat(rng.normal(1, 0.07, (16, 16)).astype(np.float32), 32, 0), 32, 1)
    slabs[::32] *= 0.65
    slabs[1::32] *= 0.8
    slabs[:, ::32] *= 0.65
    wear = 1 + 0.10 * noise(rng, 512, 512, 6, 4)
    for _ in range(5):  # patches of newer and older tar
        x, y, w, h = (int(v) for v in (*rng.integers(0, 430, 2), rng.integers(8, 28), rng.integers(20, 90)))
        wear[y : y + h, x : x + w] *= rng.uniform(0.8, 1.12)
    return asphalt, slabs, wear.astype(np.float32)
