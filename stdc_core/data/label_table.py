# SPDX-License-Identifier: Apache-2.0
"""Label tables: what the ids in the label images of a dataset mean in the classes of a network."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stdc_core.classes import IGNORE, ClassTable
from stdc_core.io.text import one_line

#: Name of the file in a dataset's folder.
LABEL_TABLE = 'labels.yaml'


@dataclass(frozen=True)
class LabelTable:
    """Say which classes each id of a dataset may mean.

    Args:
        path: File that the table was read from, named in errors.
        names: Name of each id.
        classes: Names of the classes that each id may mean. One: the id is that class. Several: the pixel is of one of
            them. None at all: the pixel does not count, like 255.
        folder: Folder of the label images beside ``images/``.
    """

    path: Path
    names: dict[int, str]
    classes: dict[int, tuple[str, ...]]
    folder: str = 'labels'

    @classmethod
    def from_yaml(cls, path: Path) -> LabelTable:
        """Read a table.

        ::

            folder: groups                      # labels/ if it is left out
            labels:
              - {id: 0, name: drivable, classes: [road]}
              - {id: 1, name: living, classes: [pedestrian, bicyclist]}
              - {id: 2, name: sky}              # the class of that name
              - {id: 3, name: other, classes: []}

        Raises:
            ValueError: The file is not such a table; the message names the entry.
        """
        from stdc_core.io.yaml_file import read_yaml

        content = read_yaml(path)
        if not isinstance(content, dict) or not {'labels'} <= set(content) <= {'labels', 'folder'}:
            found = f'the keys {one_line(list(content))}' if isinstance(content, dict) else type(content).__name__
            raise ValueError(f'{path}: expected "labels: [{{id: 0, name: ..., classes: [...]}}, ...]", found {found}')
        folder, entries = content.get('folder', 'labels'), content['labels']
        if not isinstance(folder, str) or Path(folder).name != folder:
            raise ValueError(
                f'{path}: folder: expected the name of a folder beside images/, found {one_line(folder)!r}'
            )
        if not isinstance(entries, list) or not entries:
            raise ValueError(f'{path}: labels: expected a list of entries, found {one_line(repr(entries), 60)}')
        names: dict[int, str] = {}
        classes: dict[int, tuple[str, ...]] = {}
        for index, entry in enumerate(entries):
            number, name, meant = _entry(entry, f'{path}: label {index}')
            if number in names:
                raise ValueError(f'{path}: label {index}: id {number} is there twice')
            names[number], classes[number] = name, meant
        return cls(path, names, classes, folder)

    def sets(self, table: ClassTable) -> dict[int, frozenset[int]]:
        """Return the class ids of ``table`` that each id may mean.

        Raises:
            ValueError: A class is not in ``table``; the message names it.
        """
        numbers = {name: number for number, name in enumerate(table.names)}
        for number, meant in self.classes.items():
            for name in meant:
                if name not in numbers:
                    near = difflib.get_close_matches(name, numbers, n=1)
                    hint = f'did you mean {near[0]!r}?' if near else 'give `classes: []` if these pixels do not count'
                    raise ValueError(
                        f'{self.path}: id {number} ({self.names[number]}): {name!r} is not one of the classes '
                        f'{", ".join(table.names)}; {hint}'
                    )
        return {number: frozenset(numbers[name] for name in meant) for number, meant in self.classes.items()}


def _entry(entry: Any, where: str) -> tuple[int, str, tuple[str, ...]]:
    """Return id, name and class names of one entry."""
    expected = '{id: 0 to 254, name: ..., classes: [names]}'
    if not isinstance(entry, dict) or not {'id', 'name'} <= set(entry) <= {'id', 'name', 'classes'}:
        raise ValueError(f'{where}: expected {expected}, found {one_line(repr(entry), 80)}')
    number, name = entry['id'], entry['name']
    if type(number) is not int or not 0 <= number < IGNORE:
        raise ValueError(f'{where}: id: expected 0 to {IGNORE - 1}, found {one_line(repr(number), 40)}')
    if not isinstance(name, str) or not name.strip():
        raise ValueError(f'{where}: name: expected text, found {one_line(repr(name), 40)}')
    classes = entry.get('classes', [name])
    if not isinstance(classes, list) or not all(isinstance(text, str) for text in classes):
        raise ValueError(f'{where}: classes: expected a list of names, found {one_line(repr(classes), 60)}')
    return number, name.strip(), tuple(dict.fromkeys(classes))
