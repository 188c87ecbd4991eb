# SPDX-License-Identifier: Apache-2.0
"""Try every library, time first masks, and measure groups in turns."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Any, Protocol

from gpu_comparison.plan import LIBRARIES, Contender, Group
from gpu_comparison.process import WorkerError

#: Largest number of turns that each contender of a group gets.
TURNS = 10

#: Seconds after which a library that has not answered is named, and after which it is given up.
NAMED_AFTER, GIVEN_UP_AFTER = 50.0, 150.0

#: Longest time for one request, in seconds: a library that hangs must not cost the others their numbers.
REQUEST = 180.0


class Worker(Protocol):
    """The part of ``WorkerProcess`` that is used here."""

    def ask(self, do: str, seconds: float, contender: Contender | None = None, runs: int = 1) -> dict[str, Any]:
        """Ask for something. Raises WorkerError."""
        ...

    def close(self) -> None:
        """End the worker."""
        ...


class Comparison:
    """The workers, and what was found.

    Args:
        start: Function that starts the worker of a library.
        numbers: What is known already; everything that is found is added to it.
        until: Time on the monotonic clock at which the run ends.
        runs: Number of timed runs of each contender.
        keep: Function that is called whenever there are new numbers.

    Attributes:
        numbers: ``libraries``: device and versions by library. ``missing``: reason by library that does not run.
            ``rows``: what was measured. ``impossible`` and ``failed``: reason by contender.
    """

    def __init__(
        self,
        start: Callable[[str], Worker],
        numbers: dict[str, Any],
        until: float,
        runs: int,
        keep: Callable[[dict[str, Any]], None],
    ):
        self._start, self._until, self._runs, self._keep = start, until, runs, keep
        self.numbers = {**numbers, 'libraries': {}, 'missing': {}, 'rows': [], 'impossible': {}, 'failed': {}}
        self._workers: dict[str, Worker] = {}
        self._abouts: dict[Contender, dict[str, Any]] = {}

    def left(self) -> float:
        """Return the seconds that are left."""
        return self._until - time.monotonic()

    def probe(self) -> None:
        """Try every library at once, and print for each whether it runs, as soon as it is known."""
        start = time.monotonic()
        with ThreadPoolExecutor(len(LIBRARIES)) as pool:
            limit = min(GIVEN_UP_AFTER, max(self.left(), 0.0))
            pending = {pool.submit(self._probe_one, library, limit): library for library in LIBRARIES}
            named = False
            while pending:
                seconds = NAMED_AFTER - (time.monotonic() - start)
                done, _ = wait(pending, None if named else max(seconds, 0.0), return_when=FIRST_COMPLETED)
                for future in done:
                    self._note_probe(pending.pop(future), future)
                if not done:
                    named = True
                    print(f'no answer after {NAMED_AFTER:.0f} s, waiting: {", ".join(pending.values())}', flush=True)
        self._keep(self.numbers)

    def _probe_one(self, library: str, limit: float) -> tuple[Worker, dict[str, Any]]:
        worker = self._start(library)
        try:
            return worker, worker.ask('probe', limit)
        except Exception:
            worker.close()
            raise

    def _note_probe(self, library: str, future: Future) -> None:
        try:
            self._workers[library], self.numbers['libraries'][library] = future.result()
            found = self.numbers['libraries'][library]
            print(f'{library}: runs on {found["device"]}, {found["on"]}', flush=True)
        except (RuntimeError, OSError) as error:
            self.numbers['missing'][library] = str(error)
            print(f'{library}: does not run here: {error}', flush=True)

    def measure(self, group: Group) -> None:
        """Prepare the contenders of a group, time them in turns, and add their rows."""
        print(f'{group.title}: preparing', flush=True)
        ready = [each for each in group.contenders if each.library in self._workers and self._prepared(each)]
        rows = {each: self._abouts[each] | {'group': group.title, **each._asdict()} for each in ready}
        times: dict[Contender, dict[str, list[float]]] = {each: {} for each in ready}
        turns = min(TURNS, self._runs)
        for turn in range(turns):
            for each in ready if turn % 2 == 0 else reversed(ready):
                found = self._ask('time', each, self._runs // turns) if each in rows else None
                for name, values in (found or {}).items():
                    times[each].setdefault(name, []).extend(values)
                if found is None:
                    rows.pop(each, None)
        for each in list(rows):
            rows[each] |= {name: statistics.median(values) for name, values in times[each].items()}
            for wanted, do in ((group.masks, 'masks'), (group.details, 'details')):
                if wanted and each in rows:
                    found = self._ask(do, each, max(1, self._runs // TURNS))
                    rows[each] |= found or {}
            print(f'  {each.label}: {_text(rows[each])}', flush=True)
        for library in {each.library for each in ready} if self.left() > 0 else ():
            self._ask('release', Contender(library, '', ''), 1)
        self.numbers['rows'] += rows.values()
        self._keep(self.numbers)

    def _prepared(self, contender: Contender) -> bool:
        found = self._ask('prepare', contender)
        if found is not None:
            self._abouts[contender] = found
        return found is not None

    def _ask(self, do: str, contender: Contender, runs: int = 1) -> dict[str, Any] | None:
        """Return what a worker found, or None after noting the reason. A worker that ended is started again."""
        library = contender.library
        try:
            if self.left() <= 0:
                raise WorkerError('no time was left')
            return self._workers[library].ask(do, min(self.left(), REQUEST), contender, runs)
        except WorkerError as error:
            kind = 'impossible' if error.impossible else 'failed'
            self.numbers[kind].setdefault(contender.label if do != 'release' else f'{library}: release', str(error))
            print(f'  {contender.label}: {do}: {error}', flush=True)
            if error.ended and self.left() > 0:
                self._workers[library].close()
                self._workers[library] = self._start(library)
            return None

    def close(self) -> None:
        """End the workers."""
        for worker in self._workers.values():
            worker.close()


def _text(row: dict[str, Any]) -> str:
    shown = ('device_ms', 'host_ms', 'engine_s', 'equal')
    return ', '.join(f'{name} {row[name]:.3f}' for name in shown if row.get(name) is not None)
