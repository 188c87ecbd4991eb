# SPDX-License-Identifier: Apache-2.0
"""Define class tables: names and colours of the class ids in label images and masks."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from stdc_core.io.text import one_line

#: Id of pixels without a class, in labels and masks. Training and evaluation ignore them.
IGNORE = 255

#: Maximum length of a class name, in characters.
LONGEST_NAME = 100


@dataclass(frozen=True)
class ClassTable:
    """Names and colours of the classes 0 to C-1.

    Args:
        names: Name of each class, in the order of the ids; unique, printable, at most ``LONGEST_NAME`` characters.
        colors: RGB colour of each class, 0 to 255.

    Raises:
        ValueError: There are no classes or too many, a name is repeated or not printable, or a colour is invalid.

    Example:
        >>> table = ClassTable(('road', 'rail'), ((128, 64, 128), (230, 150, 140)))
        >>> len(table), table.palette_bgr()[1].tolist()
        (2, [140, 150, 230])
    """

    names: tuple[str, ...]
    colors: tuple[tuple[int, int, int], ...]

    def __post_init__(self) -> None:
        if not 1 <= len(self.names) <= IGNORE:
            raise ValueError(f'a class table has 1 to {IGNORE} classes, not {len(self.names)}')
        if len(self.names) != len(self.colors):
            raise ValueError(f'{len(self.names)} class names, but {len(self.colors)} colours')
        for name in self.names:
            # Names are shown in terminals, logs, pictures and messages.
            if not isinstance(name, str) or not name.strip() or not name.isprintable() or len(name) > LONGEST_NAME:
                found = one_line(repr(name), 60)
                raise ValueError(f'expected class names of 1 to {LONGEST_NAME} printable characters, found {found}')
        repeated = sorted({name for name in self.names if self.names.count(name) > 1})
        if repeated:
            raise ValueError(f'class names must differ; more than once: {", ".join(map(repr, repeated))}')
        for index, color in enumerate(self.colors):
            if len(color) != 3 or not all(type(c) is int and 0 <= c <= 255 for c in color):
                raise ValueError(
                    f'class {self.names[index]!r}: expected a colour of three integers 0 to 255, '
                    f'found {one_line(repr(color), 60)}'
                )

    def __len__(self) -> int:
        return len(self.names)

    def to_json(self) -> str:
        """Return the table as JSON, for model and weights files."""
        return json.dumps({'names': self.names, 'colors': self.colors})

    @classmethod
    def from_json(cls, text: str) -> ClassTable:
        """Read the table from the JSON of ``to_json``.

        Args:
            text: JSON object with the lists ``names`` and ``colors``.

        Raises:
            ValueError: The text is not such a table.
        """
        try:
            table = json.loads(text)
            names, colors = table['names'], table['colors']
            if not isinstance(names, list) or not isinstance(colors, list):
                raise TypeError('expected two lists')
            rows = tuple(tuple(color) for color in colors)
        except (TypeError, KeyError, RecursionError, json.JSONDecodeError) as error:
            raise ValueError(f'not a class table in JSON: {one_line(text, 80)!r}') from error
        return cls(tuple(names), rows)

    @classmethod
    def from_yaml(cls, path: str | Path) -> ClassTable:
        """Read a user's table from a YAML file.

        The file contains one list, ``classes``, in the order of the ids::

            classes:
              - {name: road, color: [128, 64, 128]}
              - {name: rail, color: [230, 150, 140]}

        Args:
            path: YAML file.

        Raises:
            FileNotFoundError: The file does not exist.
            ValueError: The file is not such a table. The message names the file and the entry.
        """
        # Imported here, because the node reads its table from the model file and does not need YAML.
        from stdc_core.io.yaml_file import read_yaml

        content = read_yaml(path)
        if not isinstance(content, dict) or list(content) != ['classes'] or not isinstance(content['classes'], list):
            found = f'the keys {one_line(list(content))}' if isinstance(content, dict) else type(content).__name__
            raise ValueError(
                f'{path}: expected one list, "classes: [{{name: ..., color: [R, G, B]}}, ...]", found {found}'
            )
        entries = [_entry(entry, f'{path}: class {index}') for index, entry in enumerate(content['classes'])]
        try:
            return cls(tuple(name for name, _ in entries), tuple(color for _, color in entries))
        except ValueError as error:
            raise ValueError(f'{path}: {error}') from error

    def palette_bgr(self) -> np.ndarray:
        """Return the colour of each id, uint8 ``[256, 3]`` BGR; other ids, such as ``IGNORE``, are black."""
        palette = np.zeros((256, 3), np.uint8)
        palette[: len(self)] = np.array(self.colors, np.uint8)[:, ::-1]
        return palette

    def blending_bgr(self, opacity: float) -> np.ndarray:
        """Return how to blend each id into an overlay, float32 ``[256, 4]``: BGR to add, and weight of the image.

        Args:
            opacity: Weight of the colours, 0 to 1. Ignored pixels show only the image.
        """
        blending = np.full((256, 4), 1 - opacity, np.float32)
        blending[:, :3] = self.palette_bgr() * np.float32(opacity)
        blending[IGNORE] = 0, 0, 0, 1
        return blending


def _entry(entry: Any, where: str) -> tuple[str, tuple[int, int, int]]:
    """Return name and colour of one entry of a YAML file.

    Args:
        entry: Entry of the list, as YAML gives it.
        where: File and entry, for errors.

    Raises:
        ValueError: The entry does not have a name and a colour.
    """
    if not isinstance(entry, dict) or set(entry) != {'name', 'color'}:
        raise ValueError(f'{where}: expected {{name: ..., color: [R, G, B]}}, found {one_line(repr(entry))}')
    name, color = entry['name'], entry['color']
    if not isinstance(name, str) or not name.strip():
        # YAML reads an unquoted yes, no, on, off or 1 as another type.
        raise ValueError(
            f'{where}: expected a name in text (in quotes, if it looks like a value), found {one_line(repr(name))}'
        )
    if not isinstance(color, list) or len(color) != 3 or not all(type(c) is int and 0 <= c <= 255 for c in color):
        raise ValueError(
            f'{where} ({one_line(name)}): expected a colour of three integers 0 to 255, found {one_line(repr(color))}'
        )
    return name.strip(), (color[0], color[1], color[2])


#: Classes of CamVid as in the SegNet tutorial (11 classes), with its colours.
CAMVID = ClassTable(
    names=('sky', 'building', 'pole', 'road', 'sidewalk', 'tree', 'sign', 'fence', 'car', 'pedestrian', 'bicyclist'),
    colors=(
        (128, 128, 128),
        (128, 0, 0),
        (192, 192, 128),
        (128, 64, 128),
        (0, 0, 192),
        (128, 128, 0),
        (192, 128, 128),
        (64, 64, 128),
        (64, 0, 128),
        (64, 64, 0),
        (0, 128, 192),
    ),
)

#: The 19 evaluated classes of Cityscapes by train id, with its colours.
CITYSCAPES = ClassTable(
    names=(
        'road',
        'sidewalk',
        'building',
        'wall',
        'fence',
        'pole',
        'traffic light',
        'traffic sign',
        'vegetation',
        'terrain',
        'sky',
        'person',
        'rider',
        'car',
        'truck',
        'bus',
        'train',
        'motorcycle',
        'bicycle',
    ),
    colors=(
        (128, 64, 128),
        (244, 35, 232),
        (70, 70, 70),
        (102, 102, 156),
        (190, 153, 153),
        (153, 153, 153),
        (250, 170, 30),
        (220, 220, 0),
        (107, 142, 35),
        (152, 251, 152),
        (70, 130, 180),
        (220, 20, 60),
        (255, 0, 0),
        (0, 0, 142),
        (0, 0, 70),
        (0, 60, 100),
        (0, 80, 100),
        (0, 0, 230),
        (119, 11, 32),
    ),
)

CLASS_TABLES = {'camvid': CAMVID, 'cityscapes': CITYSCAPES}


def class_table(name_or_path: str | Path) -> ClassTable:
    """Return the class table of a known dataset or of a user's YAML file.

    Args:
        name_or_path: ``'camvid'``, ``'cityscapes'``, or the path of a YAML file (see ``ClassTable.from_yaml``).

    Raises:
        ValueError: The argument is neither, or the file is not a class table.
    """
    if str(name_or_path) in CLASS_TABLES:
        return CLASS_TABLES[str(name_or_path)]
    if not Path(name_or_path).is_file():
        raise ValueError(f'classes: expected {", ".join(CLASS_TABLES)} or a YAML file, found {str(name_or_path)!r}')
    return ClassTable.from_yaml(name_or_path)
