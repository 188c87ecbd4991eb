# SPDX-License-Identifier: Apache-2.0
"""Test the segmentation on a node of this process, whose executor and transitions the test controls."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import ros_helpers  # noqa: F401 (isolates this process before rclpy is imported)
from rclpy.context import Context
from rclpy.node import Node

from stdc_ros.node.camera_segmentation import CameraSegmentation


@pytest.fixture
def context() -> Iterator[Context]:
    context = Context()
    context.init()
    yield context
    context.try_shutdown()


@pytest.fixture
def node(context: Context) -> Iterator[Node]:
    node = Node('segmentation', context=context)
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
