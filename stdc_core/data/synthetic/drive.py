# SPDX-License-Identifier: Apache-2.0
"""Render a drive. Every frame depends only on scene, weather, seed and its index."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import cv2
import numpy as np

from stdc_core.classes import CAMVID, ClassTable
from stdc_core.data.synthetic.backdrop import Backdrop
from stdc_core.data.synthetic.canvas import Camera, Canvas
from stdc_core.data.synthetic.drawing import draw
from stdc_core.data.synthetic.light import WEATHER
from stdc_core.data.synthetic.scenery import Thing, things_in_view
from stdc_core.data.synthetic.scenes import SCENES
from stdc_core.data.synthetic.scenes.route import Route
from stdc_core.data.synthetic.shadows import cast_shadows
from stdc_core.data.synthetic.strip_ground import StripGround
from stdc_core.data.synthetic.town_ground import TownGround
from stdc_core.data.synthetic.world import START


class Frame(NamedTuple):
    """Frame of a drive.

    Args:
        image: uint8 ``[H, W, 3]`` BGR.
        label: CamVid class ids, uint8 ``[H, W]``.
        time: Time since the start, seconds.
    """

    image: np.ndarray
    label: np.ndarray
    time: float


class SyntheticDrive:
    """Rendered drive through a generated scene: a sequence of :class:`Frame`, which may be read in any order.

    Args:
        seed: Number that selects streets, weather and traffic; 0 or more.
        height: Image height, at least 32 pixels.
        width: Image width, at least 32 pixels.
        frames: Number of frames, at least 1.
        rate: Frames per second, above 0.
        scene: Kind of street, one of ``SCENES``.
        weather: Weather or time of day, one of ``WEATHER``; None draws it from the seed.

    Raises:
        ValueError: A number is out of its range, or a name does not exist.

    Example:
        >>> image, label, time = SyntheticDrive(seed=1, height=96, width=128)[0]
        >>> image.shape, label.shape, time
        ((96, 128, 3), (96, 128), 0.0)
    """

    classes: ClassTable = CAMVID

    def __init__(
        self,
        seed: int = 0,
        height: int = 360,
        width: int = 480,
        frames: int = 150,
        rate: float = 15.0,
        scene: str = 'town',
        weather: str | None = None,
    ) -> None:
        if seed < 0:
            raise ValueError(f'expected a seed of 0 or more, found {seed}')
        if height < 32 or width < 32:
            raise ValueError(f'expected height and width of at least 32 pixels, found {height} x {width}')
        if frames < 1:
            raise ValueError(f'expected at least 1 frame, found {frames}')
        if not rate > 0:
            raise ValueError(f'expected a positive rate in frames per second, found {rate}')
        if scene not in SCENES:
            raise ValueError(f'expected a scene of {", ".join(SCENES)}, found {scene!r}')
        if weather is not None and weather not in WEATHER:
            raise ValueError(f'expected a weather of {", ".join(WEATHER)}, found {weather!r}')
        self.seed, self.height, self.width = int(seed), int(height), int(width)
        self.frames, self.rate = int(frames), float(rate)
        self._world = SCENES[scene](self.seed, weather)
        focal = self._world.mount.focal * self.width
        self.camera_matrix = np.array([[focal, 0, width / 2 - 0.5], [0, focal, height / 2 - 0.5], [0, 0, 1]])
        self._backdrop = Backdrop(self._world, focal, self.height, self.width)
        self._ground = StripGround(self._world) if isinstance(self._world, Route) else TownGround(self._world)
        rng = np.random.default_rng([self.seed, 7])
        self._sway = rng.uniform(0, 6.28, 4)
        self._noise = rng.normal(0, 2.6, (self.height + 32, self.width + 32, 3)).round().astype(np.int16)
        y, x = np.mgrid[-1 : 1 : self.height * 1j, -1 : 1 : self.width * 1j]
        self._vignette = (1 - rng.uniform(0.08, 0.2) * (x * x + y * y) / 2).astype(np.float32)[..., None].repeat(3, 2)

    def __len__(self) -> int:
        return self.frames

    def __iter__(self) -> Iterator[Frame]:
        return (self[i] for i in range(self.frames))

    def __getitem__(self, index: int) -> Frame:
        if not -self.frames <= index < self.frames:
            raise IndexError(f'frame {index} of a drive of {self.frames}')
        index = int(index) % self.frames
        time = index / self.rate
        camera = self.camera(time)
        image = np.zeros((self.height, self.width, 3), np.uint8)
        label = np.full((self.height, self.width), 255, np.uint8)
        canvas = Canvas(image, label, camera, self._world.style.light)
        things = things_in_view(self._world, time, camera, self._sway[3])
        row = self._backdrop.paint(canvas)
        shadows = cast_shadows(canvas, self._world, things)
        self._ground.paint(canvas, row, shadows, self._mirror(camera, things, time) if canvas.light.wet else None)
        self.paint_things(canvas, time, things)
        return Frame(self._develop(image, index), label, time)

    def camera(self, time: float) -> Camera:
        """Return the camera at a time in seconds."""
        a, b, c, d = self._sway
        mount = self._world.mount
        s = START + self._world.style.speed * time
        x = mount.lane + 0.22 * np.sin(0.31 * time + a) + 0.08 * np.sin(0.83 * time + b)
        yaw = self._world.road.heading(s + 6.0) + 0.012 * np.sin(0.5 * time + c)
        pitch = mount.pitch + 0.003 * np.sin(2.1 * time + d) + 0.0015 * np.sin(7.3 * time + a)
        position = (float(self._world.road.center(s)) + x, mount.height + 0.01 * np.sin(5 * time + b), s)
        return Camera(position, yaw, pitch, self.camera_matrix[0, 0], self.height, self.width)

    def paint_things(self, canvas: Canvas, time: float, things: list[Thing] | None = None) -> None:
        """Draw the things on and beside the road from far to near, without sky and ground.

        Args:
            canvas: Canvas to draw on, with a camera anywhere on the drive.
            time: Time since the start, seconds.
            things: Things in view, from ``things_in_view``; None finds them.
        """
        if things is None:
            things = things_in_view(self._world, time, canvas.camera, self._sway[3])
        for _, item, heading in things:
            draw(canvas, self._world, item, heading, time)

    def _mirror(self, camera: Camera, things: list[Thing], time: float) -> np.ndarray:
        """Return the mirror image of sky and things in the ground, uint8 BGR ``[H, W, 3]``.

        It is what a camera as far below the ground as this one is above it sees, turned upside down.

        Args:
            camera: Camera at this time.
            things: Things in view.
            time: Time since the start, seconds.
        """
        x, y, z = camera.position
        below = Camera((x, -y, z), camera.yaw, -camera.pitch, camera.focal, camera.height, camera.width)
        image = np.zeros((self.height, self.width, 3), np.uint8)
        canvas = Canvas(image, np.zeros(image.shape[:2], np.uint8), below, self._world.style.light)
        self._backdrop.paint(canvas)
        self.paint_things(canvas, time, things)
        return np.ascontiguousarray(image[::-1])

    def _develop(self, image: np.ndarray, index: int) -> np.ndarray:
        """Add the effects of lens and sensor to frame ``index``: blur, dark corners and noise."""
        rng = np.random.default_rng([self.seed, 8, index])
        if self._world.style.light.beam:  # lamps outshine what is around them
            lamps = np.maximum(image, 150) - 150
            image = cv2.addWeighted(image, 1, cv2.GaussianBlur(lamps, (0, 0), self.width / 90), 1.6, 0)
        image = cv2.GaussianBlur(image, (3, 3), 0.5 * max(1.0, self.width / 960))
        image = cv2.multiply(image, self._vignette, dtype=cv2.CV_8U)
        top, left = rng.integers(0, 33, 2).tolist()
        grain = self._noise[top : top + self.height, left : left + self.width]
        return cv2.add(image, grain, dtype=cv2.CV_8U)
