# SPDX-License-Identifier: Apache-2.0
"""Make the output messages of a segmented image, of the types in ``stdc_ros.messages.cdr``. Imports no rclpy."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import cv2
import numpy as np

from stdc_core.classes import IGNORE, ClassTable
from stdc_core.inference import Segmentation
from stdc_core.pictures.overlay import colorize, overlay
from stdc_ros.messages.cdr import COMPRESSED_IMAGE, IMAGE, TYPES
from stdc_ros.messages.images import make_image

#: ``CompressedImage.format`` of a mono8 mask as PNG and of a bgr8 picture as JPEG, as image_transport writes it.
PNG_FORMAT = 'mono8; png compressed '
JPEG_FORMAT = 'bgr8; jpeg compressed bgr8'


class FrameOutputs:
    """Output messages of one image and its segmentation.

    Args:
        header: Header of the image and of every output.
        image: Image, uint8 BGR ``[H, W, 3]``.
        segmentation: Mask and confidence, uint8 ``[H, W]``.
        size: Height and width of the outputs. Labels are resized to the nearest pixel, which makes no new labels.
        threshold: Minimum confidence, 0 to 1. Pixels of the mask with less become 255. With 0, no confidence is needed.

    Attributes:
        mask: Class ids, uint8 of ``size``.
        confidence: Confidence, uint8 of ``size``, or None.
    """

    def __init__(
        self, header: Any, image: np.ndarray, segmentation: Segmentation, size: tuple[int, int], threshold: float
    ):
        self._header = header
        self._image = image
        self._size = size
        self._as_segmented = size == image.shape[:2] and threshold == 0
        mask, confidence = segmentation
        if threshold > 0 and confidence is not None:
            mask = np.where(confidence < np.uint8(np.ceil(threshold * 255)), np.uint8(IGNORE), mask)
        if size != image.shape[:2]:
            mask = _nearest(mask, size)
            confidence = None if confidence is None else _nearest(confidence, size)
        self.mask = mask
        self.confidence = confidence

    def labels(self, wanted: set[str], info: Any | None) -> Iterator[tuple[str, Any]]:
        """Yield name and message of each wanted output with labels, and the CameraInfo.

        Args:
            wanted: Names of outputs.
            info: ``CameraInfo`` of the camera, or None.
        """
        if 'mask' in wanted:
            yield 'mask', self._message(self.mask, 'mono8')
        if 'confidence' in wanted and self.confidence is not None:
            yield 'confidence', self._message(self.confidence, 'mono8')
        if 'camera_info' in wanted and info is not None:
            yield 'camera_info', scaled_camera_info(info, self._header, self._image.shape[:2], self._size)
        if 'mask/compressed' in wanted:
            # The lowest level. Higher levels take several times as long for little, because labels are large areas.
            data = _encode('.png', self.mask, cv2.IMWRITE_PNG_COMPRESSION, 1)
            yield 'mask/compressed', TYPES.types[COMPRESSED_IMAGE](self._header, PNG_FORMAT, data)

    def pictures(
        self,
        wanted: set[str],
        classes: ClassTable,
        opacity: float,
        quality: int,
        draw: Callable[[float], np.ndarray | None] = lambda opacity: None,
    ) -> Iterator[tuple[str, Any]]:
        """Yield name and message of each wanted picture for people.

        Args:
            wanted: Names of outputs.
            classes: Class table with the colours.
            opacity: Weight of the colours in the overlay, 0 to 1.
            quality: Quality of JPEG pictures, 1 to 100.
            draw: Function that draws the overlay of image and segmentation elsewhere, such as on the GPU, with an
                opacity. If it returns None, the overlay is drawn here.
        """
        if wanted & {'color_mask', 'color_mask/compressed'}:
            yield from self._picture('color_mask', colorize(self.mask, classes), wanted, quality)
        if wanted & {'overlay', 'overlay/compressed'}:
            drawn = draw(opacity) if self._as_segmented else None
            if drawn is None:
                image = self._image
                if self._size != image.shape[:2]:
                    image = cv2.resize(image, self._size[::-1], interpolation=cv2.INTER_AREA)
                drawn = overlay(image, self.mask, classes, opacity)
            yield from self._picture('overlay', drawn, wanted, quality)

    def _picture(self, name: str, picture: np.ndarray, wanted: set[str], quality: int) -> Iterator[tuple[str, Any]]:
        if name in wanted:
            yield name, self._message(picture, 'bgr8')
        if f'{name}/compressed' in wanted:
            data = _encode('.jpg', picture, cv2.IMWRITE_JPEG_QUALITY, quality)
            yield f'{name}/compressed', TYPES.types[COMPRESSED_IMAGE](self._header, JPEG_FORMAT, data)

    def _message(self, array: np.ndarray, encoding: str) -> Any:
        return make_image(TYPES.types[IMAGE], self._header, array, encoding)


def _nearest(labels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    return cv2.resize(labels, size[::-1], interpolation=cv2.INTER_NEAREST_EXACT)


def _encode(suffix: str, picture: np.ndarray, setting: int, value: int) -> np.ndarray:
    """Return the bytes of a PNG or JPEG file, uint8 ``[N]``."""
    _, data = cv2.imencode(suffix, picture, [setting, value])
    return data.reshape(-1)


def scaled_camera_info(info: Any, header: Any, image: tuple[int, int], size: tuple[int, int]) -> Any:
    """Return the ``CameraInfo`` of a resized image.

    Focal lengths, skew and principal point of K and P, and the region of interest are scaled as in ``image_proc``.
    Distortion, rotation and binning stay. The region is rounded to whole pixels, and the principal point moves with it.

    Args:
        info: Message of ``stdc_ros.messages.cdr.TYPES``.
        header: Header of the new message.
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
