# SPDX-License-Identifier: Apache-2.0
"""Paint the background: sky with skyline, and ground plane with road markings and shadows."""

from __future__ import annotations

import cv2
import numpy as np

from stdc_core.data.synthetic.canvas import BUILDING, ROAD, SIDEWALK, SKY, TREE, Camera, Canvas, clip_near
from stdc_core.data.synthetic.textures import ground_textures, noise
from stdc_core.data.synthetic.world import CHUNK, World

TURN = 0.42  # angle that the painted sky extends beyond the image on each side, radians


class Backdrop:
    """Sky and skyline, painted once. They are infinitely far away, so that a turn of the camera only shifts them.

    Args:
        world: Town.
        focal: Focal length, pixels.
        height: Image height, pixels.
        width: Image width, pixels.
    """

    def __init__(self, world: World, focal: float, height: int, width: int) -> None:
        rng = np.random.default_rng([world.seed, 4])
        light = world.style.light
        self.focal = focal
        self.pad = int(np.ceil(focal * TURN)) + 2
        self.rise = height + self.pad  # rows above the horizon
        w = width + 2 * self.pad
        up = np.linspace(1, 0, self.rise, dtype=np.float32)[:, None] * (self.rise / focal)
        top = {'sunny': (226, 168, 112), 'overcast': (214, 209, 206), 'dusk': (118, 96, 86), 'low sun': (205, 172, 132)}
        zenith = np.array(top[light.kind], np.float32) * rng.uniform(0.93, 1.05)
        blend = (1 - np.exp(-up * 2.2))[..., None]
        sky = light.fog.astype(np.float32) * (1 - blend) + zenith * blend
        # Clouds are on a plane overhead, so that they get denser towards the horizon.
        size = 512
        field = noise(rng, size, size, 4, 6)
        across = (np.arange(w, dtype=np.float32)[None] - w / 2) / focal
        depth = 1 / (up + 0.16)
        maps = (across * depth * 70 + 256).astype(np.float32), np.broadcast_to(depth * 120, (self.rise, w))
        cloud = cv2.remap(field, maps[0], np.ascontiguousarray(maps[1]), cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP)
        cover = {'sunny': -0.15, 'overcast': 0.55, 'dusk': 0.3, 'low sun': 0.0}[light.kind] + rng.uniform(-0.2, 0.2)
        amount = np.clip((cloud + cover) * 1.6, 0, 1)[..., None] * np.clip(up * 6 + 0.25, 0, 1)[..., None]
        body = np.clip(light.fog * (1.0 if light.kind == 'dusk' else 1.09), 0, 255)
        body = body * (1 - 0.22 * np.clip(cloud - 0.15, 0, 1)[..., None] * (0.6 if light.kind == 'sunny' else 1.3))
        sky = sky + (body - sky) * amount * 0.85
        if light.strength and light.sun[2] > 0:
            sun = light.sun[0] / light.sun[2], light.sun[1] / light.sun[2]
            near = np.hypot(across - sun[0], up - sun[1])[..., None]
            sky += (np.array([225.0, 245, 255]) - sky) * np.clip(np.exp(-near * 3.0) * 0.9, 0, 1)
        self.image = np.clip(sky, 0, 255).astype(np.uint8)
        self.label = np.full((self.rise, w), SKY, np.uint8)
        self._skyline(rng, world, w)

    def _skyline(self, rng: np.random.Generator, world: World, width: int) -> None:
        """Paint distant trees and buildings along the horizon."""
        light, scale = world.style.light, self.focal
        x = np.arange(width)
        for label, base, rough in ((TREE, 0.030, 0.016), (BUILDING, 0.022, 0.0), (TREE, 0.016, 0.012)):
            if label == TREE:
                curve = base + rough * np.interp(x / scale, np.arange(80) / 16, rng.uniform(-1, 1, 80))
                curve += 0.003 * np.interp(x / scale, np.arange(1200) / 240, rng.uniform(-1, 1, 1200))
                color = np.array([62.0, 82, 74])
            else:
                steps = np.repeat(rng.uniform(0.2, 1.7, 90), 1)
                curve = base * steps[np.minimum((x / scale / 0.05).astype(int), 89)]
                color = np.array([92.0, 98, 112])
            tone = color * light.gain((0, 0, -1)) * 0.42 + light.fog * 0.58
            rows = self.rise - np.rint(np.maximum(curve, 0.004) * scale).astype(int)
            mask = np.arange(self.rise)[:, None] >= rows[None]
            self.image[mask] = np.clip(tone, 0, 255).astype(np.uint8)
            self.label[mask] = label

    def paint(self, canvas: Canvas) -> int:
        """Copy the part that the camera sees into the canvas, and return the first row of ground."""
        camera = canvas.camera
        row = int(np.clip(round(camera.horizon) + 1, 0, camera.height))
        left = int(np.clip(round(np.tan(camera.yaw) * self.focal), -self.pad, self.pad)) + self.pad
        window = np.s_[self.rise - row : self.rise, left : left + camera.width]
        canvas.image[:row], canvas.label[:row] = self.image[window], self.label[window]
        return row


def _bar(x: np.ndarray, foot: np.ndarray, low: float, high: float) -> np.ndarray:
    """Return the share of each pixel that a bar covers.

    Args:
        x: Positions of the pixels, metres.
        foot: Widths of the pixels on the ground, metres.
        low: Start of the bar, metres.
        high: End of the bar, metres.
    """
    return (np.clip(x + foot / 2, low, high) - np.clip(x - foot / 2, low, high)) / foot


def _dashes(s: np.ndarray, foot: np.ndarray, length: float, period: float) -> np.ndarray:
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


class Ground:
    """Flat ground, computed for each pixel by inverse perspective.

    Args:
        world: Town.
    """

    def __init__(self, world: World) -> None:
        self.world = world
        rng = np.random.default_rng([world.seed, 5])
        self.asphalt, self.slabs, self.wear = ground_textures(rng)
        self.road_color = np.array([1.03, 1.0, 0.97]) * rng.uniform(78, 112)
        self.slab_color = np.array([(130, 138, 144), (110, 128, 150), (122, 122, 124)])[rng.integers(3)] * 1.0
        self.patch_color = np.array(world.style.verge)

    def paint(self, canvas: Canvas, row: int, shadows: list[np.ndarray]) -> None:
        """Paint the ground.

        Args:
            canvas: Canvas to paint on.
            row: First row of ground; all rows below it are painted.
            shadows: Convex polygons on the ground, ``[N, 3]`` in view axes.
        """
        camera, style, light = canvas.camera, self.world.style, canvas.light
        rows = camera.height - row
        if rows <= 0:
            return
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
        road, extra = self._road(x, s, base)

        fade = np.clip(1.3 - ahead / 28.0, 0, 1).astype(np.float32)
        fine = [self._look_up(t, x * 64, s * 64) for t in (self.asphalt, self.slabs)]
        wear = self._look_up(self.wear, x * (512 / 48), s * (512 / 48))
        away = np.abs(x) - style.half_road
        bright = np.where(road, 1 + (fine[0] - 1) * fade, 1 + (fine[1] - 1) * np.minimum(fade * 1.6, 1)) * wear
        # Tyres polish two tracks in each lane, oil darkens its middle, and dirt gathers in the gutter.
        lane = np.abs(np.abs(x) - 1.7)
        worn = 0.05 * np.clip(1 - np.abs(lane - 0.75) / 0.4, 0, 1) - 0.06 * np.clip(1 - lane / 0.5, 0, 1)
        worn -= 0.16 * np.clip(1 + away / 0.35, 0, 1)
        bright *= np.where(road, 1 + worn, 1.0)
        paint, gold = self._markings(x, s, base, side_foot, along_foot)
        worn_paint = np.clip(1.9 - 0.55 / np.maximum(wear, 0.2) - 0.5 * fade * np.abs(fine[0] - 1) * 5, 0.3, 1)
        paint, gold = paint * worn_paint * np.float32(0.92) * road, gold * worn_paint * np.float32(0.85) * road
        verge = (away > style.sidewalk) & ~road
        label = np.where(road, np.uint8(ROAD), np.where(verge, np.uint8(TREE), np.uint8(SIDEWALK)))
        canvas.label[row:] = label
        plain = ~extra
        kerb = _bar(np.abs(x), side_foot, style.half_road, style.half_road + 0.16) * plain
        rise = _bar(np.abs(x), side_foot, style.half_road - 0.07, style.half_road) * plain * np.float32(0.8)
        gain = light.gain((0, 1, 0)).astype(np.float32)
        shade = self._shadow(camera, row, shadows)
        clear = np.exp(-ahead / light.haze).astype(np.float32)
        # The layers from top to bottom, each weighted by what the ones above it leave uncovered, and by the haze.
        rest = (1 - gold) * clear
        grey = paint * rest * 225
        rest *= 1 - paint
        grey += rise * rest * 42
        rest *= 1 - rise
        grey += kerb * rest * 171
        bright *= rest * (1 - kerb)
        gold *= clear
        colors = np.zeros((256, 3), np.float32)
        colors[[ROAD, SIDEWALK, TREE]] = self.road_color, self.slab_color, self.patch_color
        dim = gain - (light.ambient * 0.86).astype(np.float32)
        fog = light.fog.astype(np.float32)
        image = canvas.image[row:]
        for c in range(3):
            color = colors[:, c][label] * bright + grey + gold * np.float32((60, 178, 206)[c])
            color *= gain[c] - dim[c] * shade
            color += fog[c] * (1 - clear)
            image[:, :, c] = np.minimum(color, 255)

    def _road(self, x: np.ndarray, s: np.ndarray, base: float) -> tuple[np.ndarray, np.ndarray]:
        """Return masks of the whole road, and of the part that side roads add.

        Args:
            x: Distances to the right of the centre line, metres.
            s: Distances along the road from ``base``, metres.
            base: Start of the present chunk, metres.
        """
        half = self.world.style.half_road
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
        return (wide < half) | extra, extra

    @staticmethod
    def _look_up(texture: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Return the values of a tiled texture at positions in its pixels."""
        return cv2.remap(texture, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP)

    def _markings(
        self, x: np.ndarray, s: np.ndarray, base: float, side_foot: np.ndarray, along_foot: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the shares of each pixel that white and yellow paint cover, 0 to 1.

        Args:
            x: Distances to the right of the centre line, metres.
            s: Distances along the road from ``base``, metres.
            base: Start of the present chunk, metres.
            side_foot: Widths of the pixels on the ground, metres.
            along_foot: Lengths of the pixels on the ground, metres.
        """
        style = self.world.style
        half = style.half_road
        white = _bar(x, side_foot, -0.06, 0.06) * _dashes(s, along_foot, *style.dash)
        gold = np.zeros_like(x)
        wide = np.abs(x)
        if style.yellow:
            gold = _bar(wide, side_foot, half - 0.30, half - 0.22) + _bar(wide, side_foot, half - 0.50, half - 0.42)
        else:
            white += _bar(wide, side_foot, half - 0.32, half - 0.22)
        if style.park_left or style.park_right:
            low, high = (-1 if style.park_left else 0), (1 if style.park_right else 0)
            bay = _bar(wide, side_foot, half - 2.15, half - 2.05) * _dashes(s, along_foot, 1.0, 2.0)
            white += np.where((x * low > 0) | (x * high > 0), bay, 0)
        first = int(base // CHUNK)
        for chunk in range(first, first + 4):
            crossing = self.world.junction(chunk)
            if crossing is None:
                continue
            start = chunk * CHUNK - base
            lane = np.where(x < 0, 1.0, 0.0).astype(np.float32)
            white += _bar(s, along_foot, start - 0.6, start - 0.3) * lane  # stop line
            stripes = _dashes(x + 40, side_foot, 0.6, 1.2)
            zebra = _bar(s, along_foot, start + 0.4, start + 2.6) * stripes * (wide < half - 0.3)
            white = white * (1 - _bar(s, along_foot, start + 0.2, start + 2.8)) + zebra
        return np.clip(white, 0, 1), np.clip(gold, 0, 1)

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
