# SPDX-License-Identifier: Apache-2.0
"""Decode H.264 and H.265 video topics of bags with PyAV, frame by frame.

A picture is used only if every picture that it refers to was in the bag: decoding begins at a key frame and, after a
lost or damaged packet, continues at the next key frame. Decoders would fill the gap with grey or old pixels.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from stdc_core.io.text import one_line
from stdc_core.io.video_pyav import why_no_pyav
from stdc_ros.bags.message import make_header
from stdc_ros.bags.message_types import COMPRESSED_IMAGE, COMPRESSED_VIDEO
from stdc_ros.bags.nal_units import (
    FrameNumbers,
    annex_b,
    is_b_picture,
    is_independent,
    is_parameter_set,
    is_picture,
    is_recovery_point,
    nal_units,
)

_NO_PICTURE = 'refers to pictures that are not in the bag'
_DAMAGED = 'is damaged, or refers to a damaged picture'
_NO_PARAMETERS = 'cannot be decoded: its parameter sets (SPS, PPS) are not in the bag'

#: Number of parameter sets, and of other units without a picture, that are kept.
_KEPT_UNITS = 64


class CodecError(ValueError):
    """A video codec that cannot be decoded. The message names it."""


class VideoPacket(NamedTuple):
    """Compressed frame: header of the image, codec (``h264`` or ``hevc``) and bytes."""

    header: Any
    codec: str
    data: bytes


def read_packet(message: Any, type_name: str) -> VideoPacket:
    """Return the packet in a video message.

    Args:
        message: ``foxglove_msgs/CompressedVideo``, ``ffmpeg_image_transport_msgs/FFMPEGPacket``, or a
            ``sensor_msgs/CompressedImage`` whose format is one of video.
        type_name: Type of the message.

    Raises:
        CodecError: The codec is neither H.264 nor H.265, or PyAV is missing for a ``CompressedImage``.
    """
    if type_name == COMPRESSED_IMAGE and (problem := why_no_pyav()):
        raise CodecError(f'format {message.format} {problem}')
    if type_name == COMPRESSED_VIDEO:
        stamp, frame_id, name = message.timestamp, message.frame_id, message.format
    else:
        stamp, frame_id = message.header.stamp, message.header.frame_id
        name = message.format if type_name == COMPRESSED_IMAGE else message.encoding
    header = make_header(stamp.sec * 10**9 + stamp.nanosec, frame_id)
    return VideoPacket(header, _codec(name), bytes(message.data))


def is_video_format(text: str) -> bool:
    """Return whether the ``format`` of a ``sensor_msgs/CompressedImage`` names H.264 or H.265, as some drivers do."""
    return re.fullmatch(r'(lib)?[hx]\.?26[45]|hevc|avc', text.strip().lower()) is not None


def _codec(name: str) -> str:
    """Return ``h264`` or ``hevc`` for the name of a codec or an encoder, such as h265, libx264 or hevc_nvenc."""
    first = name.split(';', maxsplit=1)[0].lower()
    if re.search('hevc|hev1|hvc1|h\\.?265|x265', first):
        return 'hevc'
    if re.search('avc|h\\.?264|x264', first):
        return 'h264'
    raise CodecError(f'the video codec is {one_line(repr(name), 40)}, expected h264 or h265')


class VideoDecoder:
    """Decodes the packets of one topic.

    Attributes:
        pictures: Number of packets with a picture so far.
        key_frames: Number of key frames among them, at which decoding can begin.
    """

    def __init__(self) -> None:
        self.pictures = self.key_frames = 0
        self._codec = ''
        self._context: Any = None
        self._why_not = ''  # why no packet can be decoded until the next key frame; empty while they can
        self._frame_numbers = FrameNumbers()
        self._parameters: dict[bytes, None] = {}  # parameter sets in the order in which they were last seen
        self._headers: list[bytes] = []  # units of messages without a picture, which belong to the next picture
        self._before = b''
        self._leading = False  # whether B pictures refer to pictures before the one at which decoding began
        self._waiting: dict[int, Any] = {}
        self._damaged: int | None = None  # number of the first damaged packet
        self._count = 0

    def decode(self, packet: VideoPacket, source: Any) -> Iterator[tuple[Any, np.ndarray | None, str]]:
        """Decode a packet and yield the packets that are finished, each with its picture or a reason why it has none.

        A packet without a picture may hold the parameter sets of the next one.

        Args:
            packet: Packet to decode.
            source: Any object, which is yielded with the picture of this packet.

        Yields:
            Source, picture (uint8 ``[H, W, 3]`` BGR, or None) and reason (empty with a picture).
        """
        if packet.codec != self._codec:
            yield from self._begin(packet.codec)
        units = nal_units(packet.data)
        if not units:
            yield source, None, 'has no H.264 or H.265 data: expected start codes (Annex B) or lengths (AVCC)'
            return
        units = [*self._headers, *units]
        self._remember_parameters(units)
        if not any(is_picture(unit, self._codec) for unit in units):
            self._headers = units[-_KEPT_UNITS:]
            yield source, None, 'has no picture, only parameter sets'
            return
        self.pictures += 1
        if packet.data == self._before:
            yield source, None, 'repeats the message before it'
            return
        self._before = packet.data
        self._headers = []
        key = is_independent(units, self._codec)
        recovery = not key and is_recovery_point(units, self._codec)
        gap = self._codec == 'h264' and self._frame_numbers.gap(units)
        if key or recovery:
            self.key_frames += 1
            if self._why_not or gap:
                yield from self.flush()
                self._open(recovery)
                units = [*self._parameters, *units]
        elif gap and not self._why_not:
            yield from self.flush()
            self._why_not = f'{_NO_PICTURE}: it is after a lost packet'
        elif self._leading and not is_b_picture(units, self._codec):
            self._leading = False
        if self._leading and not recovery:
            yield source, None, f'{_NO_PICTURE}: it is before the first key frame'
        elif self._why_not:
            yield source, None, self._why_not
        else:
            yield from self._decode(annex_b(units), source)

    def _begin(self, codec: str) -> Iterator[tuple[Any, np.ndarray | None, str]]:
        """Begin with a codec, and yield the rest of the pictures in the codec before it."""
        yield from self.flush()
        self._codec = codec
        self._frame_numbers = FrameNumbers()
        self._parameters, self._headers = {}, []
        self._why_not = f'{_NO_PICTURE}: it is before the first key frame'

    def _remember_parameters(self, units: list[bytes]) -> None:
        """Keep parameter sets, since some encoders send them only once."""
        for unit in units:
            if is_parameter_set(unit, self._codec):
                self._parameters.pop(unit, None)
                self._parameters[unit] = None
        for unit in list(self._parameters)[:-_KEPT_UNITS]:
            del self._parameters[unit]

    def _open(self, leading: bool) -> None:
        """Open a decoder at a key frame.

        Args:
            leading: Whether B pictures that follow in the bag may be shown before the key frame and refer to earlier
                pictures. FFmpeg drops such pictures of H.265, but not of H.264.
        """
        import av

        av.logging.set_level(av.logging.PANIC)  # decode() reports problems itself, for each packet
        self._context = av.CodecContext.create(self._codec, 'r')
        self._context.thread_count = 1  # more threads delay pictures
        self._leading = leading
        self._damaged = None
        self._why_not = '' if self._parameters else _NO_PARAMETERS

    def _decode(self, data: bytes, source: Any) -> Iterator[tuple[Any, np.ndarray | None, str]]:
        """Decode a packet in Annex B form, and yield what is finished."""
        import av

        packet = av.Packet(data)
        packet.pts = packet.dts = self._count
        self._waiting[self._count] = source
        self._count += 1
        try:
            frames = self._context.decode(packet)
        except av.error.FFmpegError as error:
            self._why_not = _DAMAGED
            yield self._waiting.pop(packet.pts), None, f'cannot be decoded: {one_line(error.strerror)}'
            return
        yield from self._pictures(frames)

    def _pictures(self, frames: list[Any]) -> Iterator[tuple[Any, np.ndarray | None, str]]:
        """Yield the sources of decoded frames, each with its picture."""
        for frame in frames:
            source = self._waiting.pop(frame.pts, None)
            if source is None:
                continue
            if frame.key_frame:
                # Packets that are decoded before a key frame give no picture after it.
                for number in [number for number in self._waiting if number < frame.pts]:
                    yield self._waiting.pop(number), None, _NO_PICTURE
            if frame.is_corrupt and self._damaged is None:
                self._damaged, self._why_not = frame.pts, _DAMAGED
            if self._damaged is not None and frame.pts >= self._damaged:
                yield source, None, _DAMAGED
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
