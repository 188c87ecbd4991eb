# SPDX-License-Identifier: Apache-2.0
"""The ROS 2 node ``segmentation``: camera images in, masks out."""

from __future__ import annotations

import logging
import signal
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.clock import Clock, ClockType
from rclpy.exceptions import ParameterException
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.logging import get_logger
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.publisher import Publisher
from rclpy.qos import QoSProfile
from rclpy.signals import SignalHandlerOptions
from rclpy.timer import Timer
from std_srvs.srv import SetBool

from stdc_core.inference import DEFAULT_MODEL, BackendError, Segmentation, Segmenter, SizeError
from stdc_core.inference.heap_memory import keep_freed_memory
from stdc_core.inference.input_scale import scaled_size
from stdc_core.io.signals import keep_signals
from stdc_core.io.text import one_line
from stdc_ros.ground.camera_info import CameraInfoError
from stdc_ros.ground.drivable_grid import GridError
from stdc_ros.messages.images import ImageError
from stdc_ros.node import label_info as labels
from stdc_ros.node import parameters
from stdc_ros.node.camera import Camera, Frame
from stdc_ros.node.diagnostics import make_status
from stdc_ros.node.fastdds_cleanup import remove_dead_segments
from stdc_ros.node.grid_output import make_grids
from stdc_ros.node.latest_frame_worker import LatestFrameWorker
from stdc_ros.node.outputs import Result
from stdc_ros.node.qos import overridable

#: Seconds.
LISTENER_PERIOD = 0.1
DIAGNOSTICS_PERIOD = 1.0
LOG_PERIOD = 5.0
SHUTDOWN = 5.0

#: Sizes of images, of which so many are told of in the log.
TOLD_SIZES = 16

_LIBRARY = logging.getLogger('stdc_core')


class Job(NamedTuple):
    """A frame in the worker's hands; times in seconds, the stamp's of the clock of whoever stamped it."""

    frame: Frame
    wanted: set[str]
    header: Any
    stamp: float
    image: np.ndarray
    begun: float
    converted: float


class SegmentationNode(Node):
    """Segments the newest image of each of its cameras whenever somebody listens to a result.

    The executor only takes messages; a worker thread converts, segments and publishes.

    Raises:
        ParameterException: a parameter has the wrong type or is out of range.
        FileNotFoundError, ModelError: there is no such model, or it is none.
        BackendError: the backend is not installed.
        GridError, CameraInfoError: parameters of the grid that make none.
    """

    def __init__(self) -> None:
        super().__init__('segmentation')
        self._settings = parameters.declare(self)
        # Before the model is read: other nodes discover the topics meanwhile.
        names = self._settings.cameras or ('',)
        self._cameras = [Camera(self, name, self._settings, self._receive) for name in names]
        self._reports = [self._create_reports(topic) for topic in ('/diagnostics', '~/performance')]
        self.create_service(SetBool, '~/set_enabled', self._set_enabled)
        parameters.warn_of_unknown(self)

        self._model = self._settings.model or DEFAULT_MODEL
        self._silent_until: dict[tuple[Camera, str], float] = {}
        self._library_log = _RosLog(self)
        _LIBRARY.setLevel(logging.INFO)
        _LIBRARY.addHandler(self._library_log)
        self._segmenter = self._load()
        self._told: set[tuple[int, int]] = set()  # sizes of images
        self._worker = LatestFrameWorker(self._process, self._report_failure, self._segmenter.max_batch)
        classes = self._segmenter.info.classes
        self._grids = make_grids(self, self._settings, classes) if self._settings.drivable_grid else {}
        self._follow_listeners()
        self._create_steady_timer(LISTENER_PERIOD, self._follow_listeners)
        self._create_steady_timer(DIAGNOSTICS_PERIOD, self._diagnose)
        self._introduce()

    def _load(self) -> Segmenter:
        settings = self._settings
        if settings.build_only and not settings.image_size:
            raise ValueError('build_only needs image_size, WIDTHxHEIGHT of the images, found none')
        return Segmenter.load(
            self._model,
            settings.threads,
            settings.input_scale or None,
            settings.backend,
            settings.precision,
            max_batch=len(self._cameras),
            wait=settings.build_only,
            build_only=settings.build_only,
        )

    @property
    def failure(self) -> BackendError | None:
        """What the node cannot go on with; None: nothing."""
        return self._segmenter.failure

    @property
    def build_only(self) -> bool:
        """Whether to build the engine is all that is asked for."""
        return self._settings.build_only

    def build(self) -> None:
        """Build the engine. Raises BackendError."""
        self._segmenter.prepare(parameters.size_of(self._settings.image_size), self.get_logger().info)
        self.get_logger().info(f'built what {self._segmenter.backend} needs for {self._settings.image_size} images')

    def _introduce(self) -> None:
        segmenter = self._segmenter
        why = f' ({segmenter.reason})' if segmenter.reason else ''
        self.get_logger().info(
            f'{segmenter.info.name}, {len(segmenter.info.classes)} classes, on {segmenter.backend}{why}, '
            f'model {self._model}: '
            + '; '.join(f'{camera.topic} -> {", ".join(camera.output_topics)}' for camera in self._cameras)
        )
        if labels.LabelInfo is None:
            self.get_logger().info('vision_msgs is not installed: no label_info')

    def close(self) -> None:
        """End the worker thread, then the node: nothing is published by a node that is half gone."""
        self._worker.close(SHUTDOWN)
        _LIBRARY.removeHandler(self._library_log)
        self.destroy_node()

    def _create_reports(self, topic: str) -> Publisher:
        quality = QoSProfile(depth=10)
        overrides = overridable(self, topic, quality, 'publisher')
        return self.create_publisher(DiagnosticArray, topic, quality, qos_overriding_options=overrides)

    def _create_steady_timer(self, period: float, callback: Callable[[], None]) -> Timer:
        # The node's own clock stands still under use_sim_time until somebody publishes /clock.
        return self.create_timer(period, callback, clock=Clock(clock_type=ClockType.STEADY_TIME))

    def _set_enabled(self, request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        result = self.set_parameters([Parameter('enabled', value=request.data)])[0]
        response.success, response.message = result.successful, result.reason
        return response

    def _follow_listeners(self) -> None:
        for camera in self._cameras:
            camera.follow_listeners()
            camera.publish_names(self._segmenter.info.classes.names)

    def _receive(self, frame: Frame) -> None:
        self._worker.put(frame.camera, frame)

    def _process(self, frames: list[Frame]) -> None:
        """Convert, segment and publish frames. Images of one size are segmented together."""
        batches: defaultdict[tuple[int, ...], list[Job]] = defaultdict(list)
        for frame in frames:
            try:
                job = self._prepare(frame)
            except Exception as error:
                self._report_failure([frame], error)
                continue
            if job is not None:
                batches[job.image.shape].append(job)
        for jobs in batches.values():
            try:
                self._segment(jobs)
            except Exception as error:
                self._report_failure([job.frame for job in jobs], error)

    def _prepare(self, frame: Frame) -> Job | None:
        """Message to image; None: nobody wants it any more, it is too old, or it is no image."""
        begun = time.monotonic()
        camera, wanted = frame.camera, frame.camera.wanted()
        if not wanted:
            camera.statistics.counts['unwanted'] += 1
            return None
        try:
            message, to_bgr = camera.decode(frame)
            stamp = message.header.stamp.sec + message.header.stamp.nanosec / 1e9
            if self._too_old(camera, stamp):
                return None
            image = to_bgr()
            self._segmenter.check_size(*image.shape[:2])
        except (ImageError, SizeError) as error:
            camera.statistics.add_trouble('bad', str(error))
            count = camera.statistics.counts['bad']
            self._warn(camera, 'bad', f'image on {camera.topic} is left out: {error} ({count} so far)')
            return None
        camera.sight.look(image, begun)
        return Job(frame, wanted, message.header, stamp, image, begun, time.monotonic())

    def _too_old(self, camera: Camera, stamp: float) -> bool:
        limit, age = self._settings.max_frame_age, self._now() - stamp
        if not limit or age <= limit:
            return False
        reason = f'{age:.3f} s old, max_frame_age is {limit} s'
        camera.statistics.add_trouble('too old', reason)
        self._warn(camera, 'too old', f'images on {camera.topic} are left out: {reason}')
        return True

    def _segment(self, jobs: list[Job]) -> None:
        threshold = self._settings.confidence_threshold
        unsure_cells = self._settings.grid_min_confidence > 0
        confident = any(
            'confidence' in job.wanted or unsure_cells and 'drivable_grid' in job.wanted or threshold > 0
            for job in jobs
        )
        start = time.monotonic()
        images = jobs[0].image[None] if len(jobs) == 1 else np.stack([job.image for job in jobs])
        masks, confidences = self._segmenter(images, confident)
        inference = time.monotonic() - start
        self._tell_scale(images.shape[1:3])
        done = []
        for index, job in enumerate(jobs):
            camera = job.frame.camera
            # Listeners can have left meanwhile, and the node can have been switched off.
            job = job._replace(wanted=job.wanted & camera.wanted())
            if not job.wanted:
                camera.statistics.counts['unwanted'] += 1
                continue
            found = Segmentation(masks[index], None if confidences is None else confidences[index])
            done.append((index, job, found, *self._publish_labels(job, found, threshold, inference)))
        # No camera's labels wait for another's grid, nor grids for pictures.
        for _, job, found, _, camera_info in done:
            if 'drivable_grid' in job.wanted and camera_info is not None:
                self._publish_grid(job, found, camera_info)
        classes, opacity = self._segmenter.info.classes, self._settings.overlay_opacity
        for index, job, _, result, _ in done:
            draw = partial(self._segmenter.overlay, index)
            for name, message in result.pictures(job.wanted, classes, opacity, draw):
                job.frame.camera.publish(name, message)

    def _tell_scale(self, size: tuple[int, int]) -> None:
        """Say once of images of (height, width) that the network sees them smaller than the input scale says."""
        scale = self._segmenter.scale.of(size)
        if scale == self._segmenter.scale.own or size in self._told or len(self._told) == TOLD_SIZES:
            return
        self._told.add(size)
        (height, width), seen = size, scaled_size(size, scale)
        self.get_logger().info(
            f'images of {width}x{height}: the network sees {seen[1]}x{seen[0]}, as many pixels as in its training: '
            f'input scale {scale:.3g}, not {self._segmenter.scale.own:g}; the parameter input_scale sets one for all'
        )

    def _publish_labels(
        self, job: Job, found: Segmentation, threshold: float, inference: float
    ) -> tuple[Result, Any | None]:
        """Publish what is for machines. Returns what grid and pictures are made of; the CameraInfo can be None."""
        frame, start = job.frame, time.monotonic()
        camera, shape = frame.camera, job.image.shape[:2]
        size = parameters.output_size(self._settings.output_size, shape, self._segmenter.scale.of(shape))
        result = Result(job.header, job.image, found, size, threshold)
        informed = job.wanted & {'camera_info', 'drivable_grid'}
        camera_info = camera.info(*job.image.shape[:2]) if informed else None  # if bad, the camera complains of it
        for name, message in result.labels(job.wanted, camera_info):
            camera.publish(name, message)
        end = time.monotonic()
        camera.statistics.add(
            end,
            transport=frame.received - job.stamp,
            wait=job.begun - frame.arrival,
            convert=job.converted - job.begun,
            inference=inference,
            publish=end - start,
            image_to_mask=end - frame.arrival,
            stamp_to_mask=self._now() - job.stamp,
        )
        return result, camera_info

    def _publish_grid(self, job: Job, found: Segmentation, info: Any) -> None:
        camera = job.frame.camera
        try:
            camera.publish('drivable_grid', self._grids[camera.name].message(job.header, found, info))
        except (CameraInfoError, GridError) as error:
            camera.statistics.add_trouble('without a grid', str(error))
            self._warn(camera, 'without a grid', f'no drivable_grid of {camera.topic}: {error}')

    def _now(self) -> float:
        return self.get_clock().now().nanoseconds / 1e9

    def _report_failure(self, frames: list[Frame], error: Exception) -> None:
        reason = f'{type(error).__name__}: {one_line(error, 800)}'
        told = []
        for camera in (frame.camera for frame in frames):
            camera.statistics.add_trouble('failed', reason)
            if self._may_tell(camera, 'failed'):
                told.append(camera.topic)
        if told:
            self.get_logger().error(f'image on {", ".join(told)} is left out: {reason}')

    def _warn(self, camera: Camera, kind: str, text: str) -> None:
        if self._may_tell(camera, kind):
            self.get_logger().warning(text)

    def _may_tell(self, camera: Camera, kind: str) -> bool:
        """At most every LOG_PERIOD for each camera and kind of trouble: the throttle of rclpy is one for all."""
        now = time.monotonic()
        if now < self._silent_until.get((camera, kind), now):
            return False
        self._silent_until[camera, kind] = now + LOG_PERIOD
        return True

    def _diagnose(self) -> None:
        report = DiagnosticArray(status=[self._status(camera) for camera in self._cameras])
        report.header.stamp = self.get_clock().now().to_msg()
        for publisher in self._reports:
            publisher.publish(report)

    def _status(self, camera: Camera) -> Any:
        """One camera's ``DiagnosticStatus``; what is wrong with it goes to the log, too."""
        segmenter, statistics = self._segmenter, camera.statistics
        statistics.counts['dropped'] = self._worker.dropped[camera]
        complaint = camera.complaint()
        if complaint:
            self._warn(camera, 'complaint', complaint)
        trouble = statistics.new_trouble()  # which the log has told already
        warnings = [complaint] if complaint else []
        if trouble:
            warnings.append(f'{camera.topic}: {trouble}')
        wanted = camera.wanted()
        return make_status(
            f'{self.get_fully_qualified_name()[1:]}: {camera.name or "segmentation"}',
            '; '.join(warnings),
            statistics.values(time.monotonic()),
            model=segmenter.info.name,
            backend=segmenter.backend,
            reason=segmenter.reason or 'as the parameter says',
            activity=segmenter.activity or 'none',
            enabled=str(self._settings.enabled).lower(),
            outputs=', '.join(name for name in camera.outputs if name in wanted) or 'none: nobody listens',
        )


class _RosLog(logging.Handler):
    """Takes what the inference library logs to the node's log."""

    def __init__(self, node: Node):
        super().__init__(logging.INFO)
        self._logger = node.get_logger()

    def emit(self, record: logging.LogRecord) -> None:
        # rclpy wants one severity for each line of code.
        if record.levelno >= logging.ERROR:
            self._logger.error(record.getMessage())
        elif record.levelno >= logging.WARNING:
            self._logger.warning(record.getMessage())
        else:
            self._logger.info(record.getMessage())


def main(args: list[str] | None = None) -> int:
    """See :func:`stdc_ros.node.main.main`, which minds signals before this module is imported, too."""
    return run(keep_signals(), args)


def run(signals: list[int], args: list[str] | None = None) -> int:
    """Run the node until a signal is in the list. Returns the exit status: 0, or 1 if it could not start or go on."""
    if signals:
        return 0
    keep_freed_memory()
    remove_dead_segments()
    try:
        rclpy.init(args=args, signal_handler_options=SignalHandlerOptions.NO)
        node = SegmentationNode()
        if node.build_only:
            # A build of minutes that nobody can interrupt ends with the process; the cache has only whole files.
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, signal.SIG_DFL)
            if not signals:  # that came while the model was read
                node.build()
            node.close()
            rclpy.try_shutdown()
            return 0
    except (OSError, ValueError, ParameterException, RuntimeError) as error:
        # ValueError: BackendError, ModelError, GridError, CameraInfoError. RuntimeError: rcl, on bad --ros-args.
        get_logger('segmentation').fatal(' '.join(str(error).split()))
        rclpy.try_shutdown()
        return 1
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    try:
        while not signals and node.failure is None:
            executor.spin_once()  # returns every LISTENER_PERIOD at least
    except ExternalShutdownException:
        pass
    finally:
        node.close()
        if node.failure is not None:
            get_logger('segmentation').fatal(' '.join(str(node.failure).split()))
        rclpy.try_shutdown()
    return 0 if node.failure is None else 1


if __name__ == '__main__':
    sys.exit(main())
