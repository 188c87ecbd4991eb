# SPDX-License-Identifier: Apache-2.0
"""Process always the newest frames: in a thread, or by the caller if that is quick. Imports no ROS."""

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

#: Processing time in seconds below which a frame is not worth the handover to the thread.
QUICK = 0.02

#: Number of quick frames in a row after which the caller of :meth:`LatestFrameWorker.put` processes them.
QUICK_IN_A_ROW = 30

# Number of arrivals from which the next arrival of a source is predicted.
_REMEMBERED = 6


class LatestFrameWorker(Generic[Frame]):
    """Processes the newest frame of each source in a thread. A newer frame replaces the waiting one.

    A queue would add its length to the latency of every frame. Sources take turns, however much faster one of them is.
    If there is only one source and it is faster than the processing, a :data:`STALE` frame is skipped when the next one
    is due soon.

    As long as processing is :data:`QUICK`, :meth:`put` processes the frame itself. Its caller then takes no images that
    nobody would process; the middleware keeps the newest one. Several sources whose frames could form a batch always go
    through the thread.

    Args:
        process: Function that is called with the next frames, each from another source; never twice at a time.
        failed: Function that is called with these frames and an exception of ``process``. The work continues after it.
        batch: Largest number of frames in one call of ``process``.
        inline: Whether :meth:`put` may process quick frames itself. Forbid it if ``process`` waits for something that
            the thread of the caller receives.

    Attributes:
        dropped: Number of frames that were replaced before their turn came, by source.
        inline: Whether :meth:`put` may process quick frames, as in the arguments.
    """

    def __init__(
        self,
        process: Callable[[list[Frame]], None],
        failed: Callable[[list[Frame], Exception], None],
        batch: int = 1,
        inline: bool = True,
    ):
        self.dropped: Counter[Hashable] = Counter()
        self.inline = inline
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
        self._quick = 0  # number of quick calls in a row
        self._busy = False
        self._closed = False
        self._changed = threading.Condition()
        # A daemon thread, so that work that hangs does not keep the process alive after close() has given up.
        self._thread = threading.Thread(target=self._run, name='segmentation', daemon=True)
        self._thread.start()

    def put(self, source: Hashable, frame: Frame) -> None:
        """Process a frame, or hand it over without waiting. A waiting frame of this source is dropped and counted."""
        with self._changed:
            if self._closed:
                return
            self._remember(source)
            here = self._can_process_here()
            if here:
                self._busy = True
            else:
                self.dropped[source] += source in self._waiting
                self._waiting[source] = frame  # keeps the place of the frame that it replaces, and so its turn
                self._changed.notify_all()
        if here:
            self._work([frame])

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
            self._changed.notify_all()
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def _can_process_here(self) -> bool:
        alone = self._batch == 1 or len(self._arrivals) == 1
        return self.inline and alone and self._quick >= QUICK_IN_A_ROW and not self._busy and not self._waiting

    def _work(self, frames: list[Frame]) -> None:
        """Process frames. The caller has set ``_busy``, so that no other thread does."""
        begun = monotonic()
        try:
            self._process(frames)
        except Exception as error:
            self._failed(frames, error)
        finally:
            with self._changed:
                self._took = monotonic() - begun
                self._quick = self._quick + 1 if self._took < QUICK else 0
                self._busy = False
                if self._waiting or self._closed:
                    self._changed.notify_all()

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
                self._changed.wait_for(lambda: not self._busy and (self._waiting or self._closed))
                self._wait_for_a_fresher_one()
                if self._closed:
                    return
                frames = [self._waiting.pop(source) for source in list(self._waiting)[: self._batch]]
                self._busy = True
            self._work(frames)
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
