# SPDX-License-Identifier: Apache-2.0
"""Test the segmentation on a node of this process, whose executor and transitions the test controls."""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import rclpy
import ros_helpers  # isolates this process before it uses rclpy
from rclpy.context import Context
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.node import Node
from rclpy.serialization import serialize_message
from rclpy.signals import SignalHandlerOptions
from rclpy.subscription import Subscription
from scenes import pinhole_info, scene
from sensor_msgs.msg import Image

from stdc_core.inference import Segmenter
from stdc_ros.ground.drivable_grid import GridError
from stdc_ros.node import camera_segmentation, grid_output
from stdc_ros.node.camera import Camera
from stdc_ros.node.camera_segmentation import CameraSegmentation
from stdc_ros.node.grid_output import GridOutputs
from stdc_ros.node.latest_frame_worker import LatestFrameWorker
from stdc_ros.node.lifecycle_node import SegmentationLifecycleNode
from stdc_ros.node.parameters import Parameters


@pytest.fixture
def context() -> Iterator[Context]:
    context = Context()
    context.init()
    yield context
    context.try_shutdown()


@pytest.fixture
def node(context: Context, request: pytest.FixtureRequest) -> Iterator[Node]:
    """Yield a node with the ROS arguments of ``indirect`` parameters."""
    node = Node('segmentation', context=context, cli_args=['--ros-args', *getattr(request, 'param', ())])
    yield node
    node.destroy_node()


@contextmanager
def managed(*arguments: str) -> Iterator[SegmentationLifecycleNode]:
    """Yield a managed node with these ROS arguments, configured."""
    rclpy.init(args=['--ros-args', *arguments], signal_handler_options=SignalHandlerOptions.NO)
    try:
        node = SegmentationLifecycleNode()
        assert node.trigger_configure() == TransitionCallbackReturn.SUCCESS
        yield node
        node.close()
    finally:
        rclpy.try_shutdown()


def test_timers_that_are_due_already_may_run_after_the_model_is_unloaded(node):
    """The events executor runs them, because it has queued them before it learns that they are destroyed."""
    segmentation = CameraSegmentation(node)
    segmentation.open_topics()
    segmentation.load()
    segmentation.start()
    due = [timer.callback for timer in node.timers]
    segmentation.stop()
    segmentation.unload()
    for callback in due:
        callback()
    segmentation.close()


@pytest.mark.parametrize('node', [('-p', 'stale_after:=0.1')], indirect=True)
def test_camera_that_was_silent_is_forgotten_when_it_is_closed(node, capfd):
    def cameras() -> list[Camera]:
        gc.collect()
        return [found for found in gc.get_objects() if isinstance(found, Camera)]

    before = cameras()
    segmentation = CameraSegmentation(node)
    segmentation.open_topics()
    segmentation.load()
    segmentation.start()
    node.create_subscription(Image, '/segmentation/mask', lambda mask: None, 1)
    deadline, told = time.monotonic() + ros_helpers.TIMEOUT, ''
    while 'no image on /image' not in told:
        assert time.monotonic() < deadline, told
        time.sleep(0.05)
        for timer in node.timers:
            timer.callback()
        told += capfd.readouterr().err
    segmentation.stop()
    assert cameras() == before
    segmentation.close()


class Listener:
    """Stands for the TF listener, since tf2_ros is not on PyPI."""

    buffer = None

    def __init__(self, node: Node):
        self.closed = False

    def close(self) -> None:
        self.closed = True


def test_failed_activation_leaves_no_publishers():
    """The last step of the second camera fails, when all other topics are open."""
    bad = 'qos_overrides./b/camera_info.subscription.reliability:=perhaps'
    with managed('-p', 'cameras:=[a, b]', '-p', 'points:=true', '-p', bad) as node:
        before = sorted(publisher.topic_name for publisher in node.publishers)
        for _ in range(2):
            assert node.trigger_activate() == TransitionCallbackReturn.ERROR
            assert sorted(publisher.topic_name for publisher in node.publishers) == before
            assert not node.count_publishers('/a/segmentation/mask')
            assert node.trigger_configure() == TransitionCallbackReturn.SUCCESS


def test_failed_grid_leaves_no_listener_to_tf(node, monkeypatch):
    listeners: list[Listener] = []
    monkeypatch.setattr(grid_output, 'listen', lambda node: listeners.append(Listener(node)) or listeners[-1])
    with pytest.raises(GridError, match="'street'"):
        GridOutputs(node, Parameters(grid_classes=('street',)), Segmenter.load().info.classes)
    assert [listener.closed for listener in listeners] == [True]


def deliver(subscription: Subscription, data: bytes) -> None:
    """Call the callback as the events executor does; the rclpy of Humble passes only the message."""
    subscription.callback((data, {}) if hasattr(Subscription, 'CallbackType') else data)


def test_messages_of_a_destroyed_subscription_are_ignored(node):
    """The events executor delivers them, because it has queued them before it learns that it is destroyed."""
    settings, frames = Parameters(points=True), []
    camera = Camera(node, '', settings, frames.append, lambda: True)
    info = pinhole_info(scene(48, 64))

    def subscribed() -> dict[str, Subscription]:
        camera.follow_listeners()
        return {each.topic_name: each for each in node.subscriptions if each.topic_name in ('/image', '/camera_info')}

    before = subscribed()
    assert set(before) == {'/image', '/camera_info'}
    settings.enabled = False
    assert not subscribed()
    settings.enabled = True
    deliver(before['/image'], b'an image')
    deliver(before['/camera_info'], serialize_message(info))
    assert not frames
    now = subscribed()
    assert camera.camera_info(48, 64) is None
    deliver(now['/camera_info'], serialize_message(info))
    assert camera.camera_info(48, 64) is not None
    camera.close()


@pytest.mark.parametrize('node', [('-p', 'drivable_grid:=true')], indirect=True)
def test_executor_that_receives_transforms_does_not_wait_for_them(node, monkeypatch):
    class Worker(LatestFrameWorker):
        def __init__(self, *arguments, **options):
            super().__init__(*arguments, **options)
            workers.append(self)

    workers: list[Worker] = []
    monkeypatch.setattr(grid_output, 'listen', Listener)
    monkeypatch.setattr(camera_segmentation, 'LatestFrameWorker', Worker)
    segmentation = CameraSegmentation(node)
    segmentation.open_topics()
    segmentation.load()
    segmentation.start()
    segmentation.close()
    assert [worker.inline for worker in workers] == [False]


def test_overrides_of_a_managed_node_are_checked_when_its_topics_are_open(capfd):
    names = ('/segmentation/mask.publisher.depth', '/image.subscription.depth', '/segmentation/maks.publisher.depth')
    overrides = [part for name in names for part in ('-p', f'qos_overrides.{name}:=2')]
    unknown = 'parameter {} is given but does not exist'
    with managed('-p', 'thread:=1', *overrides) as node:
        told = capfd.readouterr().err
        assert unknown.format('thread') in told and 'qos_overrides' not in told
        for expected in (1, 0):
            assert node.trigger_activate() == TransitionCallbackReturn.SUCCESS
            told = capfd.readouterr().err
            assert told.count('does not exist') == expected
            assert told.count(unknown.format(f'qos_overrides.{names[2]}')) == expected
            assert node.trigger_deactivate() == TransitionCallbackReturn.SUCCESS
