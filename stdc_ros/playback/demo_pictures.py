# SPDX-License-Identifier: Apache-2.0
"""Draw the demo's contact sheet and write its video. Pictures are uint8 ``[H, W, 3]`` BGR."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain
from pathlib import Path

import cv2
import numpy as np

from stdc_core.classes import ClassTable
from stdc_core.io.video import webm_writer
from stdc_core.pictures.drawing import BLACK, DARK, canvas, legend, put_text

#: Pixels between the pictures of the sheet.
_GAP = 8

#: Width in pixels of a picture in the sheet, and of one half of the video.
SHEET_WIDTH = 420
VIDEO_WIDTH = 640


def _scaled(picture: np.ndarray, width: int, interpolation: int = cv2.INTER_AREA) -> np.ndarray:
    height = max(1, round(picture.shape[0] * width / picture.shape[1]))
    return cv2.resize(picture, (width, height), interpolation=interpolation)


def contact_sheet(
    rows: Sequence[tuple[str, np.ndarray, np.ndarray, np.ndarray]], classes: ClassTable, title: str
) -> np.ndarray:
    """Draw one row for each frame: camera, overlay and coloured mask, with a legend below.

    Args:
        rows: Caption, camera image, overlay and coloured mask of each frame. The pictures of a frame have one size.
        classes: Class table for the legend.
        title: Text at the top.

    Returns:
        uint8 ``[H, W, 3]`` BGR.
    """
    width = 3 * SHEET_WIDTH + 4 * _GAP
    head = canvas(62, width, DARK)
    put_text(head, title, (_GAP, 24), 13)
    for i, name in enumerate(('camera', 'overlay', 'mask')):
        put_text(head, name, (_GAP + i * (SHEET_WIDTH + _GAP), 54), 10)
    parts = [head]
    for caption, camera, overlay, mask in rows:
        pictures = [_scaled(camera, SHEET_WIDTH), _scaled(overlay, SHEET_WIDTH)]
        pictures.append(_scaled(mask, SHEET_WIDTH, cv2.INTER_NEAREST))
        band = canvas(pictures[0].shape[0] + _GAP, width, DARK)
        for i, picture in enumerate(pictures):
            left = _GAP + i * (SHEET_WIDTH + _GAP)
            band[: picture.shape[0], left : left + SHEET_WIDTH] = picture
        put_text(band, caption, (_GAP + 8, 20), 10, outline=BLACK)
        parts.append(band)
    return np.concatenate([*parts, legend(classes, width)])


def write_video(path: Path, frames: Iterable[tuple[np.ndarray, np.ndarray]], rate: float) -> None:
    """Write a WebM video of camera and overlay side by side. Without frames, no file is written.

    Args:
        path: File to write.
        frames: Camera image and overlay of each frame.
        rate: Frames per second.

    Raises:
        OSError: The file cannot be written, see :func:`stdc_core.io.video.webm_writer`.
    """
    pairs = (np.hstack(pair) for pair in frames)
    first = next(pairs, None)
    if first is None:
        return
    scale = min(1.0, 2 * VIDEO_WIDTH / first.shape[1])
    height, width = (max(2, int(length * scale) // 2 * 2) for length in first.shape[:2])
    with webm_writer(path, (height, width), rate) as write:
        for both in chain([first], pairs):
            write(cv2.resize(both, (width, height), interpolation=cv2.INTER_AREA))
