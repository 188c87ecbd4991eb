# SPDX-License-Identifier: Apache-2.0
"""Send hostile messages to the segmentation node, with good frames in between whose masks must arrive and be correct.

    PYTHONPATH=. python test/fuzz/fuzz_messages.py --messages 100000 --seed 1 --camera compressed
    PYTHONPATH=. python test/fuzz/fuzz_messages.py --messages 1000000 --seed 1 --direct

The first command sends them over Fast DDS to a node process, which never sees the messages that the middleware or the
worker replaces with newer ones. With --direct, a node in this process receives every message. The exit status is 1 if
anything is wrong.
"""

from __future__ import annotations

import argparse
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
from hostile import GoodFrames, Hostile

from stdc_core.inference import Segmenter
from stdc_core.inference.heap_memory import keep_freed_memory
from stdc_ros.playback.isolation import isolated_environment

ROOT = Path(__file__).resolve().parents[2]

#: Input scale. A small one, because the code around the network is fuzzed.
SCALE = 0.5

PARAMETERS = {
    'threads': 1,
    'input_scale': SCALE,
    'drivable_grid': True,
    'grid_camera_pose': [0.0, 0.0, 1.5, 0.0, 0.1, 0.0],
    'max_frame_age': 0.0,
}

#: Number of hostile messages between two good frames, and between two hostile CameraInfo messages.
GOOD_EVERY = 500
INFO_EVERY = 10

#: Live run: messages per second, and seconds to wait for the node, for a mask, and before a good frame is sent again.
RATE = 3000.0
START_S, MASK_S, AGAIN_S = 60.0, 60.0, 0.5

#: Least number of seconds between two warnings of one log throttle.
LOG_PERIOD = 5.0

#: Rows of the diagnostics to report.
COUNTED = (
    'frames received',
    'frames segmented',
    'frames dropped',
    'bad images',
    'frames failed',
    'frames with a bad CameraInfo',
    'frames without a grid',
)


def ros_arguments(transport: str) -> list[str]:
    """Return the ROS arguments of the node."""
    parameters = {**PARAMETERS, 'image_transport': transport}
    given = [f'{name}:={str(value).lower()}' for name, value in parameters.items()]
    return ['--ros-args', *(word for text in given for word in ('-p', text))]


def resident(pid: int | str) -> float:
    """Return the resident memory of a process in MB (Linux)."""
    return int(re.search(r'VmRSS:\s+(\d+)', Path(f'/proc/{pid}/status').read_text())[1]) / 1024


class Listener:
    """Publishes to the node, and stores its newest mask and diagnostics."""

    def __init__(self, transport: str):
        import rclpy
        from diagnostic_msgs.msg import DiagnosticArray
        from nav_msgs.msg import OccupancyGrid
        from rclpy.executors import SingleThreadedExecutor
        from rclpy.node import Node
        from rclpy.qos import QoSProfile, ReliabilityPolicy
        from sensor_msgs.msg import CameraInfo, CompressedImage, Image

        self.masks: dict[int, np.ndarray] = {}
        self.values: dict[str, str] = {}
        self._context = rclpy.Context()
        self._context.init()
        self.node = Node('fuzzer', context=self._context)
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self.node)
        quality = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE)
        of, topic = (Image, 'image') if transport == 'raw' else (CompressedImage, 'image/compressed')
        self.images = self.node.create_publisher(of, topic, quality)
        self.infos = self.node.create_publisher(CameraInfo, 'camera_info', quality)
        self.node.create_subscription(Image, '/segmentation/mask', self._keep_mask, 10)
        for output, of in (('camera_info', CameraInfo), ('drivable_grid', OccupancyGrid)):
            self.node.create_subscription(of, f'/segmentation/{output}', lambda _: None, 10)
        self.node.create_subscription(DiagnosticArray, '/diagnostics', self._keep_values, 10)

    def close(self) -> None:
        """Shut ROS 2 down."""
        self._executor.shutdown()
        self.node.destroy_node()
        self._context.shutdown()

    def spin(self, seconds: float = 0.0) -> None:
        """Receive messages for some seconds."""
        until = time.monotonic() + seconds
        while True:
            self._executor.spin_once(timeout_sec=max(0.0, until - time.monotonic()))
            if time.monotonic() >= until:
                return

    def spin_until(self, condition: Callable[[], bool], seconds: float) -> bool:
        """Receive messages until the condition holds or the time is over. Return whether it holds."""
        until = time.monotonic() + seconds
        while not condition() and time.monotonic() < until:
            self._executor.spin_once(timeout_sec=0.02)
        return condition()

    def _keep_mask(self, mask) -> None:
        stamp = mask.header.stamp.sec * 10**9 + mask.header.stamp.nanosec
        self.masks = {stamp: np.frombuffer(mask.data, np.uint8).reshape(mask.height, mask.width)}

    def _keep_values(self, report) -> None:
        self.values = {value.key: value.value for value in report.status[0].values}


class Judge:
    """Sends good frames and counts those whose masks arrive and are correct.

    Args:
        transport: Transport of the images, ``raw`` or ``compressed``.
        listener: Listener that receives the masks.
        send: Function that sends an image to the node.
    """

    def __init__(self, transport: str, listener: Listener, send: Callable[[bytes], None]):
        self._frames = GoodFrames(transport)
        self._segmenter = Segmenter.load(threads=1, input_scale=SCALE)
        self._listener = listener
        self._send = send
        self.right = self.asked = 0

    def __call__(self) -> None:
        """Send one good frame, repeatedly, because a hostile message on its way may replace it."""
        stamp, pixels, message = next(self._frames)
        self.asked += 1
        until = time.monotonic() + MASK_S
        while time.monotonic() < until:
            self._send(message)
            if self._listener.spin_until(lambda: stamp in self._listener.masks, AGAIN_S):
                self.right += np.array_equal(self._listener.masks[stamp], self._segmenter(pixels).mask)
                return


def read_log(text: str) -> dict[str, int]:
    """Return the number of lines in the node's log by kind."""
    lines = [line for line in text.splitlines() if line]
    ours = [line for line in lines if re.match(r'\[(INFO|WARN|ERROR|FATAL)\] \[[\d.]+\] \[segmentation\]', line)]
    return {
        'warnings of bad images': sum('is left out' in line and line.startswith('[WARN]') for line in ours),
        'other warnings': sum('is left out' not in line and line.startswith('[WARN]') for line in ours),
        'errors': sum(line.startswith(('[ERROR]', '[FATAL]')) for line in ours),
        'lines of others': len(lines) - len(ours),
        'longest line': max(map(len, lines), default=0),
    }


def growth(memory: list[float]) -> dict[str, float]:
    """Return the memory after the first tenth and at the end. The first tenth includes all one-time allocations."""
    return {'MB after a tenth': memory[0], 'MB at the end': memory[-1]}


def run_live(options: argparse.Namespace, log: Path) -> dict[str, float]:
    """Send messages over Fast DDS to a node process."""
    hostile = Hostile(options.seed, options.camera)
    listener = Listener(options.camera)
    environment = {**os.environ, 'PYTHONPATH': f'{ROOT}{os.pathsep}{os.environ.get("PYTHONPATH", "")}'}
    command = [sys.executable, '-m', 'stdc_ros.node.main', *ros_arguments(options.camera)]
    with log.open('wb') as file:
        process = subprocess.Popen(command, stdout=file, stderr=file, env=environment)
    try:
        judge = Judge(options.camera, listener, listener.images.publish)
        if not listener.spin_until(lambda: listener.images.get_subscription_count() > 0, START_S):
            raise SystemExit(f'the node does not subscribe within {START_S:g} s; its log:\n{log.read_text()}')
        judge()
        begin, memory = time.monotonic(), []
        for number in range(1, options.messages + 1):
            listener.images.publish(hostile.image())
            if number % INFO_EVERY == 0:
                listener.infos.publish(hostile.camera_info())
                listener.spin()
            if number % GOOD_EVERY == 0:
                judge()
            if number % max(1, options.messages // 10) == 0:
                memory.append(resident(process.pid))
                print(f'{number} messages, {memory[-1]:.0f} MB', flush=True)
            time.sleep(max(0.0, begin + number / RATE - time.monotonic()))
        judge()
        seconds = time.monotonic() - begin
        listener.spin(2.5)  # for diagnostics, which are published every second
        process.send_signal(signal.SIGINT)
        status = process.wait(30)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
        listener.close()
    counts = {f'node: {key}': int(listener.values[key]) for key in COUNTED}
    return {
        **{'sent': options.messages, 'seconds': seconds},
        **counts,
        **{'good frames': judge.asked, 'of these right': judge.right},
        **{**growth(memory), 'exit status': status},
    }


def run_direct(options: argparse.Namespace, log: Path) -> dict[str, float]:
    """Pass every message to a node in this process, whose executor does not run."""
    import rclpy

    from stdc_ros.node.frame_pipeline import Frame
    from stdc_ros.node.segmentation_node import SegmentationNode

    keep_freed_memory()
    stderr = os.dup(2)
    with log.open('ab') as file:
        os.dup2(file.fileno(), 2)
    hostile = Hostile(options.seed, options.camera)
    listener = Listener(options.camera)
    rclpy.init(args=ros_arguments(options.camera))
    node = SegmentationNode()
    segmentation = node.segmentation
    (camera,) = segmentation._cameras
    try:
        if not listener.spin_until(lambda: len(camera.wanted()) == 3, START_S):
            raise SystemExit(f'the node has no listeners within {START_S:g} s')
        camera.follow_listeners()

        def send(message: bytes) -> None:
            segmentation._pipeline.process([Frame(camera, message, time.monotonic(), time.time())])

        judge = Judge(options.camera, listener, send)
        judge()
        begin, memory = time.monotonic(), []
        for number in range(1, options.messages + 1):
            send(hostile.image())
            if number % INFO_EVERY == 0:
                camera._take_info(hostile.camera_info(), {})
                listener.spin()
            if number % GOOD_EVERY == 0:
                judge()
                segmentation._diagnose()
            if number % max(1, options.messages // 10) == 0:
                memory.append(resident('self'))
                print(f'{number} messages, {memory[-1]:.0f} MB', flush=True)
        judge()
        seconds = time.monotonic() - begin
        segmentation._diagnose()
        listener.spin(1.0)
    finally:
        node.close()
        rclpy.try_shutdown()
        listener.close()
        os.dup2(stderr, 2)
    counts = {f'node: {key}': int(listener.values[key]) for key in COUNTED if key != 'frames received'}
    return {
        **{'sent': options.messages, 'seconds': seconds},
        **counts,
        **{'good frames': judge.asked, 'of these right': judge.right},
        **{**growth(memory), 'exit status': 0},
    }


def problems(found: dict[str, float], most_growth: float) -> list[str]:
    """Return what is wrong."""
    warnings = 1 + found['seconds'] / LOG_PERIOD
    rules = {
        'the node ended otherwise than by SIGINT': found['exit status'] == 0,
        'a good frame had no mask or a wrong one': found['of these right'] == found['good frames'],
        'frames failed': found['node: frames failed'] == 0 and found['errors'] == 0,
        'no bad image was counted': found['node: bad images'] > 0,
        'there was no warning of bad images, or there were too many': 0 < found['warnings of bad images'] <= warnings,
        'a library wrote to the log of the node': found['lines of others'] == 0,
        'a line of the log is too long': found['longest line'] < 1000,
        f'memory grew by more than {most_growth:g} MB': found['MB at the end'] - found['MB after a tenth']
        < most_growth,
    }
    return [rule for rule, held in rules.items() if not held]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--messages', type=int, default=100_000, help='hostile images (default: 100000)')
    parser.add_argument('--seed', type=int, default=1, help='seed of the messages')
    parser.add_argument('--camera', choices=('raw', 'compressed'), default='raw', help='transport of the images')
    parser.add_argument('--direct', action='store_true', help='pass every message to a node in this process')
    parser.add_argument(
        '--growth', type=float, default=100.0, metavar='MB', help='largest growth of memory after the first tenth'
    )
    parser.add_argument('--log', type=Path, help='file for the log of the node')
    options = parser.parse_args()
    os.environ.update(isolated_environment())
    with tempfile.TemporaryDirectory() as folder:
        log = options.log or Path(folder) / 'node.log'
        with suppress(FileNotFoundError):
            log.unlink()
        found = (run_direct if options.direct else run_live)(options, log)
        found |= read_log(log.read_text(errors='replace'))
        for key, value in found.items():
            print(f'{key}: {value:.0f}')
        wrong = problems(found, options.growth)
        for rule in wrong:
            print(f'WRONG: {rule}')
        if wrong:
            print(log.read_text(errors='replace')[-3000:])
    return 1 if wrong else 0


if __name__ == '__main__':
    sys.exit(main())
