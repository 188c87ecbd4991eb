# SPDX-License-Identifier: Apache-2.0
"""Test the segmentation on a node of this process, whose executor and transitions the test controls."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import ros_helpers  # noqa: F401 (isolates this process before rclpy is imported)
from rclpy.context import Context
from rclpy.node import Node

from stdc_ros.node import camera_segmentation, grid_output
from stdc_ros.node.camera_segmentation import CameraSegmentation
from stdc_ros.node.latest_frame_worker import LatestFrameWorker


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


class Listener:
    """Stands for the TF listener, since tf2_ros is not on PyPI."""

    buffer = None

    def __init__(self, node: Node):
        self.closed = False

    def close(self) -> None:
        self.closed = True


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
