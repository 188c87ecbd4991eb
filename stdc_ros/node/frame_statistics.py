# SPDX-License-Identifier: Apache-2.0
"""Count the frames of a camera and keep their latest latencies. Imports no ROS."""

from __future__ import annotations

from collections import Counter, deque

import numpy as np

#: Number of frames whose latencies are kept: ten seconds of a 30 Hz camera.
WINDOW = 300

#: Seconds over which the rate is averaged.
RATE_WINDOW = 5.0

#: Largest plausible latency in seconds. A larger one means that the stamp is from another clock, such as that of a bag
#: replayed without /clock.
PLAUSIBLE_LATENCY = 60.0

#: Stages of a frame in order, and two sums: from arrival to published mask, and from stamp to published mask.
STAGES = ('transport', 'wait', 'convert', 'inference', 'publish', 'image to mask', 'stamp to mask')

#: Outcomes of a received frame. A frame without an outcome is still being processed.
OUTCOMES = ('segmented', 'dropped', 'too old', 'unwanted', 'bad', 'failed')

#: Outputs that a segmented frame can lack, by their reason.
LACKS = ('with a bad CameraInfo', 'without a grid')


class TroubleCounter:
    """Counts frames or clouds by their outcome, and keeps the latest reason of each trouble.

    Args:
        noun: Plural noun for what is counted, such as ``frames``.

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
        """Return number and latest reason of each kind of trouble since the last call."""
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
    """Counts the frames of one camera since the start, and keeps the latencies of the latest ones.

    Attributes:
        received: Number of frames that the middleware handed over.
        missed: Number of frames that the middleware lost or replaced by a newer one, by the publisher's sequence
            numbers; None without such numbers.
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
            latencies: Seconds by stage, with ``_`` for the space. Implausible values, as from the stamp of another
                clock, are left out.
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
        # Copied at once, because the worker thread appends meanwhile.
        return sum(now - time < RATE_WINDOW for time in self._published.copy()) / RATE_WINDOW

    def rows(self, now: float, percents: tuple[int, ...] = (50, 95, 99)) -> dict[str, str]:
        """Return rate, counts and percentiles of the latencies as the rows of a ``DiagnosticStatus``.

        Args:
            now: Time of the same clock as in :meth:`add`, in seconds.
            percents: Percentiles to compute for each stage.
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
