# SPDX-License-Identifier: Apache-2.0
"""Generate the scenes that a drive can lead through: one module for each."""

from __future__ import annotations

from collections.abc import Callable

from stdc_core.data.synthetic.scenes.boulevard import Boulevard
from stdc_core.data.synthetic.scenes.dusty import DustyStreet
from stdc_core.data.synthetic.scenes.motorway import Motorway
from stdc_core.data.synthetic.scenes.town import Town
from stdc_core.data.synthetic.world import World

#: Scenes by name: what makes one from a seed and the name of a weather, or None to draw the weather.
SCENES: dict[str, Callable[[int, str | None], World]] = {
    'town': Town,
    'motorway': Motorway,
    'dusty': DustyStreet,
    'boulevard': Boulevard,
}
