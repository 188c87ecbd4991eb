# SPDX-License-Identifier: Apache-2.0
"""Segment bags on a Ray cluster, one bag per task, on any of its machines.

Bags, output folder and a model of your own must be on storage that every machine mounts at the same path, and stdc_ros
must be installed on every machine.
"""

from __future__ import annotations

import os
import signal
import tempfile
from collections.abc import Generator, Sequence
from functools import lru_cache
from pathlib import Path

import cv2

from stdc_core.inference import Segmenter
from stdc_core.io.cpu import cores
from stdc_ros.bags.message import BagError
from stdc_ros.offline.task import Done, Event, Failed, SegmentOptions, Task, segment_task


def run(
    tasks: Sequence[Task], options: SegmentOptions, work: Path, address: str = 'auto', threads: int = 0
) -> Generator[Event, None, None]:
    """Run tasks and yield their results; Ray reports no progress. Closing the generator ends the tasks at once.

    Args:
        tasks: Tasks, the longest first.
        options: Options of all tasks.
        work: Folder of :func:`stdc_ros.offline.task.working_folder`.
        address: Address of the cluster, ``HOST:PORT``; ``'auto'`` for the cluster of this machine; ``'local'`` to start
            one on this machine, which ends with the generator.
        threads: CPU cores that Ray reserves for each task; 0 for one. Where the cluster has GPUs and the backend may
            use them, each task gets one.

    Raises:
        BagError: Ray is not installed, or the cluster does not exist.
    """
    terminate = signal.getsignal(signal.SIGTERM)
    os.environ.setdefault('RAY_USAGE_STATS_ENABLED', '0')
    try:
        import ray
    except ImportError as error:
        raise BagError(f"--ray: Ray is not installed ({error}); pip install '.[ray]' in the repository") from error
    local = {'num_cpus': cores(), 'include_dashboard': False} if address == 'local' else {}
    try:
        ray.init(address, logging_level='ERROR', **local)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise BagError(f'--ray {address}: no such cluster: {error}') from error
    # Ray has replaced the handler.
    signal.signal(signal.SIGTERM, terminate)
    pending = {}
    try:
        gpus = 1 if options.may_use_gpu and ray.cluster_resources().get('GPU') else 0
        remote = ray.remote(num_cpus=threads or 1, num_gpus=gpus)(_do)
        pending = {remote.remote(task, options, work, threads or 1): task for task in tasks}
        while pending:
            ready, _ = ray.wait(list(pending))
            for reference in ready:
                task = pending.pop(reference)
                try:
                    yield ray.get(reference)
                except ray.exceptions.RayTaskError as error:
                    yield Failed(task, f'{task.source}: {error.cause}')
                except ray.exceptions.RayError as error:
                    yield Failed(task, f'{task.source}: {error}')
    finally:
        for reference in pending:
            ray.cancel(reference, force=True)
        ray.shutdown()


def _do(task: Task, options: SegmentOptions, work: Path, threads: int) -> Done | Failed:
    """Run one task on a machine of the cluster, in a process that Ray uses for many tasks."""
    cv2.setNumThreads(threads)
    tempfile.tempdir = str(work)  # decompressed files are removed with this folder, however the process ends
    return segment_task(task, options, work, _segmenter(options, threads), lambda progress: None)


@lru_cache(maxsize=1)
def _segmenter(options: SegmentOptions, threads: int) -> Segmenter:
    return options.load(threads)
