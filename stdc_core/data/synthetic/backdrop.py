# SPDX-License-Identifier: Apache-2.0
"""Paint the background: sky with clouds, sun and skyline."""

from __future__ import annotations

import cv2
import numpy as np

from stdc_core.data.synthetic.canvas import BUILDING, SKY, TREE, Canvas
from stdc_core.data.synthetic.textures import noise
from stdc_core.data.synthetic.world import World

TURN = 0.42  # angle that the painted sky extends beyond the image on each side, radians
FOG = 90.0  # haze, metres, below which the skyline cannot be seen

# Weather: colour of the zenith, BGR, and cover of clouds, where 0 is half of the sky.
_SKIES = {
    'sunny': ((226, 168, 112), -0.15),
    'overcast': ((214, 209, 206), 0.55),
    'dusk': ((118, 96, 86), 0.3),
    'low sun': ((205, 172, 132), 0.0),
    'rain': ((158, 154, 150), 0.6),
    'fog': ((208, 206, 204), 0.7),
    'night': ((24, 18, 16), -0.3),
}


class Backdrop:
    """Sky and skyline, painted once. They are infinitely far away, so that a turn of the camera only shifts them.

    Args:
        world: Scene.
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
        top, base_cover = _SKIES[light.kind]
        zenith = np.array(top, np.float32) * rng.uniform(0.93, 1.05)
        blend = (1 - np.exp(-up * 2.2))[..., None]
        sky = light.fog.astype(np.float32) * (1 - blend) + zenith * blend
        # Clouds are on a plane overhead, so that they get denser towards the horizon.
        size = 512
        field = noise(rng, size, size, 4, 6)
        across = (np.arange(w, dtype=np.float32)[None] - w / 2) / focal
        depth = 1 / (up + 0.16)
        maps = (across * depth * 70 + 256).astype(np.float32), np.broadcast_to(depth * 120, (self.rise, w))
        cloud = cv2.remap(field, maps[0], np.ascontiguousarray(maps[1]), cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP)
        cover = base_cover + rng.uniform(-0.2, 0.2)
        amount = np.clip((cloud + cover) * 1.6, 0, 1)[..., None] * np.clip(up * 6 + 0.25, 0, 1)[..., None]
        body = np.clip(light.fog * (1.0 if light.kind in ('dusk', 'night') else 1.09), 0, 255)
        body = body * (1 - 0.22 * np.clip(cloud - 0.15, 0, 1)[..., None] * (0.6 if light.kind == 'sunny' else 1.3))
        sky = sky + (body - sky) * amount * 0.85
        if light.strength and light.sun[2] > 0:
            sun = light.sun[0] / light.sun[2], light.sun[1] / light.sun[2]
            near = np.hypot(across - sun[0], up - sun[1])[..., None]
            sky += (np.array([225.0, 245, 255]) - sky) * np.clip(np.exp(-near * 3.0) * 0.9, 0, 1)
        self.image = np.clip(sky, 0, 255).astype(np.uint8)
        self.label = np.full((self.rise, w), SKY, np.uint8)
        if light.haze > FOG:
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
