# SPDX-License-Identifier: Apache-2.0
"""Tell which process of a training this is."""

from __future__ import annotations

from lightning.pytorch.utilities import rank_zero_only


def process_rank() -> int:
    """Return the rank of this process, 0 for the first one. It is known before a trainer is made."""
    # Lightning stores it as an attribute of a function.
    return int(getattr(rank_zero_only, 'rank', None) or 0)
