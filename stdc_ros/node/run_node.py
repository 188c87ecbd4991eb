# SPDX-License-Identifier: Apache-2.0
"""Run the node until a signal arrives or it cannot continue."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable
from threading import Event, Thread
from typing import NoReturn

import rclpy
from rclpy.exceptions import ParameterException
from rclpy.executors import Executor, ExternalShutdownException, SingleThreadedExecutor
from rclpy.logging import get_logger
from rclpy.signals import SignalHandlerOptions

from stdc_core.inference.heap_memory import keep_freed_memory
from stdc_core.io.signals import killed_by_signals
from stdc_ros.node.camera_segmentation import LISTENER_PERIOD, STOP_TIMEOUT, WorkerHangsError
from stdc_ros.node.fastdds_cleanup import remove_dead_segments
from stdc_ros.node.lifecycle_node import SegmentationLifecycleNode
from stdc_ros.node.segmentation_node import SegmentationNode

try:
    from rclpy.experimental import EventsExecutor
except ImportError:  # Humble, and Jazzy before rclpy 7.1.4
    EventsExecutor = SingleThreadedExecutor

Node = SegmentationNode | SegmentationLifecycleNode

#: Executor by the parameter ``executor``.
EXECUTORS: dict[str, Callable[[], Executor]] = {
    'events': EventsExecutor,
    'single_threaded': SingleThreadedExecutor,
}

#: Seconds between two looks for a signal.
SIGNAL_PERIOD = 0.1


def run(signals: list[int], args: list[str] | None = None, lifecycle: bool = False) -> int:
    """Run the node until a signal is in the list.

    Args:
        signals: List of received signals, see ``stdc_core.io.signals.keep_signals``.
        args: Command line with ROS arguments; None for the arguments of the process.
        lifecycle: Whether to run the managed node.

    Returns:
        Exit status: 0, or 1 if the node could not start or continue; the reason is in the log.
    """
    if signals:
        return 0
    keep_freed_memory()
    remove_dead_segments()
    try:
        rclpy.init(args=args, signal_handler_options=SignalHandlerOptions.NO)
        node: Node = SegmentationLifecycleNode(signals) if lifecycle else SegmentationNode()
        if isinstance(node, SegmentationNode) and node.segmentation.settings.build_only:
            _build(node, signals)
            return 0
    except (OSError, ValueError, ParameterException, RuntimeError) as error:
        # ValueError includes BackendError, ModelError, GridError, CameraInfoError and PointsError.
        # RuntimeError: rcl, for bad ROS arguments.
        _fatal(error)
        rclpy.try_shutdown()
        return 1
    return _spin(node, signals)


def _build(node: SegmentationNode, signals: list[int]) -> None:
    # A build takes minutes and cannot be interrupted, so a signal ends the process. The cache keeps only complete
    # files.
    with killed_by_signals():
        if not signals:  # a signal that arrived while the model was loaded is in the list
            node.segmentation.build()
    node.close()
    rclpy.try_shutdown()


def _spin(node: Node, signals: list[int]) -> int:
    executor = EXECUTORS[node.segmentation.settings.executor]()
    executor.add_node(node)
    stopping = Event()
    errors: list[BaseException] = []

    def spin() -> None:
        try:
            while not stopping.is_set():
                executor.spin_once(timeout_sec=LISTENER_PERIOD)
        except ExternalShutdownException:
            pass
        except BaseException as error:
            errors.append(error)

    # In a thread: Python handles signals only in the main thread, and only between two library calls, which may hang.
    thread = Thread(target=spin, name='executor', daemon=True)
    thread.start()
    try:
        while thread.is_alive() and not signals and node.failure is None:
            thread.join(SIGNAL_PERIOD)
    except KeyboardInterrupt:  # a caller of main has its own handlers
        pass
    stopping.set()
    thread.join(STOP_TIMEOUT)
    if errors:
        raise errors[0]
    if thread.is_alive():
        _fatal(node.failure or TimeoutError(f'a callback has not finished within {STOP_TIMEOUT:g} s'))
        _end_at_once(1)
    executor.shutdown()
    failure = node.failure
    try:
        node.close()
    except WorkerHangsError as error:
        # The thread may still publish. End the process at once, before the interpreter destroys what the thread uses.
        _fatal(failure or error)
        _end_at_once(1)
    if failure is not None:
        _fatal(failure)
    builds = node.builds
    rclpy.try_shutdown()
    status = 0 if failure is None else 1
    if builds:
        # Otherwise the library would continue to build during the interpreter shutdown. The cache keeps only complete
        # files, and the next start removes the leftover shared memory segments, see remove_dead_segments.
        _end_at_once(status)
    return status


def _end_at_once(status: int) -> NoReturn:
    logging.shutdown()
    sys.stdout.flush()
    os._exit(status)


def _fatal(error: Exception) -> None:
    get_logger('segmentation').fatal(' '.join(str(error).split()))
