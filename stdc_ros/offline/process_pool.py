# SPDX-License-Identifier: Apache-2.0
"""Segment bags in parallel processes on this machine, one bag per process, in any order."""

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
    """A worker cannot load the model."""

    reason: str


def run(
    tasks: Sequence[Task], options: SegmentOptions, work: Path, workers: int = 0, threads: int = 0
) -> Generator[Event, None, None]:
    """Run tasks in parallel and yield their events. Closing the generator ends the workers at once.

    Args:
        tasks: Tasks, the longest first, so that all workers end at about the same time.
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
    """Return a value of ``CUDA_VISIBLE_DEVICES`` for each NVIDIA GPU that this process may use."""
    if (visible := os.environ.get('CUDA_VISIBLE_DEVICES')) is not None:
        return [name for name in visible.split(',') if name.strip()]
    return [str(index) for index, _ in enumerate(Path('/proc/driver/nvidia/gpus').glob('*'))]


class _Worker:
    """Worker process.

    Attributes:
        gpu: Value of its ``CUDA_VISIBLE_DEVICES``, or None.
        task: Current task, or None.
        ready: Whether it has loaded the model.
        pipe: Connection to the process.
        process: Process.
    """

    def __init__(self, options: SegmentOptions, work: Path, threads: int, gpu: str | None):
        self.gpu = gpu
        self.task: Task | None = None
        self.ready = False
        # Spawned and not forked, because CUDA and the threads of ONNX Runtime do not survive a fork. A spawned process
        # also holds no end of another worker's pipe, so it notices if this process dies.
        context = get_context('spawn')
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_work, args=(theirs, options, work, threads, gpu), daemon=True)
        # Ctrl-C reaches all processes of a terminal. Only this process handles it and ends the workers.
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            self.process.start()
        finally:
            signal.signal(signal.SIGINT, before)
        theirs.close()

    def give(self, task: Task) -> None:
        """Send a task to the process."""
        self.task = task
        with suppress(BrokenPipeError):  # the process has just died, which receive() reports
            self.pipe.send(task)

    def receive(self) -> Event | _Ready | _Unusable:
        """Return the next event of the process or, if it has died, the failure of its task.

        Raises:
            BagError: The process died while it loaded the model.
        """
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
    """Run a worker until it is killed or its parent process dies."""
    if gpu is not None:
        os.environ['CUDA_VISIBLE_DEVICES'] = gpu
    cv2.setNumThreads(threads)
    tempfile.tempdir = str(work)  # decompressed files are removed with this folder, however the process ends
    try:
        try:
            segmenter = options.load(threads)
        except (ModelError, BackendError, OSError) as error:
            pipe.send(_Unusable(str(error)))
            return
        pipe.send(_Ready())
        while True:
            # If the pipe breaks, segment_task returns a failure, and sending it raises the error again.
            pipe.send(segment_task(pipe.recv(), options, work, segmenter, pipe.send))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return
