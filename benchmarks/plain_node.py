# SPDX-License-Identifier: Apache-2.0
"""Run a segmentation node as it is usually written; `benchmarks/ros.py` compares ours with it.

Typed messages, a queue of ten, and conversion and inference in the subscription's callback. Images are converted as
`cv_bridge` converts them. ONNX Runtime gets the same model file and number of threads as in ours.
"""

from __future__ import annotations

import sys
from contextlib import suppress

import numpy as np
import onnxruntime
import rclpy
from rclpy.executors import ExternalShutdownException
from rclpy.node import Node
from sensor_msgs.msg import Image


class PlainNode(Node):
    """Subscribes to ``image`` and publishes ``~/mask``."""

    def __init__(self, model: str, threads: int) -> None:
        super().__init__('plain')
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        self._session = onnxruntime.InferenceSession(model, options, providers=['CPUExecutionProvider'])
        self._masks = self.create_publisher(Image, '~/mask', 10)
        self.create_subscription(Image, 'image', self._segment, 10)

    def _segment(self, message: Image) -> None:
        image = np.ndarray((message.height, message.width, 3), np.uint8, buffer=message.data)
        (mask,) = self._session.run(['mask'], {'image': image[None]})
        result = Image(header=message.header, height=message.height, width=message.width, encoding='mono8')
        result.step = message.width
        result.data.frombytes(mask[0].tobytes())
        self._masks.publish(result)


def main() -> None:
    model, threads, *ros_arguments = sys.argv[1:]
    rclpy.init(args=ros_arguments)
    with suppress(KeyboardInterrupt, ExternalShutdownException):
        rclpy.spin(PlainNode(model, int(threads)))


if __name__ == '__main__':
    main()
