# SPDX-License-Identifier: Apache-2.0
"""Run the node until a signal arrives or it cannot go on."""

from __future__ import annotations

import logging
import os
import sys

import rclpy
from rclpy.exceptions import ParameterException
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.logging import get_logger
from rclpy.signals import SignalHandlerOptions

from stdc_core.inference.heap_memory import keep_freed_memory
from stdc_core.io.signals import killed_by_signals
from stdc_ros.node.fastdds_cleanup import remove_dead_segments
from stdc_ros.node.lifecycle_node import SegmentationLifecycleNode
from stdc_ros.node.segmentation_node import LISTENER_PERIOD, SegmentationNode, WorkerHangsError

Node = SegmentationNode | SegmentationLifecycleNode


def run(signals: list[int], args: list[str] | None = None, lifecycle: bool = False) -> int:
    """Run the node until a signal is in the list.

    Args:
        signals: List that grows with each signal, see ``stdc_core.io.signals.keep_signals``.
        args: Command line with ROS arguments; None for that of the process.
        lifecycle: Whether to run the managed node.

    Returns:
        Exit status: 0, or 1 if the node could not start or go on; the reason is in the log.
    """
    if signals:
        return 0
    keep_freed_memory()
    remove_dead_segments()
    try:
        rclpy.init(args=args, signal_handler_options=SignalHandlerOptions.NO)
        node: Node = SegmentationLifecycleNode() if lifecycle else SegmentationNode()
        if isinstance(node, SegmentationNode) and node.segmentation.settings.build_only:
            _build(node, signals)
            return 0
    except (OSError, ValueError, ParameterException, RuntimeError) as error:
        # ValueError: BackendError, ModelError, GridError, CameraInfoError, PointsError.
        # RuntimeError: rcl, on bad --ros-args.
        _fatal(error)
        rclpy.try_shutdown()
        return 1
    return _spin(node, signals)


def _build(node: SegmentationNode, signals: list[int]) -> None:
    with killed_by_signals():  # the cache has only whole files
        if not signals:  # that came while the model was read
            node.segmentation.build()
    node.close()
    rclpy.try_shutdown()


def _spin(node: Node, signals: list[int]) -> int:
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    try:
        while not signals and node.failure is None:
            executor.spin_once(timeout_sec=LISTENER_PERIOD)
    except ExternalShutdownException:
        pass
    failure = node.failure
    try:
        node.close()
    except WorkerHangsError as error:
        # Its thread may be about to publish: nothing that it uses may be taken away, not even by the interpreter.
        _fatal(failure or error)
        logging.shutdown()
        sys.stdout.flush()
        os._exit(1)
    if failure is not None:
        _fatal(failure)
    rclpy.try_shutdown()
    return 0 if failure is None else 1


def _fatal(error: Exception) -> None:
    get_logger('segmentation').fatal(' '.join(str(error).split()))
