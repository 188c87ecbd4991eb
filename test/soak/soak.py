# SPDX-License-Identifier: Apache-2.0
"""Run the node for a long time with several cameras at full rate: python test/soak/soak.py --minutes 30.

Each camera is a separate process; masks arrive in this process. Memory, open descriptors, threads and shared memory
segments of the node's process are read from /proc (Linux). Latency is measured from an image's stamp to the arrival of
its mask. Lines are fitted to memory and latency after the warm-up. The exit status is 1 if something grows, and 2 if
the node ended or masks stopped arriving. With --overload 2, the number of images that the node can process is measured
first, and then twice as many are sent: python test/soak/soak.py --minutes 10 --overload 2.
"""

from __future__ import annotations

import argparse
import math
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import rclpy
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.serialization import serialize_message
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from stdc_core.inference import DEFAULT_MODEL
from stdc_ros.playback.node_process import NodeProcess, NodeProcessError, node_process, ros_node
from stdc_ros.playback.recorder import stamp_of

SAMPLE_S = 1.0
START_S = 60.0
SILENCE_S = 20.0
SETTLING_S = 3.0
CALIBRATION_S = 10.0

#: Share of the images with a mask, below which the node counts as overloaded.
FOLLOWED = 0.8

#: Number of points for a fitted line. Each is the mean of an equal part of the time, because consecutive samples are
#: correlated.
PARTS = 24

#: Largest slope that is not growth: memory in MB per hour, and the relative rise of the 99th percentile of the latency
#: during the run.
MEMORY_LIMIT = 1.0
LATENCY_LIMIT = 0.25


class Sample(NamedTuple):
    """State of the node's process: seconds since the beginning, private memory in MB, and counts."""

    time: float
    memory: float
    descriptors: int
    threads: int
    segments: int


class Line(NamedTuple):
    """Fitted slope per second, and half the width of its 95 % confidence interval."""

    slope: float
    error: float


def fit(times: Sequence[float], values: Sequence[float]) -> Line:
    """Fit a line by least squares. The error accounts for residuals that are correlated with their neighbours."""
    x, y = np.asarray(times, float), np.asarray(values, float)
    count = len(x)
    if count < 4:
        return Line(0.0, math.inf)
    x = x - x.mean()
    slope = float(x @ (y - y.mean()) / (x @ x))
    residuals = y - y.mean() - slope * x
    spread = float(residuals @ residuals)
    alike = max(0.0, float(residuals[1:] @ residuals[:-1]) / spread) if spread else 0.0
    free = max(1.0, count * (1 - alike) / (1 + alike) - 2)
    # Student's t at 97.5 %, to 1.3 percent.
    quantile = 1.96 + 2.37 / free + 2.82 / free**2 + (2.55 / free**3) + (3.0 / free**4)
    return Line(slope, quantile * math.sqrt(spread / free / float(x @ x)))


def parts(times: Sequence[float], values: Sequence[float], reduce=np.mean) -> tuple[list[float], list[float]]:
    """Return mean time and reduced value of each of PARTS equal parts of the time; empty parts are left out."""
    x, y = np.asarray(times), np.asarray(values)
    place = np.minimum(((x - x[0]) / max(x[-1] - x[0], 1e-9) * PARTS).astype(int), PARTS - 1)
    chosen = [place == number for number in range(PARTS) if (place == number).any()]
    return [float(x[part].mean()) for part in chosen], [float(reduce(y[part])) for part in chosen]


def verdict(line: Line, limit: float) -> str:
    """Return whether a slope is below a limit in the same unit, with 95 % confidence."""
    if line.slope - line.error > limit:
        return 'grows'
    return 'flat' if line.slope + line.error < limit else 'undecided: run longer'


def publish(topic: str, size: tuple[int, int], rate: float) -> None:
    """Publish moving noise of (height, width) as bgr8 at a rate in Hz until the process is ended."""
    rclpy.init()
    node = Node('camera_' + re.sub(r'\W', '_', topic))
    publisher = node.create_publisher(Image, topic, QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE))
    height, width = size
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    frames = []
    for shift in range(8):
        message = Image(header=Header(frame_id='camera'), height=height, width=width, encoding='bgr8', step=3 * width)
        message.data.frombytes(np.roll(pixels, 16 * shift, 1).tobytes())
        frames.append(bytearray(serialize_message(message)))
    due = time.monotonic()
    for number in range(sys.maxsize):
        data, now = frames[number % len(frames)], time.time_ns()
        # The stamp follows the four bytes of the CDR header.
        data[4:12] = np.array([now // 10**9, now % 10**9], '<u4').tobytes()
        publisher.publish(bytes(data))
        due = max(due + 1 / rate, time.monotonic() - 1)
        time.sleep(max(0.0, due - time.monotonic()))


@contextmanager
def camera_process(topic: str, size: tuple[int, int], rate: float) -> Iterator[subprocess.Popen]:
    """Run :func:`publish` in a process that ends with the block."""
    height, width = size
    command = [sys.executable, __file__, '--publish', topic, '--size', f'{height}x{width}', '--rate', str(rate)]
    root = str(Path(__file__).resolve().parents[2])
    environment = {**os.environ, 'PYTHONPATH': os.pathsep.join([root, os.environ.get('PYTHONPATH', '')])}
    process = subprocess.Popen(command, env=environment)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def segments_of(pid: int) -> set[str]:
    """Return the shared memory files that a process has mapped."""
    return set(re.findall(r'/dev/shm/\S+', Path(f'/proc/{pid}/maps').read_text()))


def look(pid: int, begin: float) -> Sample:
    """Return the current sample of a process; ``begin`` is in seconds of ``time.monotonic()``."""
    process = Path(f'/proc/{pid}')
    status = dict(line.split(':', 1) for line in (process / 'status').read_text().splitlines())
    return Sample(
        time.monotonic() - begin,
        int(status['RssAnon'].split()[0]) / 1024,
        len(list((process / 'fd').iterdir())),
        int(status['Threads']),
        len(segments_of(pid)),
    )


class Masks:
    """Receives the masks of all cameras. Stores arrival in seconds since ``begin`` and latency in ms of each."""

    def __init__(self, node: Node, cameras: Sequence[str]):
        self.last = dict.fromkeys(cameras, 0.0)
        self.restart()
        quality = QoSProfile(depth=10, reliability=ReliabilityPolicy.RELIABLE)
        for name in cameras:
            arrived = partial(self._arrived, name)
            node.create_subscription(Image, f'/{name}/segmentation/mask', arrived, quality, raw=True)

    def restart(self) -> None:
        """Forget all masks and begin now."""
        self.begin = time.monotonic()
        self.times: list[float] = []
        self.latencies: list[float] = []
        self.last = dict.fromkeys(self.last, self.begin)

    def _arrived(self, name: str, data: bytes) -> None:
        self.last[name] = time.monotonic()
        self.latencies.append((time.time_ns() - stamp_of(data)) / 1e6)
        self.times.append(self.last[name] - self.begin)

    def check(self, patience: float) -> None:
        """Raise NodeProcessError if a camera has had no mask for ``patience`` seconds."""
        silent = [name for name, last in self.last.items() if time.monotonic() - last > patience]
        if silent:
            raise NodeProcessError(f'no mask of {", ".join(silent)} for {patience:g} s')


@contextmanager
def camera_processes(cameras: Sequence[str], size: tuple[int, int], rate: float) -> Iterator[None]:
    """Run cameras of these names, each at this rate."""
    with ExitStack() as stack:
        for name in cameras:
            stack.enter_context(camera_process(f'/{name}/image', size, rate))
        yield


def capacity(process: NodeProcess, masks: Masks, size: tuple[int, int], rate: float) -> float:
    """Measure how many masks per second the overloaded node publishes for all cameras together.

    Args:
        process: Process of the node.
        masks: Receiver of the masks.
        size: Height and width of the images.
        rate: First rate of each camera in Hz, which is doubled until the node is overloaded.
    """
    cameras = list(masks.last)
    while True:
        masks.restart()
        with camera_processes(cameras, size, rate):
            while min(masks.last.values()) == masks.begin:
                time.sleep(0.1)
                process.check()
                masks.check(START_S)
            time.sleep(SETTLING_S)
            masks.restart()
            time.sleep(CALIBRATION_S)
            found = len(masks.times) / CALIBRATION_S
        if found < FOLLOWED * rate * len(cameras):
            return found
        rate *= 2


def watch(process: NodeProcess, masks: Masks, seconds: float) -> list[Sample]:
    """Sample the node until ``seconds`` after the masks' ``begin``. Print a line every minute."""
    begin = masks.begin
    samples: list[Sample] = []
    print('minute | memory, MB | descriptors | threads | segments | masks/s | p99, ms', flush=True)
    printed = counted = 0
    while time.monotonic() - begin < seconds:
        time.sleep(SAMPLE_S)
        process.check()
        masks.check(START_S if not samples or samples[-1].time < START_S else SILENCE_S)
        samples.append(look(process.pid, begin))
        now = samples[-1]
        if now.time // 60 > printed or now.time >= seconds:
            recent = masks.latencies[counted:]
            elapsed = now.time - 60 * printed
            printed, counted = int(now.time // 60), counted + len(recent)
            percentile = np.percentile(recent, 99) if recent else math.nan
            counts = f'{now.descriptors} | {now.threads} | {now.segments}'
            rate = len(recent) / elapsed
            print(f'{now.time / 60:.1f} | {now.memory:.2f} | {counts} | {rate:.1f} | {percentile:.0f}', flush=True)
    return samples


def judge(samples: Sequence[Sample], masks: Masks, warm_up: float, memory_limit: float, latency_limit: float) -> int:
    """Print the results after the warm-up, which is in seconds. Return the exit status."""
    samples = [sample for sample in samples if sample.time >= warm_up]
    times = [sample.time for sample in samples]
    verdicts = []
    memory = fit(*parts(times, [sample.memory for sample in samples]))
    hourly = Line(3600 * memory.slope, 3600 * memory.error)
    verdicts.append(verdict(hourly, memory_limit))
    print(f'\nmemory: {hourly.slope:+.2f} +- {hourly.error:.2f} MB an hour: {verdicts[-1]}')
    kept = [(when, latency) for when, latency in zip(masks.times, masks.latencies, strict=False) if when >= warm_up]
    middles, percentiles = parts(*zip(*kept, strict=True), reduce=lambda part: np.percentile(part, 99))
    latency = fit(middles, percentiles)
    share = (times[-1] - times[0]) / float(np.mean(percentiles))
    rise = Line(share * latency.slope, share * latency.error)
    verdicts.append(verdict(rise, latency_limit))
    print(
        f'latency p99: mean {np.mean(percentiles):.0f} ms, {100 * rise.slope:+.0f} +- {100 * rise.error:.0f} % '
        f'in the run: {verdicts[-1]}'
    )
    for name in ('descriptors', 'threads', 'segments'):
        values = [getattr(sample, name) for sample in samples]
        early, late = max(values[: len(values) // 4 + 1]), min(values[-(len(values) // 4 + 1) :])
        verdicts.append('grows' if late > early else 'flat')
        print(f'{name}: at most {early} in the first quarter, at least {late} in the last: {verdicts[-1]}')
    print(f'{len(kept)} masks in {times[-1] - times[0]:.0f} s')
    return int('grows' in verdicts)


def _size(text: str) -> tuple[int, int]:
    height, width = map(int, text.split('x'))
    return height, width


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        '--minutes', type=float, default=30.0, help='length of the run, including the warm-up (default: 30)'
    )
    parser.add_argument(
        '--warm-up', type=float, default=3.0, metavar='MINUTES', help='time that is not judged (default: 3)'
    )
    parser.add_argument('--cameras', type=int, default=4, help='number of cameras (default: 4)')
    parser.add_argument(
        '--size', type=_size, default=(360, 480), metavar='HxW', help='size of the images (default: 360x480)'
    )
    parser.add_argument('--rate', type=float, default=30.0, help='images of each camera, in Hz (default: 30)')
    parser.add_argument(
        '--overload',
        type=float,
        metavar='F',
        help='send F times the images that the node can process, instead of --rate',
    )
    parser.add_argument('--input-scale', type=float, default=0.5, help='input scale of the network (default: 0.5)')
    parser.add_argument(
        '--memory-limit',
        type=float,
        default=MEMORY_LIMIT,
        metavar='MB',
        help=f'largest growth per hour (default: {MEMORY_LIMIT:g})',
    )
    parser.add_argument(
        '--latency-limit',
        type=float,
        default=LATENCY_LIMIT,
        metavar='SHARE',
        help=f'largest rise of the 99th percentile of the latency during the run (default: {LATENCY_LIMIT:g})',
    )
    parser.add_argument('--publish', metavar='TOPIC', help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.publish:
        publish(options.publish, options.size, options.rate)
    cameras = [f'camera{number}' for number in range(options.cameras)]
    arguments = ['-p', f'cameras:=[{", ".join(cameras)}]']
    try:
        with (
            tempfile.TemporaryDirectory() as folder,
            ros_node('soak') as node,
            node_process(DEFAULT_MODEL, 'image', Path(folder) / 'log', options.input_scale, arguments) as process,
        ):
            masks, rate = Masks(node, cameras), options.rate
            if options.overload:
                found = capacity(process, masks, options.size, rate)
                rate = options.overload * found / len(cameras)
                print(f'the node can process {found:.1f} images/s', flush=True)
            print(f'{len(cameras)} cameras, {options.size[1]} x {options.size[0]}, {rate:.3g} Hz each', flush=True)
            masks.restart()
            with camera_processes(cameras, options.size, rate):
                samples = watch(process, masks, 60 * options.minutes)
            status = judge(samples, masks, 60 * options.warm_up, options.memory_limit, options.latency_limit)
            offered = len(cameras) * rate
            made = len(masks.times) / samples[-1].time
            print(f'{offered:.1f} images/s offered, {made:.1f} masks/s received: {offered / made:.2f} images a mask')
            return status
    except NodeProcessError as error:
        print(f'soak: {error}', file=sys.stderr)
        return 2


if __name__ == '__main__':
    sys.exit(main())
