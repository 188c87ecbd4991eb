# SPDX-License-Identifier: Apache-2.0
"""Test segment_bag: every frame at its time, reproducible bytes, and no incomplete bag."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from bag_helpers import CAMERA, KINDS, make_bag, picture, stamp
from rosbags.highlevel import AnyReader

from stdc_core.classes import class_table
from stdc_core.commands.main import main as stdc
from stdc_core.inference import DEFAULT_MODEL, Segmenter
from stdc_core.io.bag_metadata import read_custom_data
from stdc_core.pictures.overlay import colorize, overlay
from stdc_ros.bags.reader import Bag
from stdc_ros.messages.cdr import CAMERA_INFO, COMPRESSED_IMAGE, IMAGE
from stdc_ros.messages.images import image_to_bgr
from stdc_ros.offline.one_bag import output_prefixes
from stdc_ros.offline.segment_bag import main


@pytest.fixture(scope='module')
def segmenter() -> Segmenter:
    return Segmenter.load()


def read(path: Path) -> dict[str, list]:
    """Return time and message of everything in a bag by topic, read with rosbags only."""
    found: dict[str, list] = {}
    with AnyReader([path]) as reader:
        for connection, moment, data in reader.messages():
            found.setdefault(connection.topic, []).append((moment, reader.deserialize(data, connection.msgtype)))
    return found


@pytest.mark.parametrize('output', ['out.mcap', 'out'])
@pytest.mark.parametrize('of', [IMAGE, COMPRESSED_IMAGE])
@pytest.mark.parametrize('kind', KINDS)
def test_every_frame_is_segmented(tmp_path, segmenter, kind, of, output):
    source = make_bag(tmp_path, kind, {CAMERA: of})
    outputs = ['mask', 'confidence', 'color_mask', 'overlay']
    assert main([str(source), str(tmp_path / output), '--outputs', *outputs]) == 0
    found = read(tmp_path / output)
    assert sorted(found) == sorted(f'/camera/segmentation/{name}' for name in [*outputs, 'label_info'])
    for i in range(6):
        mask, confidence = segmenter(picture(i), confidence=True)
        classes = segmenter.info.classes
        expected = {
            'mask': mask,
            'confidence': confidence,
            'color_mask': colorize(mask, classes),
            'overlay': overlay(picture(i), mask, classes),
        }
        for name in outputs:
            moment, message = found[f'/camera/segmentation/{name}'][i]
            assert moment == stamp(i) + 5_000_000
            header = message.header
            assert (header.stamp.sec, header.stamp.nanosec, header.frame_id) == (*divmod(stamp(i), 10**9), 'front')
            array = expected[name]
            assert message.encoding == ('mono8' if array.ndim == 2 else 'bgr8')
            assert message.step == array.strides[0]
            np.testing.assert_array_equal(message.data, array.reshape(-1))
            assert image_to_bgr(message).shape == picture(i).shape


def test_reproducible_bytes(tmp_path):
    source = make_bag(tmp_path, 'mcap')
    (tmp_path / 'again').mkdir()
    for name in ('a.mcap', 'b.mcap', 'c', 'again/c'):
        assert main([str(source), str(tmp_path / name)]) == 0
    assert (tmp_path / 'a.mcap').read_bytes() == (tmp_path / 'b.mcap').read_bytes()
    files = sorted(path.name for path in (tmp_path / 'c').iterdir())
    # `ros2 bag reindex` looks for files whose names end in a number, as those of `ros2 bag record`.
    assert files == ['c_0.mcap', 'metadata.yaml']
    for name in files:
        assert (tmp_path / 'c' / name).read_bytes() == (tmp_path / 'again' / 'c' / name).read_bytes()


def test_several_cameras(tmp_path, capsys):
    source = make_bag(tmp_path, 'mcap', {'/left/image': IMAGE, '/right/image': IMAGE})
    out = tmp_path / 'out.mcap'
    assert main([str(source), str(out)]) == 1
    assert 'several image topics' in capsys.readouterr().err
    assert main([str(source), str(out), '--all', '--outputs', 'mask']) == 0
    assert {name: len(of) for name, of in read(out).items()} == {
        '/left/segmentation/mask': 6,
        '/left/segmentation/label_info': 1,
        '/right/segmentation/mask': 6,
        '/right/segmentation/label_info': 1,
    }
    assert main([str(source), str(out), '--topic', '/right/image', '--outputs', 'mask', '--overwrite']) == 0
    assert sorted(read(out)) == ['/right/segmentation/label_info', '/right/segmentation/mask']


@pytest.mark.parametrize('output', ['out.mcap', 'out'])
@pytest.mark.parametrize('kind', KINDS)
def test_segmented_bag_contains_its_classes(tmp_path, segmenter, kind, output):
    source = make_bag(tmp_path, kind, {CAMERA: IMAGE, '/camera/camera_info': CAMERA_INFO})
    assert main([str(source), str(tmp_path / output), '--with-input', '--outputs', 'mask']) == 0
    with AnyReader([tmp_path / output]) as reader:
        found = {connection.topic: connection for connection in reader.connections}
        label_info = next(
            reader.deserialize(data, connection.msgtype)
            for connection, _, data in reader.messages()
            if connection.topic == '/camera/segmentation/label_info'
        )
    latched = found['/camera/segmentation/label_info'].ext.offered_qos_profiles
    assert [quality.durability.name for quality in latched] == ['TRANSIENT_LOCAL']
    names = segmenter.info.classes.names
    assert [(each.class_id, each.class_name) for each in label_info.class_map] == list(enumerate(names))
    with Bag(tmp_path / output) as bag, Bag(source) as before:
        assert bag.classes() == segmenter.info.classes and before.classes() is None
        custom = read_custom_data(tmp_path / output)
        assert custom['stdc.model'] == f'stdc1-seg150, trained on {segmenter.info.provenance["data"]}'
        assert {name: topic.message_count for name, topic in bag.topics.items()} == {
            CAMERA: 6,
            '/camera/camera_info': 6,
            '/camera/segmentation/label_info': 1,
            '/camera/segmentation/mask': 6,
        }
        for name in (CAMERA, '/camera/camera_info'):
            copies, originals = ([(each.time, bytes(each.data)) for each in b.messages([name])] for b in (bag, before))
            assert copies == originals
        assert bag.select_topics() == [CAMERA]


def test_stdc_reads_the_class_table_of_a_segmented_bag_back(tmp_path, segmenter, capsys):
    source, out, folder = make_bag(tmp_path, 'mcap'), tmp_path / 'out.mcap', tmp_path / 'out'
    for target in (out, folder):
        assert main([str(source), str(target), '--outputs', 'mask']) == 0
    metadata = folder / 'metadata.yaml'
    capsys.readouterr()
    printed = []
    for given in (out, folder, DEFAULT_MODEL, 'camvid'):
        if given == folder:  # written by a tool that leaves the texts of programs out
            metadata.write_text(re.sub(r'  custom_data:\n(    .*\n)+', '', metadata.read_text()))
            assert 'stdc.classes' not in metadata.read_text()
        assert stdc(['classes', str(given)]) == 0
        printed.append(capsys.readouterr().out)
        (tmp_path / 'classes.yaml').write_text(printed[-1])
        assert class_table(tmp_path / 'classes.yaml') == segmenter.info.classes
    assert [text.splitlines()[0] for text in printed] == [
        f'# {out}: {segmenter.info.summary}',
        f'# {folder}: {segmenter.info.summary}',
        f'# {DEFAULT_MODEL}: {segmenter.info.summary}',
        '# camvid',
    ]
    assert '  - {name: "road", color: [128, 64, 128]}  # 3\n' in printed[0]


def test_a_bag_without_a_class_table_is_told(tmp_path, capsys):
    for kind in ('mcap', 'sqlite3', 'rosbag1'):
        source = make_bag(tmp_path, kind)
        assert stdc(['classes', str(source)]) == 2
        expected = f'{source}: no class table found; expected a bag that segment_bag wrote'
        assert capsys.readouterr().err == f'stdc classes: {expected}\n'
    assert stdc(['classes', str(tmp_path / 'none.mcap')]) == 2
    assert capsys.readouterr().err == f'stdc classes: {tmp_path / "none.mcap"}: no such bag\n'


@pytest.mark.parametrize(
    ('topics', 'prefixes'),
    [
        (['/camera/image_raw'], ['/camera/segmentation']),
        (['/image'], ['/segmentation']),
        (['/front/image_raw/compressed'], ['/front/segmentation']),
        (['/a/image_raw', '/a/image_rect'], ['/a/image_raw/segmentation', '/a/image_rect/segmentation']),
        (['/a/image', '/a/image/compressed'], ['/a/image/segmentation', '/a/image/compressed/segmentation']),
        # The whole name of the first is the prefix of the third, and that of the third the prefix of the fourth.
        (
            ['/a/raw', '/a/rect', '/a/raw/small', '/a/raw/small/left', '/b/raw'],
            [
                '/a/raw/segmentation',
                '/a/rect/segmentation',
                '/a/raw/small/segmentation',
                '/a/raw/small/left/segmentation',
                '/b/segmentation',
            ],
        ),
    ],
)
def test_outputs_of_two_cameras_never_share_a_topic(topics, prefixes):
    assert list(output_prefixes(topics).values()) == prefixes


def test_topics_that_differ_only_in_slashes(tmp_path, capsys):
    source = make_bag(tmp_path, 'rosbag1', {'/a/image': IMAGE, 'a/image': IMAGE})
    assert main([str(source), str(tmp_path / 'out.mcap'), '--all']) == 1
    expected = f'segment_bag: {source}: /a/image and a/image would both be segmented to /a/image/segmentation'
    assert capsys.readouterr().err.startswith(expected)
    assert not (tmp_path / 'out.mcap').exists()


def test_camera_below_another_one(tmp_path):
    topics = dict.fromkeys(['/front/image_raw', '/front/image_rect', '/front/image_raw/small'], IMAGE)
    source = make_bag(tmp_path, 'mcap', topics, frames=1)
    assert main([str(source), str(tmp_path / 'out.mcap'), '--all', '--outputs', 'mask']) == 0
    outputs = ('mask', 'label_info')
    expected = sorted(f'{name}/segmentation/{output}' for name in topics for output in outputs)
    assert sorted(read(tmp_path / 'out.mcap')) == expected


def test_options_may_stand_between_the_bags(tmp_path):
    source = make_bag(tmp_path, 'mcap')
    assert main([str(source), '--outputs', 'mask', '--threads', '1', str(tmp_path / 'out.mcap')]) == 0
    assert sorted(read(tmp_path / 'out.mcap')) == ['/camera/segmentation/label_info', '/camera/segmentation/mask']


@pytest.mark.parametrize(
    'arguments',
    [
        ['--topic', CAMERA, 'IN', 'OUT', '--outputs', 'mask'],
        ['--outputs', 'mask', 'IN', 'OUT'],
        ['IN', '--outputs', 'mask', '--topic', CAMERA, 'OUT'],
        [f'--topic={CAMERA}', '--outputs', 'mask', 'mask', '--', 'IN', 'OUT'],
    ],
)
def test_list_options_do_not_take_the_bags(tmp_path, arguments):
    names = {'IN': str(make_bag(tmp_path, 'mcap', frames=1)), 'OUT': str(tmp_path / 'out')}
    assert main([names.get(argument, argument) for argument in arguments]) == 0
    assert sorted(read(tmp_path / 'out')) == ['/camera/segmentation/label_info', '/camera/segmentation/mask']


def test_user_errors_are_one_line(tmp_path, capsys):
    source = make_bag(tmp_path, 'mcap')
    out = tmp_path / 'out.mcap'
    out.write_bytes(b'precious')
    for arguments, message in [
        ([str(source), str(source), '--overwrite'], 'is or holds the bag that is read'),
        ([str(source), str(out)], 'exists already; --overwrite replaces it'),
        ([str(tmp_path / 'no.mcap'), str(out), '--overwrite'], 'no such bag'),
        ([str(source), str(tmp_path / 'no' / 'out.mcap')], 'cannot be written: No such file or directory'),
        ([str(source), str(out), '--overwrite', '--topic', '/no'], 'no topic /no; its image topics are'),
        ([str(source), str(out), '--overwrite', '--model', str(source)], 'not an ONNX model'),
    ]:
        assert main(arguments) == 1
        error = capsys.readouterr().err
        assert message in error and 'Traceback' not in error
        assert len(error.strip().splitlines()) == 1
    assert out.read_bytes() == b'precious'


def test_truncated_bag(tmp_path, capsys):
    source = make_bag(tmp_path, 'mcap', frames=30)
    source.write_bytes(source.read_bytes()[:100_000])
    out = tmp_path / 'out.mcap'
    assert main([str(source), str(out)]) == 0
    count = len(read(out)['/camera/segmentation/mask'])
    assert f'is cut off (File end magic is invalid.): the {count} images up to there' in capsys.readouterr().err
    with Bag(source) as bag:
        assert count == bag.topics[CAMERA].message_count > 5


def test_undecodable_images_are_counted(tmp_path, capsys):
    source = make_bag(tmp_path, 'rosbag1')
    # One of six images gets an unknown encoding.
    source.write_bytes(source.read_bytes().replace(b'bgr8', b'nono', 1))
    assert main([str(source), str(tmp_path / 'out.mcap')]) == 0
    error = capsys.readouterr().err
    assert "unknown encoding 'nono'" in error and '1 of 6 images could not be segmented' in error
    assert len(read(tmp_path / 'out.mcap')['/camera/segmentation/mask']) == 5


def test_too_large_images_are_reported(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr('stdc_core.inference.segmenter.MAX_PIXELS', 5000)
    assert main([str(make_bag(tmp_path, 'mcap')), str(tmp_path / 'out.mcap')]) == 1
    error = capsys.readouterr().err
    assert f'no image to segment: {CAMERA} at {stamp(0) + 5_000_000} ns: image of 64 x 40 pixels, 96 x 60 for' in error
    assert 'expected at most 5000' in error


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_interrupted_run_leaves_nothing(tmp_path, number):
    source = make_bag(tmp_path, 'mcap', frames=3000)
    path = os.pathsep.join([str(Path(__file__).parent.parent), os.environ.get('PYTHONPATH', '')])
    # As the installed program does. With -m, Python ends with status 130 if the signal arrives in generated code.
    program = 'import sys; from stdc_ros.offline.segment_bag import main; sys.exit(main())'
    process = subprocess.Popen(
        [sys.executable, '-c', program, str(source), str(tmp_path / 'out.mcap')],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, 'PYTHONPATH': path},
    )
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob('.out.*.part.mcap')) and time.monotonic() < deadline:
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(number)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 128 + number, error
    assert 'interrupted' in error and 'Traceback' not in error
    assert [file.name for file in tmp_path.iterdir() if 'out' in file.name] == []
