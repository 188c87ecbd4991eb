# SPDX-License-Identifier: Apache-2.0
"""Read the names of several cameras from a parameter or a launch argument. Knows nothing of ROS."""

from __future__ import annotations

import re
from collections.abc import Sequence


def parse_camera_names(value: str | Sequence[str]) -> tuple[str, ...]:
    """Return the names of the cameras; each becomes a part of topic names, as in ``front/image``.

    Args:
        value: List of names, or text such as ``front,left``, ``front left`` or ``[front, left]``; empty for one camera
            without a name.

    Raises:
        ValueError: The value is neither, a name makes no topic, or two are the same. The message is one line.

    Example:
        >>> parse_camera_names('[front, left]')
        ('front', 'left')
    """
    if isinstance(value, str):
        inside = value.strip()
        if inside.startswith('[') and inside.endswith(']'):
            inside = inside[1:-1]
        names = [name.strip('\'"') for name in re.split(r'\s*,\s*|\s+', inside.strip()) if name]
    elif isinstance(value, Sequence) and all(isinstance(name, str) for name in value):
        names = list(value)
    else:
        raise ValueError(f'cameras is {value!r}, expected names such as [front, left] or "front,left"')
    for name in names:
        # What ROS takes for a part of a topic name, without the hidden names that begin with _.
        if not re.fullmatch('[A-Za-z][A-Za-z0-9_]*', name):
            raise ValueError(f'cameras has the name {name!r}, expected letters, digits and _, beginning with a letter')
    if len(set(names)) < len(names):
        raise ValueError(f'cameras is {", ".join(names)}, expected names that differ')
    return tuple(names)
