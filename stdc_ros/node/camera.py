# SPDX-License-Identifier: Apache-2.0
"""One camera of the node: its topics, who listens to them, and how it is doing."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, NamedTuple

from nav_msgs.msg import OccupancyGrid
from rclpy.node import Node
from rclpy.publisher import Publisher
from rclpy.qos import HistoryPolicy, QoSProfile, ReliabilityPolicy
from rclpy.subscription import Subscription
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from stdc_core.inference.heap_memory import give_back_freed_memory
from stdc_ros.ground.camera_info import CameraInfoError
from stdc_ros.messages.cdr import CAMERA_INFO, COMPRESSED_IMAGE, IMAGE, WireError, decode, encode
from stdc_ros.messages.images import ImageError, compressed_to_bgr, image_to_bgr
from stdc_ros.node.camera_health import Sight
from stdc_ros.node.diagnostics import Statistics, explain_silence
from stdc_ros.node.label_info import create_label_info, make_label_info
from stdc_ros.node.outputs import check_fit
from stdc_ros.node.parameters import Parameters
from stdc_ros.node.qos import overridable
from stdc_ros.node.topics import COMPRESSED, Source, find_sources

#: Topics below the node's name, labels before pictures: in this order they are published.
OUTPUTS: dict[str, type] = {
    'mask': Image,
    'confidence': Image,
    'camera_info': CameraInfo,
    'drivable_grid': OccupancyGrid,
    'mask/compressed': CompressedImage,
    'color_mask': Image,
    'overlay': Image,
}

#: By ``image_transport``: message, name of its type, what is added to the topic, and how it becomes a picture.
TRANSPORTS: dict[str, tuple[type, str, str, Callable]] = {
    'raw': (Image, IMAGE, '', image_to_bgr),
    'compressed': (CompressedImage, COMPRESSED_IMAGE, COMPRESSED, compressed_to_bgr),
}

# Humble's rclpy hands over the message alone.
_TELLS_DELIVERY = hasattr(Subscription, 'CallbackType')


class Frame(NamedTuple):
    """An image as it came: its bytes, and when, in seconds of ``time.monotonic()`` and of the node's clock."""

    camera: Camera
    data: bytes
    arrival: float
    received: float


class Camera:
    """The topics of one camera, subscribed to while somebody listens to a result, and only then.

    Args:
        node: whose topics they are.
        name: of the camera, which is the namespace of its topics; empty: that of the node's only camera.
        settings: of the node.
        receive: called with each image, in the executor's thread.

    Attributes:
        statistics: of its frames.
        sight: whether it sees.
    """

    def __init__(self, node: Node, name: str, settings: Parameters, receive: Callable[[Frame], None]):
        self.name = name
        self.statistics = Statistics()
        self.sight = Sight()
        self._node = node
        self._settings = settings
        self._receive = receive
        _, self._type, suffix, self._to_bgr = TRANSPORTS[settings.image_transport]
        inside = f'{name}/' if name else ''
        self._source, self._info_source = find_sources(node, inside, suffix)
        below = f'{inside}{node.get_name()}' if name else '~'
        self._outputs = {
            output: self._advertise(of, f'{below}/{output}')
            for output, of in OUTPUTS.items()
            if output != 'drivable_grid' or settings.drivable_grid
        }
        self._labels = create_label_info(node, f'{below}/label_info')
        self._told: tuple[tuple[str, ...], float, bool] | None = None  # by them
        self._images: Subscription | None = None
        self._number: int | None = None  # of the last image, by its only publisher; None: none to count on from
        self._infos: Subscription | None = None
        self._infos_since = 0.0
        self._info: bytes | None = None
        self._last_sign = 0.0  # of life: when the last image came, or else when the node began to listen
        self._bad_info = ''
        # Now: a mistake in them is told at the start, not when somebody listens.
        overridable(node, self._source.asked, _newest(settings.image_reliability), 'subscription')
        overridable(node, self._info_source.asked, _newest('best_effort'), 'subscription')

    @property
    def topic(self) -> str:
        """Of the images, resolved."""
        return self._source.topic

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names, in the order in which they are published."""
        return tuple(self._outputs)

    @property
    def output_topics(self) -> list[str]:
        """Resolved names."""
        return [output.topic_name for output in self._outputs.values()]

    def wanted(self) -> set[str]:
        """Names of the outputs that somebody listens to."""
        if not self._settings.enabled:
            return set()
        return {name for name, output in self._outputs.items() if output.get_subscription_count()}

    def follow_listeners(self) -> None:
        """Subscribe to the camera while somebody listens. To be called often: Humble's rclpy has no event for it."""
        wanted = self.wanted()
        if wanted and self._images is None:
            of = TRANSPORTS[self._settings.image_transport][0]
            callback = self._take if _TELLS_DELIVERY else lambda data: self._take(data, {})
            self._images = self._subscribe(of, self._source, callback, _newest(self._settings.image_reliability))
            self._number = None
            self._last_sign = time.monotonic()
            self.sight = Sight()
        elif not wanted and self._images is not None:
            self._node.destroy_subscription(self._images)
            self._images = None
            give_back_freed_memory()
        informed = bool(wanted & {'camera_info', 'drivable_grid'})
        if informed and self._infos is None:
            self._infos = self._subscribe(CameraInfo, self._info_source, self._take_info, _newest('best_effort'))
            self._infos_since = time.monotonic()
            self._bad_info = ''
        elif not informed and self._infos is not None:
            self._node.destroy_subscription(self._infos)
            self._infos = self._info = None

    def _advertise(self, of: type, topic: str) -> Publisher:
        # A profile of its own: an override changes it.
        quality = QoSProfile(history=HistoryPolicy.KEEP_LAST, depth=5, reliability=ReliabilityPolicy.RELIABLE)
        overrides = overridable(self._node, topic, quality, 'publisher')
        return self._node.create_publisher(of, topic, quality, qos_overriding_options=overrides)

    def _subscribe(self, of: type, source: Source, callback: Callable[..., None], quality: QoSProfile) -> Subscription:
        overrides = overridable(self._node, source.asked, quality, 'subscription')
        return self._node.create_subscription(
            of, source.asked, callback, quality, qos_overriding_options=overrides, raw=True
        )

    def _take(self, data: bytes, delivery: dict[str, int | None]) -> None:
        self._count_missed(delivery.get('publication_sequence_number'))
        if not self.wanted():
            return
        self._last_sign = time.monotonic()
        self.statistics.received += 1
        self._receive(Frame(self, data, self._last_sign, self._node.get_clock().now().nanoseconds / 1e9))

    def _count_missed(self, number: int | None) -> None:
        """Count the images between the last one and that of this number; None: the middleware gives none."""
        if number is None or self._node.count_publishers(self.topic) != 1:  # each counts its own
            self._number = None
            return
        between = 0 if self._number is None else number - self._number - 1
        self.statistics.missed = (self.statistics.missed or 0) + max(0, between)  # less: it has begun anew
        self._number = number

    def _take_info(self, data: bytes) -> None:
        self._info = data

    def decode(self, frame: Frame) -> tuple[Any, Any]:
        """Message of a frame, and a function that makes uint8 BGR ``[H, W, 3]`` of it or raises ImageError.

        Raises:
            ImageError: the bytes are no message.
        """
        try:
            message = decode(frame.data, self._type)
        except WireError as error:
            raise ImageError(str(error)) from error
        return message, lambda: self._to_bgr(message)

    def info(self, height: int, width: int) -> Any | None:
        """The newest ``sensor_msgs/CameraInfo``; None: none has come, or none that fits images of this size."""
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

    def publish_names(self, names: tuple[str, ...]) -> None:
        """Publish the names of the classes and the threshold, for all who listen now and later, if they are new.

        And once more when the clock goes: under ``use_sim_time`` it is 0 until somebody tells the time.
        """
        if self._labels is None:
            return
        now, threshold = self._node.get_clock().now(), self._settings.confidence_threshold
        news = names, threshold, now.nanoseconds > 0
        if news != self._told:
            self._told = news
            self._labels.publish(make_label_info(names, threshold, now.to_msg()))

    def complaint(self) -> str:
        """Why no image comes, or what the images and their CameraInfo lack; empty: nothing."""
        now = time.monotonic()
        patience = self._settings.stale_after
        if self._images is not None and now - self._last_sign > patience:
            reason = explain_silence(self._node, self._source, self._type, self._images.qos_profile)
            return f'no image on {self.topic} for {now - self._last_sign:.0f} s: {reason}'
        if self._infos is not None and self._bad_info:
            return f'{self._info_source.topic}: {self._bad_info}; nothing for camera_info and drivable_grid'
        if self._infos is not None and self._info is None and now - self._infos_since > patience:
            reason = explain_silence(self._node, self._info_source, CAMERA_INFO, self._infos.qos_profile)
            return f'nothing for camera_info and drivable_grid: no CameraInfo on {self._info_source.topic}: {reason}'
        seen = self.sight.complaint(now, patience) if self._images is not None else ''
        return f'{self.topic} shows {seen}' if seen else ''


def _newest(reliability: str) -> QoSProfile:
    """The middleware keeps the newest message, as the worker does."""
    return QoSProfile(history=HistoryPolicy.KEEP_LAST, depth=1, reliability=ReliabilityPolicy[reliability.upper()])
