# SPDX-License-Identifier: Apache-2.0
"""Paint the ground of the town: road with markings, kerbs, pavement and grass."""

from __future__ import annotations

import numpy as np

from stdc_core.data.synthetic.canvas import ROAD, SIDEWALK, TREE, Canvas
from stdc_core.data.synthetic.ground import Ground, Spots, bar, dashes
from stdc_core.data.synthetic.scenes.town import Town
from stdc_core.data.synthetic.world import CHUNK


class TownGround(Ground):
    """Road of an English town: two lanes, yellow lines or bays, zebra crossings, a kerb and pavement on both sides."""

    world: Town

    def choose_colors(self, rng: np.random.Generator) -> None:
        """Draw the colours of the ground."""
        self.road_color = np.array([1.03, 1.0, 0.97]) * rng.uniform(78, 112)
        self.slab_color = np.array([(130, 138, 144), (110, 128, 150), (122, 122, 124)])[rng.integers(3)] * 1.0
        self.patch_color = np.array(self.world.style.verge)

    def cover(self, canvas: Canvas, row: int, spots: Spots, shade: np.ndarray) -> None:
        """Paint the dry ground, as :meth:`Ground.cover` describes."""
        style, light = self.world.style, canvas.light
        x, s, base, ahead, _, side_foot, along_foot = spots
        road, extra = self._road(x, s, base)

        fade = np.clip(1.3 - ahead / 28.0, 0, 1).astype(np.float32)
        fine = [self.look_up(t, x * 64, s * 64) for t in (self.asphalt, self.slabs)]
        wear = self.look_up(self.wear, x * (512 / 48), s * (512 / 48))
        away = np.abs(x) - style.half_road
        bright = np.where(road, 1 + (fine[0] - 1) * fade, 1 + (fine[1] - 1) * np.minimum(fade * 1.6, 1)) * wear
        # Tyres polish two tracks in each lane, oil darkens its middle, and dirt gathers in the gutter.
        lane = np.abs(np.abs(x) - 1.7)
        worn = 0.05 * np.clip(1 - np.abs(lane - 0.75) / 0.4, 0, 1) - 0.06 * np.clip(1 - lane / 0.5, 0, 1)
        worn -= 0.16 * np.clip(1 + away / 0.35, 0, 1)
        bright *= np.where(road, 1 + worn, 1.0)
        paint, gold = self._markings(x, s, base, side_foot, along_foot)
        worn_paint = np.clip(1.9 - 0.55 / np.maximum(wear, 0.2) - 0.5 * fade * np.abs(fine[0] - 1) * 5, 0.3, 1)
        paint, gold = paint * worn_paint * np.float32(0.92) * road, gold * worn_paint * np.float32(0.85) * road
        verge = (away > style.sidewalk) & ~road
        label = np.where(road, np.uint8(ROAD), np.where(verge, np.uint8(TREE), np.uint8(SIDEWALK)))
        canvas.label[row:] = label
        plain = ~extra
        kerb = bar(np.abs(x), side_foot, style.half_road, style.half_road + 0.16) * plain
        rise = bar(np.abs(x), side_foot, style.half_road - 0.07, style.half_road) * plain * np.float32(0.8)
        gain = light.gain((0, 1, 0)).astype(np.float32)
        clear = np.exp(-ahead / light.haze).astype(np.float32)
        # The layers from top to bottom, each weighted by what the ones above it leave uncovered, and by the haze.
        rest = (1 - gold) * clear
        grey = paint * rest * 225
        rest *= 1 - paint
        grey += rise * rest * 42
        rest *= 1 - rise
        grey += kerb * rest * 171
        bright *= rest * (1 - kerb)
        gold *= clear
        colors = np.zeros((256, 3), np.float32)
        colors[[ROAD, SIDEWALK, TREE]] = self.road_color, self.slab_color, self.patch_color
        dim = gain - (light.ambient * 0.86).astype(np.float32)
        lamps = self.lamp_light(spots) if light.beam else None
        fog = light.fog.astype(np.float32)
        image = canvas.image[row:]
        for c in range(3):
            color = colors[:, c][label] * bright + grey + gold * np.float32((60, 178, 206)[c])
            color *= gain[c] - dim[c] * shade if lamps is None else gain[c] - dim[c] * shade + lamps[..., c]
            color += fog[c] * (1 - clear)
            image[:, :, c] = np.minimum(color, 255)

    def _road(self, x: np.ndarray, s: np.ndarray, base: float) -> tuple[np.ndarray, np.ndarray]:
        """Return masks of the whole road, and of the part that side roads add.

        Args:
            x: Distances to the right of the centre line, metres.
            s: Distances along the road from ``base``, metres.
            base: Start of the present chunk, metres.
        """
        extra = self.side_roads(x, s, base, self.world.style.half_road)
        return (np.abs(x) < self.world.style.half_road) | extra, extra

    def _markings(
        self, x: np.ndarray, s: np.ndarray, base: float, side_foot: np.ndarray, along_foot: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the shares of each pixel that white and yellow paint cover, 0 to 1.

        Args:
            x: Distances to the right of the centre line, metres.
            s: Distances along the road from ``base``, metres.
            base: Start of the present chunk, metres.
            side_foot: Widths of the pixels on the ground, metres.
            along_foot: Lengths of the pixels on the ground, metres.
        """
        style = self.world.style
        half = style.half_road
        white = bar(x, side_foot, -0.06, 0.06) * dashes(s, along_foot, *style.dash)
        gold = np.zeros_like(x)
        wide = np.abs(x)
        if style.yellow:
            gold = bar(wide, side_foot, half - 0.30, half - 0.22) + bar(wide, side_foot, half - 0.50, half - 0.42)
        else:
            white += bar(wide, side_foot, half - 0.32, half - 0.22)
        if style.park_left or style.park_right:
            low, high = (-1 if style.park_left else 0), (1 if style.park_right else 0)
            bay = bar(wide, side_foot, half - 2.15, half - 2.05) * dashes(s, along_foot, 1.0, 2.0)
            white += np.where((x * low > 0) | (x * high > 0), bay, 0)
        first = int(base // CHUNK)
        for chunk in range(first, first + 4):
            crossing = self.world.junction(chunk)
            if crossing is None:
                continue
            start = chunk * CHUNK - base
            lane = np.where(x < 0, 1.0, 0.0).astype(np.float32)
            white += bar(s, along_foot, start - 0.6, start - 0.3) * lane  # stop line
            stripes = dashes(x + 40, side_foot, 0.6, 1.2)
            zebra = bar(s, along_foot, start + 0.4, start + 2.6) * stripes * (wide < half - 0.3)
            white = white * (1 - bar(s, along_foot, start + 0.2, start + 2.8)) + zebra
        return np.clip(white, 0, 1), np.clip(gold, 0, 1)
