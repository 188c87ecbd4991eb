# SPDX-License-Identifier: Apache-2.0
"""Read the poses of cameras from a file, for recordings without TF."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from stdc_core.io.text import one_line, quoted
from stdc_core.io.yaml_file import read_yaml
from stdc_ros.bags.message import BagError
from stdc_ros.ground.pose import pose_of_body

#: Numbers of a pose, and of a matrix with and without its last row.
_POSE, _MATRICES = 6, (12, 16)

_EXPECTED = (
    'expected 6 numbers, x, y, z, roll, pitch, yaw of the camera in the frame of the clouds, or 12 or 16, the rows of '
    'the matrix that takes points of the clouds to the optical frame'
)


def read_camera_poses(path: Path) -> dict[str, tuple[float, ...]]:
    """Return the numbers of each camera pose in a YAML file.

    Args:
        path: File with one list of numbers by image topic, or a single list for the only camera.

    Returns:
        6, 12 or 16 numbers by image topic; ``''`` stands for the only camera.

    Raises:
        BagError: The file is not such a file.
    """
    try:
        content = read_yaml(path)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else one_line(error, 400).removeprefix(f'{path}: ')
        raise BagError(f'{path}: {reason}; {_EXPECTED}') from error
    entries = content if isinstance(content, dict) else {'': content}
    poses = {str(topic): _numbers(values, f'{path}: {topic}'.rstrip(': ')) for topic, values in entries.items()}
    for topic, numbers in poses.items():
        try:
            transform_of(numbers)
        except ValueError as error:
            raise BagError(f'{path}: {f"{topic}: " if topic else ""}{error}') from error
    return poses


def transform_of(numbers: tuple[float, ...]) -> np.ndarray:
    """Return the matrix ``[4, 4]`` from the frame of the clouds to the optical frame.

    Args:
        numbers: Result of :func:`read_camera_poses`.

    Raises:
        ValueError: The matrix does not turn and move only.
    """
    if len(numbers) == _POSE:
        return np.linalg.inv(pose_of_body(numbers))
    matrix = np.eye(4)
    matrix[: len(numbers) // 4] = np.reshape(numbers, (-1, 4))
    turn = matrix[:3, :3]
    rigid = np.allclose(turn @ turn.T, np.eye(3), atol=1e-2) and np.linalg.det(turn) > 0
    if not rigid or not np.allclose(matrix[3], (0, 0, 0, 1)):
        raise ValueError('the matrix is not a rotation and a translation, expected rows [R | t]')
    return matrix


def _numbers(values: Any, where: str) -> tuple[float, ...]:
    flat = np.ravel(np.array(values, dtype=object)).tolist() if isinstance(values, list) else [values]
    flat = [value for part in flat for value in (part if isinstance(part, list) else [part])]
    usable = all(isinstance(value, int | float) and not isinstance(value, bool) for value in flat)
    if not usable or len(flat) not in (_POSE, *_MATRICES) or not all(map(math.isfinite, flat)):
        raise BagError(f'{where}: {quoted(flat)}; {_EXPECTED}')
    return tuple(map(float, flat))
