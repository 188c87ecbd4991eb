# SPDX-License-Identifier: Apache-2.0
"""Read the segments of a JPEG before it is decoded (ITU T.81, annex B).

Decoders also warn about things that change no pixel: bytes between segments and behind the end, unknown versions,
metadata, and parameters without effect. They are removed here, so that every warning that is left means damage.
"""

from __future__ import annotations

import re
from typing import NamedTuple

#: First bytes of a JPEG: its start marker, and the 0xff of the next marker.
JPEG_SIGNATURE = b'\xff\xd8\xff'

#: Pattern of the next marker. Other bytes are skipped, as libjpeg does.
_MARKER = re.compile(b'\xff+([^\x00\xff])')

#: Markers of a start of frame, whose segment contains the size; of sequential frames; and of segments without a length.
_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
_SEQUENTIAL = {0xC0, 0xC1}
_WITHOUT_LENGTH = {0x01, *range(0xD0, 0xD8)}

_HUFFMAN, _ARITHMETIC, _QUANTISATION, _RESTARTS = 0xC4, 0xCC, 0xDB, 0xDD
_START_OF_SCAN, _END, _JFIF, _ADOBE = 0xDA, b'\xff\xd9', 0xE0, 0xEE
_NEXT_SCAN, _WHOLE_BLOCK = b'\xff\xda', bytes([0, 63, 0])
_KEPT = {*_FRAMES, _HUFFMAN, _ARITHMETIC, _QUANTISATION, _RESTARTS, _START_OF_SCAN}

#: Position of the height in the segment of a start of frame; the width follows.
_SIZE_IN_FRAME = 3

#: Largest numbers of segments and scans. Pictures have some tens of segments before their scans, and progressive ones
#: about ten scans. Thousands would take minutes to decode.
MAX_SEGMENTS = 1000
MAX_SCANS = 100

_CUT = 'the JPEG is cut off before its pixels'


class JpegError(ValueError):
    """Data that is not a whole JPEG. The message says what is missing."""


class Jpeg(NamedTuple):
    """Segments of a JPEG.

    Args:
        width: Claimed width, pixels.
        height: Claimed height, pixels.
        components: Number of colour components: 1 for grey, 3, or 4 for CMYK.
        unit_height: Height of the blocks that are coded together (MCU), pixels.
        unit_width: Width of these blocks, pixels.
        data: Bytes for a decoder: the segments that make the pixels, and an end marker.
        size_position: Position of height and width in ``data``, two bytes each.
        pixel_position: Position in ``data`` behind the header of the first scan.
        restart_interval: Number of MCUs between two restart markers; 0 without restart markers, or if the picture is
            not coded in one sequential scan.
    """

    width: int
    height: int
    components: int
    unit_height: int
    unit_width: int
    data: bytes
    size_position: int
    pixel_position: int
    restart_interval: int


def read_jpeg(data: bytes, need_end: bool = True) -> Jpeg:
    """Return the segments of a JPEG. Nothing is decoded, and the claimed size is not allocated.

    Args:
        data: Bytes of the file, from the start marker on.
        need_end: Whether a missing end marker is an error. Some cameras leave it out of every frame. Without it, only
            a decoder that reports missing pixels can tell whether the frame is whole.

    Raises:
        JpegError: The data ends before its pixels, has no size, or has too many segments or scans.
    """
    segments, position = _segments(data)
    frames = [(kind, segment) for kind, segment in segments if kind in _FRAMES]
    if not frames:
        raise JpegError('the JPEG has no size')
    kind, frame = frames[-1]
    sequential = kind in _SEQUENTIAL
    # In the pixel data, 0 follows each byte 0xff, so that it cannot look like a marker.
    end = data.find(_END, position)
    scans = data[position : end if end >= 0 else None]
    if scans.count(_NEXT_SCAN) >= MAX_SCANS:
        raise JpegError(f'the JPEG has more than {MAX_SCANS} scans')
    if end < 0 and (need_end or not _covers_all(frame, segments[-1][1], scans, sequential)):
        raise JpegError('the JPEG is cut off: it has no end')
    if end < 0:
        scans = scans.removesuffix(_END[:1])  # half of the end marker
    factors = frame[9::3]
    header, size_position = data[:2], 0
    for each, segment in segments:
        if segment is frame:
            size_position = len(header) + 2 + _SIZE_IN_FRAME
        header += _cleaned(each, segment, frame[7], sequential)
    one_scan = sequential and _NEXT_SCAN not in scans and segments[-1][1][2:3] == frame[7:8]
    intervals = [int.from_bytes(segment[2:4], 'big') for each, segment in segments if each == _RESTARTS]
    return Jpeg(
        width=int.from_bytes(frame[_SIZE_IN_FRAME + 2 :][:2], 'big'),
        height=int.from_bytes(frame[_SIZE_IN_FRAME:][:2], 'big'),
        components=frame[7],
        # A picture with one component is coded block by block, whatever its sampling factors are.
        unit_height=8 * max(factor & 15 for factor in factors) if frame[7] > 1 else 8,
        unit_width=8 * max(factor >> 4 for factor in factors) if frame[7] > 1 else 8,
        data=header + scans + _END,
        size_position=size_position,
        pixel_position=len(header),
        restart_interval=intervals[-1] if intervals and one_scan else 0,
    )


def _segments(data: bytes) -> tuple[list[tuple[int, bytes]], int]:
    """Return marker and content of each segment up to the first start of scan, and the position of the pixels."""
    segments, position = [], 2
    for _ in range(MAX_SEGMENTS):
        marker = _MARKER.search(data, position)
        if marker is None or marker.end() + 2 > len(data):
            raise JpegError(_CUT)
        kind, position = marker[1][0], marker.end()
        if kind in _WITHOUT_LENGTH:
            continue
        segment = data[position : position + max(int.from_bytes(data[position : position + 2], 'big'), 2)]
        if kind in _FRAMES and (len(segment) < 11 or len(segment) < 8 + 3 * segment[7] or not segment[7]):
            raise JpegError(_CUT)
        segments.append((kind, segment))
        position += len(segment)
        if kind == _START_OF_SCAN:
            return segments, position
    raise JpegError(f'the JPEG has more than {MAX_SEGMENTS} segments before its pixels')


def _cleaned(kind: int, segment: bytes, components: int, sequential: bool) -> bytes:
    """Return a segment with its marker for the decoder, or nothing if it does not concern the pixels."""
    if kind == _JFIF and segment[2:7] == b'JFIF\0':
        segment = segment[:7] + b'\1' + segment[8:]  # all versions are read alike
    elif kind == _ADOBE and segment[2:7] == b'Adobe' and len(segment) > 13:
        # Colours are as stored if the segment says 0. Otherwise they are YCbCr, or YCCK for four components.
        segment = segment[:13] + bytes([0 if segment[13] == 0 else max(components - 2, 0)]) + segment[14:]
    elif kind == _START_OF_SCAN and sequential and len(segment) > 5:
        segment = segment[:-3] + _WHOLE_BLOCK
    elif kind not in _KEPT:
        return b''
    return bytes([0xFF, kind]) + segment


def _covers_all(frame: bytes, first_scan: bytes, scans: bytes, sequential: bool) -> bool:
    """Return whether the scans contain every coefficient of every component down to its last bit."""
    starts = [match.end() for match in re.finditer(_NEXT_SCAN, scans)]
    headers = [first_scan, *(scans[at : at + int.from_bytes(scans[at : at + 2], 'big')] for at in starts)]
    missing = {frame[at]: set(range(64)) for at in range(8, 8 + 3 * frame[7], 3)}
    for header in headers:
        if len(header) < 6 or len(header) < 6 + 2 * header[2]:
            return False
        first, last, bits = (0, 63, 0) if sequential else header[-3:]
        if bits & 15 == 0:
            for at in range(3, 3 + 2 * header[2], 2):
                missing.get(header[at], set()).difference_update(range(first, last + 1))
    return not any(missing.values())
