# SPDX-License-Identifier: Apache-2.0
"""Follow the build of an engine: which one is built, and what share of it is done."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

#: Called with the percentage that is done, or None where the library does not tell.
Progress = Callable[['int | None'], None]


class BuildState:
    """The engine that is being built, if any. Read by other threads than the one that builds."""

    def __init__(self) -> None:
        self._size: tuple[int, int] | None = None
        self._percent: int | None = None
        self._began = 0.0

    def begin(self, size: tuple[int, int]) -> None:
        """Note that the build for images of (height, width) begins."""
        self._percent, self._began, self._size = None, time.monotonic(), size

    def end(self) -> float:
        """Note that the build ended. Returns the seconds that it took."""
        self._size = None
        return time.monotonic() - self._began

    def advance(self, percent: int | None) -> bool:
        """Note the percentage that is done. Returns whether it is worth telling: every tenth is."""
        told = self._percent
        self._percent = percent
        return percent is None or told is None or percent // 10 > told // 10

    @property
    def activity(self) -> str:
        """Which engine is being built, and how much of it is done; empty while none is built."""
        size, percent = self._size, self._percent
        if size is None:
            return ''
        done = f'{percent} %' if percent is not None else f'{time.monotonic() - self._began:.0f} s so far'
        return f'building the engine for {size[1]}x{size[0]} images: {done}'


class PhaseShare:
    """The share of nested build phases that is done. Called from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._phases: dict[str, list[Any]] = {}  # parent, steps, steps done
        self._most = 0

    def start(self, name: str, parent: str | None, steps: int) -> None:
        """Note that a phase begins."""
        with self._lock:
            self._phases[name] = [parent, max(steps, 1), 0]

    def complete(self, name: str, step: int) -> int:
        """Note that a step of a phase is done. Returns the percentage of all phases, which never falls."""
        with self._lock:
            if name in self._phases:
                self._phases[name][2] = step + 1
            return self._percent()

    def finish(self, name: str) -> int:
        """Note that a phase is done, whose last steps may be left out. Returns the percentage of all phases."""
        with self._lock:
            if name in self._phases:
                parent, steps, _ = self._phases[name]
                self._phases[name][2] = steps
                percent = self._percent()
                if parent is not None:  # from now on counted as a step of its parent
                    del self._phases[name]
                return percent
            return self._percent()

    def _percent(self) -> int:
        tops = [name for name, (parent, _, _) in self._phases.items() if parent not in self._phases]
        if tops:
            # A phase at the top begins when the one before it is done, so the last one tells.
            self._most = max(self._most, int(100 * self._done(tops[-1])))
        return self._most

    def _done(self, name: str) -> float:
        _, steps, done = self._phases[name]
        inside = [self._done(child) for child, (parent, _, _) in self._phases.items() if parent == name]
        return min(1.0, (done + min(sum(inside), steps - done)) / steps)


def make_monitor(trt: Any, progress: Progress) -> Any:
    """Return a progress monitor for a builder configuration of the library.

    Args:
        trt: Library that has ``IProgressMonitor``.
        progress: Function that is called after each step.
    """

    class Monitor(trt.IProgressMonitor):
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self._share = PhaseShare()

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            self._share.start(phase_name, parent_phase, num_steps)

        def step_complete(self, phase_name: str, step: int) -> bool:
            progress(self._share.complete(phase_name, step))
            return True  # go on

        def phase_finish(self, phase_name: str) -> None:
            progress(self._share.finish(phase_name))

    return Monitor()
