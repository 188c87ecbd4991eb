"""Bags that are damaged, cut off or made to do harm: what is whole is read, and what is not is said."""

from __future__ import annotations

import bz2
import shutil
import sqlite3
import struct
import subprocess
import sys

import numpy as np
import pytest
from bag_helpers import CAMERA, KINDS, make_bag, picture, stamp
from fuzz_changes import BOMB
from lz4 import frame as lz4
from rosbags.rosbag2 import StoragePlugin, Writer

from stdc_ros.bags import IMAGE, Bag, BagError
from stdc_ros.cut_files import MCAP_MAGIC
from stdc_ros.images import ImageError
from stdc_ros.segment_bag import main as segment_bag
from stdc_ros.unpack import unpack, zstd
from stdc_ros.wire import TYPES


def test_files_outside_of_the_folder_are_not_read(tmp_path):
    for name, frames in (('mine', 2), ('other', 5)):
        (tmp_path / name).mkdir()
        make_bag(tmp_path / name, 'sqlite3', frames=frames)
    shutil.move(tmp_path / 'other' / 'drive' / 'drive.db3', tmp_path / 'mine' / 'other.db3')
    metadata = tmp_path / 'mine' / 'drive' / 'metadata.yaml'
    metadata.write_text(metadata.read_text().replace('drive.db3', '../other.db3'))
    with Bag(tmp_path / 'mine' / 'drive') as bag:
        assert len(list(bag.messages(bag.choose()))) == 2
        assert 'missing' in bag.cut


def test_definitions_in_a_bag_are_not_used(tmp_path):
    """rosbags makes Python of them: here so many lines that no memory holds them."""
    source = make_bag(tmp_path, 'mcap', frames=1)
    with Bag(source) as bag:
        message = next(bag.messages([CAMERA])).message
    with Writer(tmp_path / 'odd', version=8, storage_plugin=StoragePlugin.MCAP) as writer:
        huge = 'string[1000000000] x\n'
        connection = writer.add_connection(CAMERA, IMAGE, msgdef=huge, rihs01='RIHS01_0')
        writer.write(connection, 1, TYPES.serialize_cdr(message, IMAGE))
    with Bag(tmp_path / 'odd') as bag:
        np.testing.assert_array_equal(next(bag.messages(bag.choose())).bgr(), picture(0))
        assert not bag.cut


def test_an_odd_topic_is_named_in_one_line(tmp_path):
    with Bag(make_bag(tmp_path, 'mcap', {'/a\n\x1b[2Jb': IMAGE})) as bag, pytest.raises(BagError) as error:
        bag.choose()
    assert str(error.value).isprintable() and 'a topic is called' in str(error.value)


def test_a_damaged_message_is_left_out(tmp_path, capsys):
    path = make_bag(tmp_path, 'sqlite3')
    database = sqlite3.connect(path / 'drive.db3')
    (data,) = database.execute('SELECT data FROM messages WHERE id=4').fetchone()
    # A stamp of 2**31 seconds and more, which no message of ROS 2 holds.
    late = data[:4] + bytes.fromhex('ffffff7fffffffff') + data[12:]
    database.executemany('UPDATE messages SET data=? WHERE id=?', [(data[:9], 3), (late, 4)])
    database.commit()
    database.close()
    with Bag(path) as bag:
        messages = list(bag.messages(bag.choose()))
        assert not bag.cut
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


@pytest.mark.parametrize('kind, compression', CUT)
def test_all_that_is_before_the_cut_is_read(kind, compression, tmp_path):
    frames = 40
    path = make_bag(tmp_path, kind, frames=frames, compression=compression)
    file = next(file for file in path.iterdir() if file.name != 'metadata.yaml') if path.is_dir() else path
    data = file.read_bytes()
    ends = [data.find(picture(i).tobytes()) + picture(i).nbytes for i in range(frames)]
    before = 0
    for length in (*range(0, len(data), len(data) // 25), *range(len(data) - 200, len(data), 23)):
        file.write_bytes(data[:length])
        if path.is_dir() and length > len(data) // 2:  # a killed recorder has not written it
            (path / 'metadata.yaml').unlink(missing_ok=True)
        count = 0
        try:
            with Bag(path) as bag:
                for message in bag.messages(bag.choose()):
                    if message.problem:  # rosbags 0.11.0 takes what is missing of SQLite's last page for zeros
                        break
                    assert message.time == stamp(count) + 5_000_000
                    np.testing.assert_array_equal(message.bgr(), picture(count))
                    count += 1
                assert bag.cut or message.problem
        except BagError as error:
            assert str(path) in str(error)
        assert count >= before, length
        if not compression and kind != 'sqlite3':  # whose pages are not in the order of the messages
            assert count >= sum(end <= length for end in ends), length
        before = count
    # A block of zstd is 17 of these pictures.
    assert before >= (22 if compression == 'file' else 34)


def test_a_cut_bag_is_segmented_and_said(tmp_path, capsys):
    path = make_bag(tmp_path, 'mcap folder', frames=60, compression='file')
    (path / 'metadata.yaml').unlink()
    file = next(path.iterdir())
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    assert segment_bag([str(path), str(tmp_path / 'out.mcap'), '--outputs', 'mask']) == 0
    with Bag(tmp_path / 'out.mcap') as made:
        count = made.topics['/camera/segmentation/mask'].count
        assert len(list(made.messages(made.choose()))) == count and not made.cut
    assert 10 < count < 50
    said = f'drive is cut off (it has no metadata.yaml): the {count} images up to there are segmented'
    assert said in capsys.readouterr().err


def test_what_the_recorder_had_not_moved_into_the_database_is_read(tmp_path):
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
            assert len(list(bag.messages(bag.choose()))) == 12
            assert 'drive.db3-wal' in bag.cut
    assert {file: file.read_bytes() for file in path.iterdir()} == before


@pytest.mark.parametrize('compress', [lz4.compress, zstd.compress, bz2.compress], ids=['lz4', 'zstd', 'bz2'])
def test_unpacking_has_a_limit(compress, request):
    packed = compress(bytes(100_000))
    name = request.node.callspec.id
    assert unpack(name, packed, 100_000) == bytes(100_000)
    assert unpack(name, packed + packed, 200_000) == bytes(200_000)
    with pytest.raises(ValueError, match=f'{name}: more than 99999 bytes'):
        unpack(name, packed, 99_999)
    with pytest.raises(ValueError, match=name):
        unpack(name, b'x' * 100, 99_999)


def test_chunks_in_chunks_are_refused(tmp_path):
    record = b''
    for _ in range(3000):
        content = struct.pack('<QQQIIQ', 0, 0, len(record), 0, 0, len(record)) + record
        record = struct.pack('<BQ', 6, len(content)) + content
    (tmp_path / 'deep.mcap').write_bytes(MCAP_MAGIC + record)
    with pytest.raises(BagError, match=r'deep\.mcap: cannot be read as a bag'):
        Bag(tmp_path / 'deep.mcap')


def test_a_view_in_the_place_of_a_table_is_not_computed(tmp_path):
    """It would count for ever."""
    database = sqlite3.connect(tmp_path / 'odd.db3')
    database.execute('CREATE TABLE messages(id, topic_id, timestamp, data)')
    database.execute(
        'CREATE VIEW topics AS WITH RECURSIVE n(id) AS (SELECT 1 UNION ALL SELECT id + 1 FROM n) '
        "SELECT id, 'x' AS name, 'y' AS type FROM n"
    )
    database.close()
    with pytest.raises(BagError, match=r'odd\.db3: cannot be read as a bag'):
        Bag(tmp_path / 'odd.db3')


def test_metadata_with_aliases_is_not_expanded(tmp_path):
    path = make_bag(tmp_path, 'sqlite3')
    metadata = path / 'metadata.yaml'
    text = metadata.read_text()
    metadata.write_text(
        BOMB + text.replace("compression_format: ''", 'compression_format: *j').replace("mode: ''", 'mode: x')
    )
    assert '*j\n' in metadata.read_text()
    with Bag(path) as bag:
        assert len(list(bag.messages(bag.choose()))) == 6
        assert bag.cut == 'metadata.yaml has aliases'
