# SPDX-License-Identifier: Apache-2.0
"""Test H.264 and H.265 topics: only pictures whose references are in the bag, each with its own stamp."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest
from bag_helpers import CAMERA
from rosbags import rosbag1, rosbag2
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

from stdc_core.io import video_pyav
from stdc_ros.bags.message import BagError, Topic, make_header
from stdc_ros.bags.message_types import BAG_TYPES, COMPRESSED_IMAGE, COMPRESSED_VIDEO, FFMPEG_PACKET
from stdc_ros.bags.nal_units import annex_b, is_parameter_set, nal_units
from stdc_ros.bags.reader import Bag
from stdc_ros.bags.topic_selection import playable_topics
from stdc_ros.bags.writer import write_bag
from stdc_ros.offline.segment_bag import main

FRAMES, GROUP = 30, 10
BEGIN = 1_600_000_000_123_456_789
TOPIC = f'{CAMERA}/ffmpeg'


def scene(index: int) -> np.ndarray:
    """Return a frame of a smooth, moving picture, uint8 ``[96, 128, 3]`` BGR."""
    noise = np.random.default_rng(0).integers(0, 255, (20, 40, 3), np.uint8)
    return np.ascontiguousarray(cv2.resize(noise, (320, 160))[index : index + 96, 2 * index : 2 * index + 128])


def encode(codec: str, b_frames: int = 0, x264: str = '') -> list[tuple[int, bytes]]:
    """Encode the scene. Return picture number and bytes of each packet, in decoding order."""
    av = pytest.importorskip('av', reason='PyAV is not installed')
    context = av.CodecContext.create(codec, 'w')
    context.width, context.height, context.pix_fmt = 128, 96, 'yuv420p'
    context.time_base, context.gop_size, context.max_b_frames = Fraction(1, 30), GROUP, b_frames
    context.options = {'preset': 'ultrafast', 'x265-params': 'log-level=none'} if b_frames == 0 else {}
    if x264:
        context.options = {'preset': 'veryfast', 'x264-params': x264}
    packets = []
    for index in range(FRAMES):
        frame = av.VideoFrame.from_ndarray(scene(index), format='bgr24')
        frame.pts = index
        packets += context.encode(frame)
    return [(packet.pts, bytes(packet)) for packet in (*packets, *context.encode(None))]


def record(path: Path, packets: list[tuple[int, bytes]], type_name: str, codec: str) -> Path:
    """Write a bag with these packets, each with the stamp of its picture."""
    with write_bag(path) as bag:
        bag.add_topic(TOPIC, type_name)
        for position, (index, data) in enumerate(packets):
            header, array = make_header(BEGIN + index, 'front'), np.frombuffer(data, np.uint8)
            if type_name == FFMPEG_PACKET:
                message = BAG_TYPES.types[type_name](header, 128, 96, codec, index, 0, False, array)
            elif type_name == COMPRESSED_IMAGE:
                message = BAG_TYPES.types[type_name](header, codec, array)
            else:
                message = BAG_TYPES.types[type_name](header.stamp, 'front', array, codec)
            bag.write(TOPIC, BEGIN + position, message)
    return path


@pytest.mark.parametrize('type_name', [FFMPEG_PACKET, COMPRESSED_VIDEO])
@pytest.mark.parametrize(
    ('encoder', 'codec', 'b_frames'),
    [
        ('libx264', 'h264', 0),
        ('libx265', 'h265', 0),
        ('libx264', 'libx264;yuv420p;bgr8;bgr8', 2),
        ('libx265', 'hevc', 2),
    ],
)
def test_every_picture_keeps_its_stamp(tmp_path, type_name, encoder, codec, b_frames):
    path = record(tmp_path / 'video.mcap', encode(encoder, b_frames), type_name, codec)
    with Bag(path) as bag:
        found = {message.stamp - BEGIN: message for message in bag.messages(bag.select_topics())}
        assert sorted(found) == list(range(FRAMES)) and not bag.without_key_frames
    for index, message in found.items():
        assert message.header().frame_id == 'front'
        picture = message.to_image()
        assert picture.encoding == 'bgr8'
        error = np.abs(picture.data.reshape(96, 128, 3).astype(int) - scene(index)).mean()
        others = [np.abs(picture.data.reshape(96, 128, 3).astype(int) - scene(other)).mean() for other in (5, 25)]
        assert error < 12 and (index in (5, 25) or error < min(others))


@pytest.mark.parametrize(('encoder', 'codec'), [('libx264', 'h264'), ('libx265', 'h265')])
@pytest.mark.parametrize(('lost', 'missing'), [(range(0, 4), range(4, 10)), (range(13, 15), range(15, 20))])
def test_pictures_with_missing_references_are_left_out(tmp_path, encoder, codec, lost, missing):
    packets = encode(encoder)
    with Bag(record(tmp_path / 'whole.mcap', packets, COMPRESSED_VIDEO, codec)) as bag:
        whole = {message.stamp: message.bgr() for message in bag.messages([TOPIC])}
    kept = [packet for packet in packets if packet[0] not in lost]
    with Bag(record(tmp_path / 'lost.mcap', kept, COMPRESSED_VIDEO, codec)) as bag:
        messages = list(bag.messages([TOPIC]))
    assert len(messages) == len(kept)
    good = [message for message in messages if not message.problem]
    assert [m.stamp - BEGIN for m in good] == [index for index, _ in kept if index not in missing]
    for message in good:
        np.testing.assert_array_equal(message.bgr(), whole[message.stamp])
    assert all('refers to pictures that are not in the bag' in m.problem for m in messages if m.problem)


@pytest.mark.parametrize(('encoder', 'codec'), [('libx264', 'h264'), ('libx265', 'h265')])
def test_video_without_key_frame_is_an_error(tmp_path, capsys, encoder, codec):
    path = record(tmp_path / 'endless.mcap', encode(encoder)[1:GROUP], FFMPEG_PACKET, codec)
    assert main([str(path), str(tmp_path / 'out.mcap')]) == 1
    error = capsys.readouterr().err.strip()
    assert len(error.splitlines()) == 1
    assert f'{TOPIC} has no key frame in {GROUP - 1} video messages' in error


def test_video_is_segmented_and_lost_pictures_counted(tmp_path, capsys):
    path = record(tmp_path / 'video.mcap', encode('libx264')[4:], FFMPEG_PACKET, 'h264')
    assert main([str(path), str(tmp_path / 'out.mcap'), '--outputs', 'mask']) == 0
    assert '6 of 26 images could not be segmented and are left out' in capsys.readouterr().err
    with Bag(tmp_path / 'out.mcap') as bag:
        assert bag.topics['/camera/segmentation/mask'].message_count == 20


@pytest.fixture(scope='module')
def packets():
    """Return H.264 packets of the scene."""
    return encode('libx264')


def pictures(path: Path) -> tuple[dict[int, np.ndarray], list[str]]:
    """Return the pictures of a bag by the number of their stamp, and the problems of the other messages."""
    with Bag(path) as bag:
        messages = list(bag.messages([TOPIC]))
    return {m.stamp - BEGIN: m.bgr() for m in messages if not m.problem}, [m.problem for m in messages if m.problem]


def assert_same(found: dict[int, np.ndarray], expected: dict[int, np.ndarray], numbers: list[int]) -> None:
    """Check that exactly these pictures were found, and that they are pixel by pixel those of the whole bag."""
    assert sorted(found) == numbers
    for number in numbers:
        np.testing.assert_array_equal(found[number], expected[number])


def without_parameters(codec: str, data: bytes) -> bytes:
    return annex_b(unit for unit in nal_units(data) if not is_parameter_set(unit, codec))


def only_parameters(codec: str, data: bytes) -> bytes:
    return annex_b(unit for unit in nal_units(data) if is_parameter_set(unit, codec))


@pytest.mark.parametrize(('encoder', 'codec'), [('libx264', 'h264'), ('libx265', 'hevc')])
def test_parameter_sets_are_kept(tmp_path, encoder, codec):
    packets = encode(encoder)
    whole = pictures(record(tmp_path / 'whole.mcap', packets, COMPRESSED_VIDEO, codec))[0]
    # They come once, at the beginning. Decoding begins a second time after the lost picture 13.
    once = [packets[0], *((number, without_parameters(codec, data)) for number, data in packets[1:])]
    path = record(tmp_path / 'once.mcap', once[:13] + once[14:], COMPRESSED_VIDEO, codec)
    assert_same(pictures(path)[0], whole, [*range(13), *range(20, FRAMES)])
    # They come in a message of their own before each key frame.
    apart = []
    for number, data in packets[4:]:
        if parameters := only_parameters(codec, data):
            apart.append((number, parameters))
        apart.append((number, without_parameters(codec, data)))
    found, problems = pictures(record(tmp_path / 'apart.mcap', apart, COMPRESSED_VIDEO, codec))
    assert_same(found, whole, [*range(GROUP, FRAMES)])
    assert problems.count('has no picture, only parameter sets') == 2


def test_missing_parameter_sets_are_named(tmp_path, packets, capsys):
    stripped = [(number, without_parameters('h264', data)) for number, data in packets]
    path = record(tmp_path / 'video.mcap', stripped, COMPRESSED_VIDEO, 'h264')
    assert main([str(path), str(tmp_path / 'out.mcap')]) == 1
    assert 'its parameter sets (SPS, PPS) are not in the bag' in capsys.readouterr().err


@pytest.mark.parametrize(('encoder', 'codec'), [('libx264', 'h264'), ('libx265', 'hevc')])
def test_lengths_before_units_are_read_like_start_codes(tmp_path, encoder, codec):
    packets = encode(encoder)
    whole = pictures(record(tmp_path / 'whole.mcap', packets, COMPRESSED_VIDEO, codec))[0]
    lengths = [
        (number, b''.join(len(unit).to_bytes(4, 'big') + unit for unit in nal_units(data))) for number, data in packets
    ]
    path = record(tmp_path / 'avcc.mcap', lengths, COMPRESSED_VIDEO, codec)
    assert_same(pictures(path)[0], whole, list(range(FRAMES)))


@pytest.mark.parametrize('data', [b'', b'no video', bytes(range(200))], ids=['empty', 'text', 'bytes'])
def test_message_without_video_is_left_out(tmp_path, packets, data):
    whole = pictures(record(tmp_path / 'whole.mcap', packets, COMPRESSED_VIDEO, 'h264'))[0]
    mixed = [*packets[:12], (12, data), *packets[12:]]
    found, problems = pictures(record(tmp_path / 'mixed.mcap', mixed, COMPRESSED_VIDEO, 'h264'))
    assert_same(found, whole, list(range(FRAMES)))
    assert len(problems) == 1 and 'expected start codes (Annex B) or lengths (AVCC)' in problems[0]


def test_repeated_message_is_left_out(tmp_path, packets):
    whole = pictures(record(tmp_path / 'whole.mcap', packets, COMPRESSED_VIDEO, 'h264'))[0]
    twice = [packet for packet in packets for _ in range(2)]
    found, problems = pictures(record(tmp_path / 'twice.mcap', twice, COMPRESSED_VIDEO, 'h264'))
    assert_same(found, whole, list(range(FRAMES)))
    assert problems == ['repeats the message before it'] * FRAMES


def test_nothing_refers_to_a_damaged_picture(tmp_path, packets):
    whole = pictures(record(tmp_path / 'whole.mcap', packets, COMPRESSED_VIDEO, 'h264'))[0]
    damaged = [(number, data[: len(data) // 2] if number == 13 else data) for number, data in packets]
    found, problems = pictures(record(tmp_path / 'damaged.mcap', damaged, COMPRESSED_VIDEO, 'h264'))
    assert_same(found, whole, [*range(13), *range(20, FRAMES)])
    assert problems == ['is damaged, or refers to a damaged picture'] * 7


@pytest.mark.parametrize(
    ('options', 'b_frames', 'good'),
    [
        (f'open-gop=1:keyint={GROUP}:min-keyint={GROUP}:scenecut=0', 3, None),
        (f'intra-refresh=1:keyint={GROUP}:scenecut=0', 0, [*range(16, FRAMES)]),
    ],
    ids=['open group', 'intra refresh'],
)
def test_decoding_begins_at_a_recovery_point(tmp_path, options, b_frames, good):
    packets = encode('libx264', b_frames, options)
    whole = pictures(record(tmp_path / 'whole.mcap', packets, COMPRESSED_VIDEO, 'h264'))[0]
    found, problems = pictures(record(tmp_path / 'cut.mcap', packets[4:], COMPRESSED_VIDEO, 'h264'))
    # The pictures behind the first complete one, and none that refers to the missing ones.
    assert_same(found, whole, good or list(range(min(found), FRAMES)))
    assert min(found) < 20 and len(found) + len(problems) == len(packets) - 4


def test_first_definition_of_ffmpeg_packet(tmp_path, packets):
    definition = (
        'std_msgs/Header header\nuint8[] data\nint32 img_width\nint32 img_height\nstring encoding\nuint64 pts\n'
        'uint8 flags'
    )
    for store, suffix in ((Stores.ROS1_NOETIC, '.bag'), (Stores.ROS2_HUMBLE, '')):
        types = get_typestore(store)
        types.register(get_types_from_msg(definition, FFMPEG_PACKET))
        path = tmp_path / f'video{suffix}'
        ros1 = suffix == '.bag'
        with rosbag1.Writer(path) if ros1 else rosbag2.Writer(path, version=8) as bag:
            connection = bag.add_connection(TOPIC, FFMPEG_PACKET, typestore=types)
            for number, data in packets:
                time = types.types['builtin_interfaces/msg/Time'](*divmod(BEGIN + number, 10**9))
                header = types.types['std_msgs/msg/Header'](*([number] if ros1 else []), time, 'front')
                array = np.frombuffer(data, np.uint8)
                message = types.types[FFMPEG_PACKET](header, array, 128, 96, 'libx264', number, 0)
                write = types.serialize_ros1 if ros1 else types.serialize_cdr
                bag.write(connection, BEGIN + number, write(message, FFMPEG_PACKET))
        assert sorted(pictures(path)[0]) == list(range(FRAMES))


def test_video_in_compressed_images(tmp_path, packets, monkeypatch):
    whole = pictures(record(tmp_path / 'whole.mcap', packets, COMPRESSED_VIDEO, 'h264'))[0]
    path = record(tmp_path / 'image.mcap', packets, COMPRESSED_IMAGE, 'h264')
    assert_same(pictures(path)[0], whole, list(range(FRAMES)))
    monkeypatch.setattr(video_pyav, 'find_spec', lambda name: None)
    assert 'format h264 needs PyAV' in pictures(path)[1][0]


def test_one_transport_of_a_camera_is_played():
    transports = [f'{CAMERA}/{name}' for name in ('ffmpeg', 'compressed', 'foxglove')]
    kinds = dict(zip(transports, (FFMPEG_PACKET, COMPRESSED_IMAGE, COMPRESSED_VIDEO), strict=True))
    topics = {name: Topic(kind, 5) for name, kind in kinds.items()}
    assert playable_topics('drive.mcap', topics) == [f'{CAMERA}/compressed']
    topics[f'{CAMERA}/compressed'] = Topic(COMPRESSED_IMAGE, 0)
    assert playable_topics('drive.mcap', topics) == [f'{CAMERA}/foxglove']


def test_old_pyav_is_refused(monkeypatch):
    pytest.importorskip('av', reason='PyAV is not installed')
    monkeypatch.setattr(video_pyav, 'version', lambda name: '12.3.0')
    assert video_pyav.why_no_pyav().startswith('needs PyAV 16 or newer, found 12.3.0: pip install')


def test_unknown_codec_is_named(tmp_path):
    with Bag(record(tmp_path / 'video.mcap', [(0, b'x')], COMPRESSED_VIDEO, 'av1')) as bag:
        (message,) = bag.messages([TOPIC])
    assert message.problem == "the video codec is 'av1', expected h264 or h265"


def test_missing_pyav_gives_one_line(tmp_path, monkeypatch):
    path = record(tmp_path / 'video.mcap', [(0, b'x')], COMPRESSED_VIDEO, 'h264')
    monkeypatch.setattr(video_pyav, 'find_spec', lambda name: None)
    with Bag(path) as bag, pytest.raises(BagError, match=r"needs PyAV: pip install '\.\[video\]'"):
        bag.select_topics()
