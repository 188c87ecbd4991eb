"""A thread that always works on the newest frame. Knows nothing of ROS."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

Frame = TypeVar('Frame')


class LatestFrameWorker(Generic[Frame]):
    """One thread, and one place for a frame to wait. A newer frame replaces the one that waits there.

    So the work never lags behind the camera by more than the frame in hand, however slow it is: a queue would only add
    its length to the latency of every frame.

    Args:
        process: called in the thread with one frame after another, newest first.
        failed: called in the thread with a frame and the exception that ``process`` raised on it. The thread goes on.

    Attributes:
        dropped: frames that were replaced before their turn came.
    """

    def __init__(self, process: Callable[[Frame], None], failed: Callable[[Frame, Exception], None]):
        self.dropped = 0
        self._process = process
        self._failed = failed
        self._waiting: list[Frame] = []  # one at most
        self._closed = False
        self._changed = threading.Condition()
        # A daemon: work that hangs must not keep the process alive after close() gave up on it.
        self._thread = threading.Thread(target=self._run, name='segmentation', daemon=True)
        self._thread.start()

    def put(self, frame: Frame) -> None:
        """Hand over a frame; never blocks on the work. A frame that still waits is dropped and counted."""
        with self._changed:
            if self._closed:
                return
            self.dropped += len(self._waiting)
            self._waiting[:] = [frame]
            self._changed.notify()

    def close(self, timeout: float) -> bool:
        """Forget the waiting frame, let the one in hand finish and end the thread.

        Args:
            timeout: seconds to wait for the frame in hand.

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
                if self._closed:
                    return
                frame = self._waiting.pop()
            try:
                self._process(frame)
            except Exception as error:
                self._failed(frame, error)
            # Else an image of some megabytes would stay in memory until the next one comes.
            del frame
