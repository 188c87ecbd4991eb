# SPDX-License-Identifier: Apache-2.0
"""Detect pictures whose pixels after some point are shifted, because bytes of the JPEG are damaged.

A wrong bit in a JPEG makes blocks wrong until the decoder finds its place again, mostly after some tens of codes. The
brightness of a block is coded as the difference to the block before, so all later blocks keep the error. Their upper
edge is a jump of brightness or colour in the shape of a stair: along one row of blocks from the damage to the right,
and along the next row from the left to the damage. Nothing in the bit stream shows it.
"""

from __future__ import annotations

import numpy as np

#: Largest jump in grey levels that is counted. Larger ones are clipped, so that few strong edges do not outweigh the
#: rest of the row.
_CLIP = 24

#: Jump in grey levels, beyond the rest of their two rows, that both parts of a stair need in an image of 1280 pixels
#: width. Narrower images need more, because a mean over fewer pixels is less reliable. In 1950 undamaged JPEGs of
#: street photographs, 320 to 1920 pixels wide, the clearest stair had at most 67 % of this jump.
_JUMP, _WIDTH = 10.0, 1280
_LEAST_JUMP = 8.0

#: Least width of an image to check, in pixels, and least share of the row on both sides of the damage.
_MIN_WIDTH = 320
_SIDE = 1 / 40


def is_shifted(image: np.ndarray, unit_height: int, unit_width: int) -> bool:
    """Return whether a picture has a stair along its blocks, which damage leaves.

    Args:
        image: uint8 ``[H, W, 3]``.
        unit_height: Height of a group of blocks that are coded together (MCU), pixels.
        unit_width: Width of such a group, pixels.
    """
    height, width = image.shape[:2]
    if width < _MIN_WIDTH or height < 3 * unit_height:
        return False
    jump = max(_LEAST_JUMP, _JUMP * (_WIDTH / width) ** 0.5)
    return largest_stair(image, unit_height, unit_width) > jump


def largest_stair(image: np.ndarray, unit_height: int, unit_width: int) -> float:
    """Return the mean jump along the clearest stair of a picture, in grey levels of its clearest channel.

    Args:
        image: uint8 ``[H, W, 3]`` of at least three rows of blocks.
        unit_height: Height of an MCU, pixels.
        unit_width: Width of an MCU, pixels.
    """
    height, width = image.shape[:2]
    columns = width // unit_width
    edges = np.arange(unit_height, height - 1, unit_height)
    above2, above, below, below2 = (
        image[edges + shift, : columns * unit_width].astype(np.int16) for shift in (-2, -1, 0, 1)
    )
    # Twice the jump at the edge, beyond the jump that the slopes on both sides predict.
    jumps = np.clip(3 * (below - above) - (below2 - above2), -2 * _CLIP, 2 * _CLIP)
    blocks = jumps.reshape(len(edges), columns, unit_width, 3).mean(2, dtype=np.float32) / 2
    sums = np.concatenate([np.zeros((len(edges), 1, 3), np.float32), np.cumsum(blocks, 1)], 1)
    counts = np.arange(columns + 1, dtype=np.float32)[None, :, None]
    left = sums / np.maximum(counts, 1)
    right = (sums[:, -1:] - sums) / np.maximum(columns - counts, 1)
    # A stair is the right part of a row and the left part of the next. Natural edges follow at most one row.
    on_right, on_left, off_left, off_right = right[:-1], left[1:], left[:-1], right[1:]
    stair = np.where(on_right * on_left > 0, np.minimum(np.abs(on_right), np.abs(on_left)), 0)
    stair -= np.maximum(np.abs(off_left), np.abs(off_right))
    margin = max(2, int(columns * _SIDE))
    inner = stair[:, margin : columns - margin + 1]
    return float(inner.max()) if inner.size else 0.0
