# SPDX-License-Identifier: Apache-2.0
"""segment_bag --points: each cloud with the nearest mask in time, by TF of the bag or a pose from a file."""

from __future__ import annotations

import json
import re
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bag_helpers import CAMERA, make_bag, picture, stamp
from conftest import REPOSITORY
from point_clouds import cloud_of, field_of
from rosbags.rosbag1 import Writer as Writer1
from rosbags.rosbag2 import StoragePlugin
from rosbags.rosbag2 import Writer as Writer2
from rosbags.typesys import Stores, get_types_from_msg, get_typestore
from test_segment_bag import read

from stdc_core.classes import IGNORE
from stdc_core.inference import Segmentation, Segmenter
from stdc_ros.bags.message import BagError, make_header
from stdc_ros.ground.camera_info import CameraInfoError
from stdc_ros.ground.camera_model import CameraModel
from stdc_ros.ground.pose import pose_of_body
from stdc_ros.messages.cdr import CAMERA_INFO, IMAGE, TYPES
from stdc_ros.messages.images import make_image
from stdc_ros.offline.bag_points import TF, PointOptions
from stdc_ros.offline.camera_poses import read_camera_poses, transform_of
from stdc_ros.offline.one_bag import segment_bag
from stdc_ros.offline.segment_bag import main
from stdc_ros.points.painting import View, paint
from stdc_ros.points.transform_tree import TransformTree

LIDAR = '/lidar/points'
PAINTED = '/lidar/segmentation/points'
LENS = CameraModel(64, 40, (40.0, 40.0), (31.5, 19.5))
POSE = [0.3, 0.1, -0.4, 0.0, 0.1, 0.0]
#: Quaternion of the same turn of the body, and of the optical frame in it.
PITCH, AHEAD = (0.0, np.sin(0.05), 0.0, np.cos(0.05)), (-0.5, 0.5, -0.5, 0.5)
#: Metres that the vehicle moves from one image to the next.
STEP = 0.8


def points_of(index: int) -> np.ndarray:
    turn, up = (axis.reshape(-1) for axis in np.meshgrid(np.radians(np.arange(0, 360, 4.0)), np.radians([-9.0, -4, 1])))
    sphere = np.stack([np.cos(turn) * np.cos(up), np.sin(turn) * np.cos(up), np.sin(up)])
    return (10 + index) * sphere


def tf_of(parent: str, child: str, move: Any, turn: Any, nanoseconds: int = 0) -> Any:
    types = TYPES.types
    vector, quaternion = types['geometry_msgs/msg/Vector3'], types['geometry_msgs/msg/Quaternion']
    pose = types['geometry_msgs/msg/Transform'](vector(*map(float, move)), quaternion(*map(float, turn)))
    return types['geometry_msgs/msg/TransformStamped'](make_header(nanoseconds, parent), child, pose)


def info_of(nanoseconds: int, width: int = 64, rectified: bool = False) -> Any:
    region = TYPES.types['sensor_msgs/msg/RegionOfInterest'](0, 0, 0, 0, False)
    k = np.array([40.0, 0, 31.5, 0, 40.0, 19.5, 0, 0, 1])
    p = np.column_stack([k.reshape(3, 3), np.zeros(3)]).reshape(-1)
    numbers = (np.zeros(0), 0 * k, 0 * k, p) if rectified else (np.zeros(5), k, np.eye(3).reshape(-1), np.zeros(12))
    return TYPES.types[CAMERA_INFO](make_header(nanoseconds, 'lens'), 40, width, 'plumb_bob', *numbers, 0, 0, region)


def make_lidar_bag(
    folder: Path,
    with_tf: bool = True,
    delay: int = 10_000_000,
    ros1: bool = False,
    width: int = 64,
    rectified: bool = False,
) -> Path:
    """A bag with three images, and a cloud for each that is stamped ``delay`` nanoseconds later."""
    messages: list[tuple[str, int, Any]] = []
    if with_tf:
        mount = [tf_of('body', 'lens', (0, 0, 0), AHEAD), tf_of('lidar', 'body', POSE[:3], PITCH)]
        mount.append(tf_of('base_link', 'lidar', (1, 0, 2), (0, 0, 0, 1)))
        messages.append(('/tf_static', stamp(0), TYPES.types[TF](mount)))
    for index in range(-1, 5):
        if with_tf:
            moved = tf_of('odom', 'base_link', (STEP * index, 0, 0), (0, 0, 0, 1), stamp(index))
            messages.append(('/tf', stamp(index), TYPES.types[TF]([moved])))
        if 0 <= index < 3:
            image = make_image(TYPES.types[IMAGE], make_header(stamp(index), 'lens'), picture(index), 'bgr8')
            messages.append((CAMERA, stamp(index) + 5_000_000, image))
            cloud = cloud_of(points_of(index), step=16, stamp=stamp(index) + delay)
            messages.append((LIDAR, stamp(index) + 20_000_000, cloud))
    messages.append(('/camera/camera_info', stamp(4), info_of(stamp(4), width, rectified)))  # once, and late
    target, types = folder / ('lidar.bag' if ros1 else 'lidar'), get_typestore(Stores.ROS1_NOETIC)
    types.register(get_types_from_msg('geometry_msgs/TransformStamped[] transforms', TF))
    writer = Writer1(target) if ros1 else Writer2(target, version=8, storage_plugin=StoragePlugin.MCAP)
    with writer:
        connections: dict[str, Any] = {}
        for topic, time, message in sorted(messages, key=lambda entry: entry[1]):
            kind = message.__msgtype__
            if topic not in connections:
                connections[topic] = writer.add_connection(topic, kind, typestore=types if ros1 else TYPES)
            data = TYPES.serialize_cdr(message, kind)
            writer.write(connections[topic], time, TYPES.cdr_to_ros1(data, kind) if ros1 else data)
    return target


@cache
def segmented(index: int) -> Segmentation:
    return Segmenter.load()(picture(index), confidence=True)


def expected(index: int, shift: float = 0.0) -> np.ndarray:
    mask, confidence = segmented(index)
    moved = np.eye(4)
    moved[0, 3] = shift
    view = View(mask, confidence, LENS, np.linalg.inv(pose_of_body(POSE)) @ moved)
    return np.stack(paint(points_of(index).astype(np.float32), [view]))


def painted(path: Path) -> list[np.ndarray]:
    clouds = [message for _, message in read(path)[PAINTED]]
    return [np.concatenate([field_of(cloud, 'class_id'), field_of(cloud, 'confidence')]) for cloud in clouds]


@pytest.mark.parametrize('ros1', [False, True])
def test_clouds_are_painted_by_the_tf_of_the_bag(tmp_path, ros1):
    source = make_lidar_bag(tmp_path, ros1=ros1)
    assert main([str(source), str(tmp_path / 'out.mcap'), '--points', LIDAR, '--with-input']) == 0
    found = read(tmp_path / 'out.mcap')
    assert {CAMERA, LIDAR, PAINTED, '/tf', '/tf_static', '/camera/camera_info'} <= set(found)
    assert [time for time, _ in found[PAINTED]] == [time for time, _ in found[LIDAR]]
    for (_, cloud), (_, before) in zip(found[PAINTED], found[LIDAR], strict=True):
        assert cloud.header == before.header
    for index, labels in enumerate(painted(tmp_path / 'out.mcap')):
        np.testing.assert_array_equal(labels, expected(index))
        assert len(np.unique(labels[0])) > 2 and (labels[0] == IGNORE).any()


def test_a_fixed_frame_corrects_for_the_motion(tmp_path):
    source = make_lidar_bag(tmp_path, delay=-33_333_333)
    arguments = [str(source), str(tmp_path / 'out.mcap'), '--points', LIDAR, '--fixed-frame', 'odom']
    assert main(arguments) == 0
    # Half a step before the image: what was ahead is nearer by that.
    for index, labels in enumerate(painted(tmp_path / 'out.mcap')):
        assert (labels != expected(index, -STEP / 2)).any(0).mean() < 0.02
        assert (labels != expected(index)).any(0).mean() > 0.02


@pytest.mark.parametrize('form', ['matrix', 'of the only camera'])
def test_without_tf_the_pose_comes_from_a_file(tmp_path, form):
    source = make_lidar_bag(tmp_path, with_tf=False)
    numbers = POSE if form != 'matrix' else np.linalg.inv(pose_of_body(POSE))[:3].tolist()
    content = numbers if form == 'of the only camera' else {CAMERA: numbers}
    (tmp_path / 'pose.yaml').write_text(json.dumps(content))
    out = tmp_path / 'out.mcap'
    assert main([str(source), str(out), '--points', LIDAR, '--camera-pose', str(tmp_path / 'pose.yaml')]) == 0
    for index, labels in enumerate(painted(out)):
        np.testing.assert_array_equal(labels, expected(index))


def test_camera_info_of_another_size_is_an_error(tmp_path, capsys):
    source = make_lidar_bag(tmp_path, width=80)
    assert main([str(source), str(tmp_path / 'out.mcap'), '--points', LIDAR]) == 1
    words = '/camera/camera_info: CameraInfo of images of 80 x 40 pixels, expected 64 x 40, as the images are'
    assert words in capsys.readouterr().err


def test_rectified_images_use_the_projection_matrix(tmp_path, capsys):
    source = make_lidar_bag(tmp_path, rectified=True)
    assert main([str(source), str(tmp_path / 'raw.mcap'), '--points', LIDAR]) == 1
    assert '(segment_bag: --points-rectified)' in capsys.readouterr().err
    assert main([str(source), str(tmp_path / 'out.mcap'), '--points', LIDAR, '--points-rectified']) == 0
    for index, labels in enumerate(painted(tmp_path / 'out.mcap')):
        np.testing.assert_array_equal(labels, expected(index))


def test_many_bags_know_how_their_clouds_were_made(tmp_path, capsys):
    source = make_lidar_bag(tmp_path)
    arguments = ['--out-dir', str(tmp_path / 'out'), str(source), '--workers', '1', '--outputs', 'mask']
    assert main([*arguments, '--points', LIDAR, '--points-only', 'road,sidewalk']) == 0
    record = json.loads((tmp_path / 'out' / 'lidar.mcap.json').read_text())
    assert record['options']['points']['only'] == ['road', 'sidewalk']
    found = [set(labels[0].tolist()) for labels in painted(tmp_path / 'out' / 'lidar.mcap')]
    names = Segmenter.load().info.classes.names
    assert all(labels <= {names.index('road'), names.index('sidewalk')} for labels in found)
    capsys.readouterr()
    assert main([*arguments, '--points', LIDAR, '--points-only', 'road,sidewalk']) == 0
    assert '1 of 1 bags are done already' in capsys.readouterr().err
    assert main(arguments) == 1
    assert 'was made with points' in capsys.readouterr().err


@pytest.mark.parametrize(
    ('arguments', 'words'),
    [
        (['--points', '/radar'], 'no topic /radar; its topics with point clouds are /lidar/points'),
        (['--points', CAMERA], f'{CAMERA} holds sensor_msgs/msg/Image, expected point clouds'),
        (['--points', LIDAR, '--points-only', 'street'], "no class 'street'; expected some of sky"),
        (['--points', LIDAR], 'no TF for the clouds; name a file with the pose of the camera: --camera-pose'),
    ],
)
def test_user_errors_are_one_line(tmp_path, capsys, arguments, words):
    source = make_lidar_bag(tmp_path, with_tf=False)
    assert main([str(source), str(tmp_path / 'out.mcap'), *arguments]) == 1
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith('segment_bag: ')]
    assert words in line
    assert not (tmp_path / 'out.mcap').exists()


@pytest.mark.parametrize(
    ('content', 'words'),
    [
        ('[1, 2]', '[1, 2]; expected 6 numbers, x, y, z, roll, pitch, yaw'),
        ('{/front: [1, 2, x, 4, 5, 6]}', "/front: [1, 2, 'x', 4, 5, 6]; expected 6 numbers"),
        ('[2, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0]', 'the matrix is not a rotation and a translation'),
        ('{/front: [0, 0, 0, 0, 0, 0]}', f'--camera-pose has no pose of {CAMERA}; it has /front'),
        ('"', 'not YAML'),
    ],
)
def test_a_file_that_is_no_pose_is_an_error(tmp_path, capsys, content, words):
    source = make_lidar_bag(tmp_path, with_tf=False)
    (tmp_path / 'pose.yaml').write_text(content)
    arguments = [str(source), str(tmp_path / 'o.mcap'), '--points', LIDAR, '--camera-pose', str(tmp_path / 'pose.yaml')]
    try:
        assert main(arguments) == 1
    except SystemExit as error:
        assert error.code == 2
    assert words in capsys.readouterr().err


def test_the_file_of_the_documentation_is_one(tmp_path):
    (block,) = re.findall(r'```yaml\n(.*?)```', (REPOSITORY / 'docs' / 'points.md').read_text(), re.DOTALL)
    (tmp_path / 'poses.yaml').write_text(block)
    poses = read_camera_poses(tmp_path / 'poses.yaml')
    ahead, behind = (transform_of(poses[topic]) for topic in ('/front/image_raw', '/rear/image_raw'))
    assert (ahead @ [10, 0, 0, 1])[2] > 9 and (behind @ [-10, 0, 0, 1])[2] > 9
    assert (ahead @ [10, -3, 0, 1])[0] > 2 and (behind @ [-10, 3, 0, 1])[0] > 2  # to the right


def test_options_about_clouds_need_clouds(tmp_path, capsys):
    source = make_bag(tmp_path, 'mcap')
    for option, value in (('--points-only', 'road'), ('--fixed-frame', 'odom'), ('--camera-pose', 'pose.yaml')):
        with pytest.raises(SystemExit):
            main([str(source), str(tmp_path / 'out.mcap'), option, value])
        assert f'{option}: is about clouds, expected --points as well' in capsys.readouterr().err


def test_a_fixed_frame_beside_poses_is_an_error(tmp_path, capsys):
    source = make_lidar_bag(tmp_path)
    (tmp_path / 'pose.yaml').write_text(json.dumps(POSE))
    arguments = ['--points', LIDAR, '--fixed-frame', 'odom', '--camera-pose', str(tmp_path / 'pose.yaml')]
    with pytest.raises(SystemExit):
        main([str(source), str(tmp_path / 'out.mcap'), *arguments])
    words = '--fixed-frame is odom beside --camera-pose, expected one of them'
    assert words in capsys.readouterr().err
    options = PointOptions((LIDAR,), camera_poses=((CAMERA, tuple(POSE)),), fixed_frame='odom')
    with pytest.raises(BagError, match=words):
        segment_bag(source, tmp_path / 'out.mcap', Segmenter.load(), points=options)
    assert not (tmp_path / 'out.mcap').exists()


def test_clouds_without_an_image_near_in_time_are_named(tmp_path, capsys):
    source = make_lidar_bag(tmp_path, delay=10**10)
    assert main([str(source), str(tmp_path / 'out.mcap'), '--points', LIDAR]) == 1
    assert 'no cloud to paint: /lidar/points at' in (error := capsys.readouterr().err)
    assert f'the nearest image of {CAMERA} is' in error and 'expected at most 0.1 s' in error


def make_tree() -> tuple[TransformTree, list[Any]]:
    """A tree of a vehicle that drives and turns, and its transforms: static ones, then moving ones."""
    rng = np.random.default_rng(0)

    def turn() -> np.ndarray:
        numbers = rng.normal(size=4)
        return numbers / np.linalg.norm(numbers)

    parents = {'lidar': '/base_link', 'lens': 'base_link'}
    fixed = [tf_of(parent, child, rng.normal(size=3), turn()) for child, parent in parents.items()]
    moving = [tf_of('odom', 'base_link', rng.normal(size=3), turn(), second * 10**9) for second in range(1, 6)]
    tree = TransformTree()
    tree.add(TYPES.types[TF](fixed), static=True)
    for entry in moving[::-1]:
        tree.add(TYPES.types[TF]([entry]), static=False)
    return tree, [*fixed, *moving]


def test_transforms_are_those_of_tf2():
    tf2_ros = pytest.importorskip('tf2_ros')
    from geometry_msgs.msg import TransformStamped
    from rclpy.duration import Duration
    from rclpy.serialization import deserialize_message

    from stdc_ros.node.camera_pose import look_up

    tree, entries = make_tree()
    buffer = tf2_ros.Buffer(Duration(seconds=100))
    for index, entry in enumerate(entries):
        entry.header.frame_id = entry.header.frame_id.lstrip('/')
        message = deserialize_message(bytes(TYPES.serialize_cdr(entry, entry.__msgtype__)), TransformStamped)
        (buffer.set_transform_static if index < 2 else buffer.set_transform)(message, 'test')
    for target, source in (('lens', 'lidar'), ('odom', 'lidar'), ('lens', 'odom')):
        for stamp_ms in (1000, 1999, 2500, 4300, 5000):
            now, then = stamp_ms * 10**6, (6000 - stamp_ms) * 10**6
            ours, theirs = tree.look_up(target, now, source, then), look_up(buffer, target, source, now)
            np.testing.assert_allclose(ours, theirs, atol=1e-6)
            ours = tree.look_up(target, now, source, then, 'odom')
            np.testing.assert_allclose(ours, look_up(buffer, target, source, then, now, 'odom'), atol=1e-6)


def test_transforms_that_tf_does_not_know_are_errors():
    tree, _ = make_tree()
    np.testing.assert_allclose(tree.look_up('lens', 0, 'lidar', 0), tree.look_up('lens', 10**12, 'lidar', 0))
    with pytest.raises(CameraInfoError, match="'radar' to 'lens' in TF; its frames are base_link, lens, lidar, odom"):
        tree.look_up('lens', 0, 'radar', 0)
    with pytest.raises(CameraInfoError, match="TF knows 'base_link' from 1.000 to 5.000 s, asked for 6.000 s"):
        tree.look_up('odom', 6 * 10**9, 'lidar', 0)
