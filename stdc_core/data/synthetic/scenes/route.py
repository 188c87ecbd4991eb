# SPDX-License-Identifier: Apache-2.0
"""Define a scene whose ground is a cross-section and whose traffic is a list of streams."""

from __future__ import annotations

from stdc_core.data.synthetic.item import Item
from stdc_core.data.synthetic.road import Road
from stdc_core.data.synthetic.section import Section
from stdc_core.data.synthetic.style import Style
from stdc_core.data.synthetic.traffic import Stream, vehicles_in_view
from stdc_core.data.synthetic.world import Mount, World


class Route(World):
    """Street with a cross-section and streams of traffic.

    Args:
        seed: Seed of the drive, 0 or more.
        road: Centre line.
        style: Look.
        mount: Camera.
        section: Cross-section.
        streams: Lanes of traffic.
    """

    def __init__(
        self, seed: int, road: Road, style: Style, mount: Mount, section: Section, streams: list[Stream]
    ) -> None:
        super().__init__(seed, road, style, mount)
        self.section, self.streams = section, streams

    def traffic(self, time: float, here: float, phase: float) -> list[tuple[Item, float]]:
        """Return the vehicles of all streams."""
        found: list[tuple[Item, float]] = []
        for number, stream in enumerate(self.streams):
            found += vehicles_in_view(stream, self.seed, number, time, here)
        return found
