# SPDX-License-Identifier: Apache-2.0
"""Tasks on a Ray cluster: one bag each, on any of its machines.

Bags, the folder of outputs and a model of one's own must be on storage that every machine sees at the same path, and
stdc_ros must be installed on every machine.
"""

from __future__ import annotations

import os
import signal
import tempfile
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path

import cv2

from stdc_core.inference import Segmenter
from stdc_core.io.cpu import cores
from stdc_ros.bags.bag import BagError
from stdc_ros.offline.task import Done, Event, Failed, Recipe, Task, label


def run(tasks: Sequence[Task], recipe: Recipe, work: Path, address: str = 'auto', threads: int = 0) -> Iterator[Event]:
    """Do tasks; closing the generator ends them at once. There is no :class:`Progress`, as Ray passes on results only.

    Args:
        tasks: those that take long should come first.
        work: see :func:`stdc_ros.offline.task.working_folder`.
        address: of the cluster, ``HOST:PORT``; ``'auto'``: the one that this machine is part of; ``'local'``: one that
            is started on this machine and ends with the generator.
        threads: CPU cores that are asked of Ray for each task; 0: one. Where the cluster has GPUs and the backend may
            use them, a task gets one.

    Raises:
        BagError: Ray is not installed, or there is no such cluster.
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
    # Ray has put its own handler in its place.
    signal.signal(signal.SIGTERM, terminate)
    pending = {}
    try:
        gpus = 1 if recipe.takes_gpu and ray.cluster_resources().get('GPU') else 0
        remote = ray.remote(num_cpus=threads or 1, num_gpus=gpus)(_do)
        pending = {remote.remote(task, recipe, work, threads or 1): task for task in tasks}
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


def _do(task: Task, recipe: Recipe, work: Path, threads: int) -> Done | Failed:
    """What is done on a machine of the cluster, in a process that Ray uses for many tasks."""
    cv2.setNumThreads(threads)
    tempfile.tempdir = str(work)  # what is unpacked goes with it, whatever ends this process
    return label(task, recipe, work, _segmenter(recipe, threads), lambda progress: None)


@lru_cache(maxsize=1)
def _segmenter(recipe: Recipe, threads: int) -> Segmenter:
    return recipe.load(threads)
