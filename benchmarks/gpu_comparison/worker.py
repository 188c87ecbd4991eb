# SPDX-License-Identifier: Apache-2.0
"""Run one library in a process of its own: requests come and answers go as lines of JSON.

Each library has its own process, so that a crash costs no other library its numbers, and so that TensorRT may come from
another Python than PyTorch.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Protocol, TextIO

import numpy as np

from gpu_comparison.plan import ENGINES, LIBRARIES, ONNXRUNTIME, Contender
from gpu_comparison.workload import compare_masks, read_frames


class ImpossibleError(ValueError):
    """What this version of the library cannot do, which is not a failure."""


class Prepared(Protocol):
    """A contender that is ready to run."""

    about: dict[str, Any]

    def device_ms(self, runs: int) -> list[float]:
        """Return the milliseconds of each run from the image on the device to the mask there."""
        ...

    def host_ms(self, runs: int) -> list[float]:
        """Return the milliseconds of each run from the bytes of the image on the host to those of the mask."""
        ...

    def masks(self, images: np.ndarray) -> np.ndarray:
        """Segment images, uint8 ``[N, H, W, 3]``."""
        ...

    def details(self, runs: int) -> dict[str, float]:
        """Return other medians in milliseconds."""
        ...

    def close(self) -> None:
        """Give back the memory."""
        ...


class Runner(Protocol):
    """A library."""

    def probe(self) -> dict[str, str]:
        """Run a small network, and return ``device`` and ``on``. Raises an exception if the library does not run."""
        ...

    def prepare(self, contender: Contender) -> Prepared:
        """Make a contender ready. Raises ImpossibleError."""
        ...


def make_runner(library: str, work: Path, cpu: bool, tactics: tuple[str, ...]) -> Runner:
    """Return the runner of a library. Imports the library only when it is asked for something.

    Args:
        library: One of ``LIBRARIES``.
        work: Folder of models and frames.
        cpu: Whether to run on the CPU, in a dry run. Engines cannot.
        tactics: Names of TensorRT's ``TacticSource`` to choose from; empty leaves the choice to TensorRT.
    """
    if library in ENGINES:
        from gpu_comparison.engine_runner import EngineRunner

        return EngineRunner(library, work, tactics)
    if library == ONNXRUNTIME:
        from gpu_comparison.onnxruntime_runner import OnnxRuntimeRunner

        return OnnxRuntimeRunner(work, cpu)
    from gpu_comparison.pytorch_runner import PyTorchRunner

    return PyTorchRunner(work, 'cpu' if cpu else 'cuda')


class Worker:
    """Answers requests with the numbers of a library.

    Args:
        make: Function that makes the runner.
        work: Folder of models and frames.
    """

    def __init__(self, make: Callable[[], Runner], work: Path):
        self._make, self._work = make, work
        self._runner: Runner | None = None
        self._ready: dict[Contender, Prepared] = {}

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """Return ``found``; or ``impossible`` or ``error`` with the reason."""
        try:
            return {'found': self._do(**request)}
        except ImpossibleError as error:
            return {'impossible': str(error)}
        except Exception as error:  # any error of a library is a line of the report
            return {'error': ' '.join(f'{type(error).__name__}: {error}'.split())[:600]}

    def _do(self, do: str, contender: list | None = None, runs: int = 1) -> dict[str, Any]:
        if do == 'probe':
            self._runner = self._make()
            return self._runner.probe()
        if do == 'release':
            while self._ready:
                self._ready.popitem()[1].close()
            return {}
        if self._runner is None:
            self._runner = self._make()
        wanted = Contender(*contender or ())
        if do == 'prepare':
            self._ready[wanted] = self._runner.prepare(wanted)
            return self._ready[wanted].about
        if wanted not in self._ready:
            raise RuntimeError('its process ended and was started again')
        ready = self._ready[wanted]
        if do == 'time':
            return {'device_ms': ready.device_ms(runs), 'host_ms': ready.host_ms(runs)}
        if do == 'masks':
            return compare_masks(self._work, ready.masks(read_frames(self._work, wanted.model)))
        return ready.details(runs)


def serve(worker: Worker, requests: Iterable[str], answers: TextIO) -> None:
    """Answer each line until the requests end."""
    for line in requests:
        print(json.dumps(worker.answer(json.loads(line)), allow_nan=False), file=answers, flush=True)


def main() -> None:
    """Serve on standard input and output."""
    parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
    parser.add_argument('library', choices=LIBRARIES)
    parser.add_argument('--work', type=Path, required=True)
    parser.add_argument('--cpu', action='store_true')
    parser.add_argument('--tactics', default='')
    options = parser.parse_args()
    answers = os.fdopen(os.dup(1), 'w', encoding='utf-8')
    os.dup2(2, 1)  # what libraries print must not come between the answers
    tactics = tuple(filter(None, options.tactics.split(',')))
    worker = Worker(lambda: make_runner(options.library, options.work, options.cpu, tactics), options.work)
    serve(worker, sys.stdin, answers)


if __name__ == '__main__':
    main()
