# SPDX-License-Identifier: Apache-2.0
"""Point clouds for tests, in any layout."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from stdc_ros.bags.message import make_header
from stdc_ros.messages.cdr import POINT_CLOUD, TYPES

#: ``PointField.datatype`` by the numpy type.
DATATYPES = {'i1': 1, 'u1': 2, 'i2': 3, 'u2': 4, 'i4': 5, 'u4': 6, 'f4': 7, 'f8': 8}


def cloud_of(
    xyz: np.ndarray,
    offsets: Mapping[str, int] | None = None,
    kinds: Mapping[str, str] | None = None,
    step: int = 12,
    row_padding: int = 0,
    big_endian: bool = False,
    more: Mapping[str, tuple[str, int, np.ndarray]] | None = None,
    stamp: int = 0,
    frame_id: str = 'lidar',
) -> Any:
    """Make a ``sensor_msgs/PointCloud2`` of rosbags whose unused bytes are 0xAB.

    Args:
        xyz: ``[3, N]``, or ``[3, H, W]`` for an organised cloud.
        offsets: Offset of x, y and z; by default 0, 4 and 8.
        kinds: Type of x, y and z, such as ``f8``; by default ``f4``.
        step: Bytes of a point.
        row_padding: Unused bytes at the end of a row.
        big_endian: Byte order.
        more: Other fields by name: type, offset and values.
        stamp: Nanoseconds.
        frame_id: Frame of the cloud.
    """
    xyz = np.asarray(xyz, np.float64)
    xyz = xyz if xyz.ndim == 3 else xyz[:, None]
    _, height, width = xyz.shape
    offsets, kinds = offsets or dict(zip('xyz', (0, 4, 8), strict=True)), kinds or dict.fromkeys('xyz', 'f4')
    entries = {name: (kinds[name], offsets[name], xyz['xyz'.index(name)]) for name in 'xyz'} | dict(more or {})
    row_step = width * step + row_padding
    data = np.full(height * row_step, 0xAB, np.uint8)
    for kind, offset, values in entries.values():
        order = '>' if big_endian else '<'
        if height * width:
            np.ndarray((height, width), order + kind, data, offset, (row_step, step))[:] = values
    field = TYPES.types['sensor_msgs/msg/PointField']
    return TYPES.types[POINT_CLOUD](
        header=make_header(stamp, frame_id),
        height=height,
        width=width,
        fields=[field(name, offset, DATATYPES[kind], 1) for name, (kind, offset, _) in entries.items()],
        is_bigendian=big_endian,
        point_step=step,
        row_step=row_step,
        data=data,
        is_dense=bool(np.isfinite(xyz).all()),
    )


def field_of(message: Any, name: str) -> np.ndarray:
    """Return the values of a field, ``[height, width]``, read one by one from the message."""
    (field,) = [field for field in message.fields if field.name == name]
    kind = next(kind for kind, datatype in DATATYPES.items() if datatype == field.datatype)
    kind = np.dtype(kind).newbyteorder('>' if message.is_bigendian else '<')
    data = bytes(message.data)
    values = [
        np.frombuffer(data, kind, 1, row * message.row_step + column * message.point_step + field.offset)[0]
        for row in range(message.height)
        for column in range(message.width)
    ]
    return np.array(values).reshape(message.height, message.width)
