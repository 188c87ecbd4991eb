# SPDX-License-Identifier: Apache-2.0
"""Choose a backbone by its name."""

from __future__ import annotations

from stdc_core.model.stdc import Backbone, STDCBackbone
from stdc_core.model.timm_backbone import PREFIX, TimmBackbone


def make_backbone(name: str) -> Backbone:
    """Return a backbone with random weights.

    Args:
        name: ``'stdc1'``, ``'stdc2'``, or ``'timm/NAME'`` for a backbone from timm.

    Raises:
        ValueError: The name is unknown, or timm's network has no features at strides 8, 16 and 32.
        ModuleNotFoundError: The backbone is from timm, which is not installed.
    """
    return TimmBackbone(name) if name.startswith(PREFIX) else STDCBackbone(name)
