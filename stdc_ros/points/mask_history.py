# SPDX-License-Identifier: Apache-2.0
"""Keep the latest masks of a camera, and find the one that is nearest to a cloud in time."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from stdc_ros.ground.camera_model import CameraModel

#: Number of masks to keep: a third of a second at 30 Hz. If a LiDAR stamps the beginning of its turn, clouds arrive
#: later than their masks.
KEPT = 10

#: Step back of a stamp, in nanoseconds, from which time counts as restarted, as in a bag that loops.
BACK = 10**9


class StampedMask(NamedTuple):
    """Mask of an image.

    Attributes:
        stamp: Stamp of the image, nanoseconds.
        frame_id: Optical frame of the camera.
        mask: Class ids, uint8 ``[H, W]``.
        confidence: Confidence, uint8 ``[H, W]``, 0 to 255.
        camera: Model of the camera.
    """

    stamp: int
    frame_id: str
    mask: np.ndarray
    confidence: np.ndarray
    camera: CameraModel


class MaskHistory:
    """Latest masks of one camera in the order of their arrival.

    Args:
        kept: Number of masks to keep.
    """

    def __init__(self, kept: int = KEPT) -> None:
        self._kept = kept
        self._masks: list[StampedMask] = []

    def __len__(self) -> int:
        return len(self._masks)

    def add(self, mask: StampedMask) -> None:
        """Add a mask. If its stamp is far before the last one, time has restarted, and all others are forgotten."""
        # Replaced in one step, because another thread may read it.
        before = [] if self._masks and mask.stamp < self._masks[-1].stamp - BACK else self._masks
        self._masks = [*before, mask][-self._kept :]

    def reaches(self, stamp: int) -> bool:
        """Return whether a mask is as new as this stamp, in nanoseconds. Later masks are then not nearer to it."""
        return any(mask.stamp >= stamp for mask in self._masks)

    def nearest(self, stamp: int) -> StampedMask | None:
        """Return the mask that is nearest to a stamp in nanoseconds; None without masks."""
        return min(self._masks, key=lambda mask: abs(mask.stamp - stamp), default=None)
