# SPDX-License-Identifier: Apache-2.0
"""Read label tables, which map the ids in the label images of a dataset to the classes of a network."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stdc_core.classes import IGNORE, ClassTable
from stdc_core.io.text import one_line

#: Name of the file in the folder of a dataset.
LABEL_TABLE = 'labels.yaml'


@dataclass(frozen=True)
class LabelTable:
    """Map from the ids of a dataset to classes.

    Args:
        path: File that the table was read from, for errors.
        names: Name of each id.
        classes: Names of the classes of each id. With one class, the id is that class. With several, a pixel may be any
            of them. With none, a pixel does not count, like 255.
        folder: Name of the folder with the label images, beside ``images/``.
    """

    path: Path
    names: dict[int, str]
    classes: dict[int, tuple[str, ...]]
    folder: str = 'labels'

    @classmethod
    def from_yaml(cls, path: Path) -> LabelTable:
        """Read a table from a YAML file.

        The file looks like this::

            folder: groups                      # default: labels
            labels:
              - {id: 0, name: drivable, classes: [road]}
              - {id: 1, name: living, classes: [pedestrian, bicyclist]}
              - {id: 2, name: sky}              # the class of that name
              - {id: 3, name: other, classes: []}

        Args:
            path: YAML file.

        Raises:
            FileNotFoundError: The file does not exist.
            ValueError: The file is not such a table. The message names the entry.
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
                raise ValueError(f'{path}: label {index}: id {number} occurs twice')
            names[number], classes[number] = name, meant
        return cls(path, names, classes, folder)

    def sets(self, table: ClassTable) -> dict[int, frozenset[int]]:
        """Return the class ids of each id of the dataset.

        Args:
            table: Classes of the network.

        Raises:
            ValueError: ``table`` lacks a class. The message names it.
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
    """Return id, name and class names of one entry.

    Args:
        entry: Entry of the list, as YAML gives it.
        where: File and entry, for errors.

    Raises:
        ValueError: The entry is not as expected.
    """
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
