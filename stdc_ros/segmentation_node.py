"""The ROS 2 node ``segmentation``: camera images in, masks out."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.clock import Clock, ClockType
from rclpy.exceptions import ParameterException
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.logging import get_logger
from rclpy.node import Node
from rclpy.qos import HistoryPolicy, QoSProfile, ReliabilityPolicy
from rclpy.signals import SignalHandlerOptions
from rclpy.subscription import Subscription
from rclpy.timer import Timer
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from stdc_core.inference import DEFAULT_MODEL, ModelError, Segmenter
from stdc_core.visualization import colorize, overlay
from stdc_ros import parameters
from stdc_ros.diagnostics import Statistics, explain_silence, make_status
from stdc_ros.images import image_to_bgr, make_image
from stdc_ros.worker import LatestFrameWorker

#: Topics below the node's name, labels before pictures: in this order they are published.
OUTPUTS = ('mask', 'confidence', 'color_mask', 'overlay')

#: Seconds.
LISTENER_PERIOD = 0.1
DIAGNOSTICS_PERIOD = 1.0
SILENCE = 3.0
LOG_PERIOD = 5.0
SHUTDOWN = 5.0


class ReceivedImage(NamedTuple):
    """An image message and when it came, in seconds of ``time.monotonic()``."""

    message: Image
    arrival: float


class SegmentationNode(Node):
    """Segments the newest image of its topic whenever somebody listens to a result.

    The executor only takes messages; a worker thread converts, segments and publishes.

    Raises:
        ParameterException: a parameter has the wrong type or is out of range.
        FileNotFoundError, ModelError: there is no such model, or it is none.
    """

    def __init__(self) -> None:
        super().__init__('segmentation')
        self._settings = parameters.declare(self)
        # Before the model is read: other nodes discover the topics meanwhile.
        results = QoSProfile(history=HistoryPolicy.KEEP_LAST, depth=5, reliability=ReliabilityPolicy.RELIABLE)
        self._outputs = {name: self.create_publisher(Image, f'~/{name}', results) for name in OUTPUTS}
        self._diagnostics = self.create_publisher(DiagnosticArray, '/diagnostics', 10)
        self._topic = self.resolve_topic_name('image')
        self._images: Subscription | None = None
        self._statistics = Statistics()
        self._last_sign = 0.0  # of life: when the last image came, or else when the node began to listen
        self._told_bad = 0

        model = self._settings.model or DEFAULT_MODEL
        self._segmenter = Segmenter.load(model, self._settings.threads, self._settings.input_scale or None)
        self._worker = LatestFrameWorker(self._segment, self._report_bad)
        self._create_steady_timer(LISTENER_PERIOD, self._follow_listeners)
        self._create_steady_timer(DIAGNOSTICS_PERIOD, self._diagnose)
        self.get_logger().info(
            f'{self._segmenter.info.name}, {len(self._segmenter.info.classes)} classes, on {self._segmenter.backend} '
            f'({model}): {self._topic} -> ' + ', '.join(output.topic_name for output in self._outputs.values())
        )

    def close(self) -> None:
        """End the worker thread, then the node: nothing is published by a node that is half gone."""
        self._worker.close(SHUTDOWN)
        self.destroy_node()

    def _create_steady_timer(self, period: float, callback: Callable[[], None]) -> Timer:
        # The node's own clock stands still under use_sim_time until somebody publishes /clock.
        return self.create_timer(period, callback, clock=Clock(clock_type=ClockType.STEADY_TIME))

    def _wanted(self) -> set[str]:
        return {name for name, output in self._outputs.items() if output.get_subscription_count()}

    def _follow_listeners(self) -> None:
        """Subscribe to the camera while somebody listens, and only then.

        Polled, because Humble's rclpy has no event for it.
        """
        wanted = bool(self._wanted())
        if wanted and self._images is None:
            # Depth 1: the middleware keeps the newest image, as the worker does.
            newest = QoSProfile(
                history=HistoryPolicy.KEEP_LAST,
                depth=1,
                reliability=ReliabilityPolicy[self._settings.image_reliability.upper()],
            )
            self._images = self.create_subscription(Image, 'image', self._receive, newest)
            self._last_sign = time.monotonic()
        elif not wanted and self._images is not None:
            self.destroy_subscription(self._images)
            self._images = None

    def _receive(self, message: Image) -> None:
        if not self._wanted():
            return
        self._last_sign = time.monotonic()
        self._statistics.received += 1
        self._worker.put(ReceivedImage(message, self._last_sign))

    def _segment(self, frame: ReceivedImage) -> None:
        wanted = self._wanted()
        header = frame.message.header
        image = image_to_bgr(frame.message)
        start = time.monotonic()
        mask, confidence = self._segmenter(image, confidence='confidence' in wanted)
        inference = time.monotonic() - start
        if 'mask' in wanted:
            self._publish('mask', header, mask, 'mono8')
        if 'confidence' in wanted:
            self._publish('confidence', header, confidence, 'mono8')
        stamp = header.stamp.sec + header.stamp.nanosec / 1e9
        end_to_end = self.get_clock().now().nanoseconds / 1e9 - stamp
        self._statistics.add(inference, time.monotonic() - frame.arrival, end_to_end)
        classes = self._segmenter.info.classes
        if 'color_mask' in wanted:
            self._publish('color_mask', header, colorize(mask, classes), 'bgr8')
        if 'overlay' in wanted:
            opacity = self._settings.overlay_opacity
            self._publish('overlay', header, overlay(image, mask, classes, opacity), 'bgr8')

    def _publish(self, output: str, header: Header, array: np.ndarray, encoding: str) -> None:
        self._outputs[output].publish(make_image(Image, header, array, encoding))

    def _report_bad(self, frame: ReceivedImage, error: Exception) -> None:
        self._statistics.bad += 1
        self.get_logger().warning(
            f'image on {self._topic} is left out: {error} ({self._statistics.bad} so far)',
            throttle_duration_sec=LOG_PERIOD,
        )

    def _diagnose(self) -> None:
        wanted = self._wanted()
        warning = ''
        silent = time.monotonic() - self._last_sign
        if self._images is not None and silent > SILENCE:
            reason = explain_silence(
                self, self._topic, 'sensor_msgs/msg/Image', self._settings.image_reliability == 'reliable'
            )
            warning = f'no image on {self._topic} for {silent:.0f} s: {reason}'
            self.get_logger().warning(warning, throttle_duration_sec=LOG_PERIOD)
        elif self._statistics.bad > self._told_bad:
            warning = f'{self._statistics.bad - self._told_bad} bad images on {self._topic} since the last report'
        self._told_bad = self._statistics.bad
        status = make_status(
            f'{self.get_fully_qualified_name()[1:]}: segmentation',
            warning,
            self._statistics.values(self._worker.dropped),
            model=self._segmenter.info.name,
            backend=self._segmenter.backend,
            outputs=', '.join(name for name in OUTPUTS if name in wanted) or 'none: nobody listens',
        )
        message = DiagnosticArray(status=[status])
        message.header.stamp = self.get_clock().now().to_msg()
        self._diagnostics.publish(message)


def main(args: list[str] | None = None) -> int:
    """Run the node until SIGINT or SIGTERM. Returns the exit status: 0, or 1 if it could not start."""
    # rclpy's own handlers shut the context down under the worker's feet, and a second Ctrl-C interrupts the clean-up.
    # A list, not an Event: that one has a lock, on which a second signal would wait for the first one's handler.
    signals: list[int] = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, _: signals.append(number))
    try:
        rclpy.init(args=args, signal_handler_options=SignalHandlerOptions.NO)
        node = SegmentationNode()
    except (OSError, ModelError, ParameterException, RuntimeError) as error:  # RuntimeError: rcl, on bad --ros-args
        get_logger('segmentation').fatal(' '.join(str(error).split()))
        rclpy.try_shutdown()
        return 1
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    try:
        while not signals:
            executor.spin_once()  # returns every LISTENER_PERIOD at least
    except ExternalShutdownException:
        pass
    finally:
        node.close()
        rclpy.try_shutdown()
    return 0


if __name__ == '__main__':
    sys.exit(main())
