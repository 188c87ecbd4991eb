# SPDX-License-Identifier: Apache-2.0
"""Parse the names of several cameras from a parameter or a launch argument. Imports no ROS."""

from __future__ import annotations

import re
from collections.abc import Sequence


def parse_camera_names(value: str | Sequence[str]) -> tuple[str, ...]:
    """Parse camera names, which become a part of topic names, as in ``front/image``.

    Args:
        value: List of names, or text such as ``front,left``, ``front left`` or ``[front, left]``; empty for one camera
            without a name.

    Raises:
        ValueError: The value is neither of these, a name cannot be part of a topic, or two names are equal. The message
            is one line.

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
        # ROS allows these names in topics. Names with a leading _ are hidden topics and are refused here.
        if not re.fullmatch('[A-Za-z][A-Za-z0-9_]*', name):
            raise ValueError(f'cameras has the name {name!r}, expected letters, digits and _, beginning with a letter')
    if len(set(names)) < len(names):
        raise ValueError(f'cameras is {", ".join(names)}, expected names that differ')
    return tuple(names)
