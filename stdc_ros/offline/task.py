# SPDX-License-Identifier: Apache-2.0
"""One bag, one task: what it is made with, whether it is done already, and doing it.

Of ``drives/north/a.bag``, found in ``drives``, there will be

    labelled/north/a.mcap           the outputs; appears when it is complete
    labelled/north/a.mcap.json      its record: input, model and options, by which the next run knows that it is done
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
from stdc_core.io.text import one_line
from stdc_ros.bags.bag import BagError, check_target
from stdc_ros.offline.segment_bag import segment_bag

#: What a run keeps in the folder that it writes to: unfinished bags, and the lock.
_HIDDEN = '.segment_bag'

# How many of a long list an error names.
_NAMED = 8


class Task(NamedTuple):
    """One bag: where it is, and where its outputs go."""

    source: Path
    target: Path

    @property
    def record(self) -> Path:
        return self.target.with_name(f'{self.target.name}.json')


class Progress(NamedTuple):
    """So many images of a bag are done, of so many."""

    task: Task
    done: int
    total: int


class Done(NamedTuple):
    """A bag is finished; ``warnings``: what the user should be told of it."""

    task: Task
    images: int
    warnings: list[str]


class Failed(NamedTuple):
    """A bag could not be segmented, and why."""

    task: Task
    reason: str


Event = Progress | Done | Failed


class Recipe(NamedTuple):
    """All that the bytes of an output depend on, besides its input.

    Args:
        model: a model.onnx; None: the one that is shipped, of whichever machine it is needed on.
        model_sha256: of its file, so that no machine and no later run takes another.
        input_scale: see :meth:`Segmenter.load`.
        backend: of ``stdc_core.inference.BACKENDS``.
        topics, every, outputs: see :func:`stdc_ros.offline.segment_bag.segment_bag`.
    """

    model: Path | None
    model_sha256: str
    input_scale: float | None
    backend: str
    topics: tuple[str, ...]
    every: bool
    outputs: tuple[str, ...]

    def load(self, threads: int) -> Segmenter:
        """The segmenter of this recipe.

        Raises:
            ModelError, BackendError, FileNotFoundError: see :meth:`Segmenter.load`; or it is not the model that is
                meant.
        """
        path = self.model or DEFAULT_MODEL
        if (found := sha256(path)) != self.model_sha256:
            raise ModelError(f'{path}: expected the model with SHA-256 {self.model_sha256[:12]}, found {found[:12]}')
        return Segmenter.load(path, threads, self.input_scale, self.backend)

    @property
    def takes_gpu(self) -> bool:
        """May it compute on a GPU?"""
        return self.backend in ('auto', 'tensorrt') and find_spec('tensorrt') is not None

    def account(self) -> dict[str, object]:
        """What the record of a bag says of how it was made."""
        return self._asdict() | {
            'model': (self.model or DEFAULT_MODEL).name,
            'topics': list(self.topics),
            'outputs': list(self.outputs),
        }


def sha256(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal digits."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def unfinished(tasks: Sequence[Task], recipe: Recipe, overwrite: bool = False) -> list[Task]:
    """Those that are still to be done: without an output or, with ``overwrite``, with one that is made differently.

    Raises:
        BagError: there is an output that is made differently and not to be replaced, or that is not a bag.
    """
    rest, wrong = [], []
    for task in tasks:
        if not os.path.lexists(task.target):
            rest.append(task)
        elif problem := _difference(task, recipe):
            check_target(task.target, overwrite=True)
            rest.append(task)
            wrong.append(f'{task.target}: {problem}')
    if wrong and not overwrite:
        more = [f'and {len(wrong) - _NAMED} more'] if len(wrong) > _NAMED else []
        raise BagError('\n'.join([*wrong[:_NAMED], *more, '(--overwrite replaces; nothing is done yet)']))
    return rest


def _difference(task: Task, recipe: Recipe) -> str:
    """Why the output that is there is not the one that is wanted; '' if it is."""
    try:
        record = json.loads(task.record.read_text())
        made, source, target = dict(record['recipe']), record['input'], record['output']
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return f'exists already, without a record {task.record.name} of how it was made'
    # The hash says which model it is; its name may change.
    for key, value in recipe.account().items():
        if key != 'model' and made.get(key) != value:
            return f'was made with {key} {one_line(made.get(key))}, expected {value}'
    if source != _state(task.source):
        return f'{task.source} has changed since it was made'
    return '' if target == {'bytes': task.target.stat().st_size} else 'has another size than when it was made'


def _state(bag: Path) -> dict[str, int]:
    """By which a change of a bag is noticed: size in bytes, and the newest time of modification in nanoseconds."""
    return {'bytes': size_of(bag), 'modified_ns': max(path.stat().st_mtime_ns for path in _parts(bag))}


def size_of(bag: Path) -> int:
    """Size of a bag in bytes; 0 of one that is not there, such as a link into nothing."""
    try:
        return sum(path.stat().st_size for path in _parts(bag))
    except OSError:
        return 0


def _parts(bag: Path) -> list[Path]:
    return list(bag.iterdir()) if bag.is_dir() else [bag]


@contextmanager
def working_folder(out: Path) -> Iterator[Path]:
    """A folder inside ``out`` for unfinished bags, for one run at a time; what a killed run left in it is removed.

    Raises:
        BagError: another run is writing to ``out``.
    """
    out.mkdir(parents=True, exist_ok=True)
    folder, lock = out / _HIDDEN, out / f'{_HIDDEN}.lock'
    with lock.open('w') as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BagError(f'{out}: another segment_bag is writing to this folder') from None
        except OSError:
            pass  # network storage without locks
        if not os.fstat(file.fileno()).st_nlink:
            raise BagError(f'{out}: another segment_bag was writing to this folder until now; try again')
        try:
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            lock.unlink(missing_ok=True)


def label(
    task: Task, recipe: Recipe, work: Path, segmenter: Segmenter, progress: Callable[[Progress], None]
) -> Done | Failed:
    """Do one task: the bag and its record appear, or neither does.

    Args:
        work: see :func:`working_folder`.
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
            topics=recipe.topics,
            every=recipe.every,
            outputs=recipe.outputs,
            progress=count,
        )
        record = {
            'input': source,
            'recipe': recipe.account(),
            'computed_by': segmenter.backend,
            'output': {'bytes': made.stat().st_size},
            'images': images,
            'warnings': warnings,
        }
        _deliver(task, made, record)
    except BagError as error:
        return Failed(task, str(error).replace(str(made), str(task.target)))
    except Exception as error:  # whatever one bag does to a library, the others go on
        return Failed(task, f'{task.source}: {type(error).__name__}: {one_line(error)}')
    return Done(task, images, warnings)


def _deliver(task: Task, made: Path, record: dict[str, object]) -> None:
    """Put a finished bag and its record where they belong. Raises BagError if that cannot be done."""
    try:
        written = made.with_suffix('.json')
        written.write_text(json.dumps(record, indent=2) + '\n')
        task.target.parent.mkdir(parents=True, exist_ok=True)
        # In this order there is no bag with a wrong record, whenever the process is killed.
        task.target.unlink(missing_ok=True)
        written.replace(task.record)
        made.replace(task.target)
    except OSError as error:
        raise BagError(f'{task.target}: cannot be written: {error.strerror}') from error
