# SPDX-License-Identifier: Apache-2.0
"""Describe the cross-section of a street: its strips of ground, painted lines and rails."""

from __future__ import annotations

from dataclasses import dataclass

WHITE, YELLOW, STEEL = (225.0, 225.0, 225.0), (60.0, 178.0, 206.0), (96.0, 92.0, 90.0)  # BGR


@dataclass(frozen=True)
class Strip:
    """Strip of ground along the road.

    Args:
        edge: Distance of its right edge to the right of the centre line, metres.
        label: Class id.
        color: BGR colour.
        surface: ``'asphalt'``, ``'slabs'`` or ``'rough'``.
    """

    edge: float
    label: int
    color: tuple[float, float, float]
    surface: str = 'asphalt'


@dataclass(frozen=True)
class Line:
    """Line along the road: paint, a kerb or a rail.

    Args:
        x: Distance of its middle to the right of the centre line, metres.
        width: Width, metres.
        color: BGR colour.
        dash: Length and period of its dashes, metres; None for a continuous line. The period divides a chunk.
        worn: Whether traffic wears it off.
    """

    x: float
    width: float = 0.12
    color: tuple[float, float, float] = WHITE
    dash: tuple[float, float] | None = None
    worn: bool = True


@dataclass(frozen=True)
class Section:
    """Cross-section of a street.

    Args:
        strips: Strips from left to right; the last one goes on for ever.
        lines: Lines, painted in this order.
        lanes: Distances of the middles of the lanes to the right of the centre line, metres.
        half: Half of the width of the road at side roads, metres.
        fray: Distance by which the edges of the strips wander, metres.
        dust: Share of the road near its edges that dust covers, 0 to 1.
        zebras: Distance between zebra crossings in chunks; 0 for none.
        lamps: Distance of street lamps along the road and from the centre line, metres; None for none. The first
            divides a chunk.
    """

    strips: tuple[Strip, ...]
    lines: tuple[Line, ...]
    lanes: tuple[float, ...]
    half: float
    fray: float = 0.0
    dust: float = 0.0
    zebras: int = 0
    lamps: tuple[float, float] | None = None


def mirrored(section: Section) -> Section:
    """Return a section with left and right exchanged."""
    edges = [-strip.edge for strip in section.strips[:-1]][::-1] + [float('inf')]
    strips = zip(section.strips[::-1], edges, strict=True)
    return Section(
        tuple(Strip(edge, strip.label, strip.color, strip.surface) for strip, edge in strips),
        tuple(Line(-line.x, line.width, line.color, line.dash, line.worn) for line in section.lines),
        tuple(-lane for lane in section.lanes),
        section.half,
        section.fray,
        section.dust,
        section.zebras,
        section.lamps,
    )
