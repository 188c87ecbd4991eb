# SPDX-License-Identifier: Apache-2.0
"""Paint the point clouds of a bag, each with the nearest mask of every camera in time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from stdc_core.classes import ClassTable
from stdc_core.inference import Segmentation
from stdc_core.io.text import one_line
from stdc_ros.bags.message import BagError, BagMessage
from stdc_ros.bags.message_types import CAMERA_INFO
from stdc_ros.bags.reader import Bag
from stdc_ros.ground.camera_info import CameraInfoError, check_fit
from stdc_ros.ground.camera_model import CameraModel
from stdc_ros.messages.cdr import POINT_CLOUD
from stdc_ros.offline.camera_poses import transform_of
from stdc_ros.points.mask_history import MaskHistory, StampedMask
from stdc_ros.points.painting import View, paint
from stdc_ros.points.point_cloud import PointsError, make_painted_cloud, packed_colors, read_cloud, select_classes
from stdc_ros.points.transform_tree import TransformTree

TF = 'tf2_msgs/msg/TFMessage'

#: Default of the largest difference between the stamps of a cloud and of its mask, seconds.
MAX_TIME_DIFFERENCE = 0.1

#: Nanoseconds of recording, in addition to the largest difference, that a cloud waits for a mask as new as itself.
PATIENCE = 10**9

#: Number of masks to keep of each camera.
KEPT = 20


class PointOptions(NamedTuple):
    """Options for painting clouds.

    Args:
        topics: Topics of the clouds; empty for none.
        only: Names of the classes whose points are kept; empty for all points.
        camera_poses: Image topic and numbers of :func:`stdc_ros.offline.camera_poses.read_camera_poses`; empty to use
            the TF of the bag.
        fixed_frame: Frame of TF that does not move; empty for no correction of the motion, and with ``camera_poses``.
        max_time_difference: Largest difference between the stamps of cloud and mask, seconds.
        rectified: Whether the images are rectified: described by P of their CameraInfo.
    """

    topics: tuple[str, ...] = ()
    only: tuple[str, ...] = ()
    camera_poses: tuple[tuple[str, tuple[float, ...]], ...] = ()
    fixed_frame: str = ''
    max_time_difference: float = MAX_TIME_DIFFERENCE
    rectified: bool = False

    @property
    def contradiction(self) -> str:
        """Error for a fixed frame beside camera poses, which would have no effect; empty without one."""
        if not (self.camera_poses and self.fixed_frame):
            return ''
        return (
            f'--fixed-frame is {self.fixed_frame} beside --camera-pose, expected one of them, since the motion '
            'is in TF; leave out --camera-pose to take all poses from TF, or --fixed-frame to ignore the motion'
        )


class BagPoints:
    """Paints the clouds of one bag.

    Args:
        bag: Bag that is read.
        cameras: Topic of the CameraInfo by image topic; the bag may not have it.
        classes: Class table of the model.
        options: Options with at least one topic.

    Attributes:
        painted: Number of clouds that were painted.
        failed: Number of clouds that could not be painted.
        problem: Reason for the first of them.

    Raises:
        BagError: A topic is missing or does not hold clouds, a class or camera is unknown, there are no poses, or the
            options contradict each other.
    """

    def __init__(self, bag: Bag, cameras: Mapping[str, str], classes: ClassTable, options: PointOptions):
        self.painted, self.failed, self.problem = 0, 0, ''
        self._options = options
        self._cameras = dict(cameras)
        self._histories = {topic: MaskHistory(KEPT) for topic in cameras}
        self._models: dict[str, tuple[Any, CameraModel] | str] = {}  # by topic: CameraInfo and model, or a problem
        self._unfit: dict[str, str] = {}  # by image topic: why the CameraInfo does not belong to its images
        self._waiting: list[BagMessage] = []
        self._colors = packed_colors(classes)
        if options.contradiction:
            raise BagError(f'{bag.path}: {options.contradiction}')
        _check_topics(bag, options.topics)
        try:
            self._kept = select_classes(options.only, classes)
        except PointsError as error:
            raise BagError(f'{bag.path}: {error}') from error
        self._poses = _fixed_poses(bag, cameras, options)
        self._tree = TransformTree()
        self.tf_topics = [name for name, topic in bag.topics.items() if topic.type == TF]
        if not self._poses and not self.tf_topics:
            raise BagError(f'{bag.path}: no TF for the clouds; name a file with the pose of the camera: --camera-pose')
        self._read_ahead(bag)

    @property
    def topics(self) -> set[str]:
        """Topics that :meth:`take` needs."""
        return {*self._options.topics, *self._cameras.values()}

    def _read_ahead(self, bag: Bag) -> None:
        """Read TF and the first CameraInfo of each camera, which drivers may send only once, after the first image."""
        for message in bag.messages({*self.tf_topics, *self._cameras.values()}):
            if message.message is None:
                continue
            if message.type == TF:
                try:
                    self._tree.add(message.message, static=message.topic.endswith('tf_static'))
                except CameraInfoError as error:
                    self.problem = self.problem or f'{message.topic}: {error}'
            elif message.topic not in self._models:
                self._take_info(message)

    def _take_info(self, message: BagMessage) -> None:
        try:
            model = CameraModel.from_info(message.message, self._options.rectified)
            self._models[message.topic] = (message.message, model)
        except CameraInfoError as error:
            self._models[message.topic] = str(error)

    def take(self, message: BagMessage) -> Iterator[tuple[str, int, Any]]:
        """Process a message of the bag. Yield topic, time and message of the clouds that can be painted now."""
        if message.type == CAMERA_INFO and message.message is not None and message.topic in self._cameras.values():
            self._take_info(message)
        elif message.topic in self._options.topics:
            self._waiting.append(message)
        yield from self._due(message.time)

    def add_mask(self, image: BagMessage, result: Segmentation) -> None:
        """Add mask and confidence of an image."""
        calibration = self._models.get(self._cameras[image.topic])
        if not isinstance(calibration, tuple) or result.confidence is None:
            return
        info, model = calibration
        try:
            check_fit(info, *result.mask.shape)
        except CameraInfoError as error:
            self._unfit[image.topic] = f'{self._cameras[image.topic]}: {error}'
            return
        frame = image.message.header.frame_id
        self._histories[image.topic].add(StampedMask(image.stamp, frame, result.mask, result.confidence, model))

    def finish(self) -> Iterator[tuple[str, int, Any]]:
        """Yield the clouds that still wait at the end of the bag."""
        yield from self._due(None)

    def _due(self, now: int | None) -> Iterator[tuple[str, int, Any]]:
        """Yield clouds for which no later mask can be nearer, or that have waited long enough."""
        patience = PATIENCE + round(self._options.max_time_difference * 1e9)
        waiting, self._waiting = self._waiting, []
        for cloud in waiting:
            unusable = cloud.message is None
            late = now is None or now - cloud.time > patience
            if not (unusable or late or all(each.reaches(_stamp(cloud)) for each in self._histories.values())):
                self._waiting.append(cloud)
            else:
                try:
                    yield cloud.topic, cloud.time, self._paint(cloud)
                    self.painted += 1
                except (PointsError, CameraInfoError) as error:
                    self.failed += 1
                    self.problem = self.problem or f'{cloud.topic} at {cloud.time} ns: {one_line(error, 400)}'

    def _paint(self, cloud: BagMessage) -> Any:
        if cloud.message is None:
            raise PointsError(cloud.problem)
        views, reasons = [], []
        for topic, history in self._histories.items():
            mask = history.nearest(_stamp(cloud))
            if mask is None:
                problem = self._models.get(self._cameras[topic], f'no CameraInfo on {self._cameras[topic]}')
                nothing = f'no mask of {topic} near in time'
                reasons.append(problem if isinstance(problem, str) else self._unfit.get(topic, nothing))
                continue
            difference = abs(mask.stamp - _stamp(cloud)) / 1e9
            if difference > self._options.max_time_difference:
                limit = self._options.max_time_difference
                reasons.append(f'the nearest image of {topic} is {difference:.3f} s away, expected at most {limit:g} s')
                continue
            try:
                views.append(View(mask.mask, mask.confidence, mask.camera, self._transform(topic, mask, cloud)))
            except CameraInfoError as error:
                reasons.append(str(error))
        if not views:
            raise PointsError('; '.join(reasons))
        points = read_cloud(cloud.message)
        return make_painted_cloud(points, *paint(points.xyz, views), self._colors, self._kept)

    def _transform(self, topic: str, mask: StampedMask, cloud: BagMessage) -> np.ndarray:
        if topic in self._poses:
            return self._poses[topic]
        source = cloud.message.header.frame_id
        return self._tree.look_up(mask.frame_id, mask.stamp, source, _stamp(cloud), self._options.fixed_frame)


def _stamp(cloud: BagMessage) -> int:
    stamp = cloud.message.header.stamp
    return stamp.sec * 10**9 + stamp.nanosec


def _check_topics(bag: Bag, topics: Sequence[str]) -> None:
    for topic in topics:
        found = bag.topics[topic].type if topic in bag.topics else ''
        if found != POINT_CLOUD:
            clouds = ', '.join(name for name, each in bag.topics.items() if each.type == POINT_CLOUD) or 'none'
            what = f'{topic} holds {one_line(found, 80)}, expected point clouds' if found else f'no topic {topic}'
            raise BagError(f'{bag.path}: {what}; its topics with point clouds are {clouds}')


def _fixed_poses(bag: Bag, cameras: Mapping[str, str], options: PointOptions) -> dict[str, np.ndarray]:
    """Return the matrix from cloud to optical frame by image topic; empty if TF is used."""
    given = dict(options.camera_poses)
    if not given:
        return {}
    if set(given) == {''} and len(cameras) == 1:
        return {next(iter(cameras)): transform_of(given[''])}
    missing = [topic for topic in cameras if topic not in given]
    if missing:
        found = ', '.join(filter(None, given)) or 'one list'
        raise BagError(f'{bag.path}: --camera-pose has no pose of {missing[0]}; it has {found}')
    return {topic: transform_of(given[topic]) for topic in cameras}
