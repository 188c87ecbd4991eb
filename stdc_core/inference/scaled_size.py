# SPDX-License-Identifier: Apache-2.0
"""The size at which the network sees an image: one rule for torch, ONNX Runtime and TensorRT."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def scaled_size(size: Sequence[int], scale: float) -> tuple[int, int]:
    """(h, w) that the network sees of an image of (H, W), as ONNX's Resize rounds them: the products in float32."""
    height, width = (int(np.float32(side) * np.float32(scale)) for side in size)
    return height, width
