# SPDX-License-Identifier: Apache-2.0
"""``make demo``: a drive is replayed to the real segmentation node, and what the node publishes is kept.

Images are stamped when they are published, not as in the bag: so the latency from camera stamp to mask is a true one.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import rclpy
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions
from tqdm import tqdm

import stdc_ros
from stdc_core.data.synthetic import SyntheticDrive
from stdc_core.inference import DEFAULT_MODEL, ModelError
from stdc_core.inference.input_scale import InputScale
from stdc_core.inference.model_file import ModelInfo, read_model
from stdc_core.io.arguments import expand_user
from stdc_core.io.signals import interrupt_once
from stdc_ros.bags.message import BagError, make_header
from stdc_ros.bags.reader import Bag
from stdc_ros.bags.topic_selection import published_name
from stdc_ros.bags.writer import write_bag
from stdc_ros.messages.cdr import CAMERA_INFO, IMAGE, TYPES
from stdc_ros.messages.images import ImageError, make_image
from stdc_ros.playback.demo_results import MASK, OVERLAY, Drive
from stdc_ros.playback.isolation import isolated_environment, profile_variable
from stdc_ros.playback.play_bag import Player
from stdc_ros.playback.recorder import Recorder

#: The rendered drive: a sunny street with traffic.
SEED = 2

#: Seconds to wait for the node to start and be discovered, and for the masks of the last frames.
START = 60.0
LAST = 3.0


class DemoError(RuntimeError):
    """The demo cannot go on; the message tells the user why."""


def main(args: list[str] | None = None) -> int:
    """The command. Returns the exit status: 0, 1 if it failed, 130 if it was interrupted."""
    parser = argparse.ArgumentParser(prog='stdc_demo', description='Replay a drive to the segmentation node.')
    parser.add_argument('--bag', type=expand_user, help='your own bag; default: a drive is rendered')
    parser.add_argument('--topic', help='its image topic, if it has several')
    parser.add_argument('--model', type=expand_user, default=DEFAULT_MODEL, help='a model.onnx from `stdc export`')
    parser.add_argument('--input-scale', type=float, help='of the network, 0.1 to 4; default: 1 or less, for two cores')
    parser.add_argument('--frames', type=int, default=150, help='length of the rendered drive, at 15 Hz')
    parser.add_argument('--output', type=expand_user, default=Path('demo'), help='folder for the results')
    given = parser.parse_args(args)
    if given.input_scale is not None and not 0.1 <= given.input_scale <= 4:
        parser.error(f'--input-scale is {given.input_scale:g}, expected 0.1 to 4')
    if given.frames < 1:
        parser.error(f'--frames is {given.frames}, expected 1 or more')
    interrupt_once()
    try:
        run(given)
    except (DemoError, BagError, ModelError, OSError) as error:
        print(f'demo: {error}', file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print('demo: interrupted', file=sys.stderr)
        return 130
    return 0


def run(given: argparse.Namespace) -> None:
    """Render a drive if there is no bag, replay it, and leave the results in the folder.

    Raises:
        DemoError, BagError, ModelError, OSError: it cannot be done.
    """
    info = read_model(given.model)[1]
    given.output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix='.', dir=given.output) as folder:
        work = Path(folder)
        source, labels = given.bag, None
        if source is None:
            source = work / 'rendered.mcap'
            labels = render(source, given.frames)
        with Bag(source) as bag, ros_node('demo') as node:
            topic = bag.select_topics([given.topic] if given.topic else [])[0]
            camera = published_name(bag.topics, topic)
            scale = given.input_scale or fast_scale(bag, topic, info)
            info = info.at(scale)
            recorder = Recorder(node, [MASK, OVERLAY], work)
            drive = Drive(camera, info, recorder, labels, camera_info(bag, topic))
            with node_process(given.model, camera, work / 'node.log', scale) as process:
                replay(node, Player(node, bag, [topic]), drive, process)
            if bag.damage:
                print(f'{source} is cut off ({bag.damage}); it was played up to there')
        made = drive.save(work, f'{info.name} on {source.name if given.bag else "a rendered drive"}')
        recorder.close()
        for path in made:
            path.replace(given.output / path.name)
    print(f'\n{drive.summary()}\n\nIn {given.output}/ (what an earlier demo left there is replaced):')
    print('  contact_sheet.png  frames of the drive: camera, overlay, mask and its classes')
    print('  drive.webm         the drive, camera and overlay side by side; browsers play it')
    print('  drive.mcap         camera, mask and overlay, for rviz2, Foxglove and `ros2 bag play`')


def render(path: Path, frames: int) -> list[np.ndarray]:
    """Render a drive of 360 x 480 pixels at 15 Hz into a bag.

    Returns:
        the true class ids of every frame, uint8 ``[H, W]``.
    """
    drive = SyntheticDrive(seed=SEED, frames=frames)
    labels = []
    with write_bag(path) as bag:
        bag.add_topic('/camera/image_raw', IMAGE)
        bag.add_topic('/camera/camera_info', CAMERA_INFO)
        for frame in tqdm(drive, desc='Rendering a drive', unit='frame'):
            # Nanoseconds; any beginning will do, and 0 means "no stamp".
            stamp = 10**18 + round(frame.time * 1e9)
            header = make_header(stamp, 'camera')
            bag.write('/camera/image_raw', stamp, make_image(TYPES.types[IMAGE], header, frame.image, 'bgr8'))
            bag.write('/camera/camera_info', stamp, _pinhole(header, frame.image.shape, drive.camera_matrix))
            labels.append(frame.label)
    return labels


def fast_scale(bag: Bag, topic: str, info: ModelInfo) -> float:
    """The input scale for the first image that can be decoded: at most 1, which two cores follow."""
    scale = InputScale(min(1.0, info.input_scale), info.scale.pixels)
    for message in bag.messages([topic]):
        with suppress(ImageError):
            return scale.of(message.bgr().shape[:2])
    return scale.own


def _pinhole(header: Any, shape: tuple[int, ...], matrix: np.ndarray) -> Any:
    """``sensor_msgs/CameraInfo`` of a camera without distortion; ``matrix`` is ``[3, 3]``, in pixels."""
    return TYPES.types[CAMERA_INFO](
        header=header,
        height=shape[0],
        width=shape[1],
        distortion_model='plumb_bob',
        d=np.zeros(5),
        k=matrix.reshape(-1),
        r=np.eye(3).reshape(-1),
        p=np.hstack([matrix, np.zeros((3, 1))]).reshape(-1),
        binning_x=0,
        binning_y=0,
        roi=TYPES.types['sensor_msgs/msg/RegionOfInterest'](
            x_offset=0, y_offset=0, height=0, width=0, do_rectify=False
        ),
    )


def camera_info(bag: Bag, topic: str) -> Any | None:
    """The first ``CameraInfo`` beside an image topic of a rosbag2, or None. ROS 1 has other field names."""
    name = topic.removesuffix('/compressed').rpartition('/')[0] + '/camera_info'
    if name not in bag.topics or bag.topics[name].type != CAMERA_INFO or bag.path.suffix == '.bag':
        return None
    return next((message.message for message in bag.messages([name])), None)


@contextmanager
def ros_node(name: str) -> Iterator[Node]:
    """A ROS 2 node that is spun by a thread of its own, apart from every other ROS 2 system."""
    os.environ.update(isolated_environment())
    os.environ.setdefault(profile_variable(), str(fast_dds_profile()))
    rclpy.init(args=[], signal_handler_options=SignalHandlerOptions.NO)
    node = Node(name)
    executor = SingleThreadedExecutor()
    executor.add_node(node)

    def spin() -> None:
        with suppress(ExternalShutdownException):
            executor.spin()

    thread = threading.Thread(target=spin, daemon=True)
    thread.start()
    try:
        yield node
    finally:
        executor.shutdown()
        thread.join()
        node.destroy_node()
        rclpy.try_shutdown()


def fast_dds_profile() -> Path:
    """``config/fastdds.xml``: in the repository, or where the package is installed.

    Raises:
        DemoError: it is in neither place.
    """
    source = Path(stdc_ros.__file__).parent.parent
    prefixes = [*os.environ.get('AMENT_PREFIX_PATH', '').split(os.pathsep), sys.prefix]
    places = [source / 'config', *(Path(prefix) / 'share' / 'stdc_ros' / 'config' for prefix in prefixes if prefix)]
    for place in places:
        if (place / 'fastdds.xml').is_file():
            return place / 'fastdds.xml'
    raise DemoError(f'no fastdds.xml in {", ".join(map(str, places))}')


class NodeProcess:
    """The running segmentation node."""

    def __init__(self, process: subprocess.Popen, log: Path):
        self.pid = process.pid
        self._process = process
        self._log = log

    def error(self, what: str) -> DemoError:
        """An error about the node, with the end of what it logged."""
        lines = self._log.read_text(errors='replace').splitlines()[-15:]
        return DemoError('\n  '.join([f'{what}. The end of its log:', *lines]))

    def status(self) -> str:
        """What Linux tells of the process: the content of ``/proc/PID/status``."""
        return Path(f'/proc/{self._process.pid}/status').read_text()

    def check(self) -> None:
        """Raises DemoError if the node is not running any more."""
        if self._process.poll() is not None:
            raise self.error(f'the segmentation node ended with status {self._process.returncode}')


@contextmanager
def node_process(
    model: Path, camera: str, log: Path, input_scale: float = 0.0, arguments: Sequence[str] = ()
) -> Iterator[NodeProcess]:
    """The segmentation node as a process of its own; ended with the block, whatever happens in it.

    Args:
        camera: the image topic.
        log: file for what it prints.
        input_scale: its parameter.
        arguments: more of them, such as ``'-p', 'threads:=1'``.
    """
    command = [
        sys.executable,
        '-m',
        'stdc_ros.node.main',
        '--ros-args',
        '-r',
        f'image:={camera}',
        *arguments,
    ]
    if model != DEFAULT_MODEL:
        command += ['-p', f'model:={model.resolve()}']
    if input_scale:
        command += ['-p', f'input_scale:={input_scale}']
    python_path = [str(Path(stdc_ros.__file__).parent.parent), os.environ.get('PYTHONPATH', '')]
    environment = {**os.environ, 'PYTHONPATH': os.pathsep.join(filter(None, python_path))}
    with log.open('wb') as file:
        # A session of its own: Ctrl-C is for us to handle.
        process = subprocess.Popen(
            command, stdout=file, stderr=subprocess.STDOUT, env=environment, start_new_session=True
        )
        try:
            yield NodeProcess(process, log)
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def replay(node: Node, player: Player, drive: Drive, process: NodeProcess) -> None:
    """Play the bag to the node in real time, and record.

    Raises:
        DemoError: the node ended, or does not listen, or publishes nothing.
    """
    print('Starting segmentation_node ...', flush=True)
    deadline = time.monotonic() + START
    while player.unheard() or not all(node.count_publishers(topic) for topic in (MASK, OVERLAY)):
        process.check()
        if time.monotonic() > deadline:
            raise process.error(f'the segmentation node does not subscribe to {drive.camera} within {START:g} s')
        time.sleep(0.05)
    # It listens to the camera once it knows one listener; the other may take a moment more.
    time.sleep(0.5)
    with tqdm(total=player.total, desc='Replaying it to the node', unit='frame') as bar:

        def on_publish(_: Any, stamp: int, data: bytes) -> None:
            drive.recorder.keep(drive.camera, stamp, data)
            drive.recorder.check()
            bar.update()
            process.check()

        player.play(threading.Event(), stamp_now=True, on_publish=on_publish)
    wait_for_last(drive, process)
    if not drive.recorder.of(MASK):
        raise process.error(f'no mask came from the segmentation node for {bar.n} images on {drive.camera}')


def wait_for_last(drive: Drive, process: NodeProcess) -> None:
    """Return when every image has its outputs, or when nothing has come for a while: the rest was dropped."""
    heard, since = 0, time.monotonic()
    while time.monotonic() - since < LAST:
        process.check()
        drive.recorder.check()
        expected = 3 * len(drive.recorder.of(drive.camera))
        if len(drive.recorder.entries) >= expected:
            return
        if len(drive.recorder.entries) > heard:
            heard, since = len(drive.recorder.entries), time.monotonic()
        time.sleep(0.05)


if __name__ == '__main__':
    sys.exit(main())
