# SPDX-License-Identifier: Apache-2.0
"""Decode H.264 and H.265 video topics of bags with PyAV, frame by frame.

A picture is used only if every picture that it refers to was in the bag: decoding begins at a key frame and, after a
lost packet, continues at the next key frame. Decoders would fill the gap with grey or old pixels.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any, NamedTuple

import numpy as np

from stdc_core.io.text import one_line
from stdc_ros.bags.message import make_header
from stdc_ros.bags.message_types import COMPRESSED_VIDEO

#: Advice for a machine without PyAV.
NEEDS_PYAV = "needs PyAV: pip install '.[video]' in the repository, or pip install av"

_NO_PICTURE = 'refers to pictures that are not in the bag'

_START_CODE = re.compile(b'\x00\x00\x01')

#: NAL unit types of key frames: IDR of H.264 (ITU-T H.264, table 7-1), IRAP of H.265 (ITU-T H.265, table 7-1).
_KEY_H264, _SLICE_H264, _SPS_H264 = 5, (1, 5), 7
_KEY_H265 = range(16, 24)

#: Bytes of a NAL unit that are parsed; slice headers are shorter.
_HEADER_BYTES = 256


class VideoPacket(NamedTuple):
    """Compressed frame: header of the image, codec (``h264`` or ``hevc``) and bytes in Annex B form."""

    header: Any
    codec: str
    data: bytes


def has_pyav() -> bool:
    """Return whether PyAV is installed."""
    return find_spec('av') is not None


def read_packet(message: Any, type_name: str) -> VideoPacket:
    """Return the packet in a video message.

    Args:
        message: ``foxglove_msgs/CompressedVideo`` or ``ffmpeg_image_transport_msgs/FFMPEGPacket``.
        type_name: Type of the message.

    Raises:
        ValueError: The codec is neither H.264 nor H.265.
    """
    if type_name == COMPRESSED_VIDEO:
        stamp, frame_id, name = message.timestamp, message.frame_id, message.format
    else:
        stamp, frame_id, name = message.header.stamp, message.header.frame_id, message.encoding
    header = make_header(stamp.sec * 10**9 + stamp.nanosec, frame_id)
    return VideoPacket(header, _codec(name), bytes(message.data))


def _codec(name: str) -> str:
    """Return ``h264`` or ``hevc`` for the name of a codec or an encoder, such as h265, libx264 or hevc_nvenc."""
    first = name.split(';', maxsplit=1)[0].lower()
    if re.search('hevc|h\\.?265|x265', first):
        return 'hevc'
    if re.search('avc|h\\.?264|x264', first):
        return 'h264'
    raise ValueError(f'video codec {one_line(repr(name), 40)}, expected h264 or h265')


class VideoDecoder:
    """Decodes the packets of one topic.

    Attributes:
        key_frames: Number of key frames so far.
    """

    def __init__(self) -> None:
        self.key_frames = 0
        self._codec = ''
        self._context: Any = None
        self._synchronised = False
        self._frame_numbers = FrameNumbers()
        self._waiting: dict[int, Any] = {}
        self._count = 0

    def decode(self, packet: VideoPacket, source: Any) -> Iterator[tuple[Any, np.ndarray | None, str]]:
        """Decode a packet and yield the packets that are finished, each with its picture or a reason why it has none.

        Args:
            packet: Packet to decode.
            source: Any object, which is yielded with the picture of this packet.

        Yields:
            Source, picture (uint8 ``[H, W, 3]`` BGR, or None) and reason (empty with a picture).
        """
        if packet.codec != self._codec:
            yield from self.flush()
            self._codec = packet.codec
            self._open()
        units = list(nal_units(packet.data))
        key = any(_is_key(unit, self._codec) for unit in units)
        gap = self._codec == 'h264' and self._frame_numbers.gap(units)
        if key:
            self.key_frames += 1
            if not self._synchronised:
                yield from self.flush()
                self._open()
            self._synchronised = True
        elif gap and self._synchronised:
            yield from self.flush()
            self._synchronised = False
        if not self._synchronised:
            where = 'after a lost packet' if self.key_frames else 'before the first key frame'
            yield source, None, f'{_NO_PICTURE}: it is {where}'
            return
        yield from self._decode(packet.data, source)

    def _open(self) -> None:
        import av

        av.logging.set_level(av.logging.PANIC)  # decode() reports problems itself, for each packet
        self._context = av.CodecContext.create(self._codec, 'r')
        self._context.thread_count = 1  # more threads delay pictures
        self._synchronised = False

    def _decode(self, data: bytes, source: Any) -> Iterator[tuple[Any, np.ndarray | None, str]]:
        import av

        packet = av.Packet(data)
        packet.pts = packet.dts = self._count
        self._waiting[self._count] = source
        self._count += 1
        try:
            frames = self._context.decode(packet)
        except av.error.FFmpegError as error:
            self._synchronised = False
            yield self._waiting.pop(packet.pts), None, f'cannot be decoded: {one_line(error)}'
            return
        yield from self._pictures(frames)

    def _pictures(self, frames: list[Any]) -> Iterator[tuple[Any, np.ndarray | None, str]]:
        for frame in frames:
            source = self._waiting.pop(frame.pts, None)
            if source is None:
                continue
            if frame.key_frame:
                # Packets that are decoded before a key frame give no picture after it.
                for number in [number for number in self._waiting if number < frame.pts]:
                    yield self._waiting.pop(number), None, _NO_PICTURE
            if frame.is_corrupt:
                yield source, None, _NO_PICTURE
            else:
                yield source, frame.to_ndarray(format='bgr24'), ''

    def flush(self) -> Iterator[tuple[Any, np.ndarray | None, str]]:
        """Yield the pictures that the decoder still holds, then the packets without a picture."""
        if self._context is not None and self._waiting:
            import av

            try:
                frames = self._context.decode(None)
            except av.error.FFmpegError:
                frames = []
            yield from self._pictures(frames)
            self._context = None
        for source in self._waiting.values():
            yield source, None, _NO_PICTURE
        self._waiting.clear()


def nal_units(data: bytes) -> Iterator[bytes]:
    """Yield the beginnings of the NAL units of an Annex B byte stream, without start codes."""
    starts = [match.end() for match in _START_CODE.finditer(data)]
    for start, end in zip(starts, [*(start - 3 for start in starts[1:]), len(data)], strict=True):
        yield data[start : min(end, start + _HEADER_BYTES)]


def _is_key(unit: bytes, codec: str) -> bool:
    if not unit:
        return False
    return unit[0] & 31 == _KEY_H264 if codec == 'h264' else (unit[0] >> 1) & 63 in _KEY_H265


class FrameNumbers:
    """Finds lost reference frames of H.264 by ``frame_num`` in the slice headers (ITU-T H.264, 7.4.3).

    FFmpeg conceals such a gap with copies of earlier pictures and does not report it. Its decoder of H.265 drops
    pictures with missing references by itself.
    """

    def __init__(self) -> None:
        self._bits = 0  # number of bits of frame_num: log2_max_frame_num of the parameter set
        self._separate_planes = False
        self._gaps_allowed = False
        self._last: int | None = None  # frame_num of the last reference picture

    def gap(self, units: list[bytes]) -> bool:
        """Return whether a reference picture is missing before this access unit."""
        for unit in units:
            if not unit:
                continue
            kind, reference = unit[0] & 31, unit[0] >> 5 & 3
            try:
                if kind == _SPS_H264:
                    self._read_parameters(unit)
                elif kind in _SLICE_H264 and self._bits:
                    number = self._frame_number(unit)
                    last, size = self._last, 1 << self._bits
                    lost = kind == 1 and last is not None and number not in (last, (last + 1) % size)
                    if reference or kind == _KEY_H264:
                        self._last = number
                    return lost and not self._gaps_allowed
            except IndexError:
                return False  # too short to be parsed; the decoder reports it
        return False

    def _frame_number(self, unit: bytes) -> int:
        bits = _Bits(unit[1:])
        for _ in range(3):  # first_mb_in_slice, slice_type, pic_parameter_set_id
            bits.exp_golomb()
        if self._separate_planes:
            bits.read(2)
        return bits.read(self._bits)

    def _read_parameters(self, unit: bytes) -> None:
        bits = _Bits(unit[1:])
        profile = bits.read(8)
        bits.read(16)  # constraint flags, level
        bits.exp_golomb()  # seq_parameter_set_id
        self._separate_planes = False
        if profile in (100, 110, 122, 244, 44, 83, 86, 118, 128, 138, 139, 134, 135):
            chroma = bits.exp_golomb()
            self._separate_planes = chroma == 3 and bool(bits.read(1))
            bits.exp_golomb(), bits.exp_golomb(), bits.read(1)  # bit depths, qpprime_y_zero_transform_bypass
            if bits.read(1):  # seq_scaling_matrix_present_flag
                for index in range(8 if chroma != 3 else 12):
                    if bits.read(1):
                        bits.skip_scaling_list(16 if index < 6 else 64)
        self._bits = bits.exp_golomb() + 4
        order = bits.exp_golomb()
        if order == 0:
            bits.exp_golomb()
        elif order == 1:
            bits.read(1), bits.exp_golomb(), bits.exp_golomb()
            for _ in range(bits.exp_golomb()):
                bits.exp_golomb()
        bits.exp_golomb()  # max_num_ref_frames
        self._gaps_allowed = bool(bits.read(1))


class _Bits:
    """Reads bits of a NAL unit, without its emulation prevention bytes. Raises IndexError at the end."""

    def __init__(self, data: bytes):
        self._data = data.replace(b'\x00\x00\x03', b'\x00\x00')
        self._at = 0

    def read(self, count: int) -> int:
        value = 0
        for _ in range(count):
            value = value << 1 | self._data[self._at >> 3] >> (7 - (self._at & 7)) & 1
            self._at += 1
        return value

    def exp_golomb(self) -> int:
        zeros = 0
        while not self.read(1):
            zeros += 1
            if zeros > 32:
                raise IndexError
        return (1 << zeros) - 1 + self.read(zeros)

    def skip_scaling_list(self, size: int) -> None:
        last, following = 8, 8
        for _ in range(size):
            if following:
                code = self.exp_golomb()
                delta = (code + 1) // 2 if code % 2 else -(code // 2)
                following = (last + delta) % 256
            last = following or last
