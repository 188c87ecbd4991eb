# SPDX-License-Identifier: Apache-2.0
"""Compare the node with a plain one on the same middleware, machine and model: python benchmarks/ros.py.

A camera process publishes 1080p bgr8 images; masks arrive in this process. Both nodes run with a network that takes no
time, to measure the nodes themselves, and with the shipped network, at twice the rate that it can process. Latency is
measured from the image's stamp to the mask's arrival here; the CPU time is that of the node's process. A relay node
shows the share of the middleware: it answers with bytes, which is the minimal work of a Python node.

With --cameras 4, only our node is measured, with a network that takes no time and several cameras at several rates.
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx
import rclpy
from onnx import TensorProto, helper
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.serialization import serialize_message
from rclpy.subscription import Subscription
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from stdc_core.classes import class_table
from stdc_core.export.onnx import export
from stdc_core.inference import DEFAULT_MODEL
from stdc_core.inference.heap_memory import keep_freed_memory
from stdc_core.inference.model_file import ModelInfo
from stdc_ros.playback.node_process import ros_node
from stdc_ros.playback.recorder import stamp_of

CAMERA = '/camera/image_raw'
SIZE = (1080, 1920)
REMAP = ['--ros-args', '-r', f'image:={CAMERA}']
HERE = Path(__file__).resolve()
START_S = 60.0
WARM_UP_S = 2.0
SCALE = 0.5


class Side(NamedTuple):
    """Node to measure: its name, its mask topic, and its command for a model and a number of threads."""

    name: str
    topic: str
    command: list[str]


def sides(model: Path, threads: int) -> list[Side]:
    """Return the plain node, and ours with default settings except model and threads."""
    ours = ['-m', 'stdc_ros.node.main', *REMAP, '-p', f'model:={model}', '-p', f'threads:={threads}']
    return [
        Side('plain node', '/plain/mask', [str(HERE.with_name('plain_node.py')), str(model), str(threads), *REMAP]),
        Side('segmentation_node', '/segmentation/mask', ours),
    ]


def relay() -> Side:
    """Return the node that answers an image with bytes of the size of a mask."""
    return Side('relay', '/relay/mask', [str(HERE.with_name('relay_node.py')), *map(str, SIZE), *REMAP])


@dataclass
class Measured:
    """Result of one measurement: masks per second, latencies in ms, and CPU time of the node for each mask in ms."""

    rate: float
    latencies: np.ndarray
    cpu: float

    def percentile(self, percent: float) -> float:
        """Return a percentile of the latency in ms."""
        return float(np.percentile(self.latencies, percent))


def free_network(path: Path) -> None:
    """Write a model file whose mask is all zeros, so that only the node takes time."""
    size = ['batch', 'height', 'width']
    image = helper.make_tensor_value_info('image', TensorProto.UINT8, [*size, 3])
    masks = [helper.make_tensor_value_info(name, TensorProto.UINT8, size) for name in ('mask', 'confidence')]
    zero = helper.make_tensor('value', TensorProto.UINT8, [1], [0])
    nodes = [helper.make_node('Shape', ['image'], ['size'], end=3)]
    nodes += [helper.make_node('ConstantOfShape', ['size'], [name], value=zero) for name in ('mask', 'confidence')]
    opset = [helper.make_opsetid('', 17)]
    model = helper.make_model(helper.make_graph(nodes, 'free', [image], masks), opset_imports=opset, ir_version=8)
    helper.set_model_props(model, ModelInfo('stdc1', 1.0, class_table('camvid'), {}).to_metadata())
    onnx.save(model, path)


def publish(rate: float, topics: list[str]) -> None:
    """Publish images of noise on each topic at a rate until the process ends; rate 0: as fast as possible."""
    rclpy.init()
    node = Node('camera')
    quality = QoSProfile(depth=10, reliability=ReliabilityPolicy.RELIABLE)
    publishers = [node.create_publisher(Image, topic, quality) for topic in topics]
    pixels = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), np.uint8)
    message = Image(header=Header(frame_id='camera'), height=SIZE[0], width=SIZE[1], encoding='bgr8', step=3 * SIZE[1])
    message.data.frombytes(pixels)
    data = bytearray(serialize_message(message))
    due = time.monotonic()
    while rclpy.ok():
        for publisher in publishers:
            now = time.time_ns()
            # The stamp follows the four bytes of the CDR header.
            data[4:12] = np.array([now // 10**9, now % 10**9], '<u4').tobytes()
            publisher.publish(bytes(data))
        due = max(due + 1 / rate, time.monotonic() - 1) if rate else time.monotonic()
        time.sleep(max(0.0, due - time.monotonic()))


@contextmanager
def running(command: list[str], log: Path) -> Iterator[subprocess.Popen]:
    """Start a Python process that ends with the block."""
    environment = {**os.environ, 'PYTHONPATH': f'{HERE.parent.parent}{os.pathsep}{os.environ.get("PYTHONPATH", "")}'}
    with log.open('ab') as file:
        process = subprocess.Popen([sys.executable, *command], stdout=file, stderr=file, env=environment)
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def cpu_seconds(process: subprocess.Popen) -> float:
    """Return the CPU time of a process with all its threads (Linux)."""
    fields = Path(f'/proc/{process.pid}/stat').read_text().rpartition(')')[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf('SC_CLK_TCK')


def measure(node: Node, side: Side, rate: float, seconds: float, log: Path) -> Measured:
    """Send images to a node at a rate, and measure its masks after a warm-up; rate 0: as fast as possible."""
    arrivals: list[tuple[int, int]] = []
    first = threading.Event()

    def arrived(data: bytes) -> None:
        arrivals.append((stamp_of(data), time.time_ns()))
        first.set()

    quality = QoSProfile(depth=10, reliability=ReliabilityPolicy.RELIABLE)
    listener = node.create_subscription(Image, side.topic, arrived, quality, raw=True)
    try:
        with running(side.command, log) as process, running([str(HERE), '--camera', str(rate)], log):
            if not first.wait(START_S):
                raise SystemExit(f'{side.name}: no mask within {START_S:g} s; its log:\n{log.read_text()}')
            time.sleep(WARM_UP_S)
            begin, count, cpu = time.monotonic(), len(arrivals), cpu_seconds(process)
            time.sleep(seconds)
            elapsed, counted = time.monotonic() - begin, arrivals[count:]
            cpu = cpu_seconds(process) - cpu
    finally:
        node.destroy_subscription(listener)
    latencies = np.array([(arrival - stamp) / 1e6 for stamp, arrival in counted])
    if not latencies.size:
        raise SystemExit(f'{side.name}: no mask in {seconds:g} s')
    return Measured(len(latencies) / elapsed, latencies, 1e3 * cpu / len(latencies))


def measure_cameras(node: Node, model: Path, rate: float, options: argparse.Namespace, log: Path) -> str:
    """Measure our node with several cameras at one rate. Return a row of the table."""
    names = [f'c{index}' for index in range(options.cameras)]
    arrivals: dict[str, list[tuple[int, int]]] = {name: [] for name in names}

    def listen(name: str) -> Subscription:
        def arrived(data: bytes) -> None:
            arrivals[name].append((stamp_of(data), time.time_ns()))

        quality = QoSProfile(depth=10, reliability=ReliabilityPolicy.RELIABLE)
        return node.create_subscription(Image, f'/{name}/segmentation/mask', arrived, quality, raw=True)

    listeners = [listen(name) for name in names]
    settings = ['-p', f'model:={model}', '-p', f'threads:={options.threads}', '-p', f'cameras:=[{",".join(names)}]']
    ours = ['-m', 'stdc_ros.node.main', '--ros-args', *settings]
    cameras = [str(HERE), '--camera', str(rate), '--topics', *(f'/{name}/image' for name in names)]
    try:
        with running(ours, log) as process, running(cameras, log):
            end = time.monotonic() + START_S
            while not all(arrivals.values()):
                if time.monotonic() > end:
                    raise SystemExit(f'no masks of all cameras within {START_S:g} s; the log:\n{log.read_text()}')
                time.sleep(0.1)
            time.sleep(WARM_UP_S)
            begin, cpu = time.monotonic(), cpu_seconds(process)
            counts = {name: len(values) for name, values in arrivals.items()}
            time.sleep(options.seconds)
            elapsed, cpu = time.monotonic() - begin, cpu_seconds(process) - cpu
            counted = {name: values[counts[name] :] for name, values in arrivals.items()}
    finally:
        for listener in listeners:
            node.destroy_subscription(listener)
    rates = [len(values) / elapsed for values in counted.values()]
    ages = [(arrival - stamp) / 1e6 for values in counted.values() for stamp, arrival in values]
    p50, p95 = np.percentile(ages, (50, 95)) if ages else (np.nan, np.nan)
    share = 100 * sum(rates) / (rate * len(rates))
    return (
        f'| {rate:g} | {min(rates):.1f} to {max(rates):.1f} | {share:.0f} | {p50:.1f} | {p95:.1f} | '
        f'{1e3 * cpu / max(1, len(ages)):.1f} | {100 * cpu / elapsed:.0f} |'
    )


def compare_rates(node: Node, model: Path, options: argparse.Namespace, log: Path) -> None:
    """Print the measurements of several cameras as markdown."""
    print(f'\n{options.cameras} cameras, a network that costs nothing\n')
    print('| camera, Hz | masks/s of each | masks, % of images | p50, ms | p95, ms | CPU ms per mask | CPU, % |')
    print('|---|---|---|---|---|---|---|')
    for rate in options.rates:
        print(measure_cameras(node, model, rate, options, log), flush=True)


def table(title: str, rows: list[tuple[str, Measured]]) -> None:
    """Print one comparison as markdown."""
    print(f'\n{title}\n')
    print('| | masks/s | latency p50, ms | p95, ms | p99, ms | CPU ms per mask |\n|---|---|---|---|---|---|')
    for name, measured in rows:
        latencies = ' | '.join(f'{measured.percentile(percent):.1f}' for percent in (50, 95, 99))
        print(f'| {name} | {measured.rate:.1f} | {latencies} | {measured.cpu:.1f} |', flush=True)


def compare(
    title: str, compared: list[Side], rate: float, options: argparse.Namespace, node: Node, log: Path
) -> list[Measured]:
    """Measure the nodes at one rate, in turns."""
    rounds = [[measure(node, side, rate, options.seconds, log) for side in compared] for _ in range(options.rounds)]
    measured = [pooled(list(legs)) for legs in zip(*rounds, strict=True)]
    table(title, list(zip((side.name for side in compared), measured, strict=True)))
    return measured


def pooled(legs: list[Measured]) -> Measured:
    """Combine measurements of the same length."""
    latencies = np.concatenate([leg.latencies for leg in legs])
    cpu = sum(leg.cpu * len(leg.latencies) for leg in legs) / len(latencies)
    return Measured(float(np.mean([leg.rate for leg in legs])), latencies, cpu)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--rounds', type=int, default=3, help='legs of each side, in turns (default: 3)')
    parser.add_argument('--seconds', type=float, default=6.0, help='measured, of each leg (default: 6)')
    parser.add_argument('--threads', type=int, default=len(os.sched_getaffinity(0)), help='CPU threads of inference')
    parser.add_argument('--cameras', type=int, metavar='N', help='measure our node alone with N cameras')
    parser.add_argument(
        '--rates', type=float, nargs='+', default=[10.0, 15.0, 20.0, 30.0], help='of each camera (default: 10 15 20 30)'
    )
    parser.add_argument('--camera', type=float, metavar='HZ', help=argparse.SUPPRESS)
    parser.add_argument('--topics', nargs='+', default=[CAMERA], help=argparse.SUPPRESS)
    options = parser.parse_args()
    keep_freed_memory()
    if options.camera is not None:
        publish(options.camera, options.topics)
        return
    python = platform.python_version()
    print(f'{platform.machine()}, {os.cpu_count()} cores, Python {python}, images of {SIZE[1]} x {SIZE[0]}')
    with tempfile.TemporaryDirectory() as folder, ros_node('benchmark') as node:
        free, real, log = (Path(folder) / name for name in ('free.onnx', 'real.onnx', 'log'))
        free_network(free)
        if options.cameras is not None:
            compare_rates(node, free, options, log)
            return
        export(DEFAULT_MODEL, real, SCALE)
        nodes = [*sides(free, options.threads), relay()]
        plain, ours, least = compare('A network that costs nothing, 30 Hz', nodes, 30.0, options, node, log)
        added = [side.percentile(50) - least.percentile(50) for side in (plain, ours)]
        print(f"\nlatency p50 above the relay's {added[0]:.1f} and {added[1]:.1f} ms: {added[0] / added[1]:.2f} x")
        print(f'CPU {plain.cpu / ours.cpu:.2f} x')
        plain, ours, least = compare('A network that costs nothing, as fast as it goes', nodes, 0.0, options, node, log)
        print(f'\nthroughput {ours.rate / plain.rate:.2f} x, of the relay {least.rate / plain.rate:.2f} x')
        print(f'CPU {plain.cpu / ours.cpu:.2f} x')
        nodes = sides(real, options.threads)
        _, ours = compare(f'The shipped network at input scale {SCALE}, 2 Hz', nodes, 2.0, options, node, log)
        rate = 2 * 1e3 / ours.percentile(50)
        plain, ours = compare(f'The same at twice its capacity, {rate:.1f} Hz', nodes, rate, options, node, log)
        print(f'\nlatency p95 {plain.percentile(95) / ours.percentile(95):.2f} x lower')


if __name__ == '__main__':
    main()
