# SPDX-License-Identifier: Apache-2.0
"""Read the ``format`` field of a ``sensor_msgs/CompressedImage``.

``compressed_image_transport`` writes ``SOURCE; CODEC compressed STORED``: the encoding of the image that the camera
published, the codec, and the encoding of the pixels that were compressed. ROS 1 leaves STORED out if the image was not
converted, and so does ROS 2 for PNG. Other publishers write only the codec (``jpeg``, ``jpg``, ``png``), leave parts or
blanks out, or write in capitals.
"""

from __future__ import annotations

import re
from typing import NamedTuple

#: Names of image encodings: those of ``sensor_msgs/image_encodings.hpp`` and similar ones, in lower case.
_ENCODING = re.compile(r'(?:mono|bgra?|rgba?|bayer_[a-z]{4}|yuv|nv)\d+(?:_\w+)?|uyvy|yuyv|\d+[usf]c\d*')

#: Names of OpenCV's matrix types, which have no colour space. Depths (``16UC1``) and disparities have such types.
_MATRIX = re.compile(r'\d+[usf]c\d*')

#: Name of the transport for depth images, and of a codec that only this transport uses.
_DEPTH = {'compresseddepth', 'rvl'}

#: Words that name a codec and not an encoding.
_CODECS = {'jpeg', 'jpg', 'jpe', 'jfif', 'mjpeg', 'mjpg', 'png', 'compressed', 'image/jpeg', 'image/jpg', 'image/png'}


class CompressedFormat(NamedTuple):
    """Parts of a ``CompressedImage.format``, in lower case; a missing part is empty.

    Args:
        source: Encoding of the image that was published, or another word in its place.
        stored: Encoding of the pixels that were compressed.
        depth: Whether the data is a depth image of ``compressed_depth_image_transport``.
    """

    source: str
    stored: str
    depth: bool

    @property
    def is_matrix(self) -> bool:
        """Whether the source is an OpenCV matrix type, such as ``16UC1`` for depths in millimetres."""
        return _MATRIX.fullmatch(self.source) is not None


def read_format(text: str) -> CompressedFormat:
    """Return the parts of a ``CompressedImage.format``. Every text is accepted.

    Example:
        >>> read_format('bayer_rggb8; jpeg compressed mono8')
        CompressedFormat(source='bayer_rggb8', stored='mono8', depth=False)
    """
    before, semicolon, after = text.lower().replace('\0', ' ').partition(';')
    words = [word for word in re.split(r'[\s;,]+', f'{before} {after}') if word]
    encodings = [word for word in words if _ENCODING.fullmatch(word)]
    first = before.split()[0] if before.strip() else ''
    if not semicolon or first in _CODECS:
        first = encodings[0] if encodings else ''
    # STORED is the last word. Without it, the image was compressed in its own encoding.
    stored = [word for word in re.split(r'[\s;,]+', after.rpartition('compressed')[2]) if _ENCODING.fullmatch(word)]
    depth = any(word.startswith(tuple(_DEPTH)) for word in words)
    return CompressedFormat(first, stored[-1] if stored else first, depth)
