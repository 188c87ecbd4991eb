# SPDX-License-Identifier: Apache-2.0
"""Paint the ground of a street that is described by its cross-section."""

from __future__ import annotations

import numpy as np

from stdc_core.data.synthetic.canvas import ROAD, SIDEWALK, TREE, Canvas
from stdc_core.data.synthetic.ground import Ground, Spots, bar, dashes
from stdc_core.data.synthetic.scenes.route import Route
from stdc_core.data.synthetic.section import WHITE
from stdc_core.data.synthetic.world import CHUNK

UNIT = 512 / 48  # pixels of the wear texture in a metre, with which it repeats from chunk to chunk

SURFACES = ('asphalt', 'slabs', 'rough')

_FOOTWAY = (132.0, 138.0, 140.0)  # BGR of the concrete beside the road in a tunnel


class StripGround(Ground):
    """Ground of strips along the road."""

    world: Route

    def choose_colors(self, rng: np.random.Generator) -> None:
        """Prepare the tables of the strips."""
        strips = self.world.section.strips
        self.edges = np.array([strip.edge for strip in strips[:-1]], np.float32)
        self.labels = np.array([strip.label for strip in strips], np.uint8)
        self.colors = np.array([strip.color for strip in strips], np.float32)
        self.surfaces = np.array([SURFACES.index(strip.surface) for strip in strips])
        roads = [k for k, strip in enumerate(strips) if strip.label == ROAD]
        self.road = roads[0]
        self.borders = [float(e) for k, e in enumerate(self.edges) if (k in roads) != (k + 1 in roads)]

    def cover(self, canvas: Canvas, row: int, spots: Spots, shade: np.ndarray) -> None:
        """Paint the dry ground, as :meth:`Ground.cover` describes."""
        section, light = self.world.section, canvas.light
        x, s, base, ahead = spots.x, spots.s, spots.base, spots.ahead
        wear = self.look_up(self.wear, x * UNIT, s * UNIT)
        edge = x
        if section.fray:
            coarse = self.look_up(self.wear, x * 4, s * UNIT) + 0.5 * self.look_up(self.wear, x * 24, s * 4 * UNIT)
            edge = x + np.float32(section.fray * 6) * (coarse - np.float32(1.5))
        index = np.searchsorted(self.edges, edge)
        index[self.side_roads(x, s, base, section.half)] = self.road
        label = self.labels[index]
        inside = self._inside(spots)
        if inside is not None:  # no grass grows in a tunnel
            label[inside & (label == TREE)] = SIDEWALK
        road = label == ROAD
        canvas.label[row:] = label

        fade = np.clip(1.3 - ahead / 28.0, 0, 1).astype(np.float32)
        surface = self.surfaces[index]
        bright = 1 + (self.look_up(self.asphalt, x * 64, s * 64) - 1) * fade
        if (surface == 1).any():
            slabs = 1 + (self.look_up(self.slabs, x * 64, s * 64) - 1) * np.minimum(fade * 1.6, 1)
            bright = np.where(surface == 1, slabs, bright)
        if (surface == 2).any():
            rough = self.look_up(self.wear, x * 60, s * 5 * UNIT) * self.look_up(self.wear, x * 13, s * UNIT)
            bright = np.where(surface == 2, bright * (1 + (rough - 1) * (0.5 + fade)), bright)
        bright *= wear * np.where(road, self._tracks(x), 1)
        color = self.colors[index]
        if inside is not None:
            color[inside & (label == SIDEWALK)] = _FOOTWAY
        if section.dust:
            color = self._dusty(color, x, s, index)
        color = color * bright[..., None]
        self._lines(color, spots, wear, road)
        gain = light.gain((0, 1, 0)).astype(np.float32)
        shine = gain - (gain - (light.ambient * 0.86).astype(np.float32)) * shade[..., None]
        if inside is not None:
            shine[inside] = light.under_roof().gain((0, 1, 0))
        if light.beam:
            shine = shine + self.lamp_light(spots, section.lamps)
        color *= shine
        clear = np.exp(-ahead / light.haze).astype(np.float32)[..., None]
        color = color * clear + light.fog.astype(np.float32) * (1 - clear)
        canvas.image[row:] = np.clip(color, 0, 255)

    def _inside(self, spots: Spots) -> np.ndarray | None:
        """Return the mask of the ground in tunnels, or None if there is none in view."""
        first, result = int(spots.base // CHUNK), None
        across = np.abs(spots.x) < self.world.section.half + 1
        for chunk in range(first - 1, first + 6):
            if self.world.roofed(chunk):
                start = chunk * CHUNK - spots.base
                within = across & (spots.s >= start) & (spots.s < start + CHUNK)
                result = within if result is None else result | within
        return result

    def _tracks(self, x: np.ndarray) -> np.ndarray:
        """Return the brightness of the road across: tyres polish two tracks in each lane, oil darkens its middle."""
        off = np.full(x.shape, 9.0, np.float32)
        for lane in self.world.section.lanes:
            off = np.minimum(off, np.abs(x - np.float32(lane)))
        return 1 + 0.05 * np.clip(1 - np.abs(off - 0.75) / 0.4, 0, 1) - 0.07 * np.clip(1 - off / 0.5, 0, 1)

    def _dusty(self, color: np.ndarray, x: np.ndarray, s: np.ndarray, index: np.ndarray) -> np.ndarray:
        """Return the colours of the strips with dust on the borders of the road."""
        dust = self.colors[(self.surfaces == 2) & (self.labels == SIDEWALK)].mean(0)
        away = np.full(x.shape, 9.0, np.float32)
        for border in self.borders:
            away = np.minimum(away, np.abs(x - np.float32(border)))
        patch = self.look_up(self.wear, x * 20, s * UNIT) + self.look_up(self.wear, x * 70, s * 3 * UNIT) - 1
        share = np.clip(np.exp(-away / 0.7) * (0.6 + 2 * (patch - 1)) + (patch - 1.12) * 1.6, 0, 1)
        share *= np.float32(self.world.section.dust)
        share *= self.surfaces[index] != 2
        return color + (dust - color) * share[..., None]

    def _lines(self, color: np.ndarray, spots: Spots, wear: np.ndarray, road: np.ndarray) -> None:
        """Blend lines and zebra crossings into the colours, float32 ``[rows, width, 3]``, in place.

        Args:
            color: Colours of the ground.
            spots: Points of the ground that the pixels show.
            wear: Brightness of the wear.
            road: Mask of the road.
        """
        worn = np.clip(1.9 - 0.55 / np.maximum(wear, 0.2), 0.3, 1) * 0.92
        # Lines of one colour are blended together. They do not overlap.
        groups: dict[tuple[tuple[float, float, float], bool], np.ndarray] = {}
        for line in self.world.section.lines:
            share = bar(spots.x, spots.side_foot, line.x - line.width / 2, line.x + line.width / 2)
            if line.dash:
                share = share * dashes(spots.s, spots.along_foot, *line.dash)
            key = line.color, line.worn
            groups[key] = groups[key] + share if key in groups else share
        zebra = self._zebras(spots)
        if zebra is not None:
            groups[WHITE, True] = groups.get((WHITE, True), 0) * (zebra < 0) + np.maximum(zebra, 0)
        for (paint, wears), share in groups.items():
            share = np.clip(share, 0, 1) * (worn * road if wears else 1)
            color += (np.array(paint, np.float32) - color) * share[..., None].astype(np.float32)

    def _zebras(self, spots: Spots) -> np.ndarray | None:
        """Return the share of zebra stripes in each pixel, and -1 away from crossings; None if there are none."""
        section, result = self.world.section, None
        first = int(spots.base // CHUNK)
        for chunk in range(first, first + 4):
            if not section.zebras or chunk % section.zebras:
                continue
            start = chunk * CHUNK - spots.base
            within = bar(spots.s, spots.along_foot, start + 0.2, start + 3.4)
            stripes = dashes(spots.x + 40, spots.side_foot, 0.5, 1.0)
            here = np.where(within > 0, within * stripes, -1)
            result = here if result is None else np.maximum(result, here)
        return result
