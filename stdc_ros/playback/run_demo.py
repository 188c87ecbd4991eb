# SPDX-License-Identifier: Apache-2.0
"""Replay a drive to the segmentation node and keep what the node publishes (``make demo``).

Images are stamped at the time of publication, not with the stamps of the bag. The latency from camera stamp to mask is
therefore a real one.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from rclpy.node import Node
from tqdm import tqdm

from stdc_core.inference import DEFAULT_MODEL, ModelError
from stdc_core.inference.input_scale import InputScale
from stdc_core.inference.model_file import ModelInfo, read_model
from stdc_core.io.arguments import expand_user
from stdc_ros.bags.message import BagError
from stdc_ros.bags.reader import Bag
from stdc_ros.bags.topic_selection import published_name
from stdc_ros.messages.cdr import CAMERA_INFO
from stdc_ros.messages.images import ImageError
from stdc_ros.playback.demo_results import MASK, OVERLAY, Drive
from stdc_ros.playback.node_process import NodeProcess, NodeProcessError, node_process, ros_node
from stdc_ros.playback.player import Player
from stdc_ros.playback.recorder import Recorder
from stdc_ros.playback.rendered_drive import render_drive

#: Seconds to wait for the node to start and to be discovered.
START_TIMEOUT = 60.0

#: Seconds without a new output after which the missing ones count as dropped.
LAST_TIMEOUT = 3.0


def run(args: Sequence[str]) -> int:
    """Run the demo.

    Args:
        args: Command line without the program's name.

    Returns:
        Exit status: 0, or 1 if the demo failed.
    """
    parser = argparse.ArgumentParser(prog='stdc_demo', description='Replay a drive to the segmentation node.')
    parser.add_argument('--bag', type=expand_user, help='bag to replay; default: render a drive')
    parser.add_argument('--topic', help='image topic of the bag; needed if it has several')
    parser.add_argument('--model', type=expand_user, default=DEFAULT_MODEL, help='a model.onnx from `stdc export`')
    parser.add_argument(
        '--input-scale', type=float, help='input scale of the network, 0.1 to 4; default: at most 1, for two CPU cores'
    )
    parser.add_argument('--frames', type=int, default=150, help='frames of the rendered drive, 15 per second')
    parser.add_argument('--output', type=expand_user, default=Path('demo'), help='folder for the results')
    given = parser.parse_args(args)
    if given.input_scale is not None and not 0.1 <= given.input_scale <= 4:
        parser.error(f'--input-scale is {given.input_scale:g}, expected 0.1 to 4')
    if given.frames < 1:
        parser.error(f'--frames is {given.frames}, expected 1 or more')
    try:
        _run(given)
    except (NodeProcessError, BagError, ModelError, OSError) as error:
        print(f'demo: {error}', file=sys.stderr)
        return 1
    return 0


def _run(given: argparse.Namespace) -> None:
    """Render a drive unless a bag is given, replay it, and write the results to the output folder.

    Args:
        given: Options of :func:`run`.

    Raises:
        NodeProcessError: The node ended, or it does not listen or publish.
        BagError: The bag cannot be read, or it is not clear which topic is meant.
        ModelError: The model file is not a model.
        OSError: The results cannot be written.
    """
    info = read_model(given.model)[1]
    given.output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix='.', dir=given.output) as folder:
        work = Path(folder)
        source, labels = given.bag, None
        if source is None:
            source = work / 'rendered.mcap'
            labels = render_drive(source, given.frames)
        with Bag(source) as bag, ros_node('demo') as node:
            topic = bag.select_topics([given.topic] if given.topic else [])[0]
            camera = published_name(bag.topics, topic)
            scale = given.input_scale or fast_scale(bag, topic, info)
            info = info.at(scale)
            recorder = Recorder(node, [MASK, OVERLAY], work)
            drive = Drive(camera, info, recorder, labels, camera_infos(bag, topic))
            with node_process(given.model, camera, work / 'node.log', scale) as process:
                replay(node, Player(node, bag, [topic]), drive, process)
            if bag.damage:
                print(f'{source} is cut off ({bag.damage}): it was played up to there')
        made = drive.save(work, f'{info.name} on {source.name if given.bag else "a rendered drive"}')
        recorder.close()
        for path in made:
            path.replace(given.output / path.name)
    print(f'\n{drive.summary()}\n\nResults in {given.output}/ (those of an earlier demo are replaced):')
    print('  contact_sheet.png  frames of the drive: camera, overlay and mask, with the class colours')
    print('  drive.webm         video of camera and overlay side by side; opens in a browser')
    print('  drive.mcap         camera, mask and overlay, for rviz2, Foxglove and `ros2 bag play`')


def fast_scale(bag: Bag, topic: str, info: ModelInfo) -> float:
    """Return the input scale for the images of a topic: at most 1, at which two CPU cores keep up.

    It is chosen by the size of the first image that can be decoded.
    """
    scale = InputScale(min(1.0, info.input_scale), info.scale.pixels)
    for message in bag.messages([topic]):
        with suppress(ImageError):
            return scale.of(message.bgr().shape[:2])
    return scale.own


def camera_infos(bag: Bag, topic: str) -> list[Any]:
    """Return the ``CameraInfo`` messages beside an image topic of a rosbag2.

    Returns:
        One message for each image; the first message alone if the numbers differ. Empty if the bag has none, and for
        rosbag1, whose fields have other names.
    """
    name = topic.removesuffix('/compressed').rpartition('/')[0] + '/camera_info'
    if name not in bag.topics or bag.topics[name].type != CAMERA_INFO or bag.path.suffix == '.bag':
        return []
    infos = [message.message for message in bag.messages([name])]
    return infos if len(infos) == bag.topics[topic].message_count else infos[:1]


def replay(node: Node, player: Player, drive: Drive, process: NodeProcess) -> None:
    """Play the bag to the node in real time and record images, masks and overlays.

    Args:
        node: Node that plays and records.
        player: Player of the bag.
        drive: Drive whose recorder takes the messages.
        process: Process of the segmentation node.

    Raises:
        NodeProcessError: The node ended, does not subscribe in time, or publishes nothing.
        WriteError: The recorder has no room.
    """
    print('Starting segmentation_node ...', flush=True)
    deadline = time.monotonic() + START_TIMEOUT
    while player.unheard() or not all(node.count_publishers(topic) for topic in (MASK, OVERLAY)):
        process.check()
        if time.monotonic() > deadline:
            raise process.error(
                f'the segmentation node has not subscribed to {drive.camera} within {START_TIMEOUT:g} s'
            )
        time.sleep(0.05)
    # The node subscribes to the camera for its first listener. The second one may need a moment more.
    time.sleep(0.5)
    with tqdm(total=player.total, desc='Replaying it to the node', unit='frame') as bar:

        def on_publish(_: Any, stamp: int, data: bytes) -> None:
            drive.recorder.keep(drive.camera, stamp, data)
            drive.recorder.check()
            bar.update()
            process.check()

        player.play(threading.Event(), stamp_now=True, on_publish=on_publish)
    wait_for_outputs(drive, process)
    if not drive.recorder.entries_on(MASK):
        raise process.error(f'the segmentation node published no mask for {bar.n} images on {drive.camera}')


def wait_for_outputs(drive: Drive, process: NodeProcess) -> None:
    """Return when every image has its mask and overlay, or when nothing has come for :data:`LAST_TIMEOUT` seconds."""
    count, since = 0, time.monotonic()
    while time.monotonic() - since < LAST_TIMEOUT:
        process.check()
        drive.recorder.check()
        expected = 3 * len(drive.recorder.entries_on(drive.camera))
        if len(drive.recorder.entries) >= expected:
            return
        if len(drive.recorder.entries) > count:
            count, since = len(drive.recorder.entries), time.monotonic()
        time.sleep(0.05)
