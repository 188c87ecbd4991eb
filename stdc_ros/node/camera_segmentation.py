# SPDX-License-Identifier: Apache-2.0
"""Connect the segmentation to a ROS 2 node: parameters, cameras, timers, service and diagnostics.

:class:`CameraSegmentation` does this for the plain node (:mod:`stdc_ros.node.segmentation_node`) and for the managed
one (:mod:`stdc_ros.node.lifecycle_node`).
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from pathlib import Path

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile
from rclpy.timer import Timer
from std_srvs.srv import SetBool

from stdc_core.inference import DEFAULT_MODEL, BackendError, Segmenter
from stdc_core.inference.heap_memory import give_back_freed_memory
from stdc_core.inference.int8_file import fastest_precision
from stdc_ros.node import label_info, points_output
from stdc_ros.node.camera import Camera
from stdc_ros.node.declare_parameters import declare
from stdc_ros.node.diagnostics import assess, make_status
from stdc_ros.node.frame_pipeline import Frame, FramePipeline
from stdc_ros.node.grid_output import GridOutputs
from stdc_ros.node.latest_frame_worker import LatestFrameWorker
from stdc_ros.node.node_log import LogThrottle, RosLogHandler
from stdc_ros.node.parameters import size_of
from stdc_ros.node.points_output import PointsOutput
from stdc_ros.node.qos import advertise
from stdc_ros.node.topics import find_sources
from stdc_ros.node.unserved_listeners import UnservedListeners

#: Seconds between two checks for listeners, and between two reports on /diagnostics.
LISTENER_PERIOD = 0.2
DIAGNOSTICS_PERIOD = 1.0

#: Seconds that :meth:`CameraSegmentation.stop` waits for the current frame.
STOP_TIMEOUT = 5.0


class WorkerHangsError(RuntimeError):
    """The frame that is being processed does not finish."""


class CameraSegmentation:
    """Segments the newest image of each camera whenever somebody listens to an output.

    The executor of the node receives messages; a worker thread decodes, segments and publishes, or the executor does if
    that is quick and waits for no TF (:class:`stdc_ros.node.latest_frame_worker.LatestFrameWorker`). Call
    ``open_topics`` and ``load`` in either order, then ``start``. ``stop`` and ``unload`` undo this.

    Args:
        node: Node that owns topics, timers and parameters.
        state: Lifecycle state for the diagnostics, such as ``inactive``; empty for an active or a plain node.

    Attributes:
        settings: Current values of the parameters.
        state: Lifecycle state, as in the arguments.
        failure: Error that keeps the node from working, or None.

    Raises:
        rclpy.exceptions.ParameterException: A parameter has the wrong type or is out of range.
    """

    def __init__(self, node: Node, state: str = ''):
        self.settings = declare(node)
        self.state = state
        self.failure: Exception | None = None
        self._node = node
        self._names = self.settings.cameras or ('',)
        self._cameras: list[Camera] = []
        self._segmenter: Segmenter | None = None
        self._grids: GridOutputs | None = None
        self._points = PointsOutput(node, self.settings) if self.settings.points else None
        self._pipeline: FramePipeline | None = None
        self._worker: LatestFrameWorker[Frame] | None = None
        self._listener_timer: Timer | None = None
        self._may_log = LogThrottle()
        self._library_log = RosLogHandler(node.get_logger())
        self._library_log.attach()
        self._reports = [
            advertise(node, DiagnosticArray, topic, QoSProfile(depth=10)) for topic in ('/diagnostics', '~/performance')
        ]
        self._unserved_listeners = UnservedListeners(node)
        self.create_steady_timer(DIAGNOSTICS_PERIOD, self._diagnose)
        node.create_service(SetBool, '~/set_enabled', self._set_enabled)

    def open_topics(self) -> None:
        """Advertise the outputs of every camera. After an error, :meth:`stop` closes the topics that are open.

        Raises:
            ValueError, rclpy.exceptions.ParameterException: A quality of service is overridden by an invalid value.
        """
        paints_clouds = self._points.wanted if self._points else lambda: False
        if self._points is not None:
            self._points.open_topics()
        for name in self._names:
            self._cameras.append(Camera(self._node, name, self.settings, self._receive, paints_clouds))

    def load(self) -> None:
        """Load the model and prepare the grid.

        Raises:
            FileNotFoundError: The model does not exist.
            ModelError: The file is not a model.
            BackendError: The backend is not installed or cannot run here.
            GridError, CameraInfoError: The parameters of the grid are invalid, or there are not six pose numbers for
                each camera, or ``points_camera_pose`` is given beside ``points_fixed_frame``.
            PointsError: ``points_only`` names a class that the model does not have.
            ValueError: ``build_only`` is set without ``image_size``.
        """
        settings = self.settings
        if settings.build_only and not settings.image_size:
            raise ValueError('build_only needs image_size, WIDTHxHEIGHT of the images, found none')
        model = Path(settings.model).expanduser() if settings.model else DEFAULT_MODEL
        segmenter = Segmenter.load(
            model,
            settings.threads,
            settings.input_scale or None,
            settings.backend,
            fastest_precision(model, settings.backend, settings.precision),
            max_batch=len(self._names),
            wait=settings.build_only,
            build_only=settings.build_only,
        )
        if settings.drivable_grid:
            self._grids = GridOutputs(self._node, settings, segmenter.info.classes)
        painter = None
        if self._points is not None:
            painter = self._points.load(segmenter.info.classes, self._grids.transforms if self._grids else None)
        self._pipeline = FramePipeline(segmenter, settings, self._grids or {}, self._now, painter)
        self._segmenter = segmenter

    def build(self) -> None:
        """Build the engine for images of ``image_size``, or find it in the cache.

        Raises:
            SizeError: The network cannot see such images.
            BackendError: The backend has no engine, or the engine cannot be built.
        """
        segmenter = self._loaded()
        if not segmenter.backend.startswith('tensorrt'):
            # An image that is built without an engine would build one on every robot.
            why = f' ({segmenter.reason})' if segmenter.reason else ''
            raise BackendError(
                f'build_only: no engine built, since {segmenter.backend} runs without one{why}; '
                "expected TensorRT and a GPU, or backend 'tensorrt_rtx', which builds without a GPU"
            )
        segmenter.prepare(size_of(self.settings.image_size), self._node.get_logger().info)
        self._node.get_logger().info(f'built the {segmenter.backend} engine for {self.settings.image_size} images')

    def start(self) -> None:
        """Start to segment. The topics must be open and the model loaded."""
        segmenter, pipeline = self._loaded(), self._pipeline
        assert pipeline is not None
        # A grid may wait for a transform, which the executor receives. So the executor must not process frames then.
        inline = self._grids is None or self._grids.transforms is None
        self._worker = LatestFrameWorker(pipeline.process, pipeline.report_failure, segmenter.max_batch, inline)
        if self._points is not None:
            self._points.start()
        self._follow_listeners()
        self._listener_timer = self.create_steady_timer(LISTENER_PERIOD, self._follow_listeners)
        log = self._node.get_logger()
        for camera in self._cameras:
            log.info(
                f'Segmenting {camera.topic} -> {camera.mask_topic} with {segmenter.info.name} on {segmenter.backend}'
            )
        if label_info.LabelInfo is None:
            log.info('vision_msgs is not installed: no label_info')

    def stop(self) -> None:
        """Stop segmenting and close the topics. Without a start before, only close the topics.

        Raises:
            WorkerHangsError: The current frame does not finish. The topics stay open, because the thread may still
                publish.
        """
        if self._listener_timer is not None:
            self._node.destroy_timer(self._listener_timer)
            self._listener_timer = None
        if self._worker is not None and not self._worker.close(STOP_TIMEOUT):
            self.failure = WorkerHangsError(f'the current frame has not finished within {STOP_TIMEOUT:g} s')
            raise self.failure
        self._worker = None
        if self._points is not None and not self._points.close(STOP_TIMEOUT):
            self.failure = WorkerHangsError(f'the current cloud has not been painted within {STOP_TIMEOUT:g} s')
            raise self.failure
        for camera in self._cameras:
            camera.close()
        self._cameras = []

    def unload(self) -> None:
        """Free the memory of the model. Call :meth:`stop` first."""
        if self._grids is not None:
            self._grids.close()
        self._segmenter = self._grids = self._pipeline = None
        gc.collect()
        give_back_freed_memory()

    def close(self) -> None:
        """Stop segmenting and detach from the log. Raises WorkerHangsError if the current frame does not finish."""
        try:
            self.stop()
        finally:
            self._library_log.detach()

    def look_for_failure(self) -> Exception | None:
        """Return the error that keeps the node from working, or None."""
        if self.failure is None and self._segmenter is not None:
            self.failure = self._segmenter.failure
        return self.failure

    @property
    def builds(self) -> bool:
        """Whether a background thread is building an engine."""
        return self._segmenter is not None and bool(self._segmenter.activity)

    def _loaded(self) -> Segmenter:
        if self._segmenter is None:
            raise RuntimeError('no model is loaded, expected load() before')
        return self._segmenter

    def create_steady_timer(self, period: float, callback: Callable[[], None]) -> Timer:
        """Return a timer that also runs under ``use_sim_time`` while nobody publishes /clock."""
        return self._node.create_timer(period, callback, clock=Clock(clock_type=ClockType.STEADY_TIME))

    def _set_enabled(self, request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        result = self._node.set_parameters([Parameter('enabled', value=request.data)])[0]
        response.success = result.successful
        response.message = result.reason or f'segmentation is switched {"on" if request.data else "off"}'
        return response

    def _follow_listeners(self) -> None:
        if self._worker is None:  # the events executor also runs a destroyed timer that was due already
            return
        names = self._loaded().info.classes.names
        if self._points is not None:
            self._points.follow_listeners()
        for camera in self._cameras:
            camera.follow_listeners()
            camera.publish_label_info(names)

    def _receive(self, frame: Frame) -> None:
        if self._worker is not None:
            self._worker.put(frame.camera, frame)

    def _now(self) -> float:
        return self._node.get_clock().now().nanoseconds / 1e9

    def _diagnose(self) -> None:
        if self._cameras:
            statuses = [self._status(camera) for camera in self._cameras]
            if self._points is not None:
                statuses.append(self._points_status(self._points))
        else:
            statuses = [self._idle_status(name) for name in self._names]
        report = DiagnosticArray(status=statuses)
        report.header.stamp = self._node.get_clock().now().to_msg()
        for publisher in self._reports:
            publisher.publish(report)
        for warning in self._unserved_listeners.new():
            self._node.get_logger().warning(warning)

    def _status(self, camera: Camera) -> DiagnosticStatus:
        """Return the status of a camera of an active node. A complaint is logged as well."""
        segmenter, statistics = self._loaded(), camera.statistics
        if self._worker is not None:
            statistics.counts['dropped'] = self._worker.dropped[camera]
        complaint = camera.complaint()
        if complaint and self._may_log(camera.name, 'complaint'):
            self._node.get_logger().warning(complaint)
        wanted = camera.wanted()
        health = assess(
            camera.topic,
            complaint,
            statistics.new_troubles(),
            self._failure_text(),
            self.settings.enabled,
            bool(wanted),
        )
        rows = {
            **statistics.rows(time.monotonic()),
            'model': segmenter.info.name,
            'backend': segmenter.backend,
            'reason': segmenter.reason or 'as the parameter says',
            'activity': segmenter.activity or 'none',
            'enabled': str(self.settings.enabled).lower(),
            'outputs': ', '.join(name for name in camera.outputs if name in wanted) or 'none: nobody listens',
        }
        return make_status(self._status_name(camera.name), camera.topic, health, rows)

    def _points_status(self, points: PointsOutput) -> DiagnosticStatus:
        """Return the status of the painted clouds. A complaint is logged as well."""
        complaint = points.complaint()
        if complaint and self._may_log(points_output.OUTPUT, 'complaint'):
            self._node.get_logger().warning(complaint)
        troubles, enabled = points.statistics.new_troubles(), self.settings.enabled
        health = assess(points.topic, complaint, troubles, self._failure_text(), enabled, points.wanted())
        return make_status(self._status_name('points'), points.topic, health, points.rows())

    def _idle_status(self, name: str) -> DiagnosticStatus:
        """Return the status of a camera of a managed node that is not active."""
        source, _ = find_sources(self._node, name, self.settings.image_transport)
        health = assess(source.topic, '', {}, self._failure_text(), self.settings.enabled, False, self.state)
        return make_status(self._status_name(name), source.topic, health, {'state': self.state})

    def _failure_text(self) -> str:
        failure = self.look_for_failure()
        return '' if failure is None else ' '.join(str(failure).split())

    def _status_name(self, camera: str) -> str:
        return f'{self._node.get_fully_qualified_name()[1:]}: {camera or "segmentation"}'
