# SPDX-License-Identifier: Apache-2.0
"""Whether a camera that sends images also sees: a frozen or a dark one is found out. Knows nothing of ROS."""

from __future__ import annotations

import zlib

import numpy as np

#: Every n-th row is looked at: a fraction of a millisecond for 1080p.
ROWS = 16

#: Mean value, of 255, below which an image is dark. Night in a street with lamps is well above.
DARK = 4.0

#: So many images alike are none of chance.
REPEATED = 3


class Sight:
    """Looks at the images of one camera. Times are seconds of one steady clock."""

    def __init__(self) -> None:
        self._checksum: int | None = None
        self._same = 0
        self._same_since = 0.0
        self._dark_since: float | None = None
        self._mean = 0.0

    def look(self, image: np.ndarray, now: float) -> None:
        """Take note of an image, uint8 ``[H, W, 3]``."""
        rows = np.ascontiguousarray(image[::ROWS])
        checksum = zlib.crc32(rows)
        if checksum != self._checksum:
            self._checksum, self._same, self._same_since = checksum, 0, now
        self._same += 1
        self._mean = float(rows.mean())
        if self._mean >= DARK:
            self._dark_since = None
        elif self._dark_since is None:
            self._dark_since = now

    def complaint(self, now: float, patience: float) -> str:
        """What is wrong for longer than ``patience`` seconds; empty: nothing."""
        if self._dark_since is not None and now - self._dark_since > patience:
            return f'dark for {now - self._dark_since:.0f} s (mean value {self._mean:.1f} of 255)'
        if self._same >= REPEATED and now - self._same_since > patience:
            return f'the same image for {now - self._same_since:.0f} s'
        return ''
