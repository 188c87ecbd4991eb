"""What the demo shows: a contact sheet and a video. Pictures are uint8 ``[H, W, 3]`` BGR."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain
from pathlib import Path

import cv2
import numpy as np

from stdc_core.classes import ClassTable
from stdc_core.video import webm_writer

_BACKGROUND = (32, 30, 28)
_TEXT = (235, 235, 235)
_GAP = 8
#: Pixels: width of a picture in the sheet, and of one half of the video.
SHEET_WIDTH = 420
VIDEO_WIDTH = 640


def _text(picture: np.ndarray, text: str, left: int, bottom: int, scale: float = 0.5) -> None:
    cv2.putText(picture, text, (left, bottom), cv2.FONT_HERSHEY_DUPLEX, scale, _TEXT, 1, cv2.LINE_AA)


def _scaled(picture: np.ndarray, width: int, interpolation: int = cv2.INTER_AREA) -> np.ndarray:
    height = max(1, round(picture.shape[0] * width / picture.shape[1]))
    return cv2.resize(picture, (width, height), interpolation=interpolation)


def _strip(width: int, height: int) -> np.ndarray:
    return np.full((height, width, 3), _BACKGROUND, np.uint8)


def _legend(classes: ClassTable, width: int) -> np.ndarray:
    line, rows = 26, -(-len(classes) // max(1, width // 140))
    columns = -(-len(classes) // rows)
    cell = (width - _GAP) // columns
    picture = _strip(width, rows * line + _GAP)
    palette = classes.palette_bgr()
    for i, name in enumerate(classes.names):
        left, top = _GAP + i % columns * cell, i // columns * line
        cv2.rectangle(picture, (left, top), (left + 18, top + 18), palette[i].tolist(), -1)
        _text(picture, name, left + 26, top + 14, 0.45)
    return picture


def contact_sheet(
    rows: Sequence[tuple[str, np.ndarray, np.ndarray, np.ndarray]], classes: ClassTable, title: str
) -> np.ndarray:
    """Several frames below each other: camera, overlay and mask in colours, with a legend.

    Args:
        rows: caption, camera image, overlay, coloured mask; the pictures of one frame have one size.
    """
    width = 3 * SHEET_WIDTH + 4 * _GAP
    head = _strip(width, 62)
    _text(head, title, _GAP, 24, 0.62)
    for i, name in enumerate(('camera', 'overlay', 'mask')):
        _text(head, name, _GAP + i * (SHEET_WIDTH + _GAP), 54)
    parts = [head]
    for caption, camera, overlay, mask in rows:
        pictures = [_scaled(camera, SHEET_WIDTH), _scaled(overlay, SHEET_WIDTH)]
        pictures.append(_scaled(mask, SHEET_WIDTH, cv2.INTER_NEAREST))
        band = _strip(width, pictures[0].shape[0] + _GAP)
        for i, picture in enumerate(pictures):
            left = _GAP + i * (SHEET_WIDTH + _GAP)
            band[: picture.shape[0], left : left + SHEET_WIDTH] = picture
        label = band[: pictures[0].shape[0], _GAP : _GAP + SHEET_WIDTH]
        cv2.putText(label, caption, (8, 20), cv2.FONT_HERSHEY_DUPLEX, 0.45, (0, 0, 0), 3, cv2.LINE_AA)
        _text(label, caption, 8, 20, 0.45)
        parts.append(band)
    return np.concatenate([*parts, _legend(classes, width)])


def write_video(path: Path, frames: Iterable[tuple[np.ndarray, np.ndarray]], rate: float) -> None:
    """Camera and overlay side by side, as a WebM video; without frames, none is written.

    Args:
        frames: camera image and overlay.
        rate: frames per second.

    Raises:
        OSError: see ``webm_writer``.
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
