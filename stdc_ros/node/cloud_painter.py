# SPDX-License-Identifier: Apache-2.0
"""Paint point clouds in a thread, each with the nearest mask of every camera. Imports no rclpy."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from itertools import compress
from typing import Any, NamedTuple

import numpy as np

from stdc_core.classes import IGNORE, ClassTable
from stdc_core.inference import Segmentation
from stdc_core.io.text import one_line
from stdc_ros.ground.camera_info import CameraInfoError
from stdc_ros.ground.camera_model import CameraModel
from stdc_ros.messages.cdr import POINT_CLOUD, WireError, decode
from stdc_ros.node.frame_statistics import TroubleCounter
from stdc_ros.node.node_log import LogThrottle
from stdc_ros.node.parameters import Parameters
from stdc_ros.points.mask_history import MaskHistory, StampedMask
from stdc_ros.points.painting import View, paint
from stdc_ros.points.point_cloud import PointsError, make_painted_cloud, packed_colors, read_cloud, select_classes

#: Largest number of clouds that wait for their masks.
WAITING = 10

#: Seconds that a cloud waits for a mask as new as itself. There is no wait for a camera without a mask for this long.
PATIENCE = 1.0

#: Seconds between two checks of the waiting clouds.
_PERIOD = 0.05

#: Outcomes of a cloud.
OUTCOMES = ('painted', 'dropped', 'bad', 'without a mask', 'without a pose', 'failed')

_LOG = logging.getLogger(__name__)

#: Function that returns the matrix ``[4, 4]`` from the frame of a cloud to that of a mask, for camera name, mask and
#: header of the cloud; it raises CameraInfoError.
FindTransform = Callable[[str, StampedMask, Any], np.ndarray]


class _Cloud(NamedTuple):
    """Waiting cloud: message, stamp in nanoseconds, and time of arrival by ``time.monotonic()``."""

    message: Any
    stamp: int
    arrival: float


class CloudPainter:
    """Paints clouds with the masks of all cameras.

    A cloud waits until every camera has a mask as new as the cloud, because only then the nearest mask is known. It
    waits at most ``PATIENCE`` seconds, and not for silent cameras. Clouds that cannot be painted are counted with the
    reason.

    Args:
        settings: Current values of the parameters.
        classes: Class table of the model.
        topics: Image topic of each camera by its name, for log and diagnostics.
        find_transform: Function that returns the transform from a cloud to a camera.

    Attributes:
        statistics: Number of clouds by :data:`OUTCOMES`, and ``received``.

    Raises:
        PointsError: ``points_only`` names a class that the model lacks.
    """

    def __init__(
        self, settings: Parameters, classes: ClassTable, topics: Mapping[str, str], find_transform: FindTransform
    ):
        self.statistics = TroubleCounter('clouds')
        self._settings = settings
        self._kept = select_classes(settings.points_only, classes)
        self._colors = packed_colors(classes)
        self._topics = topics
        self._find_transform = find_transform
        self._histories = {name: MaskHistory() for name in topics}
        self._last_mask = dict.fromkeys(topics, -math.inf)
        self._lacks: dict[str, str] = {}
        self._may_log = LogThrottle()
        self._publish: Callable[[Any], None] = lambda message: None
        self._arrived: deque[tuple[bytes, float]] = deque(maxlen=WAITING)
        self._changed = threading.Condition()
        self._closed = self._forgotten = False
        self._thread: threading.Thread | None = None

    def start(self, publish: Callable[[Any], None]) -> None:
        """Start the thread.

        Args:
            publish: Function that publishes a ``sensor_msgs/PointCloud2`` of ``stdc_ros.messages.cdr.TYPES``.
        """
        self._publish = publish
        self._closed = False
        # A daemon thread, so that work that hangs does not keep the process alive after close() has given up.
        self._thread = threading.Thread(target=self._run, name='points', daemon=True)
        self._thread.start()

    def close(self, timeout: float) -> bool:
        """End the thread. Return whether it has ended within ``timeout`` seconds."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        if self._thread is not None:
            self._thread.join(timeout)
        return self._thread is None or not self._thread.is_alive()

    def put(self, data: bytes) -> None:
        """Hand over a cloud, CDR bytes of a ``sensor_msgs/PointCloud2``, without waiting."""
        with self._changed:
            self.statistics.counts['received'] += 1
            self.statistics.counts['dropped'] += len(self._arrived) == WAITING
            self._arrived.append((data, time.monotonic()))
            self._changed.notify()

    def add_mask(self, camera: str, header: Any, segmentation: Segmentation, info: Any | None) -> None:
        """Hand over a mask with its confidence.

        Args:
            camera: Name of the camera.
            header: Header of the image.
            segmentation: Mask and confidence of the segmenter.
            info: ``CameraInfo`` of the image, or None.
        """
        if info is None:
            self._lacks[camera] = 'no CameraInfo'
            return
        try:
            model = CameraModel.from_info(info, self._settings.points_rectified)
        except CameraInfoError as error:
            self._lacks[camera] = str(error)
            return
        mask, confidence = segmentation
        assert confidence is not None, 'the pipeline requests it'
        stamp = header.stamp.sec * 10**9 + header.stamp.nanosec
        with self._changed:
            self._lacks.pop(camera, None)
            self._last_mask[camera] = time.monotonic()
            self._histories[camera].add(StampedMask(stamp, header.frame_id, mask, confidence, model))
            self._changed.notify()

    def forget(self) -> None:
        """Forget masks and clouds. Called when the last listener has left."""
        with self._changed:
            self._arrived.clear()
            self._forgotten = True
            self._histories = {name: MaskHistory() for name in self._topics}
            self._lacks = {}

    def _run(self) -> None:
        waiting: list[_Cloud] = []
        while True:
            with self._changed:
                if not (self._arrived or self._closed):
                    self._changed.wait(_PERIOD if waiting else None)
                if self._closed:
                    return
                if self._forgotten:
                    waiting.clear()
                    self._forgotten = False
                arrived = list(self._arrived)
                self._arrived.clear()
            waiting += [cloud for cloud in (self._decode(*entry) for entry in arrived) if cloud is not None]
            self.statistics.counts['dropped'] += max(0, len(waiting) - WAITING)
            waiting = waiting[-WAITING:]
            due = [self._is_due(cloud) for cloud in waiting]
            ready = list(compress(waiting, due))
            waiting = [cloud for cloud, is_due in zip(waiting, due, strict=True) if not is_due]
            for cloud in ready:
                self._process(cloud)

    def _decode(self, data: bytes, arrival: float) -> _Cloud | None:
        try:
            message = decode(data, POINT_CLOUD)
        except WireError as error:
            self._report('bad', str(error))
            return None
        return _Cloud(message, message.header.stamp.sec * 10**9 + message.header.stamp.nanosec, arrival)

    def _is_due(self, cloud: _Cloud) -> bool:
        """Return whether no later mask can be nearer to a cloud, or the cloud has waited long enough."""
        now = time.monotonic()
        if now - cloud.arrival > PATIENCE:
            return True
        alive = [name for name, last in self._last_mask.items() if now - last < PATIENCE]
        return bool(alive) and all(self._histories[name].reaches(cloud.stamp) for name in alive)

    def _process(self, cloud: _Cloud) -> None:
        try:
            self._paint(cloud)
        except PointsError as error:
            self._report('bad', str(error))
        except Exception as error:  # an error must not end the thread
            self._report('failed', f'{type(error).__name__}: {one_line(error, 400)}', logging.ERROR)

    def _paint(self, cloud: _Cloud) -> None:
        masks = self._nearest_masks(cloud)
        if not masks:
            return
        views, problem = [], ''
        for name, mask in masks.items():
            try:
                transform = self._find_transform(name, mask, cloud.message.header)
            except CameraInfoError as error:
                problem = problem or str(error)
                continue
            views.append(View(mask.mask, mask.confidence, mask.camera, transform))
        if not views:
            self._report('without a pose', problem)
            return
        points = read_cloud(cloud.message)
        class_id, confidence = paint(points.xyz, views, self._settings.confidence_threshold)
        self._publish(make_painted_cloud(points, class_id, confidence, self._colors, self._kept))
        self.statistics.counts['painted'] += 1
        self.statistics.counts['points'] = len(points)
        self.statistics.counts['points with a class'] = int(np.count_nonzero(class_id != IGNORE))
        if problem:
            self._warn('one camera', f'a cloud is painted without one of the cameras: {problem}')

    def _nearest_masks(self, cloud: _Cloud) -> dict[str, StampedMask]:
        """Return the nearest mask of each camera, or count the cloud if none is near enough."""
        found, limit = {}, self._settings.points_max_time_difference
        reasons = []
        for name, history in self._histories.items():
            mask = history.nearest(cloud.stamp)
            if mask is None:
                reasons.append(f'{self._topics[name]}: {self._lacks.get(name, "no mask yet")}')
                continue
            difference = (mask.stamp - cloud.stamp) / 1e9
            if abs(difference) <= limit:
                found[name] = mask
            else:
                reasons.append(
                    f'{self._topics[name]}: the nearest mask is {abs(difference):.3f} s '
                    f'{"newer" if difference > 0 else "older"}, points_max_time_difference is {limit:g} s'
                )
        if not found:
            self._report('without a mask', '; '.join(reasons))
        return found

    def _report(self, kind: str, reason: str, level: int = logging.WARNING) -> None:
        """Count a cloud that is not painted, and log the reason."""
        self.statistics.add_trouble(kind, reason)
        if self._may_log(kind):
            _LOG.log(level, 'a cloud is not painted: %s', reason)

    def _warn(self, key: str, text: str) -> None:
        if self._may_log(key):
            _LOG.warning('%s', text)
