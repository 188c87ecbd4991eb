"""What the node tells of its own health: counts and latencies on ``/diagnostics``, and why no image comes."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

import numpy as np
from diagnostic_msgs.msg import DiagnosticStatus, KeyValue
from rclpy.node import Node
from rclpy.qos import ReliabilityPolicy

#: Latencies are those of so many frames back: ten seconds of a 30 Hz camera.
WINDOW = 300

#: Seconds. A stamp further from now is from another clock (a bag replayed without /clock) and says nothing of latency.
PLAUSIBLE_LATENCY = 60.0


def _window() -> deque[float]:
    return deque(maxlen=WINDOW)


@dataclass
class Statistics:
    """Frames since the start, and latencies in seconds.

    ``received`` counts what the middleware hands over: a frame that it replaces itself, when two come at once, is seen
    by nobody. Every received frame is segmented, bad, dropped for a newer one, or still at work.

    ``inference`` is the segmenter's call, ``in_node`` from the image's arrival to its published mask, ``end_to_end``
    from its stamp to its published mask.
    """

    received: int = 0
    segmented: int = 0
    bad: int = 0
    inference: deque[float] = field(default_factory=_window)
    in_node: deque[float] = field(default_factory=_window)
    end_to_end: deque[float] = field(default_factory=_window)

    def add(self, inference: float, in_node: float, end_to_end: float) -> None:
        """Count a segmented frame; all in seconds."""
        self.segmented += 1
        self.inference.append(inference)
        self.in_node.append(in_node)
        if 0 <= end_to_end < PLAUSIBLE_LATENCY:
            self.end_to_end.append(end_to_end)

    def values(self, dropped: int) -> list[KeyValue]:
        """The table of a ``DiagnosticStatus``."""
        rows = {
            'frames received': self.received,
            'frames segmented': self.segmented,
            'frames dropped': dropped,
            'bad images': self.bad,
        }
        for name, latencies in (
            ('inference', self.inference),
            ('image to mask', self.in_node),
            ('stamp to mask', self.end_to_end),
        ):
            # A copy in one step: the worker thread appends meanwhile.
            milliseconds = np.array(latencies.copy()) * 1000
            for percent in (50, 95):
                found = f'{np.percentile(milliseconds, percent):.1f}' if len(milliseconds) else 'none yet'
                rows[f'{name} p{percent} (ms)'] = found
        return [KeyValue(key=key, value=str(value)) for key, value in rows.items()]


def make_status(name: str, warning: str, values: list[KeyValue], **facts: str) -> DiagnosticStatus:
    """Status ``OK``, or ``WARN`` if there is something to warn of; ``facts`` are added to its values."""
    return DiagnosticStatus(
        level=DiagnosticStatus.WARN if warning else DiagnosticStatus.OK,
        name=name,
        message=warning or 'ok',
        values=values + [KeyValue(key=key, value=value) for key, value in facts.items()],
    )


def explain_silence(node: Node, topic: str, topic_type: str, reliable: bool) -> str:
    """Who publishes on a topic from which nothing is heard, and which of them cannot be heard.

    Args:
        topic: resolved name.
        topic_type: such as ``sensor_msgs/msg/Image``.
        reliable: whether the subscription asks for reliable delivery.
    """
    publishers = node.get_publishers_info_by_topic(topic)
    if not publishers:
        return 'nobody publishes it (remap image to your camera: --ros-args -r image:=/camera/image_raw)'
    told = []
    for publisher in publishers:
        name = f'{publisher.node_namespace.rstrip("/")}/{publisher.node_name}'
        if publisher.topic_type != topic_type:
            told.append(f'{name} publishes {publisher.topic_type}, expected {topic_type}')
        elif reliable and publisher.qos_profile.reliability == ReliabilityPolicy.BEST_EFFORT:
            told.append(f'{name} is best_effort, which image_reliability: reliable cannot receive')
        else:
            told.append(f'{name} is there but silent')
    return f'{len(publishers)} publisher{"s" if len(publishers) > 1 else ""}: ' + '; '.join(told)
