# SPDX-License-Identifier: Apache-2.0
"""Find the point of the ground plane that each pixel shows, and what covers it."""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np

from stdc_core.data.synthetic.canvas import ROAD, SIDEWALK, Camera, Canvas, clip_near
from stdc_core.data.synthetic.light import REACH
from stdc_core.data.synthetic.textures import ground_textures
from stdc_core.data.synthetic.world import CHUNK, World


def bar(x: np.ndarray, foot: np.ndarray, low: float, high: float) -> np.ndarray:
    """Return the share of each pixel that a bar covers.

    Args:
        x: Positions of the pixels, metres.
        foot: Widths of the pixels on the ground, metres.
        low: Start of the bar, metres.
        high: End of the bar, metres.
    """
    return (np.clip(x + foot / 2, low, high) - np.clip(x - foot / 2, low, high)) / foot


def dashes(s: np.ndarray, foot: np.ndarray, length: float, period: float) -> np.ndarray:
    """Return the share of each pixel that dashes cover.

    Args:
        s: Positions of the pixels, metres.
        foot: Widths of the pixels on the ground, metres.
        length: Length of a dash, metres.
        period: Distance between the starts of two dashes, metres.
    """

    def filled(v: np.ndarray) -> np.ndarray:
        turns = np.floor(v / period)
        return turns * length + np.minimum(v - turns * period, length)

    return (filled(s + foot / 2) - filled(s - foot / 2)) / foot


class Spots(NamedTuple):
    """Points of the ground that the pixels show; each array is float32 ``[rows, width]`` or can be broadcast to it.

    Args:
        x: Distances to the right of the centre line, metres.
        s: Distances along the road from ``base``, metres.
        base: Start of the present chunk, metres along the road.
        ahead: Distances ahead of the camera, metres, ``[rows, 1]``.
        right: Distances to the right of the camera, metres.
        side_foot: Widths of the pixels on the ground, metres.
        along_foot: Lengths of the pixels on the ground, metres.
    """

    x: np.ndarray
    s: np.ndarray
    base: float
    ahead: np.ndarray
    right: np.ndarray
    side_foot: np.ndarray
    along_foot: np.ndarray


class Ground:
    """Flat ground, computed for each pixel by inverse perspective. Each kind of street is a subclass.

    Args:
        world: Scene.
    """

    def __init__(self, world: World) -> None:
        self.world = world
        rng = np.random.default_rng([world.seed, 5])
        self.asphalt, self.slabs, self.wear = ground_textures(rng)
        self.choose_colors(rng)

    def choose_colors(self, rng: np.random.Generator) -> None:
        """Draw the colours of the ground."""
        raise NotImplementedError

    def paint(self, canvas: Canvas, row: int, shadows: list[np.ndarray], mirror: np.ndarray | None = None) -> None:
        """Paint the ground.

        Args:
            canvas: Canvas to paint on.
            row: First row of ground; all rows below it are painted.
            shadows: Convex polygons on the ground, ``[N, 3]`` in view axes.
            mirror: Mirror image of the scene in the ground, as large as the canvas; None for dry ground.
        """
        if canvas.camera.height > row:
            self.cover(canvas, row, self._spots(canvas.camera, row), self._shadow(canvas.camera, row, shadows))
            if mirror is not None:
                self._wet(canvas, row, mirror)

    def cover(self, canvas: Canvas, row: int, spots: Spots, shade: np.ndarray) -> None:
        """Paint the dry ground into the rows from ``row`` down.

        Args:
            canvas: Canvas to paint on.
            row: First row of ground.
            spots: Points of the ground that the pixels show.
            shade: Strength of the shadows, 0 to 1.
        """
        raise NotImplementedError

    def _spots(self, camera: Camera, row: int) -> Spots:
        """Return the points that the rows from ``row`` down show."""
        sin, cos = np.sin(camera.pitch), np.cos(camera.pitch)
        v = (np.arange(row, camera.height) - camera.center[1]) / camera.focal
        u = (np.arange(camera.width) - camera.center[0]) / camera.focal
        reach = np.minimum(camera.position[1] / np.maximum(v * cos + sin, 1e-4), 600.0)
        ahead = (reach * (cos - v * sin))[:, None].astype(np.float32)
        right = (reach[:, None] * u[None]).astype(np.float32)
        base = np.floor(camera.position[2] / CHUNK) * CHUNK
        turn = np.float32(np.sin(camera.yaw)), np.float32(np.cos(camera.yaw))
        s = np.float32(camera.position[2] - base) - right * turn[0] + ahead * turn[1]
        x = np.float32(camera.position[0]) + right * turn[1] + ahead * turn[0]
        grid = np.arange(-200.0, 1000.0, 2.0)
        place = np.clip((s + 200.0) * 0.5, 0, len(grid) - 2)
        cell = place.astype(np.int32)
        bends = self.world.road.center(grid + base).astype(np.float32)
        x = x - (bends[cell] + (bends[cell + 1] - bends[cell]) * (place - cell.astype(np.float32)))
        side_foot = np.broadcast_to((ahead / camera.focal).astype(np.float32), x.shape)
        along_foot = side_foot * np.maximum(ahead / camera.position[1], 1).astype(np.float32)
        return Spots(x, s, base, ahead, right, side_foot, along_foot)

    def side_roads(self, x: np.ndarray, s: np.ndarray, base: float, half: float) -> np.ndarray:
        """Return the mask of the side roads beyond the edges of the road.

        Args:
            x: Distances to the right of the centre line, metres.
            s: Distances along the road from ``base``, metres.
            base: Start of the present chunk, metres.
            half: Half of the width of the road, metres.
        """
        wide = np.abs(x)
        extra = np.zeros(x.shape, bool)
        first = int(base // CHUNK)
        for chunk in range(first - 1, first + 6):
            crossing = self.world.junction(chunk)
            if crossing is None:
                continue
            middle, width, side = crossing
            near = np.clip(wide - half, 0, 2.5)
            round_corner = 2.5 - np.sqrt(np.maximum(6.25 - (2.5 - near) ** 2, 0))
            hit = (np.abs(s + base - middle) < width / 2 + round_corner) & (wide >= half)
            extra |= hit & (x * side >= 0) if side else hit
        return extra

    @staticmethod
    def look_up(texture: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Return the values of a tiled texture at positions in its pixels."""
        return cv2.remap(texture, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP)

    @staticmethod
    def _shadow(camera: Camera, row: int, shadows: list[np.ndarray]) -> np.ndarray:
        """Return the strength of the shadows in the rows from ``row`` down, float32 0 to 1."""
        mask = np.zeros((camera.height - row, camera.width), np.uint8)
        for view in shadows:
            view = clip_near(view)
            if len(view) < 3:
                continue
            points = np.rint((camera.project(view) - (0, row)) * 16).astype(np.int32)
            cv2.fillConvexPoly(mask, points, 255, cv2.LINE_8, 4)
        size = max(3, camera.height // 120 * 2 + 1)
        return cv2.GaussianBlur(mask, (size, size), 0).astype(np.float32) * np.float32(1 / 255)

    def lamp_light(self, spots: Spots, lamps: tuple[float, float] | None = None) -> np.ndarray:
        """Return the light of head lights and street lamps on the ground at night, float32 ``[rows, width, 3]``.

        Args:
            spots: Points of the ground that the pixels show.
            lamps: Distance of street lamps along the road and from the centre line, metres; None for none.
        """
        ahead = spots.ahead
        spread = np.exp(-((spots.right / (0.9 + 0.16 * ahead)) ** 2))
        beam = np.exp(-ahead / REACH) * spread * np.clip(ahead / 6 - 0.4, 0.15, 1)
        result = self.world.style.light.beam * 1.3 * beam[..., None] * np.array([0.82, 0.95, 1.0], np.float32)
        if lamps:
            period, across = lamps
            away = (spots.s % period - period / 2) ** 2 + (np.abs(spots.x) - across) ** 2
            result = result + 0.62 * np.exp(-away / 90)[..., None] * np.array([0.5, 0.8, 1.0], np.float32)
        return result.astype(np.float32)

    def _wet(self, canvas: Canvas, row: int, mirror: np.ndarray) -> None:
        """Blend the mirror image into the paved ground: the flatter the view, the brighter."""
        camera, light = canvas.camera, canvas.light
        v = np.arange(row, camera.height) - camera.horizon
        grazing = 1 / np.sqrt(1 + (np.maximum(v, 0) / camera.focal * 3.2) ** 2)
        # Ripples smear a mirror image along the view, that is up and down in the image.
        tall = max(3, camera.height // 24 * 2 + 1)
        smear = cv2.blur(mirror[row:], (max(1, camera.width // 160), tall)).astype(np.float32)
        paved = np.isin(canvas.label[row:], (ROAD, SIDEWALK))
        share = (light.wet * grazing.astype(np.float32))[:, None] * paved
        image = canvas.image[row:]
        dark = image * (1 - np.float32(0.35) * paved[..., None])
        image[:] = np.clip(dark + (smear - dark) * share[..., None], 0, 255)
