# SPDX-License-Identifier: Apache-2.0
"""Turn camera frames into output messages: decode, group by size, segment, publish. Imports no rclpy."""

from __future__ import annotations

import logging
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple, Protocol

import numpy as np

from stdc_core.inference import Segmentation, Segmenter, SizeError
from stdc_core.inference.input_scale import scaled_size
from stdc_core.io.text import one_line
from stdc_ros.ground.camera_info import CameraInfoError
from stdc_ros.ground.drivable_grid import GridError
from stdc_ros.messages.cdr import COMPRESSED_IMAGE, IMAGE, WireError, decode
from stdc_ros.messages.compressed_images import compressed_to_bgr
from stdc_ros.messages.images import ImageError, image_to_bgr
from stdc_ros.node.camera_health import CameraHealth
from stdc_ros.node.frame_statistics import FrameStatistics
from stdc_ros.node.node_log import LogThrottle
from stdc_ros.node.outputs import FrameOutputs
from stdc_ros.node.parameters import Parameters, output_size

#: Message type and decoder by the parameter ``image_transport``.
DECODERS: dict[str, tuple[str, Callable[[Any], np.ndarray]]] = {
    'raw': (IMAGE, image_to_bgr),
    'compressed': (COMPRESSED_IMAGE, compressed_to_bgr),
}

#: Outputs that need a CameraInfo.
NEED_INFO = {'camera_info', 'drivable_grid', 'points'}

#: Largest number of image sizes whose scale is logged.
LOGGED_SIZES = 16

_LOG = logging.getLogger(__name__)


class Camera(Protocol):
    """Camera as the pipeline uses it, such as :class:`stdc_ros.node.camera.Camera`.

    Attributes:
        name: Name of the camera; empty for a single camera.
        statistics: Statistics of its frames.
        health: Watch for frozen and dark images.
    """

    name: str
    statistics: FrameStatistics
    health: CameraHealth

    def __hash__(self) -> int:
        """Return a hash: cameras are keys of the worker, which ends when they are closed."""

    @property
    def topic(self) -> str:
        """Resolved image topic."""

    def wanted(self) -> set[str]:
        """Return the names of the outputs with a subscriber."""

    def camera_info(self, height: int, width: int) -> Any | None:
        """Return the newest ``CameraInfo`` that fits images of this size."""

    def publish(self, output: str, message: Any) -> None:
        """Publish a message of ``stdc_ros.messages.cdr.TYPES``."""


class Grid(Protocol):
    """Source of grid messages, such as :class:`stdc_ros.node.grid_output.GridOutput`."""

    def message(self, header: Any, segmentation: Segmentation, info: Any) -> Any:
        """Return the grid of a segmented image. Raises CameraInfoError or GridError."""


class Clouds(Protocol):
    """Painter of point clouds; :class:`stdc_ros.node.cloud_painter.CloudPainter` is one."""

    def add_mask(self, camera: str, header: Any, segmentation: Segmentation, info: Any | None) -> None:
        """Take the mask of a camera by its name, with the header of the image and its CameraInfo."""


class Frame(NamedTuple):
    """Image message that has arrived.

    Attributes:
        camera: Camera that sent it.
        data: CDR bytes of the message.
        arrival: Time of arrival in seconds of ``time.monotonic()``.
        received: Time of arrival in seconds of the clock that stamps images.
    """

    camera: Camera
    data: bytes
    arrival: float
    received: float


class _Job(NamedTuple):
    """Decoded frame.

    Attributes:
        wanted: Names of the outputs to make.
        stamp: Stamp of the image in seconds.
        begun: Time at which decoding began, in seconds of ``time.monotonic()``.
        converted: Time at which decoding ended, on the same clock.
    """

    frame: Frame
    wanted: set[str]
    header: Any
    stamp: float
    image: np.ndarray
    begun: float
    converted: float


class FramePipeline:
    """Segments frames and publishes the outputs with a subscriber.

    Args:
        segmenter: Segmenter that all cameras share.
        settings: Current values of the parameters.
        grids: Source of the drivable grid by camera name; empty without a grid.
        now: Clock that stamps images, in seconds.
        clouds: Painter of point clouds, or None.

    Example:
        >>> pipeline = FramePipeline(Segmenter.load(), Parameters(), {}, time.time)
        >>> pipeline.process([Frame(camera, data, time.monotonic(), time.time())])
    """

    def __init__(
        self,
        segmenter: Segmenter,
        settings: Parameters,
        grids: Mapping[str, Grid],
        now: Callable[[], float],
        clouds: Clouds | None = None,
    ):
        self._segmenter = segmenter
        self._settings = settings
        self._grids = grids
        self._now = now
        self._clouds = clouds
        self._message_type, self._to_bgr = DECODERS[settings.image_transport]
        self._may_log = LogThrottle()
        self._logged_sizes: set[tuple[int, int]] = set()

    def process(self, frames: list[Frame]) -> None:
        """Decode, segment and publish frames. Images of one size are segmented in one call.

        An error is logged and counted, and only the frames that it concerns are left out.
        """
        batches: defaultdict[tuple[int, ...], list[_Job]] = defaultdict(list)
        for frame in frames:
            try:
                job = self._prepare(frame)
            except Exception as error:
                self.report_failure([frame], error)
                continue
            if job is not None:
                batches[job.image.shape].append(job)
        for jobs in batches.values():
            try:
                self._segment(jobs)
            except Exception as error:
                self.report_failure([job.frame for job in jobs], error)

    def report_failure(self, frames: list[Frame], error: Exception) -> None:
        """Log and count frames that failed through no fault of the image."""
        reason = f'{type(error).__name__}: {one_line(error, 800)}'
        topics = []
        for camera in (frame.camera for frame in frames):
            camera.statistics.add_trouble('failed', reason)
            if self._may_log(camera.name, 'failed'):
                topics.append(camera.topic)
        if topics:
            _LOG.error('image on %s is left out: %s', ', '.join(topics), reason)

    def _prepare(self, frame: Frame) -> _Job | None:
        """Decode a frame. Return None if it is unwanted by now, too old or not a valid image."""
        begun = time.monotonic()
        camera, wanted = frame.camera, frame.camera.wanted()
        if not wanted:
            camera.statistics.counts['unwanted'] += 1
            return None
        try:
            message = self._decode(frame.data)
            stamp = message.header.stamp.sec + message.header.stamp.nanosec / 1e9
            if self._too_old(camera, stamp):
                return None
            image = self._to_bgr(message)
            self._segmenter.check_size(*image.shape[:2])
        except (ImageError, SizeError) as error:
            camera.statistics.add_trouble('bad', str(error))
            count = camera.statistics.counts['bad']
            self._warn(camera, 'bad', f'image on {camera.topic} is left out: {error} ({count} so far)')
            return None
        camera.health.update(image, begun)
        return _Job(frame, wanted, message.header, stamp, image, begun, time.monotonic())

    def _decode(self, data: bytes) -> Any:
        try:
            return decode(data, self._message_type)
        except WireError as error:
            raise ImageError(str(error)) from error

    def _too_old(self, camera: Camera, stamp: float) -> bool:
        limit, age = self._settings.max_frame_age, self._now() - stamp
        if not limit or age <= limit:
            return False
        reason = f'{age:.3f} s old, max_frame_age is {limit} s'
        camera.statistics.add_trouble('too old', reason)
        self._warn(camera, 'too old', f'images on {camera.topic} are left out: {reason}')
        return True

    def _segment(self, jobs: list[_Job]) -> None:
        """Segment images of one size and publish their outputs."""
        threshold = self._settings.confidence_threshold
        unsure_cells = self._settings.grid_min_confidence > 0
        confident = any(
            job.wanted & {'confidence', 'points'} or (unsure_cells and 'drivable_grid' in job.wanted) or threshold > 0
            for job in jobs
        )
        start = time.monotonic()
        images = jobs[0].image[None] if len(jobs) == 1 else np.stack([job.image for job in jobs])
        masks, confidences = self._segmenter(images, confident)
        inference = time.monotonic() - start
        self._log_scale(images.shape[1:3])
        done = []
        for index, job in enumerate(jobs):
            camera = job.frame.camera
            # Meanwhile subscribers may have left, or the node may have been switched off.
            job = job._replace(wanted=job.wanted & camera.wanted())
            if not job.wanted:
                camera.statistics.counts['unwanted'] += 1
                continue
            segmentation = Segmentation(masks[index], None if confidences is None else confidences[index])
            done.append((index, job, segmentation, *self._publish_labels(job, segmentation, threshold, inference)))
        # All labels first, then all grids, then pictures: no camera waits for less urgent work of another.
        for _, job, segmentation, _, info in done:
            if self._clouds is not None and 'points' in job.wanted:
                self._clouds.add_mask(job.frame.camera.name, job.header, segmentation, info)
            if 'drivable_grid' in job.wanted and info is not None:
                self._publish_grid(job, segmentation, info)
        classes, settings = self._segmenter.info.classes, self._settings
        for index, job, _, outputs, _ in done:
            draw = partial(self._segmenter.overlay, index)
            pictures = outputs.pictures(job.wanted, classes, settings.overlay_opacity, settings.jpeg_quality, draw)
            for name, message in pictures:
                job.frame.camera.publish(name, message)

    def _publish_labels(
        self, job: _Job, segmentation: Segmentation, threshold: float, inference: float
    ) -> tuple[FrameOutputs, Any | None]:
        """Publish the labels. Return all outputs, and the ``CameraInfo`` or None."""
        frame, start = job.frame, time.monotonic()
        camera, shape = frame.camera, (job.image.shape[0], job.image.shape[1])
        size = output_size(self._settings.output_size, shape, self._segmenter.scale.of(shape))
        outputs = FrameOutputs(job.header, job.image, segmentation, size, threshold)
        # The camera reports a bad CameraInfo itself.
        info = camera.camera_info(*shape) if job.wanted & NEED_INFO else None
        for name, message in outputs.labels(job.wanted, info):
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
        return outputs, info

    def _publish_grid(self, job: _Job, segmentation: Segmentation, info: Any) -> None:
        camera = job.frame.camera
        try:
            camera.publish('drivable_grid', self._grids[camera.name].message(job.header, segmentation, info))
        except (CameraInfoError, GridError) as error:
            camera.statistics.add_trouble('without a grid', str(error))
            self._warn(camera, 'without a grid', f'no drivable_grid of {camera.topic}: {error}')

    def _warn(self, camera: Camera, kind: str, text: str) -> None:
        if self._may_log(camera.name, kind):
            _LOG.warning('%s', text)

    def _log_scale(self, size: tuple[int, int]) -> None:
        """Log once for each image size (height, width) that it is scaled down beyond the model's input scale."""
        scale = self._segmenter.scale.of(size)
        if scale == self._segmenter.scale.own or size in self._logged_sizes or len(self._logged_sizes) == LOGGED_SIZES:
            return
        self._logged_sizes.add(size)
        (height, width), seen = size, scaled_size(size, scale)
        _LOG.info(
            f'images of {width}x{height}: the network sees {seen[1]}x{seen[0]}, the number of pixels in its training '
            f'(input scale {scale:.3g}, not {self._segmenter.scale.own:g}; the parameter input_scale sets another)'
        )
