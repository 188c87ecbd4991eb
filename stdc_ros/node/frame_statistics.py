# SPDX-License-Identifier: Apache-2.0
"""What the node tells of its own health: counts, rates and latencies, and why no image comes."""

from __future__ import annotations

from collections import Counter, deque

import numpy as np
from diagnostic_msgs.msg import DiagnosticStatus, KeyValue
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy

from stdc_ros.messages.cdr import CAMERA_INFO, COMPRESSED_IMAGE, IMAGE
from stdc_ros.node.topics import COMPRESSED, Source

#: Latencies are those of so many frames back: ten seconds of a 30 Hz camera.
WINDOW = 300

#: Seconds back over which the rate is taken.
RATE_WINDOW = 5.0

#: Seconds. A stamp further from now is from another clock (a bag replayed without /clock) and says nothing of latency.
PLAUSIBLE_LATENCY = 60.0

#: What a frame goes through, in this order, and two sums: from its arrival, and from its stamp, to its published mask.
STAGES = ('transport', 'wait', 'convert', 'inference', 'publish', 'image to mask', 'stamp to mask')

#: What becomes of a received frame. One that is none of these is still at work.
FATES = ('segmented', 'dropped', 'too old', 'unwanted', 'bad', 'failed')

#: What a segmented frame may lack.
LACKS = ('with a bad CameraInfo', 'without a grid')

#: The parameter image_transport, by the type of message that it stands for.
TRANSPORT_OF = {IMAGE: 'raw', COMPRESSED_IMAGE: 'compressed'}

#: Topics as camera drivers name them, by type.
EXAMPLES = {
    IMAGE: '/camera/image_raw',
    COMPRESSED_IMAGE: f'/camera/image_raw{COMPRESSED}',
    CAMERA_INFO: '/camera/camera_info',
}


class Statistics:
    """Frames of one camera since the start, and the latencies of the last ones.

    ``received`` counts what the middleware hands over, ``missed`` what was lost on the way to it or replaced there by a
    newer frame, as the publisher's numbers tell; None: the middleware gives no numbers, or no frame has come.
    ``counts`` are those of :data:`FATES` and :data:`LACKS`: segmented frames that needed a CameraInfo and whose newest
    one was none, or of images of another size, and those of which no grid could be made.
    """

    def __init__(self) -> None:
        self.received = 0
        self.missed: int | None = None
        self.counts: Counter[str] = Counter()
        self._reasons: dict[str, str] = {}
        self._told: Counter[str] = Counter()
        self._latencies = {stage: deque[float](maxlen=WINDOW) for stage in STAGES}
        self._published = deque[float]()

    def add(self, now: float, **latencies: float) -> None:
        """Count a segmented frame.

        Args:
            now: seconds of a steady clock.
            latencies: seconds by stage, with ``_`` for the space; those from a stamp are left out where it is from
                another clock.
        """
        self.counts['segmented'] += 1
        self._published.append(now)
        while now - self._published[0] >= RATE_WINDOW:
            self._published.popleft()
        for stage, seconds in latencies.items():
            if 0 <= seconds < PLAUSIBLE_LATENCY:
                self._latencies[stage.replace('_', ' ')].append(seconds)

    def add_trouble(self, kind: str, reason: str) -> None:
        """Count a frame that comes to less than it should, by one of :data:`FATES` or :data:`LACKS`, and keep why."""
        self.counts[kind] += 1
        self._reasons[kind] = reason

    def new_trouble(self) -> str:
        """How many such frames there were since this was asked last, and why the last ones; empty: none."""
        told = []
        for kind, reason in self._reasons.copy().items():
            count = self.counts[kind]
            if count > self._told[kind]:
                told.append(f'{count - self._told[kind]} {_counted(kind)} ({reason})')
            self._told[kind] = count
        return f'since the last report {", ".join(told)}' if told else ''

    def rate(self, now: float) -> float:
        """Masks per second of late."""
        # A copy in one step: the worker thread appends meanwhile.
        return sum(now - time < RATE_WINDOW for time in self._published.copy()) / RATE_WINDOW

    def values(self, now: float, percents: tuple[int, ...] = (50, 95, 99)) -> list[KeyValue]:
        """The table of a ``DiagnosticStatus``."""
        rows = {'masks per second': f'{self.rate(now):.1f}', 'frames received': self.received}
        rows['frames missed'] = 'unknown' if self.missed is None else self.missed
        rows.update({_counted(kind): self.counts[kind] for kind in (*FATES, *LACKS)})
        for stage, latencies in self._latencies.items():
            milliseconds = np.array(latencies.copy()) * 1000
            for percent in percents:
                found = f'{np.percentile(milliseconds, percent):.1f}' if len(milliseconds) else 'none yet'
                rows[f'{stage} p{percent} (ms)'] = found
        return [KeyValue(key=key, value=str(value)) for key, value in rows.items()]


def _counted(kind: str) -> str:
    return 'bad images' if kind == 'bad' else f'frames {kind}'


def make_status(name: str, warning: str, values: list[KeyValue], **facts: str) -> DiagnosticStatus:
    """Status ``OK``, or ``WARN`` if there is something to warn of; ``facts`` are added to its values."""
    return DiagnosticStatus(
        level=DiagnosticStatus.WARN if warning else DiagnosticStatus.OK,
        name=name,
        message=warning or 'ok',
        values=values + [KeyValue(key=key, value=value) for key, value in facts.items()],
    )


def explain_silence(node: Node, source: Source, topic_type: str, quality: QoSProfile) -> str:
    """Who publishes on a topic from which nothing is heard, and which of them cannot be heard.

    Args:
        node: that subscribes to it.
        source: the topic.
        topic_type: such as ``sensor_msgs/msg/Image``.
        quality: of the subscription.
    """
    publishers = node.get_publishers_info_by_topic(source.asked)
    if not publishers:
        return f'nobody publishes it{_where_else(node, source, topic_type)}'
    told = []
    for publisher in publishers:
        name = f'{publisher.node_namespace.rstrip("/")}/{publisher.node_name}'
        offered = publisher.qos_profile
        if publisher.topic_type != topic_type:
            transport = TRANSPORT_OF.get(publisher.topic_type)
            remedy = f' (set image_transport to {transport})' if transport and topic_type in TRANSPORT_OF else ''
            told.append(f'{name} publishes {publisher.topic_type}, expected {topic_type}{remedy}')
        elif quality.reliability == ReliabilityPolicy.RELIABLE and offered.reliability == ReliabilityPolicy.BEST_EFFORT:
            told.append(f'{name} is best_effort, which a reliable subscription cannot receive')
        elif quality.durability == DurabilityPolicy.TRANSIENT_LOCAL and offered.durability == DurabilityPolicy.VOLATILE:
            told.append(f'{name} is volatile, which a transient_local subscription cannot receive')
        else:
            told.append(f'{name} is there but silent')
    return f'{len(publishers)} publisher{"s" if len(publishers) > 1 else ""}: ' + '; '.join(told)


def _where_else(node: Node, source: Source, topic_type: str) -> str:
    """What to do about a topic that nobody publishes; empty: nothing that the node knows of."""
    if topic_type in TRANSPORT_OF:
        bare = source.topic.removesuffix(COMPRESSED)
        other, transport = (bare + COMPRESSED, 'compressed') if topic_type == IMAGE else (bare, 'raw')
        if other != source.topic and node.count_publishers(other):
            return f', but {other} is there (set image_transport to {transport})'
    if source.topic != node.resolve_topic_name(source.name, only_expand=True):  # it is remapped already
        return ''
    return f' (remap {source.name} to your camera: --ros-args -r {source.name}:={EXAMPLES[topic_type]})'
