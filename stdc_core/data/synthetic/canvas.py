# SPDX-License-Identifier: Apache-2.0
"""Define camera and drawing primitives, which paint image and label from the same rounded coordinates."""

from __future__ import annotations

import math
from collections.abc import Sequence

import cv2
import numpy as np

from stdc_core.data.synthetic.light import Light

SKY, BUILDING, POLE, ROAD, SIDEWALK, TREE, SIGN, FENCE, CAR, PEDESTRIAN, BICYCLIST = range(11)

NEAR = 0.3  # metres in front of the camera, below which nothing is drawn
SHIFT = 4  # number of fractional bits in coordinates for OpenCV
LIMIT = 20000.0  # largest coordinate in pixels, well inside the fixed-point range of OpenCV

Color = Sequence[float] | np.ndarray


class Camera:
    """Pinhole camera without roll. World axes: x right, y up, z forward; view axes: x right, y down, z forward.

    Args:
        position: World position, metres.
        yaw: Turn to the right, radians.
        pitch: Turn down, radians.
        focal: Focal length, pixels.
        height: Image height, pixels.
        width: Image width, pixels.
    """

    def __init__(
        self, position: Sequence[float], yaw: float, pitch: float, focal: float, height: int, width: int
    ) -> None:
        self.position = np.asarray(position, np.float64)
        self.yaw, self.pitch, self.focal = yaw, pitch, focal
        self.height, self.width = height, width
        self.center = np.array([width / 2 - 0.5, height / 2 - 0.5])
        sy, cy, sp, cp = np.sin(yaw), np.cos(yaw), np.sin(pitch), np.cos(pitch)
        self.rotation = np.array([[cy, 0, -sy], [-sp * sy, -cp, -sp * cy], [cp * sy, -sp, cp * cy]])

    @property
    def horizon(self) -> float:
        """Image row of infinitely far ground."""
        return self.center[1] - self.focal * np.tan(self.pitch)

    def view(self, points: np.ndarray) -> np.ndarray:
        """Return world points ``[N, 3]`` in view axes, metres."""
        return (np.asarray(points, np.float64) - self.position) @ self.rotation.T

    def project(self, view: np.ndarray) -> np.ndarray:
        """Return the pixels ``[N, 2]`` of view points ``[N, 3]`` in front of the camera."""
        pixels = view[:, :2] * (self.focal / view[:, 2:3]) + self.center
        return np.minimum(np.maximum(pixels, -LIMIT), LIMIT)


def clip_near(view: np.ndarray, near: float = NEAR) -> np.ndarray:
    """Return the part of a polygon ``[N, 3]`` in front of the near plane (Sutherland-Hodgman); it may be empty."""
    if view[:, 2].min() >= near:
        return view
    depth = view[:, 2] - near
    kept = []
    for i in range(len(view)):
        j = (i + 1) % len(view)
        if depth[i] >= 0:
            kept.append(view[i])
        if (depth[i] >= 0) != (depth[j] >= 0):
            kept.append(view[i] + (view[j] - view[i]) * (depth[i] / (depth[i] - depth[j])))
    return np.array(kept).reshape(-1, 3)


class Canvas:
    """Image and label, to be painted from far to near.

    Args:
        image: uint8 BGR ``[H, W, 3]``, painted in place.
        label: uint8 ``[H, W]``, painted in place.
        camera: Camera.
        light: Light and air.
    """

    def __init__(self, image: np.ndarray, label: np.ndarray, camera: Camera, light: Light) -> None:
        self.image, self.label, self.camera, self.light = image, label, camera, light
        self._fog = light.fog.tolist()

    def shade(self, color: Color, depth: float, gain: np.ndarray | float = 1.0) -> tuple[int, int, int]:
        """Return the colour of a surface through the haze.

        Args:
            color: BGR colour, 0 to 255.
            depth: Distance from the camera, metres.
            gain: BGR light factors.
        """
        clear = math.exp(-max(depth, 0.0) / self.light.haze)
        b, g, r = np.multiply(color, self.light.lit(gain, depth)).tolist()
        veil = 1 - clear
        return (
            min(255, max(0, int(b * clear + self._fog[0] * veil))),
            min(255, max(0, int(g * clear + self._fog[1] * veil))),
            min(255, max(0, int(r * clear + self._fog[2] * veil))),
        )

    def _table(self, depth: float, gain: np.ndarray) -> np.ndarray:
        """Return what ``shade`` makes of each value of a texture, uint8 ``[1, 256, 3]``, to be used by ``cv2.LUT``."""
        clear = math.exp(-max(depth, 0.0) / self.light.haze)
        table = np.arange(256)[:, None] * (self.light.lit(gain, depth) * clear) + self.light.fog * (1 - clear)
        return np.minimum(np.maximum(table, 0), 255).astype(np.uint8)[None]

    def fill(self, pixels: np.ndarray, color: tuple[int, int, int], label: int) -> None:
        """Fill a convex polygon ``[N, 2]`` in pixels with a finished colour."""
        xs = pixels[:, 0]
        if xs.max() < -1 or xs.min() > self.camera.width:
            return
        points = np.rint(pixels * (1 << SHIFT)).astype(np.int32)
        cv2.fillConvexPoly(self.image, points, color, cv2.LINE_AA, SHIFT)
        cv2.fillConvexPoly(self.label, points, label, cv2.LINE_8, SHIFT)

    def polygon(self, view: np.ndarray, color: Color, label: int, gain: np.ndarray | float = 1.0) -> None:
        """Fill a convex planar polygon ``[N, 3]`` in view axes."""
        view = clip_near(view)
        if len(view) >= 3:
            self.fill(self.camera.project(view), self.shade(color, float(view[0, 2]), gain), label)

    def stroke(self, view: np.ndarray, width: float, color: Color, label: int, gain: np.ndarray | float = 1.0) -> None:
        """Draw a round bar along view points ``[N, 3]``, ``width`` metres thick, but at least one pixel."""
        if view[:, 2].min() < NEAR:
            if len(view) != 2 or view[:, 2].max() < NEAR * 1.01:
                return
            view = clip_near(view)[:2]
        depth = float(view[0, 2] + view[-1, 2]) / 2
        pixels = self.camera.project(view)
        thick = max(1, min(255, int(round(width * self.camera.focal / depth))))
        if pixels[:, 0].max() < -thick or pixels[:, 0].min() > self.camera.width + thick:
            return
        points = [np.rint(pixels * (1 << SHIFT)).astype(np.int32)]
        cv2.polylines(self.image, points, False, self.shade(color, depth, gain), thick, cv2.LINE_AA, SHIFT)
        cv2.polylines(self.label, points, False, label, thick, cv2.LINE_8, SHIFT)

    def disc(self, view: np.ndarray, radius: float, color: Color, label: int, gain: np.ndarray | float = 1.0) -> None:
        """Draw a ball of ``radius`` metres at the view point ``[3]``."""
        if view[2] < NEAR:
            return
        x, y = np.rint(self.camera.project(view[None])[0] * (1 << SHIFT)).astype(int).tolist()
        size = max(8, int(round(radius * self.camera.focal / view[2] * (1 << SHIFT))))
        color = self.shade(color, float(view[2]), gain)
        cv2.circle(self.image, (x, y), size, color, -1, cv2.LINE_AA, SHIFT)
        cv2.circle(self.label, (x, y), size, label, -1, cv2.LINE_8, SHIFT)

    def darken(self, view: np.ndarray, factor: float) -> None:
        """Darken the image inside a polygon ``[N, 3]`` in view axes, with soft edges: a contact shadow."""
        view = clip_near(view)
        if len(view) < 3:
            return
        pixels = self.camera.project(view)
        soft = max(1, int(np.ptp(pixels[:, 1]) / 6)) * 2 + 1
        x0, y0 = np.maximum(np.floor(pixels.min(0)).astype(int) - soft, 0).tolist()
        x1 = min(int(pixels[:, 0].max()) + soft + 2, self.camera.width)
        y1 = min(int(pixels[:, 1].max()) + soft + 2, self.camera.height)
        if x0 >= x1 or y0 >= y1:
            return
        mask = np.full((y1 - y0, x1 - x0), 255, np.uint8)
        points = np.rint((pixels - (x0, y0)) * (1 << SHIFT)).astype(np.int32)
        cv2.fillConvexPoly(mask, points, int(255 * factor), cv2.LINE_8, SHIFT)
        mask = cv2.blur(mask, (soft, soft))
        region = self.image[y0:y1, x0:x1]
        region[:] = cv2.multiply(region, cv2.merge([mask, mask, mask]), scale=1 / 255)

    def texture(
        self, corners: np.ndarray, pyramid: list[np.ndarray], label: int, gain: np.ndarray, opacity: float = 1.0
    ) -> None:
        """Draw a textured upright rectangle.

        Args:
            corners: View points ``[4, 3]``: near bottom, far bottom, far top, near top.
            pyramid: Textures, uint8 BGR, each half the size of the one before.
            label: Class id.
            gain: BGR light factors.
            opacity: Weight of the texture over the background; 1 hides the background.
        """
        clip = 0.5  # metres; a rectangle that comes nearer is shortened along its length, so that it stays a rectangle
        start = 0.0
        for a, b in ((corners[0], corners[1]), (corners[3], corners[2])):
            if b[2] <= clip:
                if a[2] <= clip:
                    return
                corners, pyramid = corners[[1, 0, 3, 2]], [level[:, ::-1] for level in pyramid]
                self.texture(corners, pyramid, label, gain, opacity)
                return
            if a[2] < clip:
                start = max(start, (clip - a[2]) / (b[2] - a[2]))
        near = corners[[0, 3]] + (corners[[1, 2]] - corners[[0, 3]]) * start
        view = np.array([near[0], corners[1], corners[2], near[1]])
        pixels = self.camera.project(view)
        x0, y0 = np.maximum(np.floor(pixels.min(0)).astype(int) - 1, 0).tolist()
        x1 = min(int(np.ceil(pixels[:, 0].max())) + 2, self.camera.width)
        y1 = min(int(np.ceil(pixels[:, 1].max())) + 2, self.camera.height)
        if x0 >= x1 or y0 >= y1:
            return
        tall = max(abs(pixels[0, 1] - pixels[3, 1]), abs(pixels[1, 1] - pixels[2, 1]))
        wide = np.ptp(pixels[:, 0]) / max(1.0 - start, 1e-3)
        # A receding wall shrinks more in length than in height; a level between the two avoids flicker in both.
        shrink = np.sqrt(max(pyramid[0].shape[0] / max(tall, 1), 1) * max(pyramid[0].shape[1] / max(wide, 1), 1))
        level = pyramid[min(int(np.log2(shrink) + 0.4), len(pyramid) - 1)]
        h, w = level.shape[:2]
        depth = float(view[:, 2].mean())
        source = np.array([[start * w, h], [w, h], [w, 0], [start * w, 0]], np.float32) - 0.5
        target = np.rint(pixels * (1 << SHIFT)) / (1 << SHIFT) - (x0, y0)
        matrix = cv2.getPerspectiveTransform(source, target.astype(np.float32))
        level = cv2.LUT(np.ascontiguousarray(level), self._table(depth, gain))
        size = (x1 - x0, y1 - y0)
        warped = cv2.warpPerspective(level, matrix, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        mask = np.zeros(size[::-1], np.uint8)
        points = np.rint((pixels - (x0, y0)) * (1 << SHIFT)).astype(np.int32)
        cv2.fillConvexPoly(mask, points, 255, cv2.LINE_8, SHIFT)
        image, labels = self.image[y0:y1, x0:x1], self.label[y0:y1, x0:x1]
        if opacity < 1:
            warped = cv2.addWeighted(warped, opacity, image, 1 - opacity, 0)
        cv2.copyTo(warped, mask, image)
        labels[mask > 0] = label

    def sprite(self, view: np.ndarray, size: tuple[float, float], pyramid: list[np.ndarray], gain: np.ndarray) -> None:
        """Draw a picture of a tree that faces the camera.

        Args:
            view: View point ``[3]`` of the bottom centre.
            size: Width and height, metres.
            pyramid: Pictures, uint8 BGRA, each half the size of the one before.
            gain: BGR light factors.
        """
        if view[2] < 1.0:
            return
        scale = self.camera.focal / view[2]
        w, h = max(2, int(round(size[0] * scale))), max(2, int(round(size[1] * scale)))
        x, y = np.rint(self.camera.project(view[None])[0]).astype(int).tolist()
        left, top = x - w // 2, y - h
        x0, y0 = max(left, 0), max(top, 0)
        x1, y1 = min(left + w, self.camera.width), min(top + h, self.camera.height)
        if x0 >= x1 or y0 >= y1:
            return
        step = int(np.clip(np.log2(max(pyramid[0].shape[0] / h, 1)) + 0.5, 0, len(pyramid) - 1))
        source = pyramid[step]
        zoom_x, zoom_y = source.shape[1] / w, source.shape[0] / h
        matrix = np.array([[zoom_x, 0, (x0 - left + 0.5) * zoom_x - 0.5], [0, zoom_y, (y0 - top + 0.5) * zoom_y - 0.5]])
        picture = cv2.warpAffine(
            source,
            matrix,
            (x1 - x0, y1 - y0),
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_REPLICATE,
        )
        mask = cv2.inRange(picture[:, :, 3], (101,), (255,))
        color = cv2.LUT(np.ascontiguousarray(picture[:, :, :3]), self._table(float(view[2]), gain))
        cv2.copyTo(color, mask, self.image[y0:y1, x0:x1])
        self.label[y0:y1, x0:x1][mask > 0] = TREE
