# SPDX-License-Identifier: Apache-2.0
"""The number of this process among those of a training."""

from __future__ import annotations

from lightning.pytorch.utilities import rank_zero_only


def process_rank() -> int:
    """Return the rank of this process, 0 for the first. Lightning knows it before a trainer is made."""
    # Lightning keeps it as an attribute of a function.
    return int(getattr(rank_zero_only, 'rank', None) or 0)
