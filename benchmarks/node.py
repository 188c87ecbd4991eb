# SPDX-License-Identifier: Apache-2.0
"""Measure the time to the first mask of the node and its memory: python benchmarks/node.py.

A camera publishes images of 360 x 480 at 15 Hz while the node's process starts. The time is measured from the start of
the process to the first mask that arrives here; the memory is that of the node after the listener has left.
"""

from __future__ import annotations

import statistics
import tempfile
import threading
import time
from pathlib import Path

from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from stdc_core.data.synthetic import SyntheticDrive
from stdc_core.inference import DEFAULT_MODEL
from stdc_ros.messages.images import make_image
from stdc_ros.playback.node_process import node_process, ros_node

CAMERA = '/camera/image_raw'
STARTS = 5
PERIOD_S = 1 / 15
IDLE_S = 3.0
TIMEOUT_S = 60.0


def start_once(node) -> tuple[float, dict[str, float]]:
    """Return the seconds to the first mask, and the resident and the shared memory of the idle node in MB."""
    camera = node.create_publisher(Image, CAMERA, QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE))
    image = make_image(Image, Header(frame_id='camera'), SyntheticDrive(frames=1)[0].image, 'bgr8')
    arrived = threading.Event()
    listener = node.create_subscription(Image, '/segmentation/mask', lambda _: arrived.set(), 1)
    with tempfile.TemporaryDirectory() as folder:
        begin = time.monotonic()
        with node_process(DEFAULT_MODEL, CAMERA, Path(folder) / 'node.log') as process:
            while not arrived.wait(PERIOD_S):
                process.check()
                if time.monotonic() - begin > TIMEOUT_S:
                    raise process.error(f'no mask within {TIMEOUT_S:g} s')
                image.header.stamp = node.get_clock().now().to_msg()
                camera.publish(image)
            seconds = time.monotonic() - begin
            node.destroy_subscription(listener)
            time.sleep(IDLE_S)
            status = dict(line.split(':', 1) for line in process.status().splitlines())
    node.destroy_publisher(camera)
    return seconds, {key: int(status[key].split()[0]) / 1024 for key in ('VmRSS', 'RssShmem')}


def main() -> None:
    """Start the node several times and print the medians."""
    with ros_node('benchmark') as node:
        results = [start_once(node) for _ in range(STARTS)]
    first = [seconds for seconds, _ in results]
    resident, shared = (statistics.median(memory[key] for _, memory in results) for key in ('VmRSS', 'RssShmem'))
    print(f'first mask after the process starts: median {statistics.median(first):.2f} s, longest {max(first):.2f} s')
    print(f'idle node: {resident:.0f} MB resident, of which {shared:.0f} MB shared memory (median of {STARTS} starts)')


if __name__ == '__main__':
    main()
