# SPDX-License-Identifier: Apache-2.0
"""``segment_bag --out-dir labelled drives``: segments many bags, several at a time, and goes on where it was stopped.

The bags are segmented in processes of this machine (:mod:`stdc_ros.offline.process_pool`) or on a Ray cluster
(:mod:`stdc_ros.offline.ray_pool`). What is written depends neither on where, nor on how many at a time.
"""

from __future__ import annotations

import argparse
import functools
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

from tqdm import tqdm

from stdc_core.inference import DEFAULT_MODEL, ModelError
from stdc_core.inference.model_file import read_model
from stdc_ros.bags.bag import BagError
from stdc_ros.offline import process_pool as segment_processes
from stdc_ros.offline import ray_pool as segment_ray
from stdc_ros.offline.discovery import find_bags
from stdc_ros.offline.segment_bag import say
from stdc_ros.offline.task import (
    Done,
    Event,
    Progress,
    Recipe,
    Task,
    sha256,
    size_of,
    unfinished,
    working_folder,
)


def segment_many(given: argparse.Namespace) -> int:
    """The command with ``--out-dir``; the options are those of :mod:`stdc_ros.offline.segment_bag`.

    Returns:
        the exit status: 0; 1 if it could not be done, or not with every bag; 130 if it was interrupted.
    """
    account = None
    try:
        read_model(given.model)
        recipe = Recipe(
            model=None if given.model == DEFAULT_MODEL else given.model.absolute(),
            model_sha256=sha256(given.model),
            input_scale=given.input_scale,
            backend=given.backend,
            topics=tuple(given.topic),
            every=given.all,
            outputs=tuple(given.outputs),
        )
        tasks = find_bags(given.bags, given.out_dir)
        with working_folder(given.out_dir) as work:
            rest = unfinished(tasks, recipe, given.overwrite)
            account = Account(rest, done_before=len(tasks) - len(rest))
            with closing(_events(given, rest, recipe, work)) as events:
                account.follow(events)
    except (BagError, ModelError, OSError) as error:
        print(f'segment_bag: {error}', file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        done = account.summary() if account else 'nothing is done'
        print(f'segment_bag: interrupted: {done}; the same command goes on', file=sys.stderr)
        return 130
    for reason in account.failed:
        print(f'segment_bag: {reason}', file=sys.stderr)
    say(lambda: print(f'{given.out_dir}: {account.summary()}'))
    return 1 if account.failed else 0


def _events(given: argparse.Namespace, tasks: list[Task], recipe: Recipe, work: Path) -> Iterator[Event]:
    # The largest first: otherwise the last worker is busy with it long after the others have ended.
    tasks = sorted(tasks, key=lambda task: size_of(task.source), reverse=True)
    if given.ray and tasks:
        return segment_ray.run(tasks, recipe, work.absolute(), given.ray, given.threads)
    return segment_processes.run(tasks, recipe, work, given.workers or 0, given.threads)


class Account:
    """Tells of what happens, on the terminal and, in the end, in numbers.

    Args:
        tasks: what is to be done.
        done_before: how many were done already.

    Attributes:
        failed: a reason for each bag that could not be segmented.
    """

    def __init__(self, tasks: Sequence[Task], done_before: int):
        self.failed: list[str] = []
        self._before = done_before
        self._done = 0
        self._bytes = {task: size_of(task.source) for task in tasks}
        self._images: dict[Task, Progress] = {}

    def follow(self, events: Iterator[Event]) -> None:
        """Until there are no more."""
        if self._before:
            print(f'{self._before} of {self._before + len(self._bytes)} bags are done already', file=sys.stderr)
        with tqdm(unit='image', desc='segmenting', disable=not self._bytes, delay=0.1) as bar:
            for event in events:
                if isinstance(event, Progress):
                    self._images[event.task] = event
                elif isinstance(event, Done):
                    self._done += 1
                    self._images[event.task] = Progress(event.task, event.images, event.images)
                    for warning in event.warnings:
                        bar.write(f'segment_bag: {warning}', file=sys.stderr)
                    told = f'{event.task.target}: {event.images} images'
                    say(functools.partial(bar.write, told, file=sys.stdout))
                else:
                    self.failed.append(event.reason)
                    images = self._images.get(event.task, Progress(event.task, 0, 0)).done
                    self._images[event.task] = Progress(event.task, images, images)
                    bar.write(f'segment_bag: {event.task.source}: failed', file=sys.stderr)
                bar.total = self._expected_images()
                bar.update(sum(progress.done for progress in self._images.values()) - bar.n)

    def _expected_images(self) -> int:
        """Of all bags: of those not opened yet as many per byte as of the others."""
        known = sum(progress.total for progress in self._images.values())
        opened = sum(self._bytes[task] for task in self._images)
        return round(known * sum(self._bytes.values()) / opened) if opened else known

    def summary(self) -> str:
        total = self._before + len(self._bytes)
        failed = f', {len(self.failed)} failed' if self.failed else ''
        return f'{self._before + self._done} of {total} bags are done{failed}'
