# SPDX-License-Identifier: Apache-2.0
"""Segment many bags, several at a time, and continue where an earlier run stopped (``segment_bag --out-dir``).

The bags are segmented in processes of this machine (:mod:`stdc_ros.offline.process_pool`) or on a Ray cluster
(:mod:`stdc_ros.offline.ray_pool`). The outputs do not depend on the place or the number of workers.
"""

from __future__ import annotations

import argparse
import functools
import sys
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from pathlib import Path

from tqdm import tqdm

from stdc_core.inference import DEFAULT_MODEL, ModelError
from stdc_core.inference.int8_file import fastest_precision, read_model_for
from stdc_core.io.signals import interrupted_status
from stdc_core.io.terminal import print_result
from stdc_ros.bags.message import BagError
from stdc_ros.offline import process_pool, ray_pool
from stdc_ros.offline.discovery import find_bags
from stdc_ros.offline.task import (
    Done,
    Event,
    Progress,
    SegmentOptions,
    Task,
    pending_tasks,
    sha256,
    size_of,
    working_folder,
)


def segment_many(given: argparse.Namespace) -> int:
    """Run the command with ``--out-dir``.

    Args:
        given: Options of :mod:`stdc_ros.offline.run_segment_bag`.

    Returns:
        Exit status: 0; 1 if a bag failed or the command could not start; that of ``interrupted_status``.
    """
    report = None
    try:
        precision = fastest_precision(given.model, given.backend, given.precision)
        used, _, _ = read_model_for(given.model, precision)
        options = SegmentOptions(
            model=None if given.model == DEFAULT_MODEL else given.model.absolute(),
            model_sha256=sha256(used),
            input_scale=given.input_scale,
            backend=given.backend,
            precision=precision,
            topics=tuple(given.topic),
            all_topics=given.all,
            outputs=tuple(given.outputs),
            with_input=given.with_input,
            points=given.point_options,
        )
        tasks = find_bags(given.bags, given.out_dir)
        with working_folder(given.out_dir) as work:
            pending = pending_tasks(tasks, options, given.overwrite)
            report = ProgressReport(pending, done_before=len(tasks) - len(pending))
            with closing(_events(given, pending, options, work)) as events:
                report.follow(events)
    except (BagError, ModelError, OSError) as error:
        print(f'segment_bag: {error}', file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        done = report.summary() if report else 'nothing is done'
        print(f'segment_bag: interrupted: {done}; the same command continues', file=sys.stderr)
        return interrupted_status()
    for reason in report.failed:
        print(f'segment_bag: {reason}', file=sys.stderr)
    print_result(lambda: print(f'{given.out_dir}: {report.summary()}'))
    return 1 if report.failed else 0


def _events(
    given: argparse.Namespace, tasks: list[Task], options: SegmentOptions, work: Path
) -> Generator[Event, None, None]:
    # Largest first. Otherwise one worker could be busy with it long after the others have finished.
    tasks = sorted(tasks, key=lambda task: size_of(task.source), reverse=True)
    if given.ray and tasks:
        return ray_pool.run(tasks, options, work.absolute(), given.ray, given.threads)
    return process_pool.run(tasks, options, work, given.workers or 0, given.threads)


class ProgressReport:
    """Shows progress on the terminal, with a summary at the end.

    Args:
        tasks: Tasks of this run.
        done_before: Number of bags done by earlier runs.

    Attributes:
        failed: Reason for each bag that could not be segmented.
    """

    def __init__(self, tasks: Sequence[Task], done_before: int):
        self.failed: list[str] = []
        self._before = done_before
        self._done = 0
        self._bytes = {task: size_of(task.source) for task in tasks}
        self._images: dict[Task, Progress] = {}

    def follow(self, events: Iterator[Event]) -> None:
        """Show events until there are no more."""
        if self._before:
            print(f'{self._before} of {self._before + len(self._bytes)} bags are done already', file=sys.stderr)
        with tqdm(unit='image', desc='segmenting', disable=not self._bytes, delay=0.1) as bar:
            for event in events:
                self._take(event, bar)
                bar.total = self._expected_images()
                bar.update(sum(progress.done for progress in self._images.values()) - bar.n)

    def _take(self, event: Event, bar: tqdm) -> None:
        if isinstance(event, Progress):
            self._images[event.task] = event
        elif isinstance(event, Done):
            self._done += 1
            self._images[event.task] = Progress(event.task, event.images, event.images)
            for warning in event.warnings:
                bar.write(f'segment_bag: {warning}', file=sys.stderr)
            line = f'{event.task.target}: {event.images} images'
            print_result(functools.partial(bar.write, line, file=sys.stdout))
        else:
            self.failed.append(event.reason)
            images = self._images.get(event.task, Progress(event.task, 0, 0)).done
            self._images[event.task] = Progress(event.task, images, images)
            bar.write(f'segment_bag: {event.task.source}: failed', file=sys.stderr)

    def _expected_images(self) -> int:
        """Return the number of images in all bags; those of unopened bags are estimated by their size."""
        known = sum(progress.total for progress in self._images.values())
        opened = sum(self._bytes[task] for task in self._images)
        return round(known * sum(self._bytes.values()) / opened) if opened else known

    def summary(self) -> str:
        """Return one line with the numbers of done and of failed bags."""
        total = self._before + len(self._bytes)
        failed = f', {len(self.failed)} failed' if self.failed else ''
        return f'{self._before + self._done} of {total} bags are done{failed}'
