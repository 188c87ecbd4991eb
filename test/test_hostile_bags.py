# SPDX-License-Identifier: Apache-2.0
"""Test damaged, truncated and malicious bags: complete messages are read, and damage is reported."""

from __future__ import annotations

import bz2
import errno
import shutil
import sqlite3
import struct
import subprocess
import sys

import numpy as np
import pytest
from bag_helpers import CAMERA, KINDS, make_bag, mcap_record, picture, stamp
from fuzz_changes import BOMB
from lz4 import frame as lz4
from rosbags.rosbag2 import StoragePlugin, Writer

from stdc_ros.bags import reader as bags
from stdc_ros.bags.decompression import ZSTD_MAGIC, unpack, zstd
from stdc_ros.bags.indexed_bag import IndexedBag
from stdc_ros.bags.message import BagError
from stdc_ros.bags.reader import Bag
from stdc_ros.bags.record_scanner import MCAP_MAGIC
from stdc_ros.messages.cdr import IMAGE, TYPES
from stdc_ros.messages.images import ImageError
from stdc_ros.offline.segment_bag import main as segment_bag


def test_files_outside_the_folder_are_not_read(tmp_path):
    for name, frames in (('mine', 2), ('other', 5)):
        (tmp_path / name).mkdir()
        make_bag(tmp_path / name, 'sqlite3', frames=frames)
    shutil.move(tmp_path / 'other' / 'drive' / 'drive.db3', tmp_path / 'mine' / 'other.db3')
    metadata = tmp_path / 'mine' / 'drive' / 'metadata.yaml'
    metadata.write_text(metadata.read_text().replace('drive.db3', '../other.db3'))
    with Bag(tmp_path / 'mine' / 'drive') as bag:
        assert len(list(bag.messages(bag.select_topics()))) == 2
        assert not bag.damage
        assert bag.notes == ['metadata.yaml names other.db3, which is missing; drive.db3 is read instead']


def test_bag_with_a_missing_file_is_refused(tmp_path):
    path = make_bag(tmp_path, 'sqlite3')
    metadata = path / 'metadata.yaml'
    metadata.write_text(metadata.read_text().replace('  - drive.db3\n', '  - drive.db3\n  - drive_1.db3\n'))
    with pytest.raises(
        BagError, match=r'1 of the 2 files that metadata\.yaml names are missing, the first is drive_1\.db3'
    ):
        Bag(path)


def test_folder_with_several_bags_is_refused(tmp_path):
    (tmp_path / 'day').mkdir()
    for name in ('a_0.mcap', 'a_1.mcap'):
        make_bag(tmp_path, 'mcap').rename(tmp_path / 'day' / name)
        shutil.rmtree(tmp_path / 'made')
    with Bag(tmp_path / 'day') as bag:
        assert len(list(bag.messages(bag.select_topics()))) == 12
    make_bag(tmp_path, 'mcap').rename(tmp_path / 'day' / 'b.mcap')
    with pytest.raises(BagError, match=r'holds several bags \(a, b\)'):
        Bag(tmp_path / 'day')


@pytest.mark.parametrize('kind', ['sqlite3', 'mcap folder'])
def test_topics_are_found_with_invalid_qos_metadata(kind, tmp_path):
    path = make_bag(tmp_path, kind)
    metadata = path / 'metadata.yaml'
    quality = "offered_qos_profiles: '- {history: 1, depth: 5, reliability: 2, durability: 2, "
    quality += 'deadline: {sec: 0, nsec: 0}, lifespan: {sec: 0, nsec: 0}, '
    quality += 'liveliness: 1, liveliness_lease_duration: {sec: 0, nsec: 0}, '
    quality += "avoid_ros_namespace_conventions: false}'"
    said = metadata.read_text().replace("offered_qos_profiles: ''", quality)
    assert quality in said
    metadata.write_text(said)
    with Bag(path) as bag:
        assert len(list(bag.messages(bag.select_topics()))) == bag.topics[CAMERA].message_count == 6
        assert not bag.damage


def test_temporary_error_is_not_damage(tmp_path, monkeypatch):
    path = make_bag(tmp_path, 'mcap')
    messages = IndexedBag.messages

    def stale(self, connections):
        yield next(messages(self, connections))
        raise OSError(errno.ESTALE, 'Stale file handle')

    monkeypatch.setattr(IndexedBag, 'messages', stale)
    with Bag(path) as bag, pytest.raises(BagError, match='cannot be read: Stale file handle'):
        list(bag.messages([CAMERA]))
    monkeypatch.setattr(bags, 'IndexedBag', lambda files: (_ for _ in ()).throw(OSError(errno.ENOSPC, 'no space')))
    with pytest.raises(BagError, match='cannot be read: no space, to unpack it in /'):
        Bag(path)


def test_partly_decompressed_bag_is_read(tmp_path):
    path = make_bag(tmp_path, 'mcap folder', compression='file')
    metadata = path / 'metadata.yaml'
    names = '  - drive.mcap.zstd\n'
    metadata.write_text(metadata.read_text().replace(names, f'{names}  - drive_1.mcap.zstd\n'))
    (path / 'drive_1.mcap').write_bytes(make_bag(tmp_path, 'mcap').read_bytes())
    with Bag(path) as bag:
        assert len(list(bag.messages([CAMERA]))) == 12


def test_overlapping_files_are_sorted_by_time(tmp_path):
    (tmp_path / 'day').mkdir()
    for number in range(3):
        with Writer(tmp_path / 'made', version=8, storage_plugin=StoragePlugin.MCAP) as writer:
            connection = writer.add_connection(CAMERA, IMAGE, typestore=TYPES)
            for time in range(5 * number, 5 * number + 8):
                writer.write(connection, 10 * time + number, b'')
        (tmp_path / 'made' / 'made.mcap').rename(tmp_path / 'day' / f'drive_{number}.mcap')
        shutil.rmtree(tmp_path / 'made')
    with Bag(tmp_path / 'day') as bag:
        times = [message.time for message in bag.messages([CAMERA])]
    assert len(times) == 24 and times == sorted(times)


def test_mcap_without_index_is_sorted_by_time(tmp_path):
    """rosbag2 writes such files with the preset fastwrite, whose threads may swap neighbouring messages."""
    with Bag(make_bag(tmp_path, 'mcap')) as bag:
        data = [TYPES.serialize_cdr(message.message, IMAGE) for message in bag.messages([CAMERA])]
    records = [
        mcap_record(0x01, 'ros2', ''),
        mcap_record(0x03, struct.pack('<H', 1), IMAGE, 'ros2msg', ''),
        mcap_record(0x04, struct.pack('<HH', 1, 1), CAMERA, 'cdr', ''),
    ]
    for time in (0, 1, 3, 2, 4, 5):
        records.append(mcap_record(0x05, struct.pack('<HIQQ', 1, time, time, time), data[time]))
    end = [mcap_record(0x0F, bytes(4)), mcap_record(0x02, bytes(20)), MCAP_MAGIC]
    path = tmp_path / 'fast.mcap'
    path.write_bytes(MCAP_MAGIC + b''.join(records + end))
    with Bag(path) as bag:
        assert [message.time for message in bag.messages([CAMERA])] == list(range(6))
        assert not bag.damage


@pytest.mark.parametrize('indexed', [True, False])
@pytest.mark.parametrize('where', [0.01, 0.5])
def test_damaged_mcap_chunk_is_reported(indexed, where, tmp_path):
    path = make_bag(tmp_path, 'mcap', frames=400, compression='storage')
    data = path.read_bytes()
    place = data.index(ZSTD_MAGIC, int(where * len(data)))
    data = data[:place] + bytes(4) + data[place + 4 :]
    if not indexed:  # without summary and chunk index
        data = data[: data.rindex(mcap_record(0x0F, bytes(4)))] + mcap_record(0x0F, bytes(4))
        data += mcap_record(0x02, bytes(20)) + MCAP_MAGIC
    path.write_bytes(data)
    with Bag(path) as bag:
        found = [message.time for message in bag.messages([CAMERA])]
        assert bag.damage
    assert 200 < len(found) < 400 and found == sorted(set(found))


def test_messages_outside_a_damaged_chunk_are_segmented(tmp_path, capsys):
    path = make_bag(tmp_path, 'rosbag1', frames=400, compression='lz4')
    data = path.read_bytes()
    middle = len(data) // 2
    path.write_bytes(data[:middle] + bytes(4000) + data[middle + 4000 :])
    with Bag(path) as bag:
        found = [message.time for message in bag.messages([CAMERA])]
        assert bag.damage
    whole = [stamp(index) + 5_000_000 for index in range(400)]
    assert found == sorted(set(found)) and set(found) < set(whole)
    assert 200 < len(found) < 400 and found[0] == whole[0] and found[-1] == whole[-1]
    assert segment_bag([str(path), str(tmp_path / 'out.mcap'), '--outputs', 'mask', '--input-scale', '0.5']) == 0
    assert f'): {len(found)} of its 400 images are segmented' in capsys.readouterr().err


def test_message_definitions_of_a_bag_are_not_used(tmp_path):
    """rosbags would generate Python from the definition, which here is too long for any memory."""
    source = make_bag(tmp_path, 'mcap', frames=1)
    with Bag(source) as bag:
        message = next(bag.messages([CAMERA])).message
    with Writer(tmp_path / 'odd', version=8, storage_plugin=StoragePlugin.MCAP) as writer:
        huge = 'string[1000000000] x\n'
        connection = writer.add_connection(CAMERA, IMAGE, msgdef=huge, rihs01='RIHS01_0')
        writer.write(connection, 1, TYPES.serialize_cdr(message, IMAGE))
    with Bag(tmp_path / 'odd') as bag:
        np.testing.assert_array_equal(next(bag.messages(bag.select_topics())).bgr(), picture(0))
        assert not bag.damage


def test_odd_topic_name_gives_one_line(tmp_path):
    with Bag(make_bag(tmp_path, 'mcap', {'/a\n\x1b[2Jb': IMAGE})) as bag, pytest.raises(BagError) as error:
        bag.select_topics()
    assert str(error.value).isprintable() and 'is not a ROS name' in str(error.value)


def test_damaged_message_is_left_out(tmp_path, capsys):
    path = make_bag(tmp_path, 'sqlite3')
    database = sqlite3.connect(path / 'drive.db3')
    (data,) = database.execute('SELECT data FROM messages WHERE id=4').fetchone()
    # A stamp of 2**31 seconds or more, which no ROS 2 message can hold.
    late = data[:4] + bytes.fromhex('ffffff7fffffffff') + data[12:]
    database.executemany('UPDATE messages SET data=? WHERE id=?', [(data[:9], 3), (late, 4)])
    database.commit()
    database.close()
    with Bag(path) as bag:
        messages = list(bag.messages(bag.select_topics()))
        assert not bag.damage
    assert [bool(message.problem) for message in messages] == [False, False, True, True, False, False]
    with pytest.raises(ImageError, match='not a message of type sensor_msgs/msg/Image'):
        messages[2].bgr()
    assert segment_bag([str(path), str(tmp_path / 'out.mcap')]) == 0
    assert '2 of 6 images could not be segmented and are left out' in capsys.readouterr().err


CUT = [
    *((kind, '') for kind in KINDS),
    ('rosbag1', 'lz4'),
    ('sqlite3', 'file'),
    ('sqlite3', 'message'),
    ('mcap', 'storage'),
    ('mcap folder', 'file'),
]


@pytest.mark.parametrize(('kind', 'compression'), CUT)
def test_messages_before_the_cut_are_read(kind, compression, tmp_path):
    frames = 40
    path = make_bag(tmp_path, kind, frames=frames, compression=compression)
    file = next(file for file in path.iterdir() if file.name != 'metadata.yaml') if path.is_dir() else path
    data = file.read_bytes()
    ends = [data.find(picture(i).tobytes()) + picture(i).nbytes for i in range(frames)]
    before = 0
    for length in (*range(0, len(data), len(data) // 25), *range(len(data) - 200, len(data), 23)):
        file.write_bytes(data[:length])
        if path.is_dir() and length > len(data) // 2:  # a killed recorder has not written this file yet
            (path / 'metadata.yaml').unlink(missing_ok=True)
        count = 0
        try:
            with Bag(path) as bag:
                for message in bag.messages(bag.select_topics()):
                    if message.problem:  # rosbags 0.11.0 reads missing bytes of SQLite's last page as zeros
                        break
                    assert message.time == stamp(count) + 5_000_000
                    np.testing.assert_array_equal(message.bgr(), picture(count))
                    count += 1
                assert bag.damage or message.problem
        except BagError as error:
            assert str(path) in str(error)
        assert count >= before, length
        if not compression and kind != 'sqlite3':  # SQLite pages are not in the order of the messages
            assert count >= sum(end <= length for end in ends), length
        before = count
    # One zstd block holds 17 of these pictures.
    assert before >= (22 if compression == 'file' else 34)


def test_truncated_bag_is_segmented_and_reported(tmp_path, capsys):
    path = make_bag(tmp_path, 'mcap folder', frames=60, compression='file')
    (path / 'metadata.yaml').unlink()
    file = next(path.iterdir())
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    assert segment_bag([str(path), str(tmp_path / 'out.mcap'), '--outputs', 'mask']) == 0
    with Bag(tmp_path / 'out.mcap') as made:
        count = made.topics['/camera/segmentation/mask'].message_count
        assert len(list(made.messages(['/camera/segmentation/mask']))) == count and not made.damage
    assert 10 < count < 50
    said = f'drive is cut off (drive.mcap.zstd is truncated or damaged): the {count} images up to there are segmented'
    assert said in capsys.readouterr().err


def test_write_ahead_log_is_read(tmp_path):
    path = make_bag(tmp_path, 'sqlite3', frames=6)
    (path / 'metadata.yaml').unlink()
    killed = """
import os, sqlite3, sys
database = sqlite3.connect(sys.argv[1])
database.execute('PRAGMA journal_mode=WAL')
database.execute('INSERT INTO messages SELECT id + 6, topic_id, timestamp + 1000000000, data FROM messages')
database.commit()
os._exit(0)
"""
    subprocess.run([sys.executable, '-c', killed, path / 'drive.db3'], check=True)
    before = {file: file.read_bytes() for file in path.iterdir()}
    assert any(file.name.endswith('-wal') for file in before)
    for source in (path, path / 'drive.db3'):
        with Bag(source) as bag:
            assert len(list(bag.messages(bag.select_topics()))) == 12
            assert 'drive.db3-wal' in bag.damage
    assert {file: file.read_bytes() for file in path.iterdir()} == before


@pytest.mark.parametrize('compress', [lz4.compress, zstd.compress, bz2.compress], ids=['lz4', 'zstd', 'bz2'])
def test_decompression_has_a_limit(compress, request):
    packed = compress(bytes(100_000))
    name = request.node.callspec.id
    assert unpack(name, packed, 100_000) == bytes(100_000)
    assert unpack(name, packed + packed, 200_000) == bytes(200_000)
    with pytest.raises(ValueError, match=f'{name}: decompresses to more than 99999 bytes'):
        unpack(name, packed, 99_999)
    with pytest.raises(ValueError, match=name):
        unpack(name, b'x' * 100, 99_999)


def test_nested_chunks_are_refused(tmp_path):
    record = b''
    for _ in range(3000):
        record = mcap_record(0x06, struct.pack('<QQQIIQ', 0, 0, len(record), 0, 0, len(record)), record)
    (tmp_path / 'deep.mcap').write_bytes(MCAP_MAGIC + record)
    with pytest.raises(BagError, match=r'deep\.mcap: cannot be read as a bag'):
        Bag(tmp_path / 'deep.mcap')


def test_view_instead_of_a_table_is_not_evaluated(tmp_path):
    """The view would count for ever."""
    database = sqlite3.connect(tmp_path / 'odd.db3')
    database.execute('CREATE TABLE messages(id, topic_id, timestamp, data)')
    database.execute(
        'CREATE VIEW topics AS WITH RECURSIVE n(id) AS (SELECT 1 UNION ALL SELECT id + 1 FROM n) '
        "SELECT id, 'x' AS name, 'y' AS type FROM n"
    )
    database.close()
    with pytest.raises(BagError, match=r'odd\.db3: cannot be read as a bag'):
        Bag(tmp_path / 'odd.db3')


def test_yaml_aliases_in_metadata_are_not_expanded(tmp_path):
    path = make_bag(tmp_path, 'sqlite3')
    metadata = path / 'metadata.yaml'
    text = metadata.read_text()
    metadata.write_text(
        BOMB + text.replace("compression_format: ''", 'compression_format: *j').replace("mode: ''", 'mode: x')
    )
    assert '*j\n' in metadata.read_text()
    with Bag(path) as bag:
        assert len(list(bag.messages(bag.select_topics()))) == 6
        assert not bag.damage and not bag.notes
