# SPDX-License-Identifier: Apache-2.0
"""Test H.264 and H.265 topics: only pictures whose references are in the bag, each with its own stamp."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest
from bag_helpers import CAMERA

from stdc_ros.bags import topic_selection
from stdc_ros.bags.message import BagError, make_header
from stdc_ros.bags.message_types import BAG_TYPES, COMPRESSED_VIDEO, FFMPEG_PACKET
from stdc_ros.bags.reader import Bag
from stdc_ros.bags.writer import write_bag
from stdc_ros.offline.segment_bag import main

FRAMES, GROUP = 30, 10
BEGIN = 1_600_000_000_123_456_789
TOPIC = f'{CAMERA}/ffmpeg'


def scene(index: int) -> np.ndarray:
    """Return a frame of a smooth, moving picture, uint8 ``[96, 128, 3]`` BGR."""
    noise = np.random.default_rng(0).integers(0, 255, (20, 40, 3), np.uint8)
    return np.ascontiguousarray(cv2.resize(noise, (320, 160))[index : index + 96, 2 * index : 2 * index + 128])


def encode(codec: str, b_frames: int = 0) -> list[tuple[int, bytes]]:
    """Encode the scene. Return picture number and bytes of each packet, in decoding order."""
    av = pytest.importorskip('av', reason='PyAV is not installed')
    context = av.CodecContext.create(codec, 'w')
    context.width, context.height, context.pix_fmt = 128, 96, 'yuv420p'
    context.time_base, context.gop_size, context.max_b_frames = Fraction(1, 30), GROUP, b_frames
    context.options = {'preset': 'ultrafast', 'x265-params': 'log-level=none'} if b_frames == 0 else {}
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


def test_unknown_codec_is_named(tmp_path):
    with Bag(record(tmp_path / 'video.mcap', [(0, b'x')], COMPRESSED_VIDEO, 'av1')) as bag:
        (message,) = bag.messages([TOPIC])
    assert "video codec 'av1', expected h264 or h265" in message.problem


def test_missing_pyav_gives_one_line(tmp_path, monkeypatch):
    path = record(tmp_path / 'video.mcap', [(0, b'x')], COMPRESSED_VIDEO, 'h264')
    monkeypatch.setattr(topic_selection, 'has_pyav', lambda: False)
    with Bag(path) as bag, pytest.raises(BagError, match=r"needs PyAV: pip install '\.\[video\]'"):
        bag.select_topics()
