# SPDX-License-Identifier: Apache-2.0
"""Read the NAL units of H.264 and H.265, and find out which pictures can be decoded without those before them.

Tables and fields are those of ITU-T H.264 (table 7-1, 7.3) and H.265 (table 7-1). The codec of a unit is ``'h264'`` or
``'hevc'``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

_START_CODE = re.compile(b'\x00\x00\x01')

_SLICE, _IDR, _SEI, _SPS = 1, 5, 6, 7  # types of H.264

_PICTURE = {'h264': range(1, 6), 'hevc': range(32)}
_PARAMETERS = {'h264': (_SPS, 8, 13, 15), 'hevc': (32, 33, 34)}
_INDEPENDENT = {'h264': (_IDR,), 'hevc': range(16, 24)}  # IDR; IRAP

#: Payload type of a recovery point in an SEI unit (H.264, annex D.1).
_RECOVERY_POINT = 6

#: Remainder of ``slice_type`` divided by 5 for a B slice (H.264, table 7-6).
_B_SLICE = 1

#: Bytes of a NAL unit that are parsed; slice headers are shorter.
_HEADER_BYTES = 256

#: Bytes of the length before each unit in the AVCC form.
_LENGTH_BYTES = 4


def nal_units(data: bytes) -> list[bytes]:
    """Return the NAL units of a packet.

    Args:
        data: Bytes in Annex B form (a start code before each unit) or in AVCC form (its length in 4 bytes, as in MP4).

    Returns:
        Units without start codes and lengths; an empty list if the data has neither form.
    """
    if lengths := _units_by_length(data):
        return lengths
    starts = [match.end() for match in _START_CODE.finditer(data)]
    ends = [*(start - 3 for start in starts[1:]), len(data)]
    # A unit does not end in zeros; they belong to the next start code.
    units = (data[start:end].rstrip(b'\x00') for start, end in zip(starts, ends, strict=False))
    return [unit for unit in units if unit]


def annex_b(units: Iterable[bytes]) -> bytes:
    """Return NAL units in Annex B form."""
    return b''.join(b'\x00\x00\x00\x01' + unit for unit in units)


def is_picture(unit: bytes, codec: str) -> bool:
    """Return whether a unit is a slice of a picture."""
    return _type(unit, codec) in _PICTURE[codec]


def is_parameter_set(unit: bytes, codec: str) -> bool:
    """Return whether a unit is a parameter set (VPS, SPS or PPS), without which no picture can be decoded."""
    return _type(unit, codec) in _PARAMETERS[codec]


def is_independent(units: Sequence[bytes], codec: str) -> bool:
    """Return whether these units are an IDR picture of H.264, or a random access point (IRAP) of H.265."""
    return any(_type(unit, codec) in _INDEPENDENT[codec] for unit in units)


def is_recovery_point(units: Sequence[bytes], codec: str) -> bool:
    """Return whether an H.264 decoder can begin with these units, although they are not an IDR picture.

    Encoders with an open group of pictures or an intra refresh mark such pictures. H.265 has a type of unit for them.
    """
    return codec == 'h264' and any(_type(unit, codec) == _SEI and _has_recovery_point(unit) for unit in units)


def is_b_picture(units: Sequence[bytes], codec: str) -> bool:
    """Return whether the first slice of an H.264 picture is a B slice."""
    first = next((unit for unit in units if is_picture(unit, codec)), b'')
    bits = _Bits(first[1:_HEADER_BYTES])
    try:
        bits.exp_golomb()  # first_mb_in_slice
        return codec == 'h264' and bits.exp_golomb() % 5 == _B_SLICE
    except IndexError:
        return False


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

    def gap(self, units: Sequence[bytes]) -> bool:
        """Return whether a reference picture is missing before this access unit."""
        for unit in units:
            kind, reference = unit[0] & 31, unit[0] >> 5 & 3
            try:
                if kind == _SPS:
                    self._read_parameters(unit)
                elif kind in (_SLICE, _IDR) and self._bits:
                    number = self._frame_number(unit)
                    last, size = self._last, 1 << self._bits
                    lost = kind == _SLICE and last is not None and number not in (last, (last + 1) % size)
                    if reference or kind == _IDR:
                        self._last = number
                    return lost and not self._gaps_allowed
            except IndexError:
                return False  # too short to be parsed; the decoder reports it
        return False

    def _frame_number(self, unit: bytes) -> int:
        bits = _Bits(unit[1:_HEADER_BYTES])
        for _ in range(3):  # first_mb_in_slice, slice_type, pic_parameter_set_id
            bits.exp_golomb()
        if self._separate_planes:
            bits.read(2)
        return bits.read(self._bits)

    def _read_parameters(self, unit: bytes) -> None:
        bits = _Bits(unit[1:_HEADER_BYTES])
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
        self._data = _without_emulation(data)
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


def _type(unit: bytes, codec: str) -> int:
    """Return ``nal_unit_type``."""
    return unit[0] & 31 if codec == 'h264' else (unit[0] >> 1) & 63


def _units_by_length(data: bytes) -> list[bytes]:
    """Return the units of data in AVCC form; an empty list if the lengths do not add up to that of the data."""
    units, position = [], 0
    while position < len(data):
        begin = position + _LENGTH_BYTES
        position = begin + int.from_bytes(data[position:begin], 'big')
        if not begin < position <= len(data):
            return []
        units.append(data[begin:position])
    return units


def _has_recovery_point(unit: bytes) -> bool:
    """Return whether an SEI unit of H.264 has the payload of a recovery point (H.264, 7.3.2.3.1)."""
    data = _without_emulation(unit[1:])
    position = 0

    def number() -> int:
        """Read a number that is written as a sum of bytes; all but the last are 255."""
        nonlocal position
        total = 0
        while data[position] == 255:
            total, position = total + 255, position + 1
        total, position = total + data[position], position + 1
        return total

    try:
        while position < len(data) - 1:
            kind, size = number(), number()
            if kind == _RECOVERY_POINT:
                return True
            position += size
    except IndexError:  # cut off
        pass
    return False


def _without_emulation(data: bytes) -> bytes:
    """Return the bytes of a NAL unit without those that keep start codes out of it."""
    return data.replace(b'\x00\x00\x03', b'\x00\x00')
