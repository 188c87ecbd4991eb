# SPDX-License-Identifier: Apache-2.0
"""Run a thread that always processes the newest frames. Imports no ROS."""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Callable, Hashable
from statistics import median
from time import monotonic
from typing import Generic, TypeVar

Frame = TypeVar('Frame')

#: Fraction of the frame interval after which a waiting frame is stale and is skipped if the next one is due soon. If
#: all waiting times are equally likely, a third gives the freshest outputs on average.
STALE = 1 / 3

#: Longest wait for the next frame, as a fraction of the last processing time. It costs at most a quarter of the frames.
#: Without this limit, processing that takes 1.4 intervals would wait 0.6 intervals each time and lose nearly a third.
WORTH = 1 / 3

#: Number of frames in a row from other sources after which a silent source is forgotten: one second at 30 Hz.
FORGOTTEN = 30

# Number of arrivals from which the next arrival of a source is predicted.
_REMEMBERED = 6


class LatestFrameWorker(Generic[Frame]):
    """Processes the newest frame of each source in a thread. A newer frame replaces the waiting one.

    A queue would add its length to the latency of every frame. Sources take turns, however much faster one of them is.
    If there is only one source and it is faster than the processing, a :data:`STALE` frame is skipped when the next one
    is due soon.

    Args:
        process: Function that is called in the thread with the next frames, each from another source.
        failed: Function that is called in the thread with these frames and an exception of ``process``. The thread
            continues after it.
        batch: Largest number of frames in one call of ``process``.

    Attributes:
        dropped: Number of frames that were replaced before their turn came, by source.
    """

    def __init__(
        self,
        process: Callable[[list[Frame]], None],
        failed: Callable[[list[Frame], Exception], None],
        batch: int = 1,
    ):
        self.dropped: Counter[Hashable] = Counter()
        self._process = process
        self._failed = failed
        self._batch = batch
        # In the order of turns: a source goes to the end when its frame is taken.
        self._waiting: dict[Hashable, Frame] = {}
        # Latest arrival times by source, in seconds of `monotonic`.
        self._arrivals: dict[Hashable, deque[float]] = {}
        # Number of frames of other sources since the last frame of a source.
        self._silent: Counter[Hashable] = Counter()
        self._took = 0.0  # last processing time, in seconds
        self._closed = False
        self._changed = threading.Condition()
        # A daemon thread, so that work that hangs does not keep the process alive after close() has given up.
        self._thread = threading.Thread(target=self._run, name='segmentation', daemon=True)
        self._thread.start()

    def put(self, source: Hashable, frame: Frame) -> None:
        """Hand over a frame without waiting. A waiting frame of this source is dropped and counted."""
        with self._changed:
            if self._closed:
                return
            self.dropped[source] += source in self._waiting
            self._waiting[source] = frame  # keeps the place of the frame that it replaces, and so its turn
            self._remember(source)
            self._changed.notify()

    def close(self, timeout: float) -> bool:
        """Drop the waiting frames, let the current ones finish and end the thread.

        Args:
            timeout: Seconds to wait for the current frames.

        Returns:
            Whether the thread has ended. If not, ``process`` is still running.
        """
        with self._changed:
            self._closed = True
            self._waiting.clear()
            self._changed.notify()
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def _remember(self, source: Hashable) -> None:
        """Record the arrival of a frame, and forget sources that have been silent for long."""
        self._arrivals.setdefault(source, deque(maxlen=_REMEMBERED)).append(monotonic())
        self._silent[source] = 0
        for other in [other for other in self._arrivals if other != source]:
            self._silent[other] += 1
            if self._silent[other] >= FORGOTTEN:
                del self._arrivals[other], self._silent[other]

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._closed)
                self._wait_for_a_fresher_one()
                if self._closed:
                    return
                frames = [self._waiting.pop(source) for source in list(self._waiting)[: self._batch]]
            begun = monotonic()
            try:
                self._process(frames)
            except Exception as error:
                self._failed(frames, error)
            self._took = monotonic() - begun
            # Otherwise some megabytes of images stay in memory until the next ones arrive.
            del frames

    def _wait_for_a_fresher_one(self) -> None:
        if len(self._arrivals) != 1:  # with several sources, the frame of the next source is processed meanwhile
            return
        (arrivals,) = self._arrivals.values()
        if self._closed or len(arrivals) < _REMEMBERED:
            return
        last = arrivals[-1]
        interval = median(later - earlier for earlier, later in zip(arrivals, list(arrivals)[1:], strict=False))
        age = monotonic() - last
        due = interval - age
        # A little longer than until the next frame is due. Not forever: the source may have ended.
        patience = due + interval * STALE
        if self._took > interval and age > interval * STALE and due < self._took * WORTH and patience > 0:
            # A frame of another source ends the wait, too.
            self._changed.wait_for(lambda: self._closed or arrivals[-1] > last or len(self._waiting) > 1, patience)
