# SPDX-License-Identifier: Apache-2.0
"""Render a drive through a town. Every frame depends only on the seed and its index."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

import cv2
import numpy as np

from stdc_core.classes import CAMVID, ClassTable
from stdc_core.data.synthetic import people, street, vehicles
from stdc_core.data.synthetic.canvas import Camera, Canvas
from stdc_core.data.synthetic.ground import Backdrop, Ground
from stdc_core.data.synthetic.item import Item
from stdc_core.data.synthetic.place import Place
from stdc_core.data.synthetic.world import CHUNK, VIEW, World

FOCAL = 0.92  # focal length as a share of the image width: a horizontal field of view of 57 degrees
HEIGHT = 1.35  # height of the camera above the road, metres
LANE = -1.6  # distance of the camera to the right of the centre line, metres: traffic drives on the left
START = 12.0  # distance of the camera along the road at time 0, metres


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
    """Rendered drive through a generated town: a sequence of :class:`Frame`, which may be read in any order.

    Args:
        seed: Number that selects town, weather and traffic; 0 or more.
        height: Image height, at least 32 pixels.
        width: Image width, at least 32 pixels.
        frames: Number of frames, at least 1.
        rate: Frames per second, above 0.

    Raises:
        ValueError: A number is out of its range.

    Example:
        >>> image, label, time = SyntheticDrive(seed=1, height=96, width=128)[0]
        >>> image.shape, label.shape, time
        ((96, 128, 3), (96, 128), 0.0)
    """

    classes: ClassTable = CAMVID

    def __init__(
        self, seed: int = 0, height: int = 360, width: int = 480, frames: int = 150, rate: float = 15.0
    ) -> None:
        if seed < 0:
            raise ValueError(f'expected a seed of 0 or more, found {seed}')
        if height < 32 or width < 32:
            raise ValueError(f'expected height and width of at least 32 pixels, found {height} x {width}')
        if frames < 1:
            raise ValueError(f'expected at least 1 frame, found {frames}')
        if not rate > 0:
            raise ValueError(f'expected a positive rate in frames per second, found {rate}')
        self.seed, self.height, self.width = int(seed), int(height), int(width)
        self.frames, self.rate = int(frames), float(rate)
        focal = FOCAL * self.width
        self.camera_matrix = np.array([[focal, 0, width / 2 - 0.5], [0, focal, height / 2 - 0.5], [0, 0, 1]])
        self._world = World(self.seed)
        self._backdrop = Backdrop(self._world, focal, self.height, self.width)
        self._ground = Ground(self._world)
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
        things = self._things(time, camera)
        row = self._backdrop.paint(canvas)
        self._ground.paint(canvas, row, self._shadows(canvas, things))
        for _, item, heading in things:
            self._draw(canvas, item, heading, time)
        return Frame(self._develop(image, index), label, time)

    def camera(self, time: float) -> Camera:
        """Return the camera at a time in seconds."""
        a, b, c, d = self._sway
        s = START + self._world.style.speed * time
        x = LANE + 0.22 * np.sin(0.31 * time + a) + 0.08 * np.sin(0.83 * time + b)
        yaw = self._world.road.heading(s + 6.0) + 0.012 * np.sin(0.5 * time + c)
        # The camera looks up a little, so that the horizon is below the middle, as in CamVid.
        pitch = -0.035 + 0.003 * np.sin(2.1 * time + d) + 0.0015 * np.sin(7.3 * time + a)
        position = (float(self._world.road.center(s)) + x, HEIGHT + 0.01 * np.sin(5 * time + b), s)
        return Camera(position, yaw, pitch, self.camera_matrix[0, 0], self.height, self.width)

    def _things(self, time: float, camera: Camera) -> list[tuple[float, Item, float]]:
        """Return the things in view, from far to near.

        Args:
            time: Time since the start, seconds.
            camera: Camera at this time.

        Returns:
            Sorting key, item at its present place, and its heading in radians to the right.
        """
        world, here = self._world, camera.position[2]
        chunk = int(here // CHUNK)
        found = []
        if world.lead:
            gap = world.lead_gap + 3.5 * np.sin(0.23 * time + self._sway[3])
            lead = replace(world.lead_item, s=here + gap, x=LANE + 0.1 * np.sin(0.4 * time))
            found.append((lead.s, lead, world.road.heading(lead.s)))
        for k in range(chunk - 2, chunk + 9):
            for item in world.items(k):
                s, x, turn = item.s, item.x, 0.0
                met = time - (s - START) / world.style.speed  # 0 when the camera passes the starting point of the item
                if item.kind == 'person' and len(item.extra) == 2:
                    way, pace = item.extra
                    span = world.style.half_road + 1.2
                    walked = np.clip((met + 34 / world.style.speed) * pace + 2 * span, 0, 2 * span)
                    x, turn = way * (walked - span), way * np.pi / 2
                    if 0 < walked < 2 * span:
                        item = replace(item, speed=way * pace)
                elif item.speed:
                    s += item.speed * met
                    turn = np.pi if item.speed < 0 else 0.0
                elif item.kind == 'person':
                    turn = np.pi if item.variant % 2 else -np.sign(x) * np.pi / 2
                elif item.kind == 'car' and item.extra:
                    turn = np.pi if item.extra[0] > 0 else 0.0
                far = s + item.length
                if far < here - 6 or s > here + VIEW:
                    continue
                # Long things are sorted by their far end, so that they are painted before everything in front of them.
                key = far + 1.0 if item.length else s
                found.append((key, replace(item, s=s, x=x), world.road.heading(s) + turn))
        found.sort(key=lambda thing: (-thing[0], -abs(thing[1].x), thing[1].kind))
        return found

    def _place(self, camera: Camera, item: Item, heading: float) -> Place:
        """Return ground point and direction of an item."""
        return Place(camera, (float(self._world.road.center(item.s)) + item.x, 0.0, item.s), heading)

    def _draw(self, canvas: Canvas, item: Item, heading: float, time: float) -> None:
        """Draw an item with its drawing routine."""
        world, kind = self._world, item.kind
        if kind == 'house':
            street.draw_house(canvas, world, item)
        elif kind == 'park':
            street.draw_park(canvas, world, item)
        elif kind == 'tree':
            street.draw_tree(canvas, world, item)
        elif kind == 'rail':
            street.barrier(canvas, world, item.x, item.s, item.s + item.length, 1, 1.05)
        else:
            place = self._place(canvas.camera, item, heading)
            if place.view(np.zeros((1, 3)))[0, 2] < (-6.0 if kind in ('car', 'bus') else 0.5):
                return
            if kind in ('car', 'bus'):
                vehicles.draw_car(canvas, place, item)
            elif kind == 'person':
                people.draw_person(canvas, place, item, item.speed, time)
            elif kind == 'cyclist':
                people.draw_cyclist(canvas, place, item, time)
            elif kind == 'lamp':
                street.draw_lamp(canvas, place, item)
            elif kind == 'sign':
                street.draw_sign(canvas, place, item)
            elif kind == 'signal':
                street.draw_signal(canvas, place, item, time)
            else:
                street.draw_bollard(canvas, place)

    def _shadows(self, canvas: Canvas, things: list[tuple[float, Item, float]]) -> list[np.ndarray]:
        """Return the cast shadows on the ground, as convex polygons in view axes."""
        light, world, camera = canvas.light, self._world, canvas.camera
        if not light.strength:
            return []
        shift = -light.sun[[0, 2]] / max(light.sun[1], 0.2)
        polygons = []

        def cast(base: np.ndarray, height: float, lift: float = 0.0) -> None:
            """Add the shadow of an upright prism.

            Args:
                base: Corners of its base, world x and z, ``[N, 2]``.
                height: Height of its top, metres.
                lift: Height of its bottom, metres.
            """
            swept = np.concatenate([base + shift * lift, base + shift * height]).astype(np.float32)
            hull = cv2.convexHull(swept)[:, 0].astype(np.float64)
            polygons.append(camera.view(np.stack([hull[:, 0], np.zeros(len(hull)), hull[:, 1]], 1)))

        for _, item, heading in things:
            if item.s - camera.position[2] > 110:
                continue
            x, z = float(world.road.center(item.s)) + item.x, item.s
            box = np.array([[-1.0, -1], [1, -1], [1, 1], [-1, 1]])
            if item.kind == 'house':
                deep, end = item.size * street.DEPTH, item.s + item.length
                far = float(world.road.center(end)) + item.x
                cast(np.array([[x, z], [far, end], [far + deep, end], [x + deep, z]]), street.house_height(world, item))
            elif item.kind in ('car', 'bus'):
                half, reach, height = vehicles.footprint(item)
                place = self._place(camera, item, heading)
                corners = np.array([[half * a, 0, reach * b] for a, b in box])
                cast(place.world(corners)[:, [0, 2]], height)
            elif item.kind == 'tree':
                ring = np.arange(10) * (2 * np.pi / 10)
                crown = np.stack([np.cos(ring), np.sin(ring)], 1) * item.size * 0.3 + (x, z)
                cast(crown, item.size * 0.9, item.size * 0.45)
                cast(box * 0.1 + (x, z), item.size * 0.5)
            elif item.kind in ('person', 'cyclist'):
                cast(box * 0.2 + (x, z), item.size if item.kind == 'person' else 1.6)
            elif item.kind in ('lamp', 'sign', 'signal', 'bollard'):
                cast(box * 0.08 + (x, z), item.size if item.kind in ('lamp', 'sign') else 1.0)
        return polygons

    def _develop(self, image: np.ndarray, index: int) -> np.ndarray:
        """Add the effects of lens and sensor to frame ``index``: blur, dark corners and noise."""
        rng = np.random.default_rng([self.seed, 8, index])
        image = cv2.GaussianBlur(image, (3, 3), 0.5 * max(1.0, self.width / 960))
        image = cv2.multiply(image, self._vignette, dtype=cv2.CV_8U)
        top, left = rng.integers(0, 33, 2).tolist()
        grain = self._noise[top : top + self.height, left : left + self.width]
        return cv2.add(image, grain, dtype=cv2.CV_8U)
