# SPDX-License-Identifier: Apache-2.0
"""Detect cameras whose images are frozen or dark. Imports no ROS."""

from __future__ import annotations

import math

import cv2
import numpy as np

#: Step between the rows that are compared. At 1080p, this takes a fraction of a millisecond.
ROWS = 16

#: Seconds between two looks. A camera that is frozen or dark stays so for longer.
PERIOD = 0.1

#: Mean value, 0 to 255, below which an image is dark. A street with lamps at night is well above.
DARK = 4.0

#: Number of looks in a row with the same image after which the camera counts as frozen.
REPEATED = 3


class CameraHealth:
    """Watches the images of one camera. All times are seconds of one steady clock."""

    def __init__(self) -> None:
        self._looked = -math.inf  # time of the last look
        self._rows = b''
        self._same = 0
        self._same_since = 0.0
        self._dark_since: float | None = None
        self._mean = 0.0

    def update(self, image: np.ndarray, now: float) -> None:
        """Compare an image with the one before, unless the last comparison was just now.

        Args:
            image: Image, uint8 ``[H, W, 3]``.
            now: Time of arrival.
        """
        if now - self._looked < PERIOD:
            return
        self._looked = now
        rows = image[::ROWS].tobytes()
        if rows != self._rows:
            self._rows, self._same, self._same_since = rows, 0, now
        self._same += 1
        self._mean = cv2.mean(np.frombuffer(rows, np.uint8))[0]  # faster than NumPy's
        if self._mean >= DARK:
            self._dark_since = None
        elif self._dark_since is None:
            self._dark_since = now

    def complaint(self, now: float, patience: float) -> str:
        """Return what has been wrong for longer than ``patience`` seconds; empty if nothing is."""
        if self._dark_since is not None and now - self._dark_since > patience:
            return f'dark for {now - self._dark_since:.0f} s (mean value {self._mean:.1f} of 255)'
        if self._same >= REPEATED and now - self._same_since > patience:
            return f'the same image for {now - self._same_since:.0f} s'
        return ''
