"""What the demo shows: a contact sheet and a video. Pictures are uint8 ``[H, W, 3]`` BGR."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np

from stdc_core.classes import ClassTable

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


@contextmanager
def _quiet_stderr() -> Iterator[None]:
    """OpenCV prints, past Python and every log level, that WebM has no tag for VP8, and then writes it all the same."""
    kept = os.dup(2)
    try:
        with open(os.devnull, 'wb') as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def write_video(path: Path, frames: Iterable[tuple[np.ndarray, np.ndarray]], rate: float) -> int:
    """Camera and overlay side by side, as VP8 in WebM, which browsers and players alike play.

    Args:
        frames: camera image and overlay.
        rate: frames per second.

    Returns:
        number of frames written.

    Raises:
        OSError: OpenCV has no VP8 encoder, or cannot write there.
    """
    writer, size, count = None, (0, 0), 0
    try:
        for camera, overlay in frames:
            both = np.hstack([camera, overlay])
            if writer is None:
                scale = min(1.0, 2 * VIDEO_WIDTH / both.shape[1])
                # Encoders want even sizes.
                size = tuple(max(2, int(length * scale) // 2 * 2) for length in (both.shape[1], both.shape[0]))
                with _quiet_stderr():
                    writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, cv2.VideoWriter_fourcc(*'VP80'), rate, size)
                if not writer.isOpened():
                    raise OSError(f'{path}: this OpenCV cannot write VP8 video')
            writer.write(both if both.shape[1::-1] == size else cv2.resize(both, size, interpolation=cv2.INTER_AREA))
            count += 1
    finally:
        if writer is not None:
            writer.release()
    return count
