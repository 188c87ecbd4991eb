# SPDX-License-Identifier: Apache-2.0
"""Draw the look of a town: weather, widths, and textures of its houses, trees and fences."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from stdc_core.data.synthetic import textures
from stdc_core.data.synthetic.light import Light, make_light

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


@dataclass(kw_only=True)
class Style:
    """Look of one scene. Textures are pyramids: uint8 pictures, each half the size of the one before.

    Args:
        light: Weather and time of day.
        speed: Speed of the camera, m/s.
        half_road: Half of the width that a pedestrian has to cross, metres.
        facades: Textures of house fronts with their number of storeys.
        gables: Textures of end walls.
        roofs: Textures of roofs.
        trees: Pictures of trees, BGRA.
        fences: Textures of boards, railing and hedge.
        verge: Colour of the grass, BGR.
    """

    light: Light
    speed: float
    half_road: float
    facades: list[tuple[list[np.ndarray], int]] = field(default_factory=list)
    gables: list[list[np.ndarray]] = field(default_factory=list)
    roofs: list[list[np.ndarray]] = field(default_factory=list)
    trees: list[list[np.ndarray]] = field(default_factory=list)
    fences: list[list[np.ndarray]] = field(default_factory=list)
    verge: tuple[float, float, float] = (60.0, 110.0, 90.0)


@dataclass(kw_only=True)
class TownStyle(Style):
    """Look of an English town.

    Args:
        sidewalk: Width of the pavement, metres.
        park_left: Whether cars park on the left.
        park_right: Whether cars park on the right.
        dash: Length and period of the dashes of the centre line, metres.
        yellow: Whether the kerb has yellow lines.
        green: Share of the lots without a house.
        street_trees: Whether trees stand on the pavement.
    """

    sidewalk: float
    park_left: bool
    park_right: bool
    dash: tuple[float, float]
    yellow: bool
    green: float
    street_trees: bool


def make_style(rng: np.random.Generator, weather: str | None = None) -> TownStyle:
    """Draw the style of a town and paint its textures.

    Args:
        rng: Source of the random numbers.
        weather: Name of the weather; None draws it.
    """
    light = make_light(rng, weather)
    half = rng.uniform(3.7, 6.0)
    dash = ((2.0, 6.0), (4.0, 6.0), (3.0, 8.0), (1.0, 4.0))[rng.integers(4)]
    style = TownStyle(
        light=light,
        half_road=half,
        sidewalk=rng.uniform(2.4, 4.6),
        speed=rng.uniform(7.5, 10.0),
        park_left=bool(half > 5.1 and rng.random() < 0.75),
        park_right=bool(half > 4.5 and rng.random() < 0.85),
        dash=dash,
        yellow=bool(rng.random() < 0.6),
        green=float(rng.uniform(0.12, 0.4)),
        street_trees=bool(rng.random() < 0.45),
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
