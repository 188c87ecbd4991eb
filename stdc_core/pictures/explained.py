# SPDX-License-Identifier: Apache-2.0
"""Draw what networks see in an image: heat map, details, mask and errors, one row for each network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np

from stdc_core.classes import ClassTable
from stdc_core.pictures.drawing import DARK, GREY, LIGHT, canvas, legend, put_text, shorten
from stdc_core.pictures.overlay import colorize, errors, hatch, heat_map, overlay

#: Width of one picture of the sheet in pixels.
WIDTH = 420
_GAP = 10
_COLUMNS = 4


class View(NamedTuple):
    """What one network sees in an image.

    Attributes:
        caption: Name of the network, and its score if there is a label.
        strength: Strength of the feature at stride 8, float ``[h, w]``.
        details: Predicted probability of a detail, float ``[h, w]`` in 0 ... 1; None: the network has no detail head.
        mask: Class ids, uint8 ``[H, W]``.
    """

    caption: str
    strength: np.ndarray
    details: np.ndarray | None
    mask: np.ndarray


class Scene(NamedTuple):
    """An image and what networks see in it.

    Attributes:
        name: Name of the image.
        image: uint8 BGR ``[H, W, 3]``.
        truth: Class ids of the label, uint8 ``[H, W]``; None: there is no label.
        target: Detail target of the label, 0 or 1, float ``[H, W]``; None: there is no label.
        views: One view for each network.
    """

    name: str
    image: np.ndarray
    truth: np.ndarray | None
    target: np.ndarray | None
    views: Sequence[View]


def explained(scenes: Sequence[Scene], classes: ClassTable) -> np.ndarray:
    """Return a sheet of all scenes with a legend, uint8 BGR ``[*, *, 3]``.

    A scene is a row with the image, the label and the detail target, then one row for each network: heat map of the
    feature at stride 8, predicted details, mask and, with a label, errors in red; else the mask over the image.
    """
    width = _COLUMNS * (WIDTH + _GAP) + _GAP
    parts = []
    for scene in scenes:
        size = (max(1, round(scene.image.shape[0] * WIDTH / scene.image.shape[1])), WIDTH)
        parts.append(_row(shorten(scene.name, 11, width // 2), _given(scene, classes, size), size, width))
        parts += [_row(view.caption, _seen(scene, view, classes, size), size, width) for view in scene.views]
    return np.concatenate([*parts, legend(classes, width)])


def _given(scene: Scene, classes: ClassTable, size: tuple[int, int]) -> dict[str, np.ndarray]:
    """Return the pictures of the first row of a scene by their names."""
    pictures = {'image': _shrunk(scene.image, size)}
    if scene.truth is not None:
        truth = _nearest(scene.truth, size)
        pictures['truth'] = hatch(colorize(truth, classes), truth >= len(classes))
    if scene.target is not None:
        pictures['detail target'] = _grey(scene.target, size)
    return pictures


def _seen(scene: Scene, view: View, classes: ClassTable, size: tuple[int, int]) -> dict[str, np.ndarray]:
    """Return the pictures of a network's row by their names."""
    image, mask = _shrunk(scene.image, size), _nearest(view.mask, size)
    pictures = {'stage 3': heat_map(view.strength, size)}
    if view.details is None:
        blank = canvas(*size, GREY)
        put_text(blank, 'no trained detail head', (size[1] // 2, size[0] // 2), 10, LIGHT, 'center')
        pictures['details'] = blank
    else:
        pictures['details'] = _grey(view.details, size)
    pictures['mask'] = colorize(mask, classes)
    if scene.truth is None:
        pictures['overlay'] = overlay(image, mask, classes)
    else:
        truth = _nearest(scene.truth, size)
        unlabelled = truth >= len(classes)
        pictures['errors'] = errors(image, ~unlabelled & (truth != mask), unlabelled)
    return pictures


def _row(caption: str, pictures: dict[str, np.ndarray], size: tuple[int, int], width: int) -> np.ndarray:
    """Return pictures side by side, with a caption and their names above."""
    above = 52
    row = canvas(above + size[0] + _GAP, width, DARK)
    put_text(row, caption, (_GAP, 20), 11, LIGHT, bold=True)
    for index, (name, picture) in enumerate(pictures.items()):
        left = _GAP + index * (WIDTH + _GAP)
        put_text(row, name, (left, 43), 10, LIGHT)
        row[above : above + size[0], left : left + WIDTH] = picture
    return row


def _shrunk(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    smaller = size[1] < image.shape[1]
    return cv2.resize(image, (size[1], size[0]), interpolation=cv2.INTER_AREA if smaller else cv2.INTER_CUBIC)


def _nearest(ids: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    return cv2.resize(ids, (size[1], size[0]), interpolation=cv2.INTER_NEAREST)


def _grey(values: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return a picture of values in 0 ... 1, black to white."""
    smaller = size[1] < values.shape[1]
    interpolation = cv2.INTER_AREA if smaller else cv2.INTER_LINEAR
    resized = cv2.resize(values.astype(np.float32), (size[1], size[0]), interpolation=interpolation)
    return cv2.cvtColor((np.clip(resized, 0, 1) * 255).round().astype(np.uint8), cv2.COLOR_GRAY2BGR)
