# SPDX-License-Identifier: Apache-2.0
"""Segment bags in processes of this machine, one bag each, in any order."""

from __future__ import annotations

import os
import signal
import tempfile
from collections import deque
from collections.abc import Generator, Sequence
from contextlib import suppress
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import NamedTuple

import cv2

from stdc_core.inference import BackendError, ModelError
from stdc_core.io.cpu import cores
from stdc_ros.bags.message import BagError
from stdc_ros.offline.task import Done, Event, Failed, Progress, SegmentOptions, Task, segment_task


class _Ready(NamedTuple):
    """A worker has loaded the model."""


class _Unusable(NamedTuple):
    """A worker cannot load the model, for a reason."""

    reason: str


def run(
    tasks: Sequence[Task], options: SegmentOptions, work: Path, workers: int = 0, threads: int = 0
) -> Generator[Event, None, None]:
    """Do tasks, several at a time; closing the generator ends the workers at once.

    Args:
        tasks: Tasks. Those that take long should come first, so that all workers end at about the same time.
        options: Options of all tasks.
        work: Folder of :func:`stdc_ros.offline.task.working_folder`.
        workers: Number of processes; 0 for one per GPU or, without a GPU, one per core.
        threads: CPU threads of each process; 0 to share out the cores.

    Raises:
        ModelError: The model or its backend cannot be loaded.
        BagError: A worker died while it loaded the model.
    """
    gpus = visible_gpus() if options.may_use_gpu else []
    workers = min(workers or len(gpus) or cores(), len(tasks))
    threads = threads or max(1, cores() // max(1, workers))
    waiting = deque(tasks)
    pool: list[_Worker] = []
    try:
        for index in range(workers):
            pool.append(_Worker(options, work, threads, gpus[index % len(gpus)] if gpus else None))
        while pool:
            ready = wait([worker.pipe for worker in pool])
            for worker in [worker for worker in pool if worker.pipe in ready]:
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
                    pool.remove(worker)
                    if waiting:
                        pool.append(_Worker(options, work, threads, worker.gpu))
    finally:
        for worker in pool:
            worker.stop()


def visible_gpus() -> list[str]:
    """Return the value of ``CUDA_VISIBLE_DEVICES`` for each NVIDIA GPU that this process may use."""
    if (visible := os.environ.get('CUDA_VISIBLE_DEVICES')) is not None:
        return [name for name in visible.split(',') if name.strip()]
    return [str(index) for index, _ in enumerate(Path('/proc/driver/nvidia/gpus').glob('*'))]


class _Worker:
    """A worker process.

    Attributes:
        task: Task that it works on, or None.
        ready: Whether it has loaded the model.
    """

    def __init__(self, options: SegmentOptions, work: Path, threads: int, gpu: str | None):
        self.gpu = gpu
        self.task: Task | None = None
        self.ready = False
        # Not forked: neither CUDA nor the threads of ONNX Runtime survive that. Nor does a spawned process hold an end
        # of another's pipe, so that it notices when this process dies, in whatever way.
        context = get_context('spawn')
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_work, args=(theirs, options, work, threads, gpu), daemon=True)
        # Ctrl-C reaches all processes of a terminal; ending the workers is up to this one.
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            self.process.start()
        finally:
            signal.signal(signal.SIGINT, before)
        theirs.close()

    def give(self, task: Task) -> None:
        """Send a task to the process."""
        self.task = task
        with suppress(BrokenPipeError):  # it has just died, which :meth:`receive` finds out
            self.pipe.send(task)

    def receive(self) -> Event | _Ready | _Unusable:
        """Return its next event or, if it has died, the failure of its task."""
        try:
            event = self.pipe.recv()
        except (EOFError, ConnectionResetError):
            self.process.join()
            code = self.process.exitcode
            how = f'ended with exit status {code}'
            if code is not None and code < 0:
                how = f'was killed by {signal.Signals(-code).name}'
            if self.task is None or not self.ready:
                raise BagError(f'a worker {how} while it loaded the model') from None
            event = Failed(
                self.task,
                f'{self.task.source}: its worker {how}; too little memory? try fewer --workers',
            )
        self.ready = True
        if not isinstance(event, Progress):
            self.task = None
        return event

    def stop(self) -> None:
        """Kill the process."""
        self.process.kill()
        self.process.join()
        self.pipe.close()


def _work(pipe: Connection, options: SegmentOptions, work: Path, threads: int, gpu: str | None) -> None:
    """Run a worker until it is killed or the process that started it has died."""
    if gpu is not None:
        os.environ['CUDA_VISIBLE_DEVICES'] = gpu
    cv2.setNumThreads(threads)
    tempfile.tempdir = str(work)  # unpacked files are removed with it, whatever ends this process
    try:
        try:
            segmenter = options.load(threads)
        except (ModelError, BackendError, OSError) as error:
            pipe.send(_Unusable(str(error)))
            return
        pipe.send(_Ready())
        while True:
            # If the pipe breaks, segment_task returns a failure, and sending that raises the error again.
            pipe.send(segment_task(pipe.recv(), options, work, segmenter, pipe.send))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return
