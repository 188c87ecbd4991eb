# SPDX-License-Identifier: Apache-2.0
"""Make the cloud of a LiDAR on the roof of the car that drives through a rendered town.

The drive knows its own geometry: every primitive that it draws lies on a plane or at a distance. A canvas that keeps
distances gives the exact point that each pixel shows. The cloud is such an image from the place of the LiDAR; one from
the place of the camera tells which points the camera truly sees.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from stdc_core.data.synthetic import SyntheticDrive
from stdc_core.data.synthetic.canvas import NEAR, Camera, Canvas

#: Metres of the LiDAR above the lens and behind it.
ABOVE, BEHIND = 0.6, 0.5

#: Metres that the LiDAR reaches.
REACH = 80.0


class DepthCanvas(Canvas):
    """Canvas that keeps the distance along the optical axis of whatever is drawn last at a pixel.

    Args:
        camera: Camera.
        light: Light of the drive, which the primitives ask for.

    Attributes:
        depth: float64 ``[H, W]``, metres; infinite for the sky.
    """

    def __init__(self, camera: Camera, light) -> None:
        size = camera.height, camera.width
        super().__init__(np.zeros((*size, 3), np.uint8), np.zeros(size, np.uint8), camera, light)
        across = (np.arange(camera.width) - camera.center[0]) / camera.focal
        down = (np.arange(camera.height) - camera.center[1]) / camera.focal
        self.rays = np.stack([*np.meshgrid(across, down), np.ones(size)], -1)
        self.depth = self._on_plane(camera.view(np.array([[0.0, 0, 0], [1, 0, 0], [0, 0, 1]])), self.rays)
        self.depth[~((self.depth > 0) & (self.depth < 600))] = np.inf

    @staticmethod
    def _on_plane(corners: np.ndarray, rays: np.ndarray) -> np.ndarray:
        """Return where rays meet the plane of three view points."""
        normal = np.cross(corners[1] - corners[0], corners[2] - corners[0])
        with np.errstate(divide='ignore', invalid='ignore'):
            return (normal @ corners[0]) / (rays @ normal)

    def _keep(self, draw: Callable[[], None], depth: Callable[[np.ndarray], np.ndarray | float]) -> None:
        """Draw, and keep the distance of the pixels that were drawn."""
        draw()
        drawn = np.nonzero(self.label)
        self.label[drawn] = 0
        self.depth[drawn] = np.maximum(depth(self.rays[drawn]), NEAR)

    def polygon(self, view, color, label, gain=1.0) -> None:
        self._keep(lambda: super(DepthCanvas, self).polygon(view, color, 255, gain), _plane_of(view))

    def stroke(self, view, width, color, label, gain=1.0) -> None:
        middle = float(view[[0, -1], 2].mean())
        self._keep(lambda: super(DepthCanvas, self).stroke(view, width, color, 255, gain), lambda rays: middle)

    def disc(self, view, radius, color, label, gain=1.0) -> None:
        self._keep(lambda: super(DepthCanvas, self).disc(view, radius, color, 255, gain), lambda rays: float(view[2]))

    def texture(self, corners, pyramid, label, gain, opacity=1.0) -> None:
        plane = _plane_of(corners)
        self._keep(lambda: super(DepthCanvas, self).texture(corners, pyramid, 255, gain, opacity), plane)

    def sprite(self, view, size, pyramid, gain) -> None:
        self._keep(lambda: super(DepthCanvas, self).sprite(view, size, pyramid, gain), lambda rays: float(view[2]))


def _plane_of(corners: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """Return the function of the distance on the plane of a polygon, by its three corners that are farthest apart."""
    first, second = corners[0], corners[np.argmax(np.linalg.norm(corners - corners[0], axis=1))]
    areas = np.linalg.norm(np.cross(corners - first, second - first), axis=1)
    plane = np.array([first, second, corners[np.argmax(areas)]])
    low, high = corners[:, 2].min(), corners[:, 2].max()
    return lambda rays: np.clip(DepthCanvas._on_plane(plane, rays), low, high)


def draw_depth(drive: SyntheticDrive, time: float, camera: Camera) -> DepthCanvas:
    """Return the distances that a camera at any place of the drive sees at a time in seconds."""
    canvas = DepthCanvas(camera, drive._world.style.light)
    drive.paint_things(canvas, time)
    return canvas


def lidar_cloud(
    drive: SyntheticDrive, time: float, beams: int = 64, around: float = 52.0, width: int = 1800
) -> tuple[np.ndarray, np.ndarray]:
    """Return the points of a LiDAR that looks ahead.

    Args:
        drive: Drive.
        time: Seconds.
        beams: Number of beams, from 20 degrees down to 8 degrees up.
        around: Degrees to each side.
        width: Columns of the image that the points come from.

    Returns:
        Points float32 ``[3, N]`` in the frame of the LiDAR (x forward, y left, z up), metres, and the matrix ``[4, 4]``
        from it to the optical frame of the drive's camera.
    """
    lens = drive.camera(time)
    forward = np.array([np.sin(lens.yaw), 0.0, np.cos(lens.yaw)])
    place = lens.position + (0, ABOVE, 0) - BEHIND * forward
    focal = width / 2 / np.tan(np.radians(around + 3))
    height = 2 * int(focal * np.tan(np.radians(20)) / np.cos(np.radians(around)))
    eye = Camera(place, lens.yaw, 0.0, focal, height, width)
    canvas = draw_depth(drive, time, eye)
    azimuth = np.radians(np.arange(-around, around, 0.2))
    elevation = np.radians(np.linspace(-20, 8, beams))
    azimuth, elevation = (each.reshape(-1) for each in np.meshgrid(azimuth, elevation))
    column = np.rint(eye.center[0] + focal * np.tan(azimuth)).astype(int)
    row = np.rint(eye.center[1] - focal * np.tan(elevation) / np.cos(azimuth)).astype(int)
    inside = (column >= 0) & (column < eye.width) & (row >= 0) & (row < eye.height)
    row, column = row[inside], column[inside]
    # The point that the pixel shows, which is exact, and not the one on the beam beside it.
    view = canvas.rays[row, column] * canvas.depth[row, column][:, None]
    view = view[np.linalg.norm(view, axis=1) < REACH]
    to_view = np.array([[0.0, -1, 0, 0], [0, 0, -1, 0], [1, 0, 0, 0], [0, 0, 0, 1]])
    to_lens = np.eye(4)
    to_lens[:3, :3] = lens.rotation @ eye.rotation.T
    to_lens[:3, 3] = lens.rotation @ (eye.position - lens.position)
    return (view @ to_view[:3, :3]).T.astype(np.float32), to_lens @ to_view
