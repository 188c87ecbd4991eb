# SPDX-License-Identifier: Apache-2.0
"""Draw the look of a town: weather, widths, and textures of its houses, trees and fences."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from stdc_core.data.synthetic import textures
from stdc_core.data.synthetic.canvas import Light


def make_light(rng: np.random.Generator) -> Light:
    """Draw the weather and the time of day of a drive."""
    kind = str(rng.choice(['sunny', 'sunny', 'overcast', 'overcast', 'dusk', 'low sun']))
    up, strength, ambient, sun, fog, haze = {
        'sunny': (rng.uniform(0.5, 0.85), 0.9, (0.74, 0.69, 0.66), (0.9, 0.97, 1.0), (244, 234, 224), 340),
        'overcast': (0.95, 0.0, (0.95, 0.93, 0.92), (1, 1, 1), (236, 232, 228), 230),
        'dusk': (0.3, 0.0, (0.54, 0.49, 0.47), (1, 1, 1), (150, 140, 142), 260),
        'low sun': (rng.uniform(0.28, 0.36), 1.05, (0.70, 0.67, 0.66), (0.72, 0.90, 1.0), (196, 212, 226), 280),
    }[kind]
    azimuth = rng.choice([-1, 1]) * rng.uniform(0.5, 2.4)
    flat = np.sqrt(1 - up * up)
    return Light(
        kind,
        np.array([np.sin(azimuth) * flat, up, np.cos(azimuth) * flat]),
        strength,
        np.array(sun),
        np.array(ambient) * rng.uniform(0.9, 1.08) * rng.uniform(0.97, 1.03, 3),
        np.array(fog, np.float64) * rng.uniform(0.95, 1.03),
        haze * rng.uniform(0.8, 1.3),
    )


WALLS = np.array(
    [  # BGR of Cambridge's bricks, renders and stones
        (78, 98, 132),
        (64, 74, 122),
        (112, 150, 176),
        (120, 158, 180),
        (176, 192, 200),
        (205, 210, 212),
        (150, 178, 196),
        (120, 128, 134),
        (96, 112, 128),
        (188, 196, 186),
        (150, 140, 128),
    ],
    np.float64,
)


@dataclass
class Style:
    """Look of one town. Textures are pyramids: uint8 pictures, each half the size of the one before.

    Args:
        half_road: Half of the width of the road, metres.
        sidewalk: Width of the pavement, metres.
        speed: Speed of the camera, m/s.
        park_left: Whether cars park on the left.
        park_right: Whether cars park on the right.
        dash: Length and period of the dashes of the centre line, metres.
        yellow: Whether the kerb has yellow lines.
        green: Share of the lots without a house.
        street_trees: Whether trees stand on the pavement.
        light: Weather and time of day.
        facades: Textures of house fronts with their number of storeys.
        gables: Textures of end walls.
        roofs: Textures of roofs.
        trees: Pictures of trees, BGRA.
        fences: Textures of boards, railing and hedge.
        verge: Colour of the grass, BGR.
    """

    half_road: float
    sidewalk: float
    speed: float
    park_left: bool
    park_right: bool
    dash: tuple[float, float]
    yellow: bool
    green: float
    street_trees: bool
    light: Light
    facades: list[tuple[list[np.ndarray], int]] = field(default_factory=list)
    gables: list[list[np.ndarray]] = field(default_factory=list)
    roofs: list[list[np.ndarray]] = field(default_factory=list)
    trees: list[list[np.ndarray]] = field(default_factory=list)
    fences: list[list[np.ndarray]] = field(default_factory=list)
    verge: tuple[float, float, float] = (60.0, 110.0, 90.0)


def make_style(rng: np.random.Generator) -> Style:
    """Draw the style of a town and paint its textures."""
    light = make_light(rng)
    half = rng.uniform(3.7, 6.0)
    dash = ((2.0, 6.0), (4.0, 6.0), (3.0, 8.0), (1.0, 4.0))[rng.integers(4)]
    style = Style(
        half,
        rng.uniform(2.4, 4.6),
        rng.uniform(7.5, 10.0),
        bool(half > 5.1 and rng.random() < 0.75),
        bool(half > 4.5 and rng.random() < 0.85),
        dash,
        bool(rng.random() < 0.6),
        float(rng.uniform(0.12, 0.4)),
        bool(rng.random() < 0.45),
        light,
    )
    walls = WALLS[rng.permutation(len(WALLS))[:5]]
    tall = int(rng.integers(0, 2))
    for i in range(9):
        color = walls[i % 5] * rng.uniform(0.8, 1.08)
        kind = str(rng.choice(['brick', 'brick', 'plaster', 'stone', 'office']))
        floors = int(rng.integers(2, 4)) + tall + (kind == 'office')
        shop = bool(rng.random() < 0.45)
        picture = textures.facade(rng, float(rng.uniform(7, 11)), floors, kind, color, shop)
        style.facades.append((textures.pyramid(picture), floors))
        side = textures.wall(rng, 160, 200, color * 0.95, 'plaster' if kind == 'office' else kind)
        style.gables.append(textures.pyramid(np.clip(side, 0, 255).astype(np.uint8)))
    for color in ((72, 66, 62), (52, 66, 108), (60, 62, 70)):
        style.roofs.append(textures.pyramid(textures.roof(rng, np.array(color) * rng.uniform(0.85, 1.2))))
    winter = rng.random() < 0.45
    leaf = np.array([rng.uniform(38, 62), rng.uniform(98, 138), rng.uniform(70, 122)])
    for i in range(6):
        if i < 2 or not winter:
            color = leaf * rng.uniform(0.75, 1.15, 3) * (0.7 if i == 0 else 1)
            style.trees.append(textures.pyramid(textures.crown(rng, color, i == 0)))
        else:
            style.trees.append(textures.pyramid(textures.bare_tree(rng, np.array([56.0, 64, 74]))))
    boards = np.array([(70, 98, 128), (90, 110, 120), (60, 84, 66)])[rng.integers(3)] * rng.uniform(0.8, 1.2)
    iron = np.array([(60, 60, 60), (140, 140, 136), (70, 90, 50)])[rng.integers(3)].astype(np.float64)
    for picture in (textures.planks(rng, boards), textures.railing(iron), textures.hedge(rng, leaf * 0.8)):
        style.fences.append(textures.pyramid(picture))
    style.verge = tuple((leaf * (1.0, 1.15, 1.1)).tolist())
    return style
