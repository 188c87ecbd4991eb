# SPDX-License-Identifier: Apache-2.0
"""Find bags in files and folders, and choose the output path of each."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from stdc_core.io.files import walk
from stdc_ros.bags.message import BagError
from stdc_ros.bags.reader import SUFFIXES
from stdc_ros.bags.truncated_bag import bag_name, storage_files
from stdc_ros.offline.task import Task


def find_bags(inputs: Sequence[Path], out: Path) -> list[Task]:
    """Return one task for each bag. Nothing is written.

    Args:
        inputs: Bags, and folders that are searched for bags at every depth. The outputs keep the sub-folders. A folder
            is a bag itself if it holds a metadata.yaml or the compressed files of a killed recorder.
        out: Folder for the outputs.

    Raises:
        BagError: An input is missing or holds no bag, two bags have the same output, or an output is an input.
    """
    if out.exists() and not out.is_dir():
        raise BagError(f'{out}: is a file, expected a folder to write to')
    tasks: dict[Path, Task] = {}
    for source, place in (pair for path in inputs for pair in _found(path, out)):
        task = Task(source.absolute(), out.absolute() / place.with_name(f'{place.name}.mcap'))
        other = tasks.setdefault(task.target, task)
        if other.source.resolve() != source.resolve():
            raise BagError(
                f'{other.source} and {task.source} would both be written to {task.target}; '
                'rename one, or give it another --out-dir'
            )
    sources = {task.source.resolve() for task in tasks.values()}
    for task in tasks.values():
        if task.target.resolve() in sources:
            raise BagError(f'{task.target}: would be read and written; choose another --out-dir')
    return list(tasks.values())


def _found(path: Path, out: Path) -> Iterator[tuple[Path, Path]]:
    """Yield the bags of an input, each with the path of its output relative to ``out``, without the suffix."""
    if not path.exists():
        raise BagError(f'{path}: no such bag or folder')
    if not path.is_dir():
        if path.suffix not in SUFFIXES:
            raise BagError(f'{path}: expected {", ".join(SUFFIXES)} or a folder')
        yield path, Path(path.stem)
        return
    if (path / 'metadata.yaml').is_file():
        yield path, Path(path.resolve().name)
        return
    if path.resolve() == out.resolve():
        raise BagError(f'{path}: would be read and written; choose another --out-dir')
    bags = []
    for here, subfolders, names in walk(path, 'segment_bag'):
        place = here.relative_to(path)
        # The compressed files of a killed recorder can only be read as a folder, together with the files beside them.
        files = [file for file in storage_files(here) if not file.name.startswith('.')]
        compressed = {bag_name(file) for file in files if file.suffix == '.zstd'}
        if compressed:
            bags.append((here, place if here != path else Path(path.resolve().name)))
        inner = {name for name in subfolders if os.path.isfile(here / name / 'metadata.yaml')}
        bags += [(here / name, place / name) for name in inner if not name.startswith('.')]
        bags += [
            (here / name, place / Path(name).stem)
            for name in names
            if Path(name).suffix in SUFFIXES and not name.startswith('.') and bag_name(Path(name)) not in compressed
        ]
        # Hidden folders and the outputs of an earlier run are not searched.
        subfolders[:] = [
            name
            for name in subfolders
            if name not in inner and not name.startswith('.') and (here / name).resolve() != out.resolve()
        ]
    if not bags:
        raise BagError(
            f'{path}: holds no bags ({", ".join(SUFFIXES)}, or folders with a metadata.yaml or with .mcap.zstd or '
            '.db3.zstd files)'
        )
    yield from sorted(bags)
