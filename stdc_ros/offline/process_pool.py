# SPDX-License-Identifier: Apache-2.0
"""Tasks in processes of this machine: one bag each, in any order."""

from __future__ import annotations

import os
import signal
import tempfile
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import NamedTuple

import cv2

from stdc_core.inference import BackendError, ModelError
from stdc_core.io.cpu import cores
from stdc_ros.bags.bag import BagError
from stdc_ros.offline.task import Done, Event, Failed, Progress, Recipe, Task, label


class _Ready(NamedTuple):
    """A worker has loaded the model."""


class _Unusable(NamedTuple):
    """A worker cannot load the model, and why."""

    reason: str


def run(tasks: Sequence[Task], recipe: Recipe, work: Path, workers: int = 0, threads: int = 0) -> Iterator[Event]:
    """Do tasks, several at a time; closing the generator ends the workers at once.

    Args:
        tasks: those that take long should come first, so that all workers end at about the same time.
        work: see :func:`stdc_ros.offline.task.working_folder`.
        workers: processes; 0: one per GPU or, where none is used, per core.
        threads: CPU threads of each; 0: the cores, shared out.

    Raises:
        ModelError: the model cannot be loaded, or its backend not be had.
        BagError: a worker died while it loaded the model.
    """
    gpus = visible_gpus() if recipe.takes_gpu else []
    workers = min(workers or len(gpus) or cores(), len(tasks))
    threads = threads or max(1, cores() // max(1, workers))
    waiting = deque(tasks)
    crew: list[_Worker] = []
    try:
        for index in range(workers):
            crew.append(_Worker(recipe, work, threads, gpus[index % len(gpus)] if gpus else None))
        while crew:
            heard = wait([worker.pipe for worker in crew])
            for worker in [worker for worker in crew if worker.pipe in heard]:
                event = worker.receive()
                if isinstance(event, _Unusable):
                    raise ModelError(event.reason)
                if isinstance(event, (Progress, Done, Failed)):
                    yield event
                if worker.task is None:
                    if waiting and worker.process.is_alive():
                        worker.give(waiting.popleft())
                        continue
                    worker.stop()
                    crew.remove(worker)
                    if waiting:
                        crew.append(_Worker(recipe, work, threads, worker.gpu))
    finally:
        for worker in crew:
            worker.stop()


def visible_gpus() -> list[str]:
    """What ``CUDA_VISIBLE_DEVICES`` is to be for each NVIDIA GPU that this process may use."""
    if (visible := os.environ.get('CUDA_VISIBLE_DEVICES')) is not None:
        return [name for name in visible.split(',') if name.strip()]
    return [str(index) for index, _ in enumerate(Path('/proc/driver/nvidia/gpus').glob('*'))]


class _Worker:
    """A process and what it is doing: ``task``, None while it has none; ``ready`` when it has loaded the model."""

    def __init__(self, recipe: Recipe, work: Path, threads: int, gpu: str | None):
        self.gpu = gpu
        self.task: Task | None = None
        self.ready = False
        # Not forked: neither CUDA nor the threads of ONNX Runtime survive that. Nor does a spawned process hold an end
        # of another's pipe, so that it notices when this process dies, in whatever way.
        context = get_context('spawn')
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_work, args=(theirs, recipe, work, threads, gpu), daemon=True)
        # Ctrl-C reaches all processes of a terminal; ending the workers is up to this one.
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            self.process.start()
        finally:
            signal.signal(signal.SIGINT, before)
        theirs.close()

    def give(self, task: Task) -> None:
        self.task = task
        with suppress(BrokenPipeError):  # it has just died, which :meth:`receive` finds out
            self.pipe.send(task)

    def receive(self) -> Event | _Ready | _Unusable:
        """What it says or, if it has died, that its task failed."""
        try:
            event = self.pipe.recv()
        except (EOFError, ConnectionResetError):
            self.process.join()
            code = self.process.exitcode
            how = f'was killed by {signal.Signals(-code).name}' if code < 0 else f'ended with exit status {code}'
            if not self.ready:
                raise BagError(f'a worker {how} while it loaded the model') from None
            event = Failed(self.task, f'{self.task.source}: its worker {how}; too little memory for so many?')
        self.ready = True
        if not isinstance(event, Progress):
            self.task = None
        return event

    def stop(self) -> None:
        """End it, whatever it is doing."""
        self.process.kill()
        self.process.join()
        self.pipe.close()


def _work(pipe: Connection, recipe: Recipe, work: Path, threads: int, gpu: str | None) -> None:
    """What a worker does until it is ended, or until the process that started it has died."""
    if gpu is not None:
        os.environ['CUDA_VISIBLE_DEVICES'] = gpu
    cv2.setNumThreads(threads)
    tempfile.tempdir = str(work)  # what is unpacked goes with it, whatever ends this process
    try:
        try:
            segmenter = recipe.load(threads)
        except (ModelError, BackendError, OSError) as error:
            pipe.send(_Unusable(str(error)))
            return
        pipe.send(_Ready())
        while True:
            # Of a pipe that is broken, `label` makes a failure, the message of which meets the broken pipe again.
            pipe.send(label(pipe.recv(), recipe, work, segmenter, pipe.send))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return
