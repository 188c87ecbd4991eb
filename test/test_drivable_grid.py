# SPDX-License-Identifier: Apache-2.0
"""Test the grid against rendered ground: chessboards, standing objects and the streets of the synthetic drives."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import cv2
import numpy as np
import pytest

from stdc_core.classes import CAMVID
from stdc_core.data.synthetic import SyntheticDrive
from stdc_ros.ground import drivable_grid
from stdc_ros.ground.camera_info import CameraInfoError
from stdc_ros.ground.camera_model import CameraModel
from stdc_ros.ground.drivable_grid import DEPTH, FREE, OCCUPIED, UNKNOWN, DrivableGrid, GridError, GridSettings
from stdc_ros.ground.pose import pose_of_body
from stdc_ros.messages.cdr import TYPES, decode, encode

ROAD, SIDEWALK, SKY, CAR = (CAMVID.names.index(name) for name in ('road', 'sidewalk', 'sky', 'car'))

#: Camera at 1.2 m above the ground that looks ahead, with the horizon in the middle row.
CAMERA = CameraModel(640, 480, (500.0, 500.0), (319.5, 239.5))
POSE = pose_of_body([0, 0, 1.2, 0, 0, 0])
SURE = GridSettings(x_max=20.0, min_confidence=0.0)


def rays(camera: CameraModel) -> np.ndarray:
    """Return the direction of every pixel in the optical frame, ``[H, W, 3]``, by OpenCV; NaN where it finds none."""
    pixels = np.stack(np.meshgrid(np.arange(camera.width), np.arange(camera.height)), -1).reshape(-1, 1, 2) * 1.0
    (fx, fy), (cx, cy) = camera.focal, camera.center
    matrix = np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1.0]])
    lens = np.array([*camera.distortion, *[0.0] * 8])
    if camera.fisheye:
        found = cv2.fisheye.undistortPoints(pixels, matrix, lens[:4])
    else:
        stop = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 100, 1e-12)
        found = cv2.undistortPointsIter(pixels, matrix, lens[:8], np.eye(3), matrix, stop)
        found = (found - (cx, cy)) / (fx, fy)
    flat = found.reshape(camera.height, camera.width, 2)
    return np.dstack([flat, np.ones(flat.shape[:2])])


def render(camera: CameraModel, pose: np.ndarray, ground: Callable, wall: tuple | None = None) -> np.ndarray:
    """Render the mask of flat ground below the sky.

    Args:
        camera: Camera that sees it.
        pose: Pose of the camera.
        ground: Function that returns the class ids at x and y, metres.
        wall: x, smallest and largest y, and height in metres of a wall of class car that faces the camera.
    """
    direction = rays(camera) @ pose[:3, :3].T
    with np.errstate(divide='ignore', invalid='ignore'):
        reach = -pose[2, 3] / direction[..., 2]
        x, y = (pose[axis, 3] + reach * direction[..., axis] for axis in (0, 1))
        mask = np.where(reach > 0, ground(x, y), SKY).astype(np.uint8)
        if wall:
            at, low, high, height = wall
            reach_wall = (at - pose[0, 3]) / direction[..., 0]
            y, z = (pose[axis, 3] + reach_wall * direction[..., axis] for axis in (1, 2))
            hit = (reach_wall > 0) & ((reach < 0) | (reach_wall < reach)) & (y > low) & (y < high) & (z < height)
            mask[hit] = CAR
    return mask


def centers(settings: GridSettings) -> tuple[np.ndarray, np.ndarray]:
    """Return x and y of the cell centres, ``[height, width]``."""
    return np.meshgrid(
        settings.x_min + (np.arange(settings.width) + 0.5) * settings.resolution,
        settings.y_min + (np.arange(settings.height) + 0.5) * settings.resolution,
    )


def everywhere(class_id: int) -> np.ndarray:
    return np.full((CAMERA.height, CAMERA.width), class_id, np.uint8)


@pytest.mark.parametrize(
    'lens',
    [
        {},
        {'distortion': (-0.28, 0.09, 0.001, -0.0006)},
        {'distortion': (5.8, 3.1, 0.0004, -0.0002, 0.16, 6.2, 4.9, 0.8)},
        {'distortion': (0.03, -0.011, 0.004, -0.0009), 'fisheye': True},
    ],
    ids=['pinhole', 'plumb_bob', 'rational_polynomial', 'equidistant'],
)
def test_grid_of_a_chessboard(lens):
    camera = CameraModel(640, 480, (330.0, 335.0), (310.5, 244.0), **lens)
    pose = pose_of_body([0.5, -0.3, 1.5, 0.05, 0.5, 0.2])
    side = 0.5

    def board(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return np.where((np.floor(x / side) + np.floor(y / side)) % 2, ROAD, SIDEWALK)

    settings = GridSettings(0.0, 5.0, -3.0, 3.0, 0.05, min_confidence=0.0)
    grid = DrivableGrid(settings, CAMVID)(render(camera, pose, board), None, camera, pose)
    x, y = centers(settings)
    # A cell on the border of two squares may have either class.
    border = np.minimum(*(np.abs(axis / side - np.rint(axis / side)) * side for axis in (x, y)))
    inner = (border > 0.03) & (grid != UNKNOWN)
    assert inner.sum() > 4000
    np.testing.assert_array_equal(grid[inner], np.where(board(x, y) == ROAD, FREE, OCCUPIED)[inner])


def test_rows_are_y_and_columns_x_from_the_lower_right_corner():
    settings = GridSettings(2.0, 12.0, -4.0, 5.0, 0.5, min_confidence=0.0)
    # A square metre of road, 6 to 7 m ahead and 2 to 3 m to the left; 255 (no class) elsewhere.
    mask = render(CAMERA, POSE, lambda x, y: np.where((x > 6) & (x < 7) & (y > 2) & (y < 3), ROAD, 255))
    grid = DrivableGrid(settings, CAMVID)(mask, None, CAMERA, POSE)
    assert grid.dtype == np.int8
    assert grid.shape == (settings.height, settings.width) == (18, 20)
    expected = np.full((18, 20), UNKNOWN)
    expected[12:14, 8:10] = FREE
    np.testing.assert_array_equal(grid, expected)


@pytest.mark.parametrize('extent', [(0.0, 12.0, -4.0, 5.0), (-8.0, 12.0, -9.0, 5.0), (4.0, 9.0, 1.0, 4.0)])
def test_extent_only_moves_the_window(extent):
    mask = render(CAMERA, POSE, lambda x, y: np.where(x + y > 7, ROAD, SIDEWALK), (9, 1, 3, 1.5))
    settings = GridSettings(*extent, 0.25, min_confidence=0.0)
    part = DrivableGrid(settings, CAMVID)(mask, None, CAMERA, POSE)
    whole = DrivableGrid(GridSettings(-20.0, 20.0, -20.0, 20.0, 0.25, min_confidence=0.0), CAMVID)
    row, column = round((extent[2] + 20) / 0.25), round((extent[0] + 20) / 0.25)
    expected = whole(mask, None, CAMERA, POSE)[row : row + settings.height, column : column + settings.width]
    np.testing.assert_array_equal(part, expected)
    assert set(np.unique(part)) == {FREE, OCCUPIED, UNKNOWN}


def test_cells_out_of_view_are_unknown():
    settings = GridSettings(-10.0, 20.0, min_confidence=0.0)
    x, y = centers(settings)
    grid = DrivableGrid(settings, CAMVID)(everywhere(ROAD), None, CAMERA, POSE)
    # Cells nearer than the lowest row of the image, or further to the side than its outermost columns.
    nearest, widest = 1.2 * 500 / 240, 320 / 500
    np.testing.assert_array_equal(grid == FREE, (x > nearest) & (np.abs(y) < widest * x))
    assert (grid[grid != FREE] == UNKNOWN).all()


def test_pixels_above_the_horizon_give_no_cells():
    up = pose_of_body([0, 0, 1.2, 0, -0.6, 0])
    settings = GridSettings(-40.0, 40.0, min_confidence=0.0)
    for class_id in (ROAD, CAR):
        assert (DrivableGrid(settings, CAMVID)(everywhere(class_id), None, CAMERA, up) == UNKNOWN).all()


def test_cells_beyond_the_distortion_model_are_unknown():
    lens = CameraModel(640, 480, (300.0, 300.0), (319.5, 239.5), (-0.4,))
    settings = GridSettings(0.0, 10.0, -30.0, 30.0, min_confidence=0.0)
    grid = DrivableGrid(settings, CAMVID)(everywhere(ROAD), None, lens, POSE)
    x, y = centers(settings)
    tangent = np.hypot(y, 1.2) / x
    assert (grid[tangent < 0.75] == FREE).any()
    assert (grid[tangent > (1 / 1.2) ** 0.5] == UNKNOWN).all()  # where r - 0.4 r^3 has its maximum


def test_cells_without_class_or_confidence_are_unknown():
    x, y = centers(SURE)
    mask = render(CAMERA, POSE, lambda x, y: np.where(y > 1, 255, ROAD))
    sure = render(CAMERA, POSE, lambda x, y: np.where(x > 8, 127, 128))  # just below and above half of 255
    seen = DrivableGrid(SURE, CAMVID)(everywhere(ROAD), None, CAMERA, POSE) == FREE
    grid = DrivableGrid(GridSettings(x_max=20.0, min_confidence=0.5), CAMVID)(mask, sure, CAMERA, POSE)
    clear = (np.abs(x - 8) > 0.1) & (np.abs(y - 1) > 0.1)
    np.testing.assert_array_equal((grid == FREE)[clear], (seen & (x < 8) & (y < 1))[clear])
    assert (grid[grid != FREE] == UNKNOWN).all()
    # Without a minimum, the confidence has no effect.
    np.testing.assert_array_equal(
        DrivableGrid(SURE, CAMVID)(mask, sure, CAMERA, POSE), DrivableGrid(SURE, CAMVID)(mask, None, CAMERA, POSE)
    )


def test_only_the_near_edge_of_objects_is_occupied():
    mask = render(CAMERA, POSE, lambda x, y: np.full_like(x, ROAD), (10, -1, 1, 1.5))
    grid = DrivableGrid(SURE, CAMVID)(mask, None, CAMERA, POSE)
    x, y = centers(SURE)
    inner = np.abs(y) < 0.08 * x
    depth = DEPTH * SURE.resolution
    assert (grid[inner & (x > 3) & (x < 9.9)] == FREE).all()
    assert (grid[inner & (x > 10.1) & (x < 9.9 + depth)] == OCCUPIED).all()
    assert (grid[inner & (x > 10.1 + depth)] == UNKNOWN).all()
    assert (grid[(np.abs(y) > 0.11 * x) & (np.abs(y) < 0.6 * x) & (x > 3)] == FREE).all()
    # The hidden area behind it has no occupied sides.
    assert (x[grid == OCCUPIED] < 10.2 + depth).all()


def test_unsure_pixels_inside_an_object_make_no_edge():
    mask = render(CAMERA, POSE, lambda x, y: np.full_like(x, ROAD), (10, -1, 1, 1.5))
    sure = render(CAMERA, POSE, lambda x, y: np.where((x > 12) & (x < 14), 60, 200))
    grid = DrivableGrid(GridSettings(x_max=20.0, min_confidence=0.5), CAMVID)(mask, sure, CAMERA, POSE)
    x, _y = centers(SURE)
    assert (grid == OCCUPIED).any()
    assert (x[grid == OCCUPIED] < 10.2 + DEPTH * SURE.resolution).all()


def test_ground_beyond_a_low_object_is_free():
    low = render(CAMERA, POSE, lambda x, y: np.full_like(x, ROAD), (10, -1, 1, 0.4))
    grid = DrivableGrid(SURE, CAMVID)(low, None, CAMERA, POSE)
    x, y = centers(SURE)
    inner, shadow = np.abs(y) < 0.08 * x, 10 * 1.2 / (1.2 - 0.4)
    assert (grid[inner & (x > 12) & (x < shadow - 0.2)] == UNKNOWN).all()
    assert (grid[inner & (x > shadow + 0.2)] == FREE).all()


@pytest.mark.parametrize('pitch', [-0.2, 0.0, 0.2])
def test_object_that_fills_the_image(pitch):
    pose = pose_of_body([0, 0, 1.2, 0, pitch, 0])
    grid = DrivableGrid(SURE, CAMVID)(everywhere(CAR), None, CAMERA, pose)
    x, y = centers(SURE)
    nearest = 1.2 / np.tan(np.arctan(240 / 500) + pitch)
    middle = np.abs(y) < 0.3 * x
    assert (grid[middle & (x > nearest + 0.1) & (x < nearest + 1.3)] == OCCUPIED).all()
    assert (grid[x > nearest + DEPTH * SURE.resolution + 0.1] == UNKNOWN).all()


def test_edge_along_the_view_has_no_gaps():
    tele = CameraModel(1920, 1080, (1900.0, 1900.0), (959.5, 539.5))
    settings = GridSettings(8.0, 40.0, min_confidence=0.0)
    mask = render(tele, POSE, lambda x, y: np.where(y > 3, SIDEWALK, ROAD))
    grid = DrivableGrid(settings, CAMVID)(mask, None, tele, POSE)
    x, y = centers(settings)
    assert (grid[(y < 2.9) & (np.abs(y) < 0.4 * x)] == FREE).all()
    assert (grid[y > 3.1] != FREE).all()
    kerb = (grid == OCCUPIED) & (y > 2.9) & (y < 3.2)
    assert kerb.any(0).all()


def test_mask_of_another_size_gives_the_same_grid():
    ground, wall = (lambda x, y: np.where(np.abs(y) < 3, ROAD, SIDEWALK)), (9, -1, 1, 1.5)
    small = CAMERA.scaled(320, 240)
    half = DrivableGrid(SURE, CAMVID)(render(small, POSE, ground, wall), None, CAMERA, POSE)
    full = DrivableGrid(SURE, CAMVID)(render(CAMERA, POSE, ground, wall), None, CAMERA, POSE)
    near = centers(SURE)[0] < 8
    assert (half == full)[near].mean() > 0.98
    assert (half == full).mean() > 0.95


def test_table_is_recomputed_only_after_changes():
    grid, road = DrivableGrid(SURE, CAMVID), everywhere(ROAD)
    first = grid(road, None, CAMERA, POSE)
    again = grid(road.copy(), None, CameraModel(640, 480, (500.0, 500.0), (319.5, 239.5)), POSE.copy())
    assert grid.tables == 1
    np.testing.assert_array_equal(again, first)
    higher = POSE.copy()
    higher[2, 3] = 1.5
    for count, change in enumerate(
        [
            (road, None, CAMERA, higher),
            (road[::2, ::2].copy(), None, CAMERA, higher),
            (road, None, CAMERA.scaled(1280, 960), higher),
            (road, None, CameraModel(640, 480, (500.0, 500.0), (319.5, 239.5), (-0.1,)), higher),
        ],
        start=2,
    ):
        found = grid(*change)
        assert grid.tables == count
        np.testing.assert_array_equal(found, DrivableGrid(SURE, CAMVID)(*change))
    # A pose that the caller changes in place counts as a new pose.
    grid(road, None, CAMERA, higher)
    higher[2, 3] = POSE[2, 3]
    np.testing.assert_array_equal(grid(road, None, CAMERA, higher), first)
    assert grid.tables == 7


def true_road(drive: SyntheticDrive, time: float, settings: GridSettings) -> np.ndarray:
    """Return which cells are road by the plan of the rendered town, bool ``[height, width]``."""
    camera = drive.camera(time)
    ahead, left = centers(settings)
    x = camera.position[0] + ahead * np.sin(camera.yaw) - left * np.cos(camera.yaw)
    along = camera.position[2] + ahead * np.cos(camera.yaw) + left * np.sin(camera.yaw)
    # The plan of the town is private to the renderer; only this test reads it.
    return drive._ground._road(x - drive._world.road.center(along), along, 0.0)[0]


@pytest.mark.parametrize(('seed', 'index'), [(0, 30), (2, 60), (3, 100)])
def test_grid_of_rendered_streets(seed, index):
    drive = SyntheticDrive(seed, height=720, width=960)
    frame, view = drive[index], drive.camera(index / drive.rate)
    matrix = drive.camera_matrix
    camera = CameraModel(960, 720, (matrix[0, 0], matrix[1, 1]), (matrix[0, 2], matrix[1, 2]))
    pose = pose_of_body([0, 0, view.position[1], 0, view.pitch, 0])
    settings = GridSettings(min_confidence=0.0)
    grid = DrivableGrid(settings, CAMVID)(frame.label, None, camera, pose)
    road = true_road(drive, frame.time, settings)
    cell = np.ones((3, 3), np.uint8)
    # No cell beyond a kerb is free, except for cells that the kerb crosses.
    assert not ((grid == FREE) & (cv2.dilate(road.astype(np.uint8), cell) == 0)).any()
    # Up to the first object, the free area ends on the right where the road ends.
    x, _y = centers(settings)
    rows = np.arange(settings.height)[:, None]
    kerb = np.where(road, rows, settings.height).min(0)
    found = np.where(grid == FREE, rows, settings.height).min(0)
    stretch = (x[0] > 12) & (x[0] < 20)
    assert np.abs(found - kerb)[stretch].max() <= 2


@pytest.mark.parametrize('message', ['rclpy', 'rosbags'])
def test_grid_message(message):
    settings = GridSettings(1.0, 3.0, -2.5, 0.5, 0.5, min_confidence=0.0)
    cells = np.random.default_rng(0).choice([FREE, OCCUPIED, UNKNOWN], (6, 4)).astype(np.int8)
    if message == 'rclpy':
        of, header = pytest.importorskip('nav_msgs.msg').OccupancyGrid, pytest.importorskip('std_msgs.msg').Header()
        header.stamp.sec, header.stamp.nanosec, header.frame_id = 7, 9, 'base_footprint'
        made = drivable_grid.make_grid_message(of, header, cells, settings)
    else:
        stamp = TYPES.types['builtin_interfaces/msg/Time'](7, 9)
        header = TYPES.types['std_msgs/msg/Header'](stamp, 'base_footprint')
        of = TYPES.types['nav_msgs/msg/OccupancyGrid']
        made = decode(
            encode(drivable_grid.make_grid_message(of, header, cells, settings)), 'nav_msgs/msg/OccupancyGrid'
        )
    assert (made.header.stamp.sec, made.header.stamp.nanosec, made.header.frame_id) == (7, 9, 'base_footprint')
    assert (made.info.map_load_time.sec, made.info.map_load_time.nanosec) == (7, 9)
    assert (made.info.width, made.info.height, made.info.resolution) == (4, 6, 0.5)
    position, orientation = made.info.origin.position, made.info.origin.orientation
    assert (position.x, position.y, position.z) == (1.0, -2.5, 0.0)
    assert (orientation.x, orientation.y, orientation.z, orientation.w) == (0.0, 0.0, 0.0, 1.0)
    assert list(made.data) == cells.reshape(-1).tolist()


def test_grid_size_in_whole_cells():
    assert [(s.width, s.height) for s in (GridSettings(), GridSettings(0.1, 0.4, 0.0, 0.3))] == [(400, 200), (3, 3)]
    assert GridSettings(0.0, 1.0, 0.0, 1.0, 0.3).width == 4


@pytest.mark.parametrize(
    ('fields', 'words'),
    [
        ({'x_min': 5.0, 'x_max': 5.0}, 'x 5.0 to 5.0'),
        ({'y_min': 3.0, 'y_max': -3.0}, 'y 3.0 to -3.0'),
        ({'x_max': float('inf')}, 'x 0.0 to inf'),
        ({'resolution': 0.0}, 'cells of 0.0 m, expected more than 0'),
        ({'resolution': 0.001}, '40000 x 20000 cells of 0.001 m, expected at most 4000000'),
        ({'resolution': 1e-300}, 'cells of 1e-300 m'),
        ({'x_max': 4000.0, 'y_min': 0.0, 'y_max': 0.1}, '40000 x 1 .* 32766 a side'),
        ({'min_confidence': 1.5}, 'minimum confidence of 1.5, expected 0 to 1'),
        ({'drivable': ('road', 'rail')}, "no class 'rail'; expected some of sky, building, .*road"),
        ({'drivable': ()}, 'no drivable class given; expected some of sky'),
    ],
)
def test_invalid_grid_settings_are_an_error(fields, words):
    with pytest.raises(GridError, match=words):
        DrivableGrid(GridSettings(**fields), CAMVID)


def test_several_classes_may_be_drivable():
    settings = GridSettings(x_max=20.0, min_confidence=0.0, drivable=('sidewalk', 'road'))
    mask = render(CAMERA, POSE, lambda x, y: np.where(y > 1, SIDEWALK, ROAD))
    grid = DrivableGrid(settings, CAMVID)(mask, None, CAMERA, POSE)
    np.testing.assert_array_equal(grid, DrivableGrid(SURE, CAMVID)(everywhere(ROAD), None, CAMERA, POSE))


@pytest.mark.parametrize(
    ('mask', 'confidence', 'words'),
    [
        (np.zeros((4, 6, 3), np.uint8), None, r'mask is uint8 \[4, 6, 3\], expected uint8 \[H, W\]'),
        (np.zeros((4, 6)), None, 'mask is float64'),
        (np.zeros((4, 0), np.uint8), None, r'\[4, 0\]'),
        (np.zeros((4, 6), np.uint8), None, 'no confidence was given, expected one for a minimum of 0.5'),
        (np.zeros((4, 6), np.uint8), np.zeros((4, 5), np.uint8), r'uint8 \[4, 5\], expected uint8 \[4, 6\]'),
        (np.zeros((4, 6), np.uint8), np.zeros((4, 6)), 'confidence is float64'),
    ],
)
def test_invalid_mask_is_an_error(mask, confidence, words):
    with pytest.raises(GridError, match=words):
        DrivableGrid(GridSettings(), CAMVID)(mask, confidence, CAMERA, POSE)


@pytest.mark.parametrize('height', [0.0, -1.2, float('nan')])
def test_camera_below_the_ground_is_an_error(height):
    pose = POSE.copy()
    pose[2, 3] = height
    with pytest.raises(CameraInfoError, match='expected z above 0'):
        DrivableGrid(SURE, CAMVID)(everywhere(ROAD), None, CAMERA, pose)


def test_grid_needs_no_ros():
    code = (
        'import sys; from stdc_ros.ground import camera_model, drivable_grid; '
        'sys.exit(any(name in sys.modules for name in ("rclpy", "sensor_msgs", "nav_msgs")))'
    )
    assert subprocess.run([sys.executable, '-c', code], check=False).returncode == 0
