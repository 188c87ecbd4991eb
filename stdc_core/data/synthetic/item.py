# SPDX-License-Identifier: Apache-2.0
"""Describe a thing on or beside the road."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Item:
    """Thing on or beside the road, at the start of the drive.

    Args:
        kind: Name of the thing, which selects the drawing routine.
        s: Distance along the road, metres.
        x: Distance to the right of the centre line, metres.
        speed: Speed along the road, m/s; negative towards the camera.
        length: Length along the road, metres.
        size: Height, side of the road or scale, depending on the drawing routine.
        variant: Number that selects the look.
        tint: BGR colour.
        extra: Further numbers for the drawing routine.
    """

    kind: str
    s: float
    x: float
    speed: float = 0.0
    length: float = 0.0
    size: float = 1.0
    variant: int = 0
    tint: tuple[float, float, float] = (128.0, 128.0, 128.0)
    extra: tuple[float, ...] = ()
