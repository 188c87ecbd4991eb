# SPDX-License-Identifier: Apache-2.0
"""Test reading complete and truncated bags of every format, and writing them."""

from __future__ import annotations

import re
import sqlite3
import struct

import numpy as np
import pytest
from bag_helpers import CAMERA, KINDS, make_bag, mcap_record, picture, stamp
from rosbags.highlevel import AnyReader
from rosbags.typesys import Stores, get_typestore

from stdc_ros.bags.message import BagError
from stdc_ros.bags.message_types import ros2_type_name
from stdc_ros.bags.reader import Bag
from stdc_ros.bags.record_scanner import MCAP_MAGIC
from stdc_ros.bags.topic_selection import playable_topics
from stdc_ros.bags.writer import write_bag
from stdc_ros.messages.cdr import COMPRESSED_IMAGE, IMAGE

TEXT = 'std_msgs/msg/String'


@pytest.mark.parametrize('of', [IMAGE, COMPRESSED_IMAGE])
@pytest.mark.parametrize('kind', KINDS)
def test_images_of_every_kind_of_bag(tmp_path, kind, of):
    with Bag(make_bag(tmp_path, kind, {CAMERA: of, '/chatter': TEXT})) as bag:
        assert bag.select_topics() == [CAMERA]
        assert bag.image_topics[CAMERA] == (of, 6)
        messages = list(bag.messages([CAMERA]))
    assert bag.damage == ''
    assert [message.time for message in messages] == [stamp(i) + 5_000_000 for i in range(6)]
    for i, message in enumerate(messages):
        header = message.message.header
        assert (header.stamp.sec, header.stamp.nanosec, header.frame_id) == (*divmod(stamp(i), 10**9), 'front')
        np.testing.assert_array_equal(message.bgr(), picture(i))


def test_messages_are_sorted_by_time(tmp_path):
    with Bag(make_bag(tmp_path, 'mcap', {'/right/image': IMAGE, '/left/image': IMAGE})) as bag:
        messages = list(bag.messages(bag.select_topics(all_topics=True)))
    times = [message.time for message in messages]
    assert len(times) == 12 and times == sorted(times)


@pytest.mark.parametrize(
    ('topics', 'wanted', 'message'),
    [
        ({'/a': IMAGE, '/b': IMAGE}, [], r'several image topics, name one .*: /a \(Image, 6\), /b \(Image, 6\)'),
        ({'/a': IMAGE}, ['/c'], r'no topic /c; its image topics are /a \(Image, 6\)'),
        ({'/a': IMAGE, '/t': TEXT}, ['/t'], r'/t holds std_msgs/msg/String, expected images; .* /a'),
        ({'/t': TEXT}, [], r'no topic with images; the bag holds /t \(std_msgs/msg/String\)'),
    ],
)
def test_wrong_topic_is_an_error(tmp_path, topics, wanted, message):
    with Bag(make_bag(tmp_path, 'mcap', topics)) as bag, pytest.raises(BagError, match=message):
        bag.select_topics(wanted)


@pytest.mark.parametrize(
    ('name', 'content', 'message'),
    [
        ('absent.mcap', None, 'no such bag'),
        ('text.mcap', b'hello', 'cannot be read as a bag'),
        ('empty.mcap', b'', 'it is empty'),
        ('text.db3', b'hello' * 100, 'cannot be read as a bag'),
        ('text.bag', b'hello', 'cannot be read as a bag'),
        ('image.png', b'hello', 'expected a .bag, .mcap or .db3 file'),
    ],
)
def test_file_that_is_not_a_bag(tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(BagError, match=message) as error:
        Bag(tmp_path / name)
    assert str(tmp_path / name) in str(error.value)


@pytest.mark.parametrize(
    ('kind', 'name', 'words'),
    [
        ('rosbag1', 'drive.mcap', 'its content is that of a .bag file: rename it'),
        ('mcap', 'drive.bag', 'its content is that of a .mcap file: rename it'),
        ('sqlite3', 'drive.mcap', 'its content is that of a .db3 file: rename it'),
        (b'', 'drive.mcap', 'it is empty'),
        (b'version https://git-lfs.github.com/spec/v1\noid', 'drive.bag', 'a pointer of Git LFS: run `git lfs pull`'),
        (b'\x1f\x8b\x08' + bytes(50), 'drive.bag', 'it is packed with gzip: unpack it first'),
        (b'<!DOCTYPE html>', 'drive.mcap', 'probably a failed download'),
    ],
)
def test_file_with_other_content_than_its_name_says(tmp_path, kind, name, words):
    (tmp_path / 'other').mkdir()
    path = tmp_path / 'other' / name
    if isinstance(kind, bytes):
        path.write_bytes(kind)
    else:
        made = make_bag(tmp_path, kind)
        path.write_bytes((next(made.glob('*.db3')) if made.is_dir() else made).read_bytes())
    with pytest.raises(BagError) as error:
        Bag(path)
    assert str(error.value).startswith(f'{path}: cannot be read as a bag: ') and words in str(error.value)


@pytest.mark.parametrize('kind', ['sqlite3', 'mcap folder'])
def test_compressed_file_of_a_bag_is_read_alone(tmp_path, kind):
    (path,) = make_bag(tmp_path, kind, compression='file').glob('*.zstd')
    with Bag(path) as bag:
        assert len(list(bag.messages(bag.select_topics()))) == 6 and not bag.damage


def mcap(path, type_name, encoding, messages, profile='ros2'):
    """Write an MCAP without an index, as some recorders do."""
    records = [
        mcap_record(0x01, profile, 'test'),
        mcap_record(0x03, struct.pack('<H', 1), type_name, '', ''),
        mcap_record(0x04, struct.pack('<HH', 1, 1), CAMERA, encoding, bytes(4)),
        *(mcap_record(0x05, struct.pack('<HIQQ', 1, 0, i, i), data) for i, data in enumerate(messages)),
        mcap_record(0x0F, bytes(4)),
        mcap_record(0x02, bytes(20)),
    ]
    path.write_bytes(MCAP_MAGIC + b''.join(records) + MCAP_MAGIC)
    return path


@pytest.mark.parametrize(
    'name',
    ['sensor_msgs/Image', 'sensor_msgs/msg/Image', 'sensor_msgs::msg::dds_::Image_', 'sensor_msgs::msg::Image'],
)
def test_every_spelling_of_a_type_is_read(tmp_path, name):
    with Bag(make_bag(tmp_path, 'mcap')) as bag:
        messages = [message.data for message in bag.messages([CAMERA])]
    with Bag(mcap(tmp_path / 'spelt.mcap', name, 'cdr', messages)) as bag:
        assert bag.topics == {CAMERA: (IMAGE, 6)} and not bag.damage
        for i, message in enumerate(bag.messages(bag.select_topics())):
            np.testing.assert_array_equal(message.bgr(), picture(i))


@pytest.mark.parametrize('kind', ['rosbag1', 'sqlite3'])
@pytest.mark.parametrize('name', ['sensor_msgs/Image', 'sensor_msgs/msg/Image', 'sensor_msgs::msg::dds_::Image_'])
def test_every_spelling_of_a_type_in_other_formats(tmp_path, monkeypatch, kind, name):
    monkeypatch.setattr('rosbags.rosbag1.writer.denormalize_msgtype', lambda _: name)
    path = make_bag(tmp_path, kind)
    for file in path.glob('*.db3'):
        database = sqlite3.connect(file)
        database.execute('UPDATE topics SET type = ?', (name,))
        database.commit()
        database.close()
    with Bag(path) as bag:
        assert bag.topics == {CAMERA: (IMAGE, 6)} and not bag.damage
        for i, message in enumerate(bag.messages(bag.select_topics())):
            np.testing.assert_array_equal(message.bgr(), picture(i))


@pytest.mark.parametrize('name', ['foxglove.Image', 'sensor_msgs/srv/Image', 'a/b/c/Image', 'Image', 'msg/Image', ''])
def test_other_type_names_are_kept(name):
    assert ros2_type_name(name) == name


@pytest.mark.parametrize('name', ['sensor_msgs/Image', 'sensor_msgs/msg/Image'])
def test_ros_1_messages_in_mcap(tmp_path, name):
    """``mcap convert`` writes such files from a .bag."""
    ros1 = get_typestore(Stores.ROS1_NOETIC)
    with AnyReader([make_bag(tmp_path, 'rosbag1')]) as reader:
        messages = [bytes(data) for _, _, data in reader.messages()]
    assert ros1.deserialize_ros1(messages[3], IMAGE).header.seq == 3
    with Bag(mcap(tmp_path / 'ros1.mcap', name, 'ros1', messages, 'ros1')) as bag:
        assert not bag.damage
        found = list(bag.messages(bag.select_topics()))
    assert len(found) == 6
    for i, message in enumerate(found):
        assert message.stamp == stamp(i) and message.message.header.frame_id == 'front'
        np.testing.assert_array_equal(message.bgr(), picture(i))


def test_unknown_message_encoding_is_named(tmp_path):
    path = mcap(tmp_path / 'foxglove.mcap', 'sensor_msgs/Image', 'json', [b'{}'], '')
    with Bag(path) as bag, pytest.raises(BagError) as error:
        bag.select_topics()
    assert str(error.value) == (f'{path}: no topic with images; the bag holds {CAMERA} (sensor_msgs/msg/Image in json)')


@pytest.mark.parametrize(
    ('kind', 'change', 'note'),
    [
        (
            'mcap folder',
            lambda text: text.replace('storage_identifier: mcap', "storage_identifier: ''"),
            "metadata.yaml has storage_identifier '', expected mcap or sqlite3",
        ),
        (
            'sqlite3',
            lambda text: text.replace('version: 8', 'version: 10'),
            "metadata.yaml has version '10', expected 1 to 9",
        ),
        ('mcap folder', lambda text: '', 'metadata.yaml is empty'),
        ('sqlite3', lambda text: 'null\n', 'metadata.yaml has no rosbag2_bagfile_information'),
        ('sqlite3', lambda text: '{' + text, 'metadata.yaml is not YAML: '),
        ('mcap folder', lambda text: text.replace('message_count: 6', 'message_count: &n 6', 1), ''),
        (
            'sqlite3',
            lambda text: re.sub('(relative_file_paths:)(.*?db3)', r'\1\2\2', text, flags=re.DOTALL),
            'metadata.yaml lists 2 files, but 1 different names',
        ),
    ],
)
def test_odd_metadata_gives_a_note(tmp_path, kind, change, note):
    path = make_bag(tmp_path, kind)
    metadata = path / 'metadata.yaml'
    changed = change(metadata.read_text())
    assert changed != metadata.read_text()
    metadata.write_text(changed)
    with Bag(path) as bag:
        assert len(list(bag.messages(bag.select_topics()))) == bag.topics[CAMERA].message_count == 6
        assert not bag.damage
        assert len(bag.notes) == bool(note) and all(said.startswith(note) for said in bag.notes)


def test_segmentation_results_are_not_cameras(tmp_path):
    results = ['/segmentation/mask', '/front/segmentation/overlay', '/other_node/color_mask/compressed']
    topics = {CAMERA: IMAGE, **dict.fromkeys(results, IMAGE), results[2]: COMPRESSED_IMAGE}
    with Bag(make_bag(tmp_path, 'mcap', topics, frames=1)) as bag:
        assert bag.select_topics() == bag.select_topics(all_topics=True) == [CAMERA]
        assert playable_topics(bag.path, bag.topics) == [CAMERA]
        assert bag.select_topics([results[0]]) == playable_topics(bag.path, bag.topics, [results[0]]) == [results[0]]
    (tmp_path / 'results').mkdir()
    path = make_bag(tmp_path / 'results', 'mcap', dict.fromkeys(results, IMAGE), frames=1)
    expected = 'no camera topic, only results of a segmentation: .*; name one with'
    with Bag(path) as bag, pytest.raises(BagError, match=expected):
        bag.select_topics()


def test_folder_that_is_not_a_bag(tmp_path):
    with pytest.raises(BagError, match='not the folder of a rosbag2: no .mcap or .db3 files in it'):
        Bag(tmp_path)


def storage(path):
    """Return the file with the messages."""
    return next(file for file in path.iterdir() if file.name != 'metadata.yaml') if path.is_dir() else path


@pytest.mark.parametrize('share', [0.4, 0.7, 0.98])
@pytest.mark.parametrize('kind', KINDS)
def test_truncated_bag_is_read_up_to_the_cut(tmp_path, kind, share):
    path = make_bag(tmp_path, kind, frames=300)
    data = storage(path).read_bytes()
    storage(path).write_bytes(data[: int(share * len(data))])
    with Bag(path) as bag:
        messages = list(bag.messages(bag.select_topics()))
        assert bag.damage
    assert [message.time for message in messages] == [stamp(i) + 5_000_000 for i in range(len(messages))]
    assert abs(len(messages) / 300 - share) < 0.1
    np.testing.assert_array_equal(messages[-1].bgr(), picture(len(messages) - 1))


@pytest.mark.parametrize('kind', ['sqlite3', 'mcap folder'])
def test_folder_whose_recorder_was_killed(tmp_path, kind):
    path = make_bag(tmp_path, kind)
    (path / 'metadata.yaml').unlink()
    with Bag(path) as bag:
        assert len(list(bag.messages(bag.select_topics()))) == 6


def test_bag_cut_at_every_length(tmp_path):
    path = make_bag(tmp_path, 'mcap', frames=3)
    data = path.read_bytes()
    for length in range(0, len(data), 997):
        path.write_bytes(data[:length])
        try:
            with Bag(path) as bag:
                assert 0 < len(list(bag.messages(bag.select_topics()))) <= 3
        except BagError as error:
            assert str(path) in str(error)


def test_failed_write_leaves_no_bag(tmp_path):
    with pytest.raises(RuntimeError), write_bag(tmp_path / 'out.mcap') as bag:
        bag.add_topic('/t', TEXT)
        raise RuntimeError
    assert not list(tmp_path.iterdir())


def test_only_bags_are_overwritten(tmp_path):
    (tmp_path / 'notes').mkdir()
    with pytest.raises(BagError, match='exists already and is not a bag'), write_bag(tmp_path / 'notes', True):
        pass
    assert (tmp_path / 'notes').is_dir()
