# SPDX-License-Identifier: Apache-2.0
"""Define messages and topics of a bag, and the error for a bag that cannot be used."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from stdc_ros.bags.message_types import BAG_TYPES, COMPRESSED_IMAGE, IMAGE
from stdc_ros.messages.compressed_images import compressed_to_bgr
from stdc_ros.messages.images import ImageError, image_to_bgr, make_image

_TO_BGR = {IMAGE: image_to_bgr, COMPRESSED_IMAGE: compressed_to_bgr}

#: Fields of ``sensor_msgs/Image`` without its header.
_IMAGE_FIELDS = ('height', 'width', 'encoding', 'is_bigendian', 'step', 'data')


class BagError(ValueError):
    """A bag that cannot be used. The message names the file or topic, what was found and what was expected."""


class Topic(NamedTuple):
    """Topic of a bag.

    Args:
        type: Type of its messages.
        message_count: Number of its messages.
    """

    type: str
    message_count: int


class BagMessage(NamedTuple):
    """Message of a bag.

    Args:
        topic: Name of the topic.
        time: Time of recording in nanoseconds.
        message: Message object; None if the bytes are not a message of this type.
        type: Message type, such as :data:`IMAGE`.
        problem: Reason why the message cannot be used, with which every method raises ImageError; ``''`` if it can.
        data: CDR bytes of the message.
        picture: Decoded picture of a video message, uint8 ``[H, W, 3]`` BGR.
    """

    topic: str
    time: int
    message: Any
    type: str
    problem: str = ''
    data: bytes | memoryview = b''
    picture: np.ndarray | None = None

    @property
    def stamp(self) -> int:
        """Stamp in the header of an image message, nanoseconds."""
        if self.problem:
            raise ImageError(self.problem)
        stamp = self.message.header.stamp
        return stamp.sec * 10**9 + stamp.nanosec

    def header(self) -> Any:
        """Return a copy of the header of an image message."""
        return make_header(self.stamp, self.message.header.frame_id)

    def bgr(self) -> np.ndarray:
        """Return the picture of an image message, uint8 ``[H, W, 3]`` BGR.

        Raises:
            ImageError: The picture cannot be decoded.
        """
        if self.problem:
            raise ImageError(self.problem)
        return self.picture if self.picture is not None else _TO_BGR[self.type](self.message)

    def to_image(self) -> Any:
        """Return the picture as ``sensor_msgs/Image``: a raw image as it is, a compressed one decoded to bgr8.

        Raises:
            ImageError: The picture cannot be decoded.
        """
        header = self.header()
        if self.type != IMAGE:
            return make_image(BAG_TYPES.types[IMAGE], header, self.bgr(), 'bgr8')
        fields = {name: getattr(self.message, name) for name in _IMAGE_FIELDS}
        return BAG_TYPES.types[IMAGE](header=header, **fields)


def make_header(stamp: int, frame_id: str) -> Any:
    """Return a ``std_msgs/Header``.

    Args:
        stamp: Stamp in nanoseconds.
        frame_id: Name of the frame.
    """
    seconds, nanoseconds = divmod(stamp, 10**9)
    time = BAG_TYPES.types['builtin_interfaces/msg/Time'](sec=seconds, nanosec=nanoseconds)
    return BAG_TYPES.types['std_msgs/msg/Header'](stamp=time, frame_id=frame_id)
