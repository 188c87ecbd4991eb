# SPDX-License-Identifier: Apache-2.0
"""A bird's-eye grid of where one can drive, from a mask and the camera's pose above flat ground. Needs no ROS.

What the grid can know from one camera: a pixel that shows drivable ground is ground, so the cell below it is free. A
pixel that shows anything else may be something that stands up, and all that is seen of it above its foot falls on the
ground behind it. Of each stretch of such cells, seen along the ray from the camera, only the near edge is therefore
marked occupied, ``DEPTH`` cells deep; what is behind is unknown, until the camera sees drivable ground again.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import cv2
import numpy as np

from stdc_core.classes import IGNORE, ClassTable
from stdc_ros.ground.camera_info import CameraInfoError
from stdc_ros.ground.camera_model import CameraModel
from stdc_ros.messages.cdr import TYPES

#: Values of ``nav_msgs/OccupancyGrid``.
FREE, OCCUPIED, UNKNOWN = 0, 100, -1

#: How many cells deep an edge is marked. An edge that runs along the ray, such as a kerb far ahead, is a closed line of
#: cells where it is seen at more than 1 in 16, which is 3.6 degrees.
DEPTH = 16

#: Cells towards the camera at which a cell looks for what is not blocked: near ones for narrow gaps before an edge.
_STEPS = (2, 4, 8, DEPTH)

#: More than this is a mistyped extent or resolution; and OpenCV samples no more cells a side.
MAX_CELLS = 4_000_000
MAX_SIDE = 32_766


class GridError(ValueError):
    """Settings that make no grid, or a mask that does not fit."""


@dataclass(frozen=True)
class GridSettings:
    """Where the grid lies and what it takes for drivable.

    The grid lies in the ground frame: z = 0 is the ground, x forward, y left (REP 103). It covers at least the extent
    given, in whole cells from (x_min, y_min).

    Args:
        x_min, x_max, y_min, y_max: extent, metres.
        resolution: side of a cell, metres.
        drivable: names of the classes that are drivable.
        min_confidence: 0 to 1; pixels with less are unknown. 0: none, and no confidence is needed. Networks are unsure
            along edges: a high minimum leaves few that are occupied.

    Raises:
        GridError: the extent is empty or has too many cells, or a number is out of range.
    """

    x_min: float = 0.0
    x_max: float = 40.0
    y_min: float = -10.0
    y_max: float = 10.0
    resolution: float = 0.1
    drivable: tuple[str, ...] = ('road',)
    min_confidence: float = 0.5

    def __post_init__(self) -> None:
        numbers = self.x_min, self.x_max, self.y_min, self.y_max, self.resolution
        if not all(map(math.isfinite, numbers)) or self.x_min >= self.x_max or self.y_min >= self.y_max:
            raise GridError(
                f'a grid from x {self.x_min} to {self.x_max} and y {self.y_min} to {self.y_max} m, '
                'expected each to end after it begins'
            )
        if self.resolution <= 0:
            raise GridError(f'a grid with cells of {self.resolution} m, expected more than 0')
        if self.width * self.height > MAX_CELLS or max(self.width, self.height) > MAX_SIDE:
            raise GridError(
                f'a grid of {self.width} x {self.height} cells of {self.resolution} m, '
                f'expected at most {MAX_CELLS} in all and {MAX_SIDE} a side'
            )
        if not 0 <= self.min_confidence <= 1:
            raise GridError(f'a minimum confidence of {self.min_confidence}, expected 0 to 1')

    @property
    def width(self) -> int:
        """Cells along x: columns."""
        return self._cells(self.x_min, self.x_max)

    @property
    def height(self) -> int:
        """Cells along y: rows."""
        return self._cells(self.y_min, self.y_max)

    def _cells(self, low: float, high: float) -> int:
        # (0.4 - 0.1) / 0.1 is a little more than 3; and a quotient may be infinite.
        return max(1, math.ceil(min((high - low) / self.resolution, 1e9) - 1e-6))

    def drivable_ids(self, classes: ClassTable) -> tuple[int, ...]:
        """Ids of the drivable classes in a model's table.

        Raises:
            GridError: the model has no such class, or none is given.
        """
        unknown = [name for name in self.drivable if name not in classes.names]
        if unknown or not self.drivable:
            found = f'no class {", ".join(map(repr, unknown))}' if unknown else 'no drivable class given'
            raise GridError(f'drivable classes: {found}; expected some of {", ".join(classes.names)}')
        return tuple(classes.names.index(name) for name in self.drivable)


class _Table(NamedTuple):
    """Maps for ``cv2.remap``: pixels (x, y), int16 ``[height, width, 2]``; -1, -1 where there is none."""

    cells: np.ndarray  # of the centres of the cells
    nearer: tuple[np.ndarray, ...]  # of the points that are so many cells nearer to the camera, by ``_STEPS``


class DrivableGrid:
    """Makes grids of masks; one object per camera.

    A table tells which pixel shows which cell. It is made anew when camera, pose or mask size are not those of the last
    call.

    Args:
        settings: where the grid lies and what is drivable.
        classes: of the model that makes the masks.

    Attributes:
        tables: how many tables have been made.

    Raises:
        GridError: a drivable class is none of the model's.
    """

    def __init__(self, settings: GridSettings, classes: ClassTable) -> None:
        self.settings = settings
        self.tables = 0
        states = np.full(256, UNKNOWN, np.int8)
        states[: len(classes)] = OCCUPIED
        states[list(settings.drivable_ids(classes))] = FREE
        self._states = states.view(np.uint8)  # cv2.LUT of other types is slower
        self._threshold = math.ceil(settings.min_confidence * 255)
        self._camera: CameraModel | None = None
        self._pose = np.zeros((4, 4))
        self._size = (0, 0)
        self._table: _Table | None = None

    def __call__(
        self, mask: np.ndarray, confidence: np.ndarray | None, camera: CameraModel, pose: np.ndarray
    ) -> np.ndarray:
        """The grid, int8 ``[height, width]``: ``[i, j]`` is the cell whose corner is at y_min + i and x_min + j cells.

        0 is free, 100 occupied; -1, unknown, are cells out of view, behind the camera or beyond what its distortion
        model says, those whose pixel has no class or too little confidence, and those hidden behind an occupied edge.

        A cell has the class of the pixel that shows its centre. (That of most of nine points in it was right no more
        often: in 98.4 % of the cells of six rendered frames either way.)

        Args:
            mask: class ids, uint8 ``[H, W]``, of all of the camera's image at any scale.
            confidence: uint8 ``[H, W]``, 0 to 255; not needed if the minimum is 0.
            camera: the camera's model.
            pose: of the optical frame in the ground frame, ``[4, 4]``.

        Raises:
            GridError: mask or confidence are none, or do not fit each other.
            CameraInfoError: the camera is not above the ground.
        """
        self._check(mask, confidence)
        table = self._look_up(camera, pose, mask.shape)
        cells = self._look(mask, table.cells)
        # Edges are those of the classes, sure or not: else all that is unsure inside a thing would be a new edge.
        blocked = cells == OCCUPIED
        for nearer in table.nearer:
            blocked &= self._look(mask, nearer) == OCCUPIED
        cells[blocked] = UNKNOWN
        if self._threshold:
            sampled = cv2.remap(confidence, table.cells, None, cv2.INTER_NEAREST, borderValue=0)  # type: ignore[call-overload]
            cells[sampled < self._threshold] = UNKNOWN
        return cells

    def _look(self, mask: np.ndarray, pixels: np.ndarray) -> np.ndarray:
        """State of these pixels of the mask, int8 ``[height, width]``."""
        # One map holds x and y. The stubs of cv2 do not know that the second may be None.
        labels = cv2.remap(mask, pixels, None, cv2.INTER_NEAREST, borderValue=IGNORE)  # type: ignore[call-overload]
        return cv2.LUT(labels, self._states).view(np.int8)

    def _check(self, mask: np.ndarray, confidence: np.ndarray | None) -> None:
        if mask.dtype != np.uint8 or mask.ndim != 2 or not mask.size:
            raise GridError(f'a mask of {mask.dtype} {list(mask.shape)}, expected uint8 [H, W]')
        if not self._threshold:
            return
        if confidence is None:
            raise GridError(f'no confidence, expected it for a minimum of {self.settings.min_confidence}')
        if confidence.dtype != np.uint8 or confidence.shape != mask.shape:
            raise GridError(
                f'a confidence of {confidence.dtype} {list(confidence.shape)}, expected uint8 {list(mask.shape)}'
            )

    def _look_up(self, camera: CameraModel, pose: np.ndarray, size: tuple[int, int]) -> _Table:
        same = size == self._size and camera == self._camera and np.array_equal(pose, self._pose)
        if self._table is None or not same:
            self._table = _make_table(self.settings, camera.scaled(size[1], size[0]), pose)
            self._camera, self._pose, self._size = camera, pose.copy(), size
            self.tables += 1
        return self._table


def _make_table(settings: GridSettings, camera: CameraModel, pose: np.ndarray) -> _Table:
    axes, position = pose[:3, :3], pose[:3, 3]
    if not np.isfinite(pose).all() or position[2] <= 0:
        raise CameraInfoError(
            f'the camera is at x, y, z {position.round(3).tolist()} m in the ground frame, '
            'expected z above 0, which is the ground'
        )
    # From the point below the camera; single precision holds a pixel to a thousandth, in half the time.
    x, y = np.meshgrid(
        (settings.x_min + (np.arange(settings.width) + 0.5) * settings.resolution - position[0]).astype(np.float32),
        (settings.y_min + (np.arange(settings.height) + 0.5) * settings.resolution - position[1]).astype(np.float32),
    )
    distance = np.maximum(np.hypot(x, y), np.float32(1e-6))
    turn, drop = axes[:2].astype(np.float32), (position[2] * axes[2]).astype(np.float32)

    def pixels(step: int) -> np.ndarray:
        """Of the points so many cells nearer to the camera, but not behind it."""
        share = np.maximum(1 - np.float32(step * settings.resolution) / distance, 0)
        near_x, near_y = x * share, y * share
        column, row = camera.project(*(near_x * turn[0, i] + near_y * turn[1, i] - drop[i] for i in range(3)))
        if step:
            # The ray of a cell at the image's side may begin beside the image: that is no edge of anything.
            column = np.clip(column, 0, camera.width - 1)
        with np.errstate(invalid='ignore'):
            inside = (column > -0.5) & (column < camera.width - 0.5) & (row > -0.5) & (row < camera.height - 0.5)
            return np.stack([np.where(inside, np.rint(axis), -1).astype(np.int16) for axis in (column, row)], -1)

    return _Table(pixels(0), tuple(pixels(step) for step in _STEPS))


def make_grid_message(message_class: type, header: Any, cells: np.ndarray, settings: GridSettings) -> Any:
    """A ``nav_msgs/OccupancyGrid``, of rclpy or of ``stdc_ros.messages.cdr.TYPES``.

    Args:
        message_class: the class of the message.
        header: its header, with the stamp of the image and the frame_id of the ground frame.
        cells: int8 ``[height, width]`` of :class:`DrivableGrid`.
        settings: of that grid.
    """
    position = {'x': settings.x_min, 'y': settings.y_min, 'z': 0.0}
    size = {'resolution': settings.resolution, 'width': settings.width, 'height': settings.height}
    cells = np.ascontiguousarray(cells)
    if hasattr(message_class, '__msgtype__'):  # rosbags: dataclasses without defaults, that hold numpy arrays
        point, quaternion, pose, meta = (
            TYPES.types[name]
            for name in (
                'geometry_msgs/msg/Point',
                'geometry_msgs/msg/Quaternion',
                'geometry_msgs/msg/Pose',
                'nav_msgs/msg/MapMetaData',
            )
        )
        origin = pose(point(**position), quaternion(x=0.0, y=0.0, z=0.0, w=1.0))
        return message_class(header, meta(map_load_time=header.stamp, origin=origin, **size), cells.reshape(-1))
    message = message_class(header=header)
    message.info.map_load_time = header.stamp
    for name, value in size.items():
        setattr(message.info, name, value)
    for name, value in position.items():
        setattr(message.info.origin.position, name, value)
    # The generated setter looks at every value of a numpy array.
    message.data.frombytes(cells.data)
    return message
