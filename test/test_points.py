# SPDX-License-Identifier: Apache-2.0
"""Clouds of every layout, painted by masks of every lens: the class of a point is that of the pixel that shows it."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from point_clouds import cloud_of, field_of

from stdc_core.classes import CAMVID, IGNORE
from stdc_ros.ground.camera_model import CameraModel
from stdc_ros.ground.pose import pose_of_body
from stdc_ros.messages.cdr import POINT_CLOUD, WireError, decode, encode
from stdc_ros.points.painting import NEAREST, View, find_visible, paint
from stdc_ros.points.point_cloud import PointsError, make_painted_cloud, packed_colors, read_cloud, select_classes

CAMERA = CameraModel(640, 480, (500.0, 500.0), (319.5, 239.5))
#: The cloud is in the optical frame.
HERE = np.eye(4)
#: The cloud is in the frame of a body at the same place: x forward, y left, z up.
AHEAD = np.linalg.inv(pose_of_body([0.0] * 6))
COLORS = packed_colors(CAMVID)
CLASS_IDS = np.arange(12, dtype=np.uint8).reshape(3, 4)


def scattered(count: int = 200, seed: int = 0, degrees: float = 25.0) -> np.ndarray:
    """Points ``[3, N]`` of an optical frame on a sphere of 10 m, so that none hides another."""
    rng = np.random.default_rng(seed)
    angle, turn = np.radians(degrees) * np.sqrt(rng.uniform(0, 1, count)), rng.uniform(0, 2 * np.pi, count)
    return 10 * np.stack([np.sin(angle) * np.cos(turn), np.sin(angle) * np.sin(turn), np.cos(angle)])


def noise_view(camera: CameraModel, transform: np.ndarray = HERE, seed: int = 0, scale: float = 1.0) -> View:
    """A view whose mask has another class at every pixel."""
    rng = np.random.default_rng(seed)
    size = round(camera.height * scale), round(camera.width * scale)
    mask, confidence = rng.integers(0, 11, size, np.uint8), rng.integers(1, 256, size, np.uint8)
    return View(mask, confidence, camera, transform)


def plain_view(class_id: int, confidence: int, transform: np.ndarray = HERE) -> View:
    """A view whose pixels all have one class."""
    size = CAMERA.height, CAMERA.width
    return View(np.full(size, class_id, np.uint8), np.full(size, confidence, np.uint8), CAMERA, transform)


GRID = np.arange(36.0).reshape(3, 3, 4)
LAYOUTS = {
    'plain': {},
    'pcl': {'step': 16},
    'double': {'kinds': dict.fromkeys('xyz', 'f8'), 'offsets': {'x': 0, 'y': 8, 'z': 16}, 'step': 24},
    'mixed and unaligned': {
        'kinds': {'x': 'f4', 'y': 'f8', 'z': 'f4'},
        'offsets': {'x': 13, 'y': 1, 'z': 19},
        'step': 23,
    },
    'in another order': {'offsets': {'x': 8, 'y': 0, 'z': 4}, 'step': 22},
    'padded rows': {'step': 20, 'row_padding': 7},
    'big-endian': {'big_endian': True, 'step': 18, 'row_padding': 1},
}


@pytest.mark.parametrize('layout', LAYOUTS)
def test_every_layout_keeps_its_fields_and_gets_three(layout):
    settings = dict(LAYOUTS[layout])
    step = settings.pop('step', 12) + 6
    ring, intensity = np.arange(12, dtype=np.uint16).reshape(3, 4) * 99, np.linspace(-1, 1, 12).reshape(3, 4)
    more = {'ring': ('u2', step - 6, ring), 'intensity': ('f4', step - 4, intensity)}
    source = decode(encode(cloud_of(GRID, step=step, more=more, **settings)), POINT_CLOUD)
    cloud = read_cloud(source)
    np.testing.assert_array_equal(cloud.xyz, GRID.reshape(3, -1))
    assert cloud.xyz.dtype == (np.float64 if 'kinds' in settings else np.float32)
    confidence = 255 - CLASS_IDS
    painted = decode(
        encode(make_painted_cloud(cloud, CLASS_IDS.reshape(-1), confidence.reshape(-1), COLORS)), POINT_CLOUD
    )
    assert (painted.header, painted.height, painted.width) == (source.header, 3, 4)
    assert (painted.is_bigendian, painted.is_dense) == (source.is_bigendian, source.is_dense)
    assert painted.row_step == 4 * painted.point_step and painted.point_step % 4 == 0
    for name in ('x', 'y', 'z', 'ring', 'intensity'):
        np.testing.assert_array_equal(field_of(painted, name), field_of(source, name))
    np.testing.assert_array_equal(field_of(painted, 'class_id'), CLASS_IDS)
    np.testing.assert_array_equal(field_of(painted, 'confidence'), confidence)
    # PCL: the bits of the float are 0x00RRGGBB.
    bits = field_of(painted, 'rgb').astype(np.float32).view(np.uint32)
    red, green, blue = (bits >> shift & 255 for shift in (16, 8, 0))
    expected = np.array([*CAMVID.colors, (0, 0, 0)])[CLASS_IDS]
    np.testing.assert_array_equal(np.stack([red, green, blue], -1), expected)
    np.testing.assert_array_equal(bits >> 24, 0)


def test_a_colour_of_the_cloud_gives_way():
    color = ('f4', 12, np.zeros((3, 4)))
    source = cloud_of(GRID, step=20, more={'rgb': color, 'confidence': ('f4', 16, np.ones((3, 4)))})
    painted = make_painted_cloud(read_cloud(source), CLASS_IDS.reshape(-1), CLASS_IDS.reshape(-1), COLORS)
    assert [field.name for field in painted.fields] == ['x', 'y', 'z', 'rgb', 'class_id', 'confidence']
    np.testing.assert_array_equal(field_of(painted, 'confidence'), CLASS_IDS)


@pytest.mark.parametrize('layout', LAYOUTS)
def test_a_filtered_cloud_holds_the_points_of_its_classes_alone(layout):
    cloud = read_cloud(cloud_of(GRID, **LAYOUTS[layout]))
    kept = select_classes(['road', 'sidewalk'], CAMVID)
    painted = make_painted_cloud(cloud, CLASS_IDS.reshape(-1), CLASS_IDS.reshape(-1), COLORS, kept)
    assert (painted.height, painted.width) == (1, 2)
    assert field_of(painted, 'class_id').tolist() == [[CAMVID.names.index('road'), CAMVID.names.index('sidewalk')]]
    np.testing.assert_array_equal(field_of(painted, 'x')[0], GRID[0].reshape(-1)[[3, 4]])


def test_an_empty_cloud_stays_one():
    cloud = read_cloud(cloud_of(np.zeros((3, 0))))
    found = paint(cloud.xyz, [plain_view(3, 200)])
    for kept in (None, select_classes(['road'], CAMVID)):
        painted = make_painted_cloud(cloud, *found, COLORS, kept)
        assert (painted.height, painted.width, len(painted.data)) == (1, 0, 0)


def test_a_single_row_needs_no_row_step():
    source = cloud_of(GRID.reshape(3, -1))
    source.row_step = 0
    np.testing.assert_array_equal(read_cloud(source).xyz, GRID.reshape(3, -1))


@pytest.mark.parametrize(
    ('changes', 'words'),
    [
        ({'fields': []}, "no field 'x', expected x, y and z; its fields are none"),
        ({'data': np.zeros(143, np.uint8)}, '143 bytes of data, expected 144 for 3 x 4 points of 12 bytes'),
        ({'row_step': 47}, 'row_step is 47, expected at least 48 for 4 points of 12 bytes'),
        ({'point_step': 11}, 'z has 4 bytes at offset 8 and point_step is 11, expected the field within the point'),
        ({'point_step': 0}, 'x has 4 bytes at offset 0 and point_step is 0'),
        ({'point_step': 2**32 - 1}, 'point_step is 4294967295, expected the field within the point and at most 65536'),
        ({'height': 2**32 - 1, 'width': 2**32 - 1}, 'row_step is 48, expected at least 51539607540'),
        ({'height': 2**32 - 1}, '144 bytes of data, expected 206158430160'),
    ],
)
def test_what_is_no_cloud_is_an_error_that_says_why(changes, words):
    source = cloud_of(GRID)
    for name, value in changes.items():
        setattr(source, name, value)
    with pytest.raises(PointsError, match=words):
        read_cloud(source)


def test_damaged_messages_are_errors_or_clouds():
    rng = np.random.default_rng(0)
    layouts = [{'step': 12}, {'step': 17, 'row_padding': 3, 'big_endian': True}, {'step': 32, 'row_padding': 8}]
    whole = [encode(cloud_of(rng.normal(size=(3, 4, 5)), **layout)) for layout in layouts]
    outcomes = set()
    for number in range(600):
        data = bytearray(whole[number % 3])
        for place in rng.integers(4, 200, rng.integers(1, 4)):
            data[place] = rng.choice([0, 255, rng.integers(0, 256)])
        try:
            cloud = read_cloud(decode(bytes(data), POINT_CLOUD))
            found = paint(cloud.xyz, [plain_view(3, 200)])
            encode(make_painted_cloud(cloud, *found, COLORS))
            outcomes.add('painted')
        except (WireError, PointsError) as error:
            outcomes.add(type(error).__name__)
    assert outcomes == {'painted', 'WireError', 'PointsError'}


def test_coordinates_must_be_floats():
    with pytest.raises(PointsError, match=r'y has the datatype 3, expected 7 \(float32\) or 8 \(float64\)'):
        read_cloud(cloud_of(GRID, kinds={'x': 'f4', 'y': 'i2', 'z': 'f4'}))


def test_a_class_that_the_model_does_not_have_is_an_error():
    with pytest.raises(PointsError, match="points_only: no class 'street'; expected some of sky, .*road"):
        select_classes(['road', 'street'], CAMVID)
    assert select_classes([], CAMVID) is None


LENSES = {
    'none': (),
    'plumb_bob': (-0.31, 0.12, 0.0011, -0.0007, -0.02),
    'rational_polynomial': (5.8, 3.1, 0.0004, -0.0002, 0.16, 6.2, 4.9, 0.8),
    'fisheye': (0.03, -0.011, 0.004, -0.0009),
}


@pytest.mark.parametrize('scale', [1.0, 0.5])
@pytest.mark.parametrize('dtype', [np.float32, np.float64])
@pytest.mark.parametrize('lens', LENSES)
def test_a_point_gets_the_class_of_the_pixel_that_opencv_says(lens, dtype, scale):
    camera = CameraModel(640, 480, (300.0, 310.0), (322.0, 236.0), LENSES[lens], lens == 'fisheye')
    # 3 m to the left of the optical frame and turned, as a LiDAR is.
    pose = pose_of_body([0.4, -0.3, -0.5, 0.02, 0.05, -0.1])
    points = pose[:3, :3] @ scattered() + pose[:3, 3:]
    view = noise_view(camera, np.linalg.inv(pose), scale=scale)
    matrix = np.array([[300.0, 0, 322.0], [0, 310.0, 236.0], [0, 0, 1]])
    if lens == 'fisheye':
        pixels = cv2.fisheye.projectPoints(
            scattered().T[:, None].copy(), np.zeros(3), np.zeros(3), matrix, np.array(LENSES[lens])
        )
    else:
        pixels = cv2.projectPoints(scattered().T, np.zeros(3), np.zeros(3), matrix, np.array(LENSES[lens]))
    column, row = ((pixels[0].reshape(-1, 2).T + 0.5) * scale - 0.5).round(3)
    # Not beside the edge of a pixel, where the last digit decides.
    clear = np.abs(column % 1 - 0.5).clip(max=np.abs(row % 1 - 0.5)) > 0.01
    found = paint(points.astype(dtype), [view])
    at = np.rint(row).astype(int), np.rint(column).astype(int)
    assert clear.sum() > 180
    np.testing.assert_array_equal(found.class_id[clear], view.mask[at][clear])
    np.testing.assert_array_equal(found.confidence[clear], view.confidence[at][clear])


def test_what_the_camera_does_not_see_has_no_class():
    away = np.array([[10.0, 0, 0], [-10.0, 0, 0], [10.0, 7, 0], [10.0, 0, 5], [np.nan, 0, 0], [10, np.inf, 0]])
    away = np.concatenate([away, [[NEAREST / 2, 0, 0], [0.0, 0.0, 0.0], [-np.inf, 0, 0], [np.inf, 0, 0]]])
    found = paint(away.T, [plain_view(3, 200, AHEAD)])
    assert found.class_id.tolist() == [3] + [IGNORE] * 9
    assert found.confidence.tolist() == [200] + [0] * 9


def test_a_fisheye_paints_what_lies_beside_it():
    camera = CameraModel(640, 480, (180.0, 180.0), (319.5, 239.5), (), True)
    points = 10 * np.array([[np.sin(a), 0.0, np.cos(a)] for a in np.radians([0.0, 89.0, 95.0, 120.0])]).T
    index, pixel = find_visible(points, camera, HERE)
    assert index.tolist() == [0, 1, 2]
    assert (pixel % 640).tolist() == [round(319.5 + 180 * np.radians(a)) for a in (0.0, 89.0, 95.0)]


def test_pixels_below_the_threshold_have_no_class():
    view = noise_view(CAMERA)
    every, sure = paint(scattered(), [view]), paint(scattered(), [view], threshold=0.5)
    assert (every.class_id != IGNORE).all() and (sure.class_id == IGNORE).any()
    np.testing.assert_array_equal(sure.class_id, np.where(every.confidence < 128, IGNORE, every.class_id))
    np.testing.assert_array_equal(sure.confidence, every.confidence)


def test_of_two_cameras_the_surer_one_paints():
    def colors(*views: View, threshold: float = 0.0) -> set[tuple[int, int]]:
        return set(zip(*(part.tolist() for part in paint(scattered(), views, threshold)), strict=True))

    road, car, none = plain_view(3, 100), plain_view(8, 200), plain_view(IGNORE, 250)
    assert colors(road, car) == colors(car, road) == {(8, 200)}
    assert colors(road, plain_view(8, 100)) == {(3, 100)}
    assert colors(none, road) == colors(road, none) == {(3, 100)}
    assert colors(plain_view(IGNORE, 20), none) == {(IGNORE, 250)}
    assert colors(road, car, threshold=0.6) == {(8, 200)}
    rear = plain_view(8, 200, np.diag([-1.0, 1.0, -1.0, 1.0]))
    points = np.concatenate([scattered(), scattered() * [[1], [1], [-1]]], 1)
    assert paint(points, [road, rear]).class_id.tolist() == [3] * 200 + [8] * 200


def lidar(beams: int, spacing: float, height: float, reach: float = 60.0) -> tuple[np.ndarray, np.ndarray]:
    """Points of a LiDAR above the lens, in the optical frame, and the class that they show: 3 road, 8 car, 1 wall.

    The lens is 1.4 m above the road. A car of 1.5 m fills the way 8 m ahead, and a wall stands behind it.

    Args:
        beams: Number of beams.
        spacing: Angle between beams, degrees.
        height: Metres above the lens.
        reach: Distance of the wall, metres.
    """
    azimuth = np.radians(np.arange(-30, 30, 0.2))
    elevation = np.radians(np.arange(beams) * spacing - 25.0)
    azimuth, elevation = (each.reshape(-1) for each in np.meshgrid(azimuth, elevation))
    ray = np.stack([np.sin(azimuth) * np.cos(elevation), -np.sin(elevation), np.cos(azimuth) * np.cos(elevation)])
    start = np.array([[0.0], [-height], [0.0]])
    with np.errstate(divide='ignore'):
        road = np.where(ray[1] > 0, (1.4 + height) / ray[1], np.inf)
        car, wall = 8 / ray[2], reach / ray[2]
    at_car = start + ray * car
    hit = (at_car[1] > -0.1) & (at_car[1] < 1.4) & (np.abs(at_car[0]) < 0.9)
    distance = np.minimum(np.where(hit, car, np.inf), np.minimum(road, wall))
    kind = np.select([distance == np.where(hit, car, -1), distance == road], [8, 3], 1)
    return start + ray * distance, kind


@pytest.mark.parametrize(('beams', 'spacing'), [(128, 0.3), (64, 0.5), (32, 1.0), (20, 2.0)])
def test_what_the_car_in_front_hides_has_no_class(beams, spacing):
    """The LiDAR sees over the roof of the car; the lens does not."""
    points, kind = lidar(beams, spacing, height=0.6)
    at_car = points * (8 / points[2])  # where the ray from the lens meets the plane of the car's back
    hidden = (points[2] > 9) & (np.abs(at_car[0]) < 0.9) & (at_car[1] > -0.1) & (at_car[1] < 1.4)
    found = paint(points, [plain_view(8, 200)])
    seen = (found.class_id != IGNORE) | (np.abs(at_car[0] / 8 * 500) > 319) | (np.abs(at_car[1] / 8 * 500) > 239)
    assert hidden.sum() > 20
    # Of those that the uppermost beam on the car cannot hide, up to one spacing is left.
    highest = at_car[1][kind == 8].min()
    assert not (seen & hidden & (at_car[1] > highest)).any()
    assert seen[kind == 8].all()
    # Beside the car and in front of it nothing is lost, however flat the view of the road.
    beside = ~hidden & (np.abs(np.abs(at_car[0]) - 0.9) > 0.1)
    assert seen[beside].all()


def test_a_nearer_point_on_the_same_ray_hides_the_farther_one():
    points = np.array([[0.0, 0, 5], [0.0, 0, 50], [0.0, 0, 5.3]]).T
    assert paint(points, [plain_view(3, 200)]).class_id.tolist() == [3, IGNORE, 3]


def test_a_point_on_the_lens_hides_nothing():
    points = np.array([[0.0, 0, NEAREST / 2], [0.0, 0, 50]]).T
    assert paint(points, [plain_view(3, 200)]).class_id.tolist() == [IGNORE, 3]
