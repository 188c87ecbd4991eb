# SPDX-License-Identifier: Apache-2.0
"""What is published of a segmented image, as messages of ``stdc_ros.messages.cdr.TYPES``. Knows nothing of rclpy."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import cv2
import numpy as np

from stdc_core.classes import IGNORE, ClassTable
from stdc_core.inference import Segmentation
from stdc_core.pictures.overlay import colorize, overlay
from stdc_ros.ground.camera_info import CameraInfoError
from stdc_ros.messages.cdr import COMPRESSED_IMAGE, IMAGE, TYPES
from stdc_ros.messages.images import make_image

#: What image_transport calls a compressed mono8 image.
PNG_FORMAT = 'mono8; png compressed '

#: Pixels. No sensor has more; a larger size in a CameraInfo is a damaged one, and scaled up it would not fit its field.
MAX_SIDE = 65535


class Result:
    """An image and its segmentation, at the size that the outputs have.

    Args:
        header: of the image; every output carries it.
        image: uint8 BGR ``[H, W, 3]``.
        segmentation: mask and confidence, uint8 ``[H, W]``.
        size: (height, width) of the outputs. Labels are taken from the nearest pixel: none are made up between two.
        threshold: pixels of the mask with less confidence, 0 to 1, become 255; 0: none, and no confidence is needed.
    """

    def __init__(
        self, header: Any, image: np.ndarray, segmentation: Segmentation, size: tuple[int, int], threshold: float
    ):
        self.header = header
        self._image = image
        self._size = size
        self._as_segmented = size == image.shape[:2] and threshold == 0
        self.mask, self.confidence = segmentation
        if threshold > 0:
            unsure = self.confidence < np.uint8(np.ceil(threshold * 255))
            self.mask = np.where(unsure, np.uint8(IGNORE), self.mask)
        if size != image.shape[:2]:
            nearest = {'dsize': size[::-1], 'interpolation': cv2.INTER_NEAREST_EXACT}
            self.mask = cv2.resize(self.mask, **nearest)
            self.confidence = None if self.confidence is None else cv2.resize(self.confidence, **nearest)

    def labels(self, wanted: set[str], info: Any | None) -> Iterator[tuple[str, Any]]:
        """Name and message of what is for machines.

        Args:
            wanted: names of outputs.
            info: ``CameraInfo`` of the camera, None if it has told none.
        """
        if 'mask' in wanted:
            yield 'mask', self._message(self.mask, 'mono8')
        if 'confidence' in wanted:
            yield 'confidence', self._message(self.confidence, 'mono8')
        if 'camera_info' in wanted and info is not None:
            yield 'camera_info', scaled_camera_info(info, self.header, self._image.shape[:2], self._size)
        if 'mask/compressed' in wanted:
            # The lowest compression: labels are large areas, and the others take several times as long for little.
            _, data = cv2.imencode('.png', self.mask, [cv2.IMWRITE_PNG_COMPRESSION, 1])
            yield 'mask/compressed', TYPES.types[COMPRESSED_IMAGE](self.header, PNG_FORMAT, data.reshape(-1))

    def pictures(
        self,
        wanted: set[str],
        classes: ClassTable,
        opacity: float,
        draw: Callable[[float], np.ndarray | None] = lambda opacity: None,
    ) -> Iterator[tuple[str, Any]]:
        """Name and message of what is for people.

        Args:
            opacity: of the overlay, 0 to 1.
            draw: makes the overlay of image and segmentation as they were given, or None, which leaves it to this.
        """
        if 'color_mask' in wanted:
            yield 'color_mask', self._message(colorize(self.mask, classes), 'bgr8')
        if 'overlay' in wanted:
            drawn = draw(opacity) if self._as_segmented else None
            if drawn is None:
                image = self._image
                if self._size != image.shape[:2]:
                    image = cv2.resize(image, self._size[::-1], interpolation=cv2.INTER_AREA)
                drawn = overlay(image, self.mask, classes, opacity)
            yield 'overlay', self._message(drawn, 'bgr8')

    def _message(self, array: np.ndarray, encoding: str) -> Any:
        return make_image(TYPES.types[IMAGE], self.header, array, encoding)


def scaled_camera_info(info: Any, header: Any, image: tuple[int, int], size: tuple[int, int]) -> Any:
    """Return the ``CameraInfo`` of a resized image.

    Focal lengths, skew and principal point of K and P, and the region of interest, are scaled as ``image_proc`` scales
    them; distortion, rotation and binning stay. The region keeps whole pixels, and the principal point moves with it.

    Args:
        info: Message of ``stdc_ros.messages.cdr.TYPES``.
        header: Header of the image, for the new message.
        image: Height and width of the image that ``info`` describes.
        size: Height and width of the resized image.
    """
    vertical, horizontal = size[0] / image[0], size[1] / image[1]
    if vertical == horizontal == 1:
        return dataclasses.replace(info, header=header)
    left, top = round(info.roi.x_offset * horizontal), round(info.roi.y_offset * vertical)
    columns = size[1] * max(info.binning_x, 1) if info.roi.width else 0
    rows = size[0] * max(info.binning_y, 1) if info.roi.height else 0
    factors = np.array([[horizontal], [vertical], [1.0]])
    camera, projection = np.reshape(info.k, (3, 3)) * factors, np.reshape(info.p, (3, 4)) * factors
    for matrix in (camera, projection):
        matrix[:2, 2] += left - info.roi.x_offset * horizontal, top - info.roi.y_offset * vertical
    return dataclasses.replace(
        info,
        header=header,
        height=max(round(info.height * vertical), top + rows),
        width=max(round(info.width * horizontal), left + columns),
        k=camera.reshape(-1),
        p=projection.reshape(-1),
        roi=dataclasses.replace(info.roi, x_offset=left, y_offset=top, width=columns, height=rows),
    )


def check_fit(info: Any, height: int, width: int) -> None:
    """See whether a ``CameraInfo`` describes images of ``height`` x ``width``, after its region and its binning.

    Raises:
        CameraInfoError: it describes others.
    """
    roi = info.roi
    inside = roi.x_offset + roi.width <= info.width and roi.y_offset + roi.height <= info.height
    if max(info.width, info.height) > MAX_SIDE or not inside:
        raise CameraInfoError(
            f'CameraInfo of {info.width} x {info.height} pixels with a region of interest of {roi.width} x '
            f'{roi.height} at ({roi.x_offset}, {roi.y_offset}), expected at most {MAX_SIDE} a side, the region inside'
        )
    columns = (roi.width or info.width) / max(info.binning_x, 1)
    rows = (roi.height or info.height) / max(info.binning_y, 1)
    # A side that the binning does not divide is rounded one way or the other.
    if abs(columns - width) >= 1 or abs(rows - height) >= 1:
        raise CameraInfoError(
            f'CameraInfo of images of {columns:g} x {rows:g} pixels, expected {width} x {height}, as the images are'
        )
