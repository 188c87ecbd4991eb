# SPDX-License-Identifier: Apache-2.0
"""Handle the topics of one camera: subscriptions that follow the listeners, output publishers, and its state."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from nav_msgs.msg import OccupancyGrid
from rclpy.node import Node
from rclpy.publisher import Publisher
from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy
from rclpy.subscription import Subscription
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from stdc_core.inference.heap_memory import give_back_freed_memory
from stdc_ros.ground.camera_info import CameraInfoError, check_fit
from stdc_ros.messages.cdr import CAMERA_INFO, WireError, decode, encode
from stdc_ros.node.camera_health import CameraHealth
from stdc_ros.node.diagnostics import explain_silence
from stdc_ros.node.frame_pipeline import DECODERS, NEED_INFO, Frame
from stdc_ros.node.frame_statistics import FrameStatistics
from stdc_ros.node.label_info import create_label_info, make_label_info
from stdc_ros.node.parameters import Parameters
from stdc_ros.node.qos import advertise, overridable, subscribe
from stdc_ros.node.topics import find_sources, output_namespace

#: Message class by output, which is the topic below the node's name. Outputs are published in this order: labels before
#: pictures.
OUTPUTS: dict[str, type] = {
    'mask': Image,
    'confidence': Image,
    'camera_info': CameraInfo,
    'drivable_grid': OccupancyGrid,
    'mask/compressed': CompressedImage,
    'color_mask': Image,
    'color_mask/compressed': CompressedImage,
    'overlay': Image,
    'overlay/compressed': CompressedImage,
}

#: Outputs whose last message late subscribers receive. The static layer of a costmap expects a latched map.
LATCHED = ('drivable_grid',)

#: Output of the whole node: clouds that the masks of all cameras paint.
POINTS = 'points'

#: Message class by the parameter ``image_transport``.
MESSAGE_CLASSES: dict[str, type] = {'raw': Image, 'compressed': CompressedImage}


class Camera:
    """Topics of one camera. The camera is subscribed to only while somebody listens to an output.

    Args:
        node: Node that owns the topics.
        name: Name of the camera, which is the namespace of its topics; empty for the node's only camera.
        settings: Current values of the parameters.
        receive: Function that is called with each image in the thread of the executor.
        paints_clouds: Function that returns whether somebody listens to clouds, which the masks of all cameras paint.

    Attributes:
        name: Name of the camera.
        statistics: Statistics of its frames.
        health: Watch for frozen and dark images.

    Raises:
        ValueError, rclpy.exceptions.ParameterException: A quality of service is overridden by an invalid value.
    """

    def __init__(
        self,
        node: Node,
        name: str,
        settings: Parameters,
        receive: Callable[[Frame], None],
        paints_clouds: Callable[[], bool] = lambda: False,
    ):
        self.name = name
        self.statistics = FrameStatistics()
        self.health = CameraHealth()
        self._node = node
        self._settings = settings
        self._receive = receive
        self._paints_clouds = paints_clouds
        self._source, self._info_source = find_sources(node, name, settings.image_transport)
        self._outputs: dict[str, Publisher] = {}
        self._label_info: Publisher | None = None
        self._published_labels: tuple[tuple[str, ...], float, bool] | None = None
        self._images: Subscription | None = None
        self._one_publisher = False  # at the last look
        self._sequence_number: int | None = None  # of the last image; None: unknown, or there are several publishers
        self._infos: Subscription | None = None
        self._infos_since = 0.0
        self._info: bytes | None = None
        self._listened: set[str] = set()
        self._last_sign = 0.0  # time of the last image or, before it, of the subscription
        self._bad_info = ''
        try:
            self._open()
        except Exception:
            self.close()
            raise

    def _open(self) -> None:
        """Create the publishers, and declare the parameters of the subscriptions."""
        below = output_namespace(self._node, self.name)
        for output, message_class in OUTPUTS.items():
            if output != 'drivable_grid' or self._settings.drivable_grid:
                self._outputs[output] = self._advertise(message_class, f'{below}/{output}', output in LATCHED)
        self._label_info = create_label_info(self._node, f'{below}/label_info')
        # Declared now, so that a bad value is reported at the start and not when somebody subscribes.
        overridable(self._node, self._source.asked, _newest(self._settings.image_reliability), 'subscription')
        overridable(self._node, self._info_source.asked, _newest('best_effort'), 'subscription')

    def close(self) -> None:
        """Destroy subscriptions and publishers. No thread may publish after this."""
        self._leave()
        publishers = [*self._outputs.values(), *([] if self._label_info is None else [self._label_info])]
        for publisher in publishers:
            self._node.destroy_publisher(publisher)
        self._outputs = {}
        self._listened = set()
        self._label_info = None

    @property
    def topic(self) -> str:
        """Resolved image topic."""
        return self._source.topic

    @property
    def mask_topic(self) -> str:
        """Resolved topic of the mask."""
        return self._outputs['mask'].topic_name

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the outputs in the order in which they are published; the clouds of all cameras come last."""
        return (*self._outputs, POINTS) if self._settings.points else tuple(self._outputs)

    def wanted(self) -> set[str]:
        """Return the names of the outputs that had a subscriber at the last look; none if the node is switched off."""
        return self._listened if self._settings.enabled else set()

    def follow_listeners(self) -> None:
        """Subscribe to the camera while somebody listens, else unsubscribe. Call it often: Humble has no event."""
        listened = {name for name, output in self._outputs.items() if output.get_subscription_count()}
        self._listened = listened | {POINTS} if self._paints_clouds() else listened
        wanted = self.wanted()
        if wanted and self._images is None:
            quality = _newest(self._settings.image_reliability)
            message_class = MESSAGE_CLASSES[self._settings.image_transport]
            self._images = subscribe(self._node, message_class, self._source.asked, self._take, quality)
            self._sequence_number = None
            self._last_sign = time.monotonic()
            self.health = CameraHealth()
        elif not wanted and self._images is not None:
            self._leave_images()
            give_back_freed_memory()
        self._one_publisher = self._images is not None and self._node.count_publishers(self.topic) == 1
        informed = bool(wanted & NEED_INFO)
        if informed and self._infos is None:
            asked, quality = self._info_source.asked, _newest('best_effort')
            self._infos = subscribe(self._node, CameraInfo, asked, self._take_info, quality)
            self._infos_since = time.monotonic()
            self._bad_info = ''
        elif not informed and self._infos is not None:
            self._leave_infos()

    def _leave(self) -> None:
        self._leave_images()
        self._leave_infos()

    def _leave_images(self) -> None:
        if self._images is not None:
            self._node.destroy_subscription(self._images)
            self._images = None

    def _leave_infos(self) -> None:
        if self._infos is not None:
            self._node.destroy_subscription(self._infos)
            self._infos = self._info = None

    def _advertise(self, message_class: type, topic: str, latched: bool) -> Publisher:
        # A new profile for each topic, because an override changes it.
        quality = QoSProfile(
            history=HistoryPolicy.KEEP_LAST,
            depth=1 if latched else 5,
            reliability=ReliabilityPolicy.RELIABLE,
            durability=DurabilityPolicy.TRANSIENT_LOCAL if latched else DurabilityPolicy.VOLATILE,
        )
        return advertise(self._node, message_class, topic, quality)

    def _take(self, data: bytes, delivery: dict[str, int | None]) -> None:
        # The events executor also delivers to a subscription that was destroyed after the message had arrived.
        if self._images is None:
            return
        self._count_missed(delivery.get('publication_sequence_number'))
        if not self.wanted():
            return
        self._last_sign = time.monotonic()
        self.statistics.received += 1
        self._receive(Frame(self, data, self._last_sign, self._node.get_clock().now().nanoseconds / 1e9))

    def _count_missed(self, number: int | None) -> None:
        """Count the images that were lost before this one, by its sequence number; None if the middleware has none."""
        # Each publisher counts its own images.
        if number is None or not (self._one_publisher or self._node.count_publishers(self.topic) == 1):
            self._sequence_number = None
            return
        between = 0 if self._sequence_number is None else number - self._sequence_number - 1
        self._sequence_number = number
        if between and self._node.count_publishers(self.topic) != 1:  # another one has come since the last look
            return
        # The difference is below 0 after the publisher has restarted.
        self.statistics.missed = (self.statistics.missed or 0) + max(0, between)

    def _take_info(self, data: bytes, delivery: dict[str, int | None]) -> None:
        if self._infos is not None:  # see _take
            self._info = data

    def camera_info(self, height: int, width: int) -> Any | None:
        """Return the newest ``sensor_msgs/CameraInfo``; None without one, or if it does not fit images of this size."""
        data = self._info
        if data is None:
            return None
        try:
            info = decode(data, CAMERA_INFO)
            check_fit(info, height, width)
        except (WireError, CameraInfoError) as error:
            self._bad_info = str(error)
            self.statistics.add_trouble('with a bad CameraInfo', self._bad_info)
            return None
        self._bad_info = ''
        return info

    def publish(self, output: str, message: Any) -> None:
        """Publish a message of ``stdc_ros.messages.cdr.TYPES``."""
        self._outputs[output].publish(encode(message))

    def publish_label_info(self, names: tuple[str, ...]) -> None:
        """Publish class names and confidence threshold, latched, if they have changed.

        They are published again when the clock starts: under ``use_sim_time`` it is 0 until /clock is published.
        """
        if self._label_info is None:
            return
        now, threshold = self._node.get_clock().now(), self._settings.confidence_threshold
        news = names, threshold, now.nanoseconds > 0
        if news != self._published_labels:
            self._published_labels = news
            self._label_info.publish(make_label_info(names, threshold, now.to_msg()))

    @property
    def _needing_info(self) -> str:
        """Names of the outputs that need the CameraInfo, for messages."""
        return 'camera_info, drivable_grid and points' if self._settings.points else 'camera_info and drivable_grid'

    def complaint(self) -> str:
        """Return why no image arrives, or what is wrong with images or CameraInfo; empty if nothing is."""
        now = time.monotonic()
        patience = self._settings.stale_after
        if self._images is not None and now - self._last_sign > patience:
            message_type, _ = DECODERS[self._settings.image_transport]
            reason = explain_silence(self._node, self._source, message_type, self._images.qos_profile)
            return f'no image on {self.topic} for {now - self._last_sign:.0f} s: {reason}'
        if self._infos is not None and self._bad_info:
            return f'{self._info_source.topic}: {self._bad_info}; nothing for {self._needing_info}'
        if self._infos is not None and self._info is None and now - self._infos_since > patience:
            reason = explain_silence(self._node, self._info_source, CAMERA_INFO, self._infos.qos_profile)
            return f'nothing for {self._needing_info}: no CameraInfo on {self._info_source.topic}: {reason}'
        seen = self.health.complaint(now, patience) if self._images is not None else ''
        return f'{self.topic} shows {seen}' if seen else ''


def _newest(reliability: str) -> QoSProfile:
    """Return a QoS profile that keeps only the newest message, as the worker does."""
    return QoSProfile(history=HistoryPolicy.KEEP_LAST, depth=1, reliability=ReliabilityPolicy[reliability.upper()])
