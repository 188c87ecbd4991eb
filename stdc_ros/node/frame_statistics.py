# SPDX-License-Identifier: Apache-2.0
"""Count the frames of a camera and keep their latest latencies. Knows nothing of ROS."""

from __future__ import annotations

from collections import Counter, deque

import numpy as np

#: Number of frames whose latencies are kept: ten seconds of a 30 Hz camera.
WINDOW = 300

#: Seconds back over which the rate is taken.
RATE_WINDOW = 5.0

#: Seconds. A stamp further from now is from another clock (a bag replayed without /clock) and tells no latency.
PLAUSIBLE_LATENCY = 60.0

#: Stages of a frame in their order, and two sums: from its arrival, and from its stamp, to its published mask.
STAGES = ('transport', 'wait', 'convert', 'inference', 'publish', 'image to mask', 'stamp to mask')

#: Outcomes of a received frame. A frame without an outcome is still being processed.
OUTCOMES = ('segmented', 'dropped', 'too old', 'unwanted', 'bad', 'failed')

#: Parts that a segmented frame can lack.
LACKS = ('with a bad CameraInfo', 'without a grid')


class TroubleCounter:
    """Counts of frames or clouds by their outcome, with the latest reason of each trouble.

    Args:
        noun: Word for what is counted, in the plural.

    Attributes:
        counts: Number by outcome.
    """

    def __init__(self, noun: str) -> None:
        self.counts: Counter[str] = Counter()
        self._noun = noun
        self._reasons: dict[str, str] = {}
        self._reported: Counter[str] = Counter()

    def add_trouble(self, kind: str, reason: str) -> None:
        """Count a trouble, and keep the reason for the next report."""
        self.counts[kind] += 1
        self._reasons[kind] = reason

    def new_troubles(self) -> dict[str, str]:
        """Return the troubles since the last call: by kind, their number and the latest reason."""
        troubles = {}
        for kind, reason in self._reasons.copy().items():
            count = self.counts[kind]
            if count > self._reported[kind]:
                troubles[kind] = f'{count - self._reported[kind]} {self._counted(kind)} ({reason})'
            self._reported[kind] = count
        return troubles

    def _counted(self, kind: str) -> str:
        return f'{self._noun} {kind}'


class FrameStatistics(TroubleCounter):
    """Frames of one camera since the start, and the latencies of the latest ones.

    Attributes:
        received: Number of frames that the middleware handed over.
        missed: Number of frames that were lost on the way to the node, or replaced in the middleware by a newer frame,
            by the publisher's sequence numbers; None while the middleware has told no numbers.
        counts: Number of frames by each of :data:`OUTCOMES` and :data:`LACKS`. A frame lacks something if it needed a
            CameraInfo and the newest one was invalid or of another size, or if no grid could be computed.
    """

    def __init__(self) -> None:
        super().__init__('frames')
        self.received = 0
        self.missed: int | None = None
        self._latencies = {stage: deque[float](maxlen=WINDOW) for stage in STAGES}
        self._published = deque[float]()

    def add(self, now: float, **latencies: float) -> None:
        """Count a segmented frame.

        Args:
            now: Time of a steady clock, in seconds.
            latencies: Seconds by stage, with ``_`` for the space. Latencies that cannot be, as from the stamp of
                another clock, are left out.
        """
        self.counts['segmented'] += 1
        self._published.append(now)
        while now - self._published[0] >= RATE_WINDOW:
            self._published.popleft()
        for stage, seconds in latencies.items():
            if 0 <= seconds < PLAUSIBLE_LATENCY:
                self._latencies[stage.replace('_', ' ')].append(seconds)

    def rate(self, now: float) -> float:
        """Return the number of masks per second over the last :data:`RATE_WINDOW` seconds."""
        # A copy in one step: the worker thread appends meanwhile.
        return sum(now - time < RATE_WINDOW for time in self._published.copy()) / RATE_WINDOW

    def rows(self, now: float, percents: tuple[int, ...] = (50, 95, 99)) -> dict[str, str]:
        """Return rate, counts and percentiles of the latencies as the rows of a ``DiagnosticStatus``.

        Args:
            now: Time of the same clock as in :meth:`add`, in seconds.
            percents: Percentiles to compute of each stage.
        """
        rows = {'masks per second': f'{self.rate(now):.1f}', 'frames received': str(self.received)}
        rows['frames missed'] = 'unknown' if self.missed is None else str(self.missed)
        rows.update({self._counted(kind): str(self.counts[kind]) for kind in (*OUTCOMES, *LACKS)})
        for stage, latencies in self._latencies.items():
            milliseconds = np.array(latencies.copy()) * 1000
            for percent in percents:
                value = f'{np.percentile(milliseconds, percent):.1f}' if len(milliseconds) else 'none yet'
                rows[f'{stage} p{percent} (ms)'] = value
        return rows

    def _counted(self, kind: str) -> str:
        return 'bad images' if kind == 'bad' else super()._counted(kind)
