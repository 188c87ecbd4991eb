# SPDX-License-Identifier: Apache-2.0
"""Segment one bag of many, record its options, and detect bags that an earlier run has finished.

``drives/north/a.bag``, found in ``drives``, is segmented to

    labelled/north/a.mcap           outputs; the file appears when it is complete
    labelled/north/a.mcap.json      record of input, model and options, by which the next run skips the bag
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from stdc_core.inference import DEFAULT_MODEL, ModelError, Segmenter
from stdc_core.inference.int8_file import file_for
from stdc_core.io.text import one_line
from stdc_ros.bags.message import BagError
from stdc_ros.bags.writer import check_target
from stdc_ros.offline.bag_points import PointOptions
from stdc_ros.offline.one_bag import segment_bag

#: Name of the folder for unfinished bags and of the lock, in the output folder.
_HIDDEN = '.segment_bag'

# Number of bags that an error lists.
_LISTED = 8


class Task(NamedTuple):
    """Bag to segment: its path, and the path of its outputs."""

    source: Path
    target: Path

    @property
    def record(self) -> Path:
        """Path of the record."""
        return self.target.with_name(f'{self.target.name}.json')


class Progress(NamedTuple):
    """Number of done images of a bag, and of all its images."""

    task: Task
    done: int
    total: int


class Done(NamedTuple):
    """A bag is finished; ``warnings`` are for the user."""

    task: Task
    images: int
    warnings: list[str]


class Failed(NamedTuple):
    """A bag could not be segmented."""

    task: Task
    reason: str


Event = Progress | Done | Failed


class SegmentOptions(NamedTuple):
    """Everything that the bytes of an output depend on, besides its input.

    Args:
        model: Path of a model.onnx; None for the shipped model of the machine that does the work.
        model_sha256: SHA-256 of the model file, or of the int8 file beside it for precision int8, so that every machine
            and every later run uses the same model.
        input_scale: See :meth:`Segmenter.load`.
        backend: Name of ``stdc_core.inference.BACKENDS``.
        topics: See :func:`stdc_ros.offline.one_bag.segment_bag`.
        all_topics: See the same function.
        outputs: See the same function.
        with_input: See the same function.
        points: See the same function.
        precision: See :meth:`Segmenter.load`.
    """

    model: Path | None
    model_sha256: str
    input_scale: float | None
    backend: str
    topics: tuple[str, ...]
    all_topics: bool
    outputs: tuple[str, ...]
    with_input: bool
    points: PointOptions = PointOptions()
    precision: str = 'auto'

    def load(self, threads: int) -> Segmenter:
        """Load the segmenter.

        Raises:
            ModelError: The file is not a model, or has another SHA-256.
            BackendError: See :meth:`Segmenter.load`.
            FileNotFoundError: The model does not exist.
        """
        path = self.model or DEFAULT_MODEL
        if (found := sha256(file_for(path, self.precision))) != self.model_sha256:
            raise ModelError(f'{path}: expected the model with SHA-256 {self.model_sha256[:12]}, found {found[:12]}')
        return Segmenter.load(path, threads, self.input_scale, self.backend, self.precision)

    @property
    def may_use_gpu(self) -> bool:
        """Whether the backend may compute on a GPU."""
        return self.backend in ('auto', 'tensorrt') and find_spec('tensorrt') is not None

    def to_record(self) -> dict[str, object]:
        """Return the options in the form of the record of a bag."""
        record = self._asdict() | {
            'model': (self.model or DEFAULT_MODEL).name,
            'topics': list(self.topics),
            'outputs': list(self.outputs),
        }
        # As JSON gives it back. Defaults are left out, as in the records of earlier releases.
        del record['points']
        if self.precision == 'auto':
            del record['precision']
        return record | ({'points': json.loads(json.dumps(self.points._asdict()))} if self.points.topics else {})


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal digits."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def pending_tasks(tasks: Sequence[Task], options: SegmentOptions, overwrite: bool = False) -> list[Task]:
    """Return the tasks to do: those without an output and, with ``overwrite``, those with an outdated one.

    Args:
        tasks: All tasks.
        options: Options of this run.
        overwrite: Whether outputs of other options or of a changed input are replaced.

    Raises:
        BagError: An output is outdated and ``overwrite`` is false, or it is not a bag.
    """
    rest, wrong = [], []
    for task in tasks:
        if not os.path.lexists(task.target):
            rest.append(task)
        elif problem := _difference(task, options):
            check_target(task.target, overwrite=True)
            rest.append(task)
            wrong.append(f'{task.target}: {problem}')
    if wrong and not overwrite:
        more = [f'and {len(wrong) - _LISTED} more'] if len(wrong) > _LISTED else []
        raise BagError('\n'.join([*wrong[:_LISTED], *more, '(--overwrite replaces; nothing is done yet)']))
    return rest


def _difference(task: Task, options: SegmentOptions) -> str:
    """Return why the existing output is outdated; '' if it is not."""
    try:
        record = json.loads(task.record.read_text())
        made, source, target = dict(record['options']), record['input'], record['output']
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return f'exists already, without a record {task.record.name} of how it was made'
    # The SHA-256 identifies the model; its name may change.
    for key, value in ({'points': None, 'precision': None} | options.to_record()).items():
        if key != 'model' and made.get(key) != value:
            return f'was made with {key} {one_line(made.get(key))}, expected {value}'
    if source != _state(task.source):
        return f'{task.source} has changed since it was made'
    return '' if target == {'bytes': task.target.stat().st_size} else 'has another size than when it was made'


def _state(bag: Path) -> dict[str, int]:
    """Return size in bytes and newest modification time in nanoseconds, by which a changed bag is detected."""
    return {'bytes': size_of(bag), 'modified_ns': max(path.stat().st_mtime_ns for path in _parts(bag))}


def size_of(bag: Path) -> int:
    """Return the size of a bag in bytes; 0 if it cannot be read, such as a broken link."""
    try:
        return sum(path.stat().st_size for path in _parts(bag))
    except OSError:
        return 0


def _parts(bag: Path) -> list[Path]:
    return list(bag.iterdir()) if bag.is_dir() else [bag]


@contextmanager
def working_folder(out: Path) -> Iterator[Path]:
    """Make a folder inside ``out`` for unfinished bags and lock ``out``. Leftovers of a killed run are removed.

    Raises:
        BagError: Another run is writing to ``out``.
    """
    out.mkdir(parents=True, exist_ok=True)
    folder, lock = out / _HIDDEN, out / f'{_HIDDEN}.lock'
    with lock.open('w') as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BagError(f'{out}: another segment_bag is writing to this folder') from None
        except OSError:
            pass  # network storage may not support locks
        if not os.fstat(file.fileno()).st_nlink:
            raise BagError(f'{out}: another segment_bag was writing to this folder until now; try again')
        try:
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            lock.unlink(missing_ok=True)


def segment_task(
    task: Task, options: SegmentOptions, work: Path, segmenter: Segmenter, progress: Callable[[Progress], None]
) -> Done | Failed:
    """Segment the bag of one task. Output and record appear together when both are complete.

    Args:
        task: Task to do.
        options: Options of the run.
        work: Folder of :func:`working_folder`.
        segmenter: Segmenter that ``options`` loads.
        progress: Function that is called after each image.
    """
    images = 0

    def count(done: int, total: int) -> None:
        nonlocal images
        images = done
        progress(Progress(task, done, total))

    made = work / f'{uuid.uuid4().hex}.mcap'
    try:
        source = _state(task.source)
        warnings = segment_bag(
            task.source,
            made,
            segmenter,
            topics=options.topics,
            all_topics=options.all_topics,
            outputs=options.outputs,
            with_input=options.with_input,
            points=options.points,
            progress=count,
        )
        record = {
            'input': source,
            'options': options.to_record(),
            'computed_by': segmenter.backend,
            'output': {'bytes': made.stat().st_size},
            'images': images,
            'warnings': warnings,
        }
        _deliver(task, made, record)
    except BagError as error:
        return Failed(task, str(error).replace(str(made), str(task.target)))
    except Exception as error:  # an error in any library must not stop the other bags
        return Failed(task, f'{task.source}: {type(error).__name__}: {one_line(error)}')
    return Done(task, images, warnings)


def _deliver(task: Task, made: Path, record: dict[str, object]) -> None:
    """Move a finished bag and its record to their places; raise BagError if that fails."""
    try:
        written = made.with_suffix('.json')
        written.write_text(json.dumps(record, indent=2) + '\n')
        task.target.parent.mkdir(parents=True, exist_ok=True)
        # In this order, a bag never has a wrong record, even if the process is killed in between.
        task.target.unlink(missing_ok=True)
        written.replace(task.record)
        made.replace(task.target)
    except OSError as error:
        raise BagError(f'{task.target}: cannot be written: {error.strerror}') from error
