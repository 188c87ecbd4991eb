# SPDX-License-Identifier: Apache-2.0
"""A thread that always works on the newest frames. Knows nothing of ROS."""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Callable, Hashable
from statistics import median
from time import monotonic
from typing import Generic, TypeVar

Frame = TypeVar('Frame')

#: Of the time from one frame to the next: one that has waited longer is passed over for the next one, which is near.
#: Of all shares a third makes what comes out freshest on average, if frames wait for times that are equally likely.
STALE = 1 / 3

#: Of the time that the work takes: so long the next frame is waited for, at most. That costs a quarter of the frames at
#: most; without a limit, work of 1.4 intervals would wait for 0.6 of one each time, and lose nearly a third.
WORTH = 1 / 3

# Frames whose distances tell when the next one is due.
_REMEMBERED = 6


class LatestFrameWorker(Generic[Frame]):
    """One thread, and for each source one place for a frame to wait. A newer frame replaces the one that waits there.

    So the work never lags behind a camera by more than the frames in hand, however slow it is: a queue would only add
    its length to the latency of every frame. Sources take turns, however much faster one of them is. Where there is one
    alone, and it is faster than the work, a frame that is :data:`STALE` is not begun with if the next one is near.

    Args:
        process: called in the thread with the frames whose turn it is, each of another source.
        failed: called in the thread with these frames and the exception that ``process`` raised. The thread goes on.
        batch: so many frames at once, at most.

    Attributes:
        dropped: by source, frames that were replaced before their turn came.
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
        # In the order of the turns: a source goes to the end when it has had its own.
        self._waiting: dict[Hashable, Frame] = {}
        # When the last frames came, in seconds of `monotonic`.
        self._arrivals: dict[Hashable, deque[float]] = {}
        self._took = 0.0  # the last work, in seconds
        self._closed = False
        self._changed = threading.Condition()
        # A daemon: work that hangs must not keep the process alive after close() gave up on it.
        self._thread = threading.Thread(target=self._run, name='segmentation', daemon=True)
        self._thread.start()

    def put(self, source: Hashable, frame: Frame) -> None:
        """Hand over a frame; never blocks on the work. The frame of its source that waits is dropped and counted."""
        with self._changed:
            if self._closed:
                return
            self.dropped[source] += source in self._waiting
            self._waiting[source] = frame  # in the place of the one before, if there is one: no turn is lost
            self._arrivals.setdefault(source, deque(maxlen=_REMEMBERED)).append(monotonic())
            self._changed.notify()

    def close(self, timeout: float) -> bool:
        """Forget the waiting frames, let those in hand finish and end the thread.

        Args:
            timeout: seconds to wait for the frames in hand.

        Returns:
            whether the thread has ended.
        """
        with self._changed:
            self._closed = True
            self._waiting.clear()
            self._changed.notify()
        self._thread.join(timeout)
        return not self._thread.is_alive()

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
            # Else images of some megabytes would stay in memory until the next ones come.
            del frames

    def _wait_for_a_fresher_one(self) -> None:
        if len(self._arrivals) != 1:  # among several sources the time is better spent on the next one
            return
        (arrivals,) = self._arrivals.values()
        if self._closed or len(arrivals) < _REMEMBERED:
            return
        last = arrivals[-1]
        interval = median(later - earlier for earlier, later in zip(arrivals, list(arrivals)[1:], strict=False))
        age = monotonic() - last
        due = interval - age
        # As much longer than that; a source that has ended sends none.
        patience = due + interval * STALE
        if self._took > interval and age > interval * STALE and due < self._took * WORTH and patience > 0:
            self._changed.wait_for(lambda: self._closed or arrivals[-1] > last, patience)
