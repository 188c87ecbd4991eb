# SPDX-License-Identifier: Apache-2.0
"""Read a ``sensor_msgs/PointCloud2`` of any layout, and make one with the fields ``rgb``, ``class_id``, ``confidence``.

A PointCloud2 is bytes and a table of fields: each field has a name, an offset within a point and a number type. Points
are ``point_step`` bytes apart and rows ``row_step`` bytes, and both may contain unused bytes. All fields of the input
are kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from stdc_core.classes import ClassTable
from stdc_core.io.text import one_line, quoted
from stdc_ros.messages.cdr import POINT_CLOUD, TYPES

#: numpy type of coordinates by ``PointField.datatype``.
_FLOATS: dict[int, np.dtype] = {7: np.dtype(np.float32), 8: np.dtype(np.float64)}

#: ``PointField.datatype`` of the fields that are added.
_UINT8, _FLOAT32 = 2, 7

#: Datatype and offset, after the fields of the input, of the fields that are added. The bits of ``rgb`` are 0x00RRGGBB,
#: as PCL packs a colour into a float32.
_ADDED = {'rgb': (_FLOAT32, 0), 'class_id': (_UINT8, 4), 'confidence': (_UINT8, 5)}

#: Bytes that are added to a point: six for the fields, two to align the next point to four bytes.
_ADDED_BYTES = 8

#: Fields of the input that are replaced. Viewers show the first colour that they find, so this includes other colours.
_REPLACED = {*_ADDED, 'rgba'}

#: Largest number of bytes of a point. A larger step is damaged.
_MAX_STEP = 1 << 16


class PointsError(ValueError):
    """A point cloud cannot be read, or the model lacks a class."""


@dataclass(frozen=True)
class PointCloud:
    """Points of a message, as views of its bytes.

    Attributes:
        message: ``sensor_msgs/PointCloud2`` of rosbags.
        xyz: Coordinates in the frame of the message, ``[3, N]``, metres; float64 if the message has such coordinates,
            else float32. NaN stands for a beam without an echo.
        rows: Bytes of the points, uint8 ``[height, width, point_step]``.
    """

    message: Any
    xyz: np.ndarray
    rows: np.ndarray

    def __len__(self) -> int:
        return self.xyz.shape[1]


def read_cloud(message: Any) -> PointCloud:
    """Return the points of a message.

    Args:
        message: ``sensor_msgs/PointCloud2`` of ``stdc_ros.messages.cdr.TYPES``.

    Raises:
        PointsError: A field x, y or z is missing or not a float, or the sizes contradict each other.
    """
    height, width, step, row_step = (
        int(getattr(message, name)) for name in ('height', 'width', 'point_step', 'row_step')
    )
    columns = [_coordinate(message, name, step) for name in 'xyz']
    if height * width == 0:
        return PointCloud(message, np.zeros((3, 0), np.float32), np.zeros((height, width, step), np.uint8))
    if height == 1:
        row_step = max(row_step, width * step)  # some drivers leave it 0, because a single row needs no step
    if row_step < width * step:
        raise PointsError(
            f'PointCloud2: row_step is {row_step}, expected at least {width * step} for {width} points of {step} bytes'
        )
    needed = (height - 1) * row_step + width * step
    data = np.asarray(message.data).view(np.uint8)
    if data.size < needed:
        raise PointsError(
            f'PointCloud2: {data.size} bytes of data, expected {needed} for {height} x {width} points of {step} bytes'
        )
    order: Literal['>', '<'] = '>' if message.is_bigendian else '<'
    wide = any(kind.itemsize == 8 for kind, _ in columns)
    xyz = np.empty((3, height, width), np.float64 if wide else np.float32)
    for axis, (kind, offset) in zip(xyz, columns, strict=True):
        axis[:] = np.ndarray((height, width), kind.newbyteorder(order), data, offset, (row_step, step))
    rows = np.ndarray((height, width, step), np.uint8, data, 0, (row_step, step, 1))
    return PointCloud(message, xyz.reshape(3, -1), rows)


def _coordinate(message: Any, name: str, step: int) -> tuple[np.dtype, int]:
    """Return type and offset of a coordinate."""
    field = next((field for field in message.fields if field.name == name), None)
    if field is None:
        found = ', '.join(one_line(field.name, 20) for field in message.fields[:20]) or 'none'
        raise PointsError(f'PointCloud2: no field {name!r}, expected x, y and z; its fields are {found}')
    kind = _FLOATS.get(int(field.datatype))
    if kind is None:
        raise PointsError(f'PointCloud2: {name} has the datatype {field.datatype}, expected 7 (float32) or 8 (float64)')
    if step > _MAX_STEP or field.offset + kind.itemsize > step:
        raise PointsError(
            f'PointCloud2: {name} has {kind.itemsize} bytes at offset {field.offset} and point_step is {step}, '
            f'expected the field within the point and at most {_MAX_STEP} bytes'
        )
    return kind, int(field.offset)


def select_classes(names: Sequence[str], classes: ClassTable) -> np.ndarray | None:
    """Return the class ids that a filtered cloud keeps.

    Args:
        names: Names of classes; empty for all points.
        classes: Class table of the model.

    Returns:
        bool ``[256]`` by class id, or None for all points.

    Raises:
        PointsError: The model lacks one of the classes.
    """
    unknown = [name for name in names if name not in classes.names]
    if unknown:
        raise PointsError(
            f'points_only: no class {", ".join(map(quoted, unknown))}; expected some of {", ".join(classes.names)}'
        )
    if not names:
        return None
    kept = np.zeros(256, bool)
    kept[[classes.names.index(name) for name in names]] = True
    return kept


def packed_colors(classes: ClassTable) -> np.ndarray:
    """Return the colour of every class id as 0x00RRGGBB, uint32 ``[256]``; ids without a class are black."""
    blue, green, red = classes.palette_bgr().astype(np.uint32).T
    return red << 16 | green << 8 | blue


def make_painted_cloud(
    cloud: PointCloud, class_id: np.ndarray, confidence: np.ndarray, colors: np.ndarray, kept: np.ndarray | None = None
) -> Any:
    """Make a cloud with the additional fields ``rgb``, ``class_id`` and ``confidence``.

    They replace fields of the input with these names or the name ``rgba``.

    Args:
        cloud: Points of the input.
        class_id: Class of each point, uint8 ``[N]``.
        confidence: Confidence of each point, uint8 ``[N]``.
        colors: Result of :func:`packed_colors`.
        kept: Result of :func:`select_classes`. A filtered cloud has one row; an unfiltered one the rows of the input,
            without unused bytes at their ends.

    Returns:
        ``sensor_msgs/PointCloud2`` of ``stdc_ros.messages.cdr.TYPES``, in the byte order of the input.
    """
    source, step = cloud.message, cloud.rows.shape[2]
    begin = -(-step // 4) * 4
    size = begin + _ADDED_BYTES
    rows = cloud.rows
    height, width = rows.shape[:2]
    if kept is not None:
        chosen = np.flatnonzero(kept[class_id])
        rows = rows.reshape(-1, step)[chosen][None]
        class_id, confidence = class_id[chosen], confidence[chosen]
        height, width = 1, len(chosen)
    order = '>' if source.is_bigendian else '<'
    added = np.zeros((height, width), [('rgb', f'{order}u4'), ('class_id', 'u1'), ('confidence', 'u1'), ('', 'V2')])
    added['rgb'] = colors[class_id].reshape(height, width)
    added['class_id'] = class_id.reshape(height, width)
    added['confidence'] = confidence.reshape(height, width)
    data = np.zeros((height, width, size), np.uint8)
    # All bytes of a point as one value, which numpy copies several times faster than single bytes.
    data[..., :step].view(f'V{step}')[:] = rows.view(f'V{step}')
    data[..., begin:].view(f'V{_ADDED_BYTES}')[..., 0] = added.view(f'V{_ADDED_BYTES}')
    field = TYPES.types['sensor_msgs/msg/PointField']
    fields = [entry for entry in source.fields if entry.name not in _REPLACED]
    fields += [field(name, begin + offset, datatype, 1) for name, (datatype, offset) in _ADDED.items()]
    return TYPES.types[POINT_CLOUD](
        header=source.header,
        height=height,
        width=width,
        fields=fields,
        is_bigendian=source.is_bigendian,
        point_step=size,
        row_step=width * size,
        data=data.reshape(-1),
        is_dense=source.is_dense,
    )
