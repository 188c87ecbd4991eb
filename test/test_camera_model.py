# SPDX-License-Identifier: Apache-2.0
"""Test the camera model against OpenCV, CameraInfo against image_geometry, and poses against REP 103."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from sensor_msgs.msg import CameraInfo

from stdc_ros.ground.camera_info import CameraInfoError, check_fit
from stdc_ros.ground.camera_model import CameraModel
from stdc_ros.ground.pose import pose_of_body, pose_of_transform
from stdc_ros.messages.cdr import CAMERA_INFO, TYPES

MATRIX = np.array([[510.0, 0.0, 321.5], [0.0, 520.0, 238.25], [0.0, 0.0, 1.0]])
PLUMB_BOB = (-0.31, 0.12, 0.0011, -0.0007, -0.02)
RATIONAL = (5.8, 3.1, 0.0004, -0.0002, 0.16, 6.2, 4.9, 0.8)
THIN_PRISM, TILT = (0.002, -0.001, 0.0015, 0.0007), (0.02, -0.03)
FISHEYE = (0.03, -0.011, 0.004, -0.0009)


def info_of(model: str = 'plumb_bob', distortion: tuple[float, ...] = (), **fields) -> CameraInfo:
    """Return the CameraInfo of a calibrated camera, with some fields changed."""
    info = CameraInfo(width=640, height=480, distortion_model=model, d=list(distortion), k=MATRIX.reshape(-1))
    for name, value in fields.items():
        owner = info.roi if name in ('x_offset', 'y_offset') else info
        setattr(owner, name, value)
    return info


def points_ahead(degrees: float) -> np.ndarray:
    """Return points ``[N, 3]`` within this angle of the optical axis."""
    rng = np.random.default_rng(0)
    tangent = np.tan(np.radians(degrees)) * np.sqrt(rng.uniform(0, 1, 200))
    turn, distance = rng.uniform(0, 2 * np.pi, (1, 200))[0], rng.uniform(0.5, 50, 200)
    return np.stack([tangent * np.cos(turn), tangent * np.sin(turn), np.ones(200)], 1) * distance[:, None]


@pytest.mark.parametrize('dtype', [np.float32, np.float64])
@pytest.mark.parametrize(
    ('model', 'distortion'),
    [
        ('', ()),
        ('plumb_bob', ()),
        ('plumb_bob', PLUMB_BOB[:4]),
        ('plumb_bob', PLUMB_BOB),
        ('plumb_bob', (0.1, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0)),
        ('rational_polynomial', RATIONAL),
        ('rational_polynomial', (*RATIONAL, 0.0, 0.0, 0.0, 0.0)),
        ('rational_polynomial', PLUMB_BOB[:4]),
        ('rational_polynomial', PLUMB_BOB),
        ('plumb_bob', RATIONAL),
        ('rational_polynomial', (*RATIONAL, *THIN_PRISM)),
        ('rational_polynomial', (*RATIONAL, *THIN_PRISM, *TILT)),
        ('plumb_bob', (*PLUMB_BOB, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, *TILT)),
    ],
)
def test_pinhole_models_equal_opencv(model, distortion, dtype):
    points = points_ahead(38)
    expected = cv2.projectPoints(points, np.zeros(3), np.zeros(3), MATRIX, np.array(distortion))[0][:, 0]
    camera = CameraModel.from_info(info_of(model, distortion))
    found = np.stack(camera.project(*points.T.astype(dtype)), 1)
    assert found.dtype == dtype
    np.testing.assert_allclose(found, expected, atol=1e-2 if dtype == np.float32 else 1e-8)


@pytest.mark.parametrize('model', ['equidistant', 'fisheye'])
@pytest.mark.parametrize('distortion', [(), FISHEYE])
def test_fisheye_model_equals_opencv(model, distortion):
    points = points_ahead(80)
    lens = np.array(distortion or np.zeros(4))
    expected = cv2.fisheye.projectPoints(points[:, None], np.zeros(3), np.zeros(3), MATRIX, lens)[0][:, 0]
    camera = CameraModel.from_info(info_of(model, distortion))
    np.testing.assert_allclose(np.stack(camera.project(*points.T), 1), expected, atol=1e-8)


def test_a_fisheye_sees_sideways_and_a_pinhole_only_ahead():
    angle = np.radians([0.0, 80.0, 95.0, 120.0, 180.0])
    points = np.sin(angle), np.zeros(5), np.cos(angle)
    x, y = CameraModel.from_info(info_of('equidistant')).project(*points)
    np.testing.assert_allclose(x[:4], MATRIX[0, 0] * angle[:4] + MATRIX[0, 2])
    np.testing.assert_allclose(y[:4], MATRIX[1, 2])
    for distortion in ((), (0.1, 0.0, 0.0, 0.0, 0.0)):
        x, _ = CameraModel.from_info(info_of('plumb_bob', distortion)).project(*points)
        np.testing.assert_array_equal(np.isfinite(x), [True, True, False, False, False])


@pytest.mark.parametrize(
    ('model', 'distortion'),
    [
        ('plumb_bob', (-0.3, 0.02, 0.0, 0.0, 0.0)),
        ('rational_polynomial', (-0.2, -0.05, 0.0, 0.0, 0.0, 0.1, 0.05, 0.0)),
        ('equidistant', (-0.3, 0.0, 0.0, 0.0)),
    ],
)
def test_projection_ends_where_the_distortion_turns_back(model, distortion):
    camera = CameraModel.from_info(info_of(model, distortion))
    angle = np.radians(np.arange(0.0, 89.0, 0.25))
    x, _ = camera.project(np.sin(angle), np.zeros(angle.size), np.cos(angle))
    seen = np.isfinite(x)
    assert seen[0] and not seen[-1]
    last = np.flatnonzero(seen)[-1]
    assert seen[: last + 1].all()
    assert (np.diff(x[: last + 1]) > 0).all()
    # The limit is not too strict: half a degree further, OpenCV's pixel turns back or does not exist.
    beyond = angle[[last + 1, last + 3]]
    points = np.stack([np.sin(beyond), np.zeros(2), np.cos(beyond)], 1)
    if model == 'equidistant':
        pixels = cv2.fisheye.projectPoints(points[:, None], np.zeros(3), np.zeros(3), MATRIX, np.array(distortion))[0]
    else:
        pixels = cv2.projectPoints(points, np.zeros(3), np.zeros(3), MATRIX, np.array(distortion))[0]
    assert pixels[1, 0, 0] < pixels[0, 0, 0]


def test_resized_camera_keeps_points_in_place():
    camera = CameraModel.from_info(info_of('plumb_bob', PLUMB_BOB))
    small = camera.scaled(160, 240)
    assert (small.width, small.height) == (160, 240)
    points = points_ahead(30).T
    (x, y), (small_x, small_y) = camera.project(*points), small.project(*points)
    np.testing.assert_allclose((small_x + 0.5) / 160, (x + 0.5) / 640)
    np.testing.assert_allclose((small_y + 0.5) / 240, (y + 0.5) / 480)


def test_rclpy_and_rosbags_messages_give_the_same_model():
    info = info_of('plumb_bob', PLUMB_BOB)
    types = TYPES.types
    roi = types['sensor_msgs/msg/RegionOfInterest'](0, 0, 0, 0, False)
    header = types['std_msgs/msg/Header'](types['builtin_interfaces/msg/Time'](1, 2), 'camera')
    arrays = np.array(PLUMB_BOB), MATRIX.reshape(-1), np.zeros(9), np.zeros(12)
    bag = types[CAMERA_INFO](header, 480, 640, 'plumb_bob', *arrays, 0, 0, roi)
    expected = CameraModel(640, 480, (510.0, 520.0), (321.5, 238.25), PLUMB_BOB)
    assert CameraModel.from_info(bag) == CameraModel.from_info(info) == expected


def test_rectified_image_uses_the_projection_matrix():
    info = info_of('plumb_bob', PLUMB_BOB, r=np.eye(3).reshape(-1))
    info.p = np.array([[400.0, 0, 310, 0], [0, 401, 230, 0], [0, 0, 1, 0]]).reshape(-1)
    assert CameraModel.from_info(info, rectified=True) == CameraModel(640, 480, (400.0, 401.0), (310.0, 230.0))
    info.p[3] = -48.0
    with pytest.raises(CameraInfoError, match='stereo'):
        CameraModel.from_info(info, rectified=True)


def test_region_of_interest_may_be_the_whole_image():
    info = info_of(binning_x=1, binning_y=1)
    info.roi.width, info.roi.height = 640, 480
    assert CameraModel.from_info(info) == CameraModel.from_info(info_of())


@pytest.mark.parametrize('skew', [-0.9, 25.0])
def test_skew_equals_opencvs_fisheye(skew):
    points = points_ahead(80)
    matrix = MATRIX + np.array([[0, skew, 0], [0, 0, 0], [0, 0, 0]])
    expected = cv2.fisheye.projectPoints(
        points[:, None], np.zeros(3), np.zeros(3), MATRIX, np.array(FISHEYE), alpha=skew / MATRIX[0, 0]
    )[0][:, 0]
    camera = CameraModel.from_info(info_of('equidistant', FISHEYE, k=matrix.reshape(-1)))
    np.testing.assert_allclose(np.stack(camera.project(*points.T), 1), expected, atol=1e-8)
    small_x, small_y = camera.scaled(160, 240).project(*points.T)
    np.testing.assert_allclose((small_x + 0.5) / 160, (expected[:, 0] + 0.5) / 640, atol=1e-12)
    np.testing.assert_allclose((small_y + 0.5) / 240, (expected[:, 1] + 0.5) / 480, atol=1e-12)
    projection = np.column_stack([matrix, np.zeros(3)])
    rectified = CameraModel.from_info(info_of('equidistant', FISHEYE, p=projection.reshape(-1)), rectified=True)
    pinhole = CameraModel.from_info(info_of('plumb_bob', (), k=matrix.reshape(-1)))
    assert rectified == pinhole
    projected = points_ahead(40) @ matrix.T
    np.testing.assert_allclose(np.stack(pinhole.project(*points_ahead(40).T), 1), projected[:, :2] / projected[:, 2:])


@pytest.mark.parametrize(
    ('model', 'same'),
    [
        *((name, 'plumb_bob') for name in ('Plumb Bob', 'plumb bob', 'PLUMB_BOB', 'plumb-bob ', 'radtan')),
        ('Brown Conrady', 'plumb_bob'),
        ('RATIONAL_POLYNOMIAL', 'rational_polynomial'),
        *((name, 'equidistant') for name in ('Equidistant', 'FISHEYE', 'kannala_brandt', 'Kannala Brandt4')),
    ],
)
def test_distortion_models_by_other_names(model, same):
    lens = (0.1, -0.02, 0.003, 0.0004)
    assert CameraModel.from_info(info_of(model, lens)) == CameraModel.from_info(info_of(same, lens))


@pytest.mark.parametrize('zeros', [1, 2, 3, 6, 20])
@pytest.mark.parametrize('model', ['plumb_bob', 'rational_polynomial', 'equidistant', '', 'pinhole', 'None'])
def test_any_number_of_zeros_is_no_distortion(model, zeros):
    assert CameraModel.from_info(info_of(model, (0.0,) * zeros)) == CameraModel.from_info(info_of(model))


@pytest.mark.parametrize('rectified', [False, True])
def test_uncalibrated_camera_is_named(rectified):
    with pytest.raises(CameraInfoError, match=r'width, height, K and P are 0: the camera is not calibrated; calibrate'):
        CameraModel.from_info(CameraInfo(), rectified)
    with pytest.raises(CameraInfoError, match='width, height, K and P are 0'):
        check_fit(CameraInfo(), 480, 640)
    only_last = info_of(k=np.eye(3).reshape(-1) * [0, 0, 0, 0, 0, 0, 0, 0, 1])
    with pytest.raises(CameraInfoError, match=r'\[0.0, .*: the camera is not calibrated'):
        CameraModel.from_info(only_last, rectified)


def test_binning_that_the_driver_has_applied_already_is_named():
    words = r'images of 320 x 240 pixels \(binning 2 x 2 of 640 x 480\), expected 640 x 480, as the images are'
    with pytest.raises(CameraInfoError, match=words):
        check_fit(info_of(binning_x=2, binning_y=2), 480, 640)


def test_unset_rotation_is_the_identity():
    info = info_of('plumb_bob', PLUMB_BOB, p=np.column_stack([MATRIX, np.zeros(3)]).reshape(-1))
    assert not info.r.any()
    assert CameraModel.from_info(info, rectified=True) == CameraModel.from_info(info_of())


@pytest.mark.parametrize('rectified', [False, True])
@pytest.mark.parametrize(
    ('fields', 'width', 'height', 'expected'),
    [
        ({'binning_x': 2, 'binning_y': 2}, 320, 240, lambda x, y: (x / 2, y / 2)),
        ({'binning_x': 4, 'binning_y': 0}, 160, 480, lambda x, y: (x / 4, y)),
        ({'roi': (100, 60, 320, 400)}, 320, 400, lambda x, y: (x - 100, y - 60)),
        ({'roi': (100, 60, 321, 400), 'binning_x': 2}, 160, 400, lambda x, y: ((x - 100) / 2, y - 60)),
    ],
)
def test_region_and_binning_equal_image_geometry(fields, width, height, expected, rectified):
    whole = info_of('plumb_bob', PLUMB_BOB, p=np.column_stack([MATRIX, np.zeros(3)]).reshape(-1))
    info = info_of('plumb_bob', PLUMB_BOB, p=whole.p)
    for name, value in fields.items():
        if name == 'roi':
            info.roi.x_offset, info.roi.y_offset, info.roi.width, info.roi.height = value
        else:
            setattr(info, name, value)
    camera = CameraModel.from_info(info, rectified)
    assert (camera.width, camera.height) == (width, height)
    points = points_ahead(30).T
    pixels = CameraModel.from_info(whole, rectified).project(*points)
    np.testing.assert_allclose(camera.project(*points), expected(*pixels), atol=1e-9)


@pytest.mark.parametrize(
    ('fields', 'words'),
    [
        ({'k': np.zeros(9)}, r'K is \[0.0, .*not calibrated; expected positive focal lengths in K\[0\] and K\[4\]'),
        ({'k': np.array([510.0, 0, 320, 0, -520, 240, 0, 0, 1])}, 'K is .*-520.0'),
        ({'k': np.array([510.0, 511, 320, 0, 520, 240, 0, 0, 1])}, 'a skew of at most'),
        ({'k': np.array([510.0, 0, np.nan, 0, 520, 240, 0, 0, 1])}, 'nan'),
        ({'width': 0}, '0 x 480'),
        ({'k': np.array([510.0, 0, 320, 3, 520, 240, 0, 0, 1])}, 'K is .* 0 below the diagonal'),
        ({'binning_x': 641}, 'binning_x and binning_y are 641 and 1, expected at most 640 and 480'),
        ({'x_offset': 8}, r'roi is a region of 0 x 0 pixels at \(8, 0\), expected one inside the image of 640 x 480'),
        ({'distortion_model': 'omni'}, "'omni', expected one of .*'plumb_bob'"),
        ({'d': [0.1, 0.2]}, r'D is \[0.1, 0.2\].*expected none or 4, 5, 8, 12, 14'),
        ({'d': [0.1, 0.2, 0.0, 0.0, 0.0, 0.4]}, 'expected none or 4, 5, 8, 12, 14'),
        ({'d': [0.1] * 15}, 'expected none or 4, 5, 8, 12, 14'),
        ({'d': [np.inf, 0.2, 0.0, 0.0, 0.0]}, 'inf'),
        ({'d': list(PLUMB_BOB), 'distortion_model': 'equidistant'}, 'expected none or 4'),
        ({'d': list(PLUMB_BOB), 'distortion_model': ''}, "distortion_model is '', expected the name of its model"),
        ({'d': list(PLUMB_BOB), 'distortion_model': 'Pinhole'}, "distortion_model is 'pinhole', expected the name"),
    ],
)
def test_invalid_camera_info_is_an_error(fields, words):
    with pytest.raises(CameraInfoError, match=words):
        CameraModel.from_info(info_of(**fields))


def test_camera_info_of_rectified_images_is_named():
    info = info_of(k=np.zeros(9), p=np.column_stack([MATRIX, np.zeros(3)]).reshape(-1))
    with pytest.raises(CameraInfoError, match='rectified, set the parameter grid_rectified or points_rectified'):
        CameraModel.from_info(info)
    assert CameraModel.from_info(info, rectified=True).focal == (510.0, 520.0)


def test_rectified_image_without_projection_is_an_error():
    with pytest.raises(CameraInfoError, match=r'P is .*not calibrated; expected .* P\[0\] and P\[5\]'):
        CameraModel.from_info(info_of(r=np.eye(3).reshape(-1)), rectified=True)


def ahead_right_down(pose: np.ndarray) -> list[np.ndarray]:
    """Return the directions ahead, right and down of the camera in the other frame."""
    return [pose[:3, 2], pose[:3, 0], pose[:3, 1]]


@pytest.mark.parametrize(
    ('angles', 'expected'),
    [
        ((0, 0, 0), [(1, 0, 0), (0, -1, 0), (0, 0, -1)]),
        ((0, 90, 0), [(0, 0, -1), (0, -1, 0), (-1, 0, 0)]),  # pitched down
        ((0, 0, 90), [(0, 1, 0), (1, 0, 0), (0, 0, -1)]),  # yawed to the left
        ((90, 0, 0), [(1, 0, 0), (0, 0, -1), (0, 1, 0)]),  # rolled to the right
        ((0, 90, 90), [(0, 0, -1), (1, 0, 0), (0, -1, 0)]),  # pitched first, then yawed
    ],
)
def test_roll_pitch_and_yaw(angles, expected):
    pose = pose_of_body([1, 2, 3, *np.radians(angles)])
    np.testing.assert_allclose(pose[:, 3], [1, 2, 3, 1])
    np.testing.assert_allclose(ahead_right_down(pose), expected, atol=1e-12)


def test_pose_of_a_transform():
    np.testing.assert_allclose(pose_of_transform([1, 2, 3], [-0.5, 0.5, -0.5, 0.5]), pose_of_body([1, 2, 3, 0, 0, 0]))
    for axis in np.random.default_rng(1).normal(0, 1, (5, 3)):
        angle = np.linalg.norm(axis)
        rotation = [*(axis / angle * np.sin(angle / 2)), np.cos(angle / 2)]
        expected = cv2.Rodrigues(axis)[0]
        np.testing.assert_allclose(pose_of_transform([0, 0, 0], rotation)[:3, :3], expected, atol=1e-12)
        np.testing.assert_allclose(
            pose_of_transform([0, 0, 0], np.multiply(rotation, -2))[:3, :3], expected, atol=1e-12
        )


def test_pose_of_the_optical_frame():
    optical = pose_of_body([1, 2, 3, -np.pi / 2, 0, -np.pi / 2], optical=True)
    np.testing.assert_allclose(optical, pose_of_body([1, 2, 3, 0, 0, 0]), atol=1e-12)


@pytest.mark.parametrize(
    ('make', 'words'),
    [
        (lambda: pose_of_body([0, 0, 1]), r'camera pose .* is \[0.0, 0.0, 1.0\], expected 6 finite numbers'),
        (lambda: pose_of_body([0, 0, 1, 0, np.nan, 0]), 'expected 6 finite numbers'),
        (lambda: pose_of_transform([0, 0], [0, 0, 0, 1]), 'translation .* expected 3 finite numbers'),
        (lambda: pose_of_transform([0, 0, 1], [0, 0, 0, 0]), 'rotation .* expected a quaternion of length 1'),
    ],
)
def test_invalid_pose_is_an_error(make, words):
    with pytest.raises(CameraInfoError, match=words):
        make()
