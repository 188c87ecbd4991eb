# SPDX-License-Identifier: Apache-2.0
"""Answer each image with bytes of the size of a mask; `benchmarks/ros.py` measures the middleware alone with it.

This is the minimal work of a Python node: nothing is decoded, converted or computed.
"""

from __future__ import annotations

import sys
from contextlib import suppress

import numpy as np
import rclpy
from rclpy.executors import ExternalShutdownException
from rclpy.node import Node
from rclpy.serialization import serialize_message
from sensor_msgs.msg import Image
from std_msgs.msg import Header

#: Position of the stamp: after the four bytes of the CDR header.
STAMP = slice(4, 12)


class RelayNode(Node):
    """Subscribes to ``image`` and publishes ``~/mask``: a zero byte for each pixel, with the stamp of the image."""

    def __init__(self, height: int, width: int) -> None:
        super().__init__('relay')
        mask = Image(header=Header(frame_id='camera'), height=height, width=width, encoding='mono8', step=width)
        mask.data.frombytes(np.zeros((height, width), np.uint8))
        self._mask = bytearray(serialize_message(mask))
        self._masks = self.create_publisher(Image, '~/mask', 10)
        self.create_subscription(Image, 'image', self._answer, 10, raw=True)

    def _answer(self, image: bytes) -> None:
        self._mask[STAMP] = image[STAMP]
        self._masks.publish(bytes(self._mask))


def main() -> None:
    height, width, *ros_arguments = sys.argv[1:]
    rclpy.init(args=ros_arguments)
    with suppress(KeyboardInterrupt, ExternalShutdownException):
        rclpy.spin(RelayNode(int(height), int(width)))


if __name__ == '__main__':
    main()
