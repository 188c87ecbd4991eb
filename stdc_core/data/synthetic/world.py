# SPDX-License-Identifier: Apache-2.0
"""Generate the town of a seed: its road, its style, and the things along each stretch of road."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from stdc_core.data.synthetic import textures
from stdc_core.data.synthetic.canvas import Light

CHUNK = 48.0  # metres of road that one random generator furnishes
VIEW = 170.0  # metres ahead that are drawn


@dataclass(frozen=True)
class Item:
    """Thing on or beside the road, at the start of the drive.

    Args:
        kind: Name of the thing, which selects the drawing routine.
        s: Distance along the road, metres.
        x: Distance to the right of the centre line, metres.
        speed: Speed along the road, m/s; negative towards the camera.
        length: Length along the road, metres.
        size: Height, side of the road or scale, as the drawing routine uses it.
        variant: Number that selects the look.
        tint: BGR colour.
        extra: Further numbers for the drawing routine.
    """

    kind: str
    s: float
    x: float
    speed: float = 0.0
    length: float = 0.0
    size: float = 1.0
    variant: int = 0
    tint: tuple[float, float, float] = (128.0, 128.0, 128.0)
    extra: tuple[float, ...] = ()


class Road:
    """Centre line of the road: a sum of sines of the distance, so any point of it is computed directly."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.wave = 2 * np.pi / rng.uniform([150, 260, 480], [210, 400, 900])
        self.height = rng.uniform([0.02, 0.03, 0.02], [0.05, 0.07, 0.05]) / self.wave
        self.phase = rng.uniform(0, 2 * np.pi, 3)

    def center(self, s: np.ndarray | float) -> np.ndarray:
        """Return the world x of the centre line at world z ``s``, metres."""
        angle = np.asarray(s, np.float64)[..., None] * self.wave + self.phase
        return (np.sin(angle) * self.height).sum(-1)

    def heading(self, s: float) -> float:
        """Return the direction of the road, radians to the right."""
        return float(np.arctan((np.cos(s * self.wave + self.phase) * self.height * self.wave).sum()))

    def points(self, local: np.ndarray) -> np.ndarray:
        """Return world points of ``[N, 3]`` (metres right of the centre line, up, along the road)."""
        world = np.array(local, np.float64)
        world[:, 0] += self.center(world[:, 2])
        return world


def make_light(rng: np.random.Generator) -> Light:
    """Draw the weather and the hour of a drive."""
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
    """Look of one town."""

    half_road: float
    sidewalk: float
    speed: float  # m/s of the camera
    park_left: bool
    park_right: bool
    dash: tuple[float, float]  # length and period of the centre line's dashes, metres
    yellow: bool
    green: float  # share of lots without a house
    street_trees: bool
    light: Light
    facades: list[tuple[list[np.ndarray], int]] = field(default_factory=list)  # pyramid and storeys
    gables: list[list[np.ndarray]] = field(default_factory=list)
    roofs: list[list[np.ndarray]] = field(default_factory=list)
    trees: list[list[np.ndarray]] = field(default_factory=list)
    fences: list[list[np.ndarray]] = field(default_factory=list)  # boards, railing, hedge
    verge: tuple[float, float, float] = (60.0, 110.0, 90.0)


def make_style(rng: np.random.Generator) -> Style:
    """Draw a town's style and paint its textures."""
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


CARS = np.array(
    [
        (40, 40, 42),
        (170, 172, 172),
        (120, 122, 124),
        (60, 40, 30),
        (120, 60, 25),
        (40, 30, 140),
        (210, 212, 212),
        (70, 90, 40),
        (60, 90, 130),
        (24, 24, 26),
        (150, 130, 100),
        (90, 50, 70),
    ],
    np.float64,
)


class World:
    """Road of one seed with its things: a pure function of seed and chunk, with a cache of recent chunks."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        rng = np.random.default_rng([seed, 1])
        self.road = Road(rng)
        self.style = make_style(rng)
        self.lead = bool(rng.random() < 0.75)
        self.lead_gap = float(rng.uniform(10, 22))
        self.lead_item = Item('car', 0, 0, 1.0, variant=int(rng.integers(4)), tint=self._paint(rng))
        self._chunks: dict[int, tuple[Item, ...]] = {}

    @staticmethod
    def _paint(rng: np.random.Generator) -> tuple[float, float, float]:
        return tuple((CARS[rng.integers(len(CARS))] * rng.uniform(0.85, 1.15)).tolist())

    @staticmethod
    def _cloth(rng: np.random.Generator) -> tuple[float, float, float]:
        return tuple((rng.uniform(20, 150) * rng.uniform(0.5, 1.2, 3)).tolist())

    def junction(self, chunk: int) -> tuple[float, float, int] | None:
        """Return middle (m), width (m) and side (-1, 1, or 0 for both) of the side road of a chunk, if any."""
        rng = np.random.default_rng([self.seed, 2, chunk & 0xFFFFFFFF])
        if rng.random() > 0.4 or chunk % 2:
            return None
        return chunk * CHUNK + 6.0, float(rng.uniform(5.5, 7.5)), int(rng.integers(-1, 2))

    def items(self, chunk: int) -> tuple[Item, ...]:
        """Return all things of a chunk."""
        if chunk not in self._chunks:
            if len(self._chunks) > 64:
                self._chunks.clear()
            rng = np.random.default_rng([self.seed, 3, chunk & 0xFFFFFFFF])
            self._chunks[chunk] = tuple(self._furnish(chunk, rng))
        return self._chunks[chunk]

    def _furnish(self, chunk: int, rng: np.random.Generator) -> list[Item]:
        style, start = self.style, chunk * CHUNK
        half, walk = style.half_road, style.sidewalk
        items: list[Item] = []
        crossing = self.junction(chunk)
        for side in (-1, 1):
            edge = side * (half + walk)
            at = start
            if crossing and crossing[2] in (0, side):
                at = crossing[0] + crossing[1] / 2 + 2.0
            items += self._lots(rng, side, edge, at, start + CHUNK, (chunk + (side > 0)) % 2 == 0)
            kerb = side * (half + 0.45)
            for s in (start + 14, start + 38):
                if (chunk + (side > 0) + (s > start + 20)) % 2 == 0:
                    items.append(Item('lamp', s + rng.uniform(-2, 2), kerb, size=rng.uniform(6, 8.5), variant=side))
            for s in (start + rng.uniform(18, 25), start + rng.uniform(28, 44)):
                if rng.random() < 0.8:
                    items.append(
                        Item(
                            'sign',
                            s,
                            kerb + side * rng.uniform(0, 0.3),
                            size=rng.uniform(2.0, 2.7),
                            variant=int(rng.integers(7)),
                            extra=(float(side),),
                        )
                    )
            if style.street_trees:
                for s in (start + 20, start + 33, start + 45):
                    if rng.random() < 0.6:
                        items.append(
                            Item(
                                'tree',
                                s + rng.uniform(-2, 2),
                                side * (half + min(walk - 0.3, 1.1)),
                                size=rng.uniform(5, 8),
                                variant=int(rng.integers(1, 6)),
                            )
                        )
            if rng.random() < 0.35:
                for k in range(4):
                    items.append(Item('bollard', start + 15 + 1.9 * k, side * (half + 0.35)))
            if style.park_left if side < 0 else style.park_right:
                at = start + 14 + rng.uniform(0, 3)
                while at < start + CHUNK - 4:
                    if rng.random() < 0.68:
                        items.append(
                            Item(
                                'car',
                                at,
                                side * (half - 1.0),
                                variant=int(rng.integers(4)),
                                tint=self._paint(rng),
                                extra=(float(side),),
                            )
                        )
                    at += rng.uniform(5.6, 7.5)
            for _ in range(int(rng.integers(2, 5))):
                speed = float(rng.choice([-1, 1, 1, 0]) * rng.uniform(1.0, 1.6))
                items.append(
                    Item(
                        'person',
                        start + rng.uniform(0, CHUNK),
                        side * (half + rng.uniform(0.7, walk - 0.3)),
                        speed,
                        size=rng.uniform(1.55, 1.88),
                        variant=int(rng.integers(1 << 16)),
                        tint=self._cloth(rng),
                    )
                )
        if chunk % 2 == 0:
            items.append(Item('rail', start + 10.5, (-1, 1)[chunk // 2 % 2] * (half + 0.25), length=rng.uniform(6, 10)))
        if crossing or rng.random() < 0.12:
            for side in (-1, 1):
                items.append(Item('signal', start + 1.2, side * (half + 0.4), variant=int(rng.integers(3))))
        if rng.random() < 0.6:
            items.append(
                Item(
                    'person',
                    start + rng.uniform(8, 40),
                    0,
                    size=rng.uniform(1.6, 1.85),
                    variant=int(rng.integers(1 << 16)),
                    tint=self._cloth(rng),
                    extra=(float(rng.choice([-1, 1])), float(rng.uniform(1.4, 1.8))),
                )
            )
        # Oncoming cars keep one speed, so they never run into each other.
        for s in (start + 4, start + 28):
            if rng.random() < 0.65:
                kind = 'bus' if rng.random() < 0.15 else 'car'
                items.append(
                    Item(
                        kind,
                        s + rng.uniform(0, 8),
                        min(half - 1.4, 1.75),
                        -style.speed * 1.1,
                        variant=int(rng.integers(4)),
                        tint=self._paint(rng),
                    )
                )
        gutter = 2.3 if style.park_left else 0.65
        items.append(
            Item(
                'cyclist',
                start + rng.uniform(10, 40),
                -half + gutter,
                style.speed * 0.5,
                size=rng.uniform(0.95, 1.05),
                variant=int(rng.integers(1 << 16)),
                tint=self._cloth(rng),
            )
        )
        gutter = 2.4 if style.park_right else 0.7
        if rng.random() < 0.6:
            items.append(
                Item(
                    'cyclist',
                    start + rng.uniform(0, 40),
                    half - gutter,
                    -5.0,
                    size=rng.uniform(0.95, 1.05),
                    variant=int(rng.integers(1 << 16)),
                    tint=self._cloth(rng),
                )
            )
        return items

    def _lots(
        self, rng: np.random.Generator, side: int, edge: float, at: float, end: float, fenced: bool
    ) -> list[Item]:
        style = self.style
        lots: list[Item] = []
        while at < end - 0.5:
            length = float(rng.uniform(7.5, 13))
            if end - at - length < 6:
                length = end - at
            draw = rng.random()
            variant = int(rng.integers(len(style.facades)))
            detail = (float(rng.integers(3)), float(rng.uniform(0.9, 1.08)), float(rng.integers(1 << 16)))
            if (fenced and not lots) or draw < style.green:
                barrier = float(rng.choice([0, 1, 2])) if not (fenced and not lots) else float(rng.choice([0, 1]))
                lots.append(
                    Item(
                        'park',
                        at,
                        edge,
                        length=length,
                        variant=variant,
                        size=float(side),
                        extra=(barrier, float(rng.uniform(1.1, 1.9)), detail[2]),
                    )
                )
            else:
                setback = float(rng.uniform(2.5, 5)) if draw > 0.8 else 0.0
                lots.append(
                    Item(
                        'house',
                        at,
                        edge + side * setback,
                        length=length,
                        variant=variant,
                        size=float(side),
                        extra=(*detail, setback, float(rng.choice([0, 1, 2]))),
                    )
                )
            at += length
        return lots
