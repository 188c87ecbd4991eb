"""Class tables: what the ids in a label image mean, and how they are drawn. Needs neither torch nor ROS."""

from __future__ import annotations

import json
from dataclasses import dataclass

import numpy as np

#: The id of pixels without a class, in labels and masks alike. Never counted, never trained on.
IGNORE = 255


@dataclass(frozen=True)
class ClassTable:
    """Names and colours of the classes 0 ... C-1.

    Args:
        names: one per class, by id.
        colors: RGB per class, each 0 ... 255.
    """

    names: tuple[str, ...]
    colors: tuple[tuple[int, int, int], ...]

    def __post_init__(self) -> None:
        if not 1 <= len(self.names) <= IGNORE:
            raise ValueError(f'a class table has 1 to {IGNORE} classes, not {len(self.names)}')
        if len(self.names) != len(self.colors):
            raise ValueError(f'{len(self.names)} class names, but {len(self.colors)} colours')
        for index, color in enumerate(self.colors):
            if len(color) != 3 or not all(isinstance(c, int) and 0 <= c <= 255 for c in color):
                raise ValueError(
                    f'class {self.names[index]!r}: expected a colour of three integers 0 to 255, found {color!r}'
                )

    def __len__(self) -> int:
        return len(self.names)

    def to_json(self) -> str:
        """The table as model and weights files carry it."""
        return json.dumps({'names': self.names, 'colors': self.colors})

    @classmethod
    def from_json(cls, text: str) -> ClassTable:
        """Read what ``to_json`` wrote.

        Raises:
            ValueError: the text is not such a table.
        """
        try:
            table = json.loads(text)
            return cls(tuple(map(str, table['names'])), tuple(tuple(color) for color in table['colors']))
        except (TypeError, KeyError, json.JSONDecodeError) as error:
            raise ValueError(f'not a class table in JSON: {text[:80]!r}') from error

    def palette_bgr(self) -> np.ndarray:
        """Colour per id, uint8 ``[256, 3]`` BGR; ids outside the table, the ignored one among them, are black."""
        palette = np.zeros((256, 3), np.uint8)
        palette[: len(self)] = np.array(self.colors, np.uint8)[:, ::-1]
        return palette


#: CamVid in the 11-class form of the SegNet tutorial, with its colours.
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

#: The 19 classes that Cityscapes evaluates, by train id, with its colours.
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
