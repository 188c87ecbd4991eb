# SPDX-License-Identifier: Apache-2.0
"""Read Cityscapes: leftImg8bit_trainvaltest.zip and gtFine_trainvaltest.zip, unpacked into one folder."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from stdc_core.classes import CITYSCAPES, IGNORE
from stdc_core.data.folder import SegmentationFolder
from stdc_core.data.reading import UNKNOWN, count_ids, read_ids

#: Label id of each of the 19 train ids (cityscapesScripts, helpers/labels.py).
LABEL_IDS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)

_IMAGE, _TRAIN_IDS, _ALL_IDS = '_leftImg8bit.png', '_gtFine_labelTrainIds.png', '_gtFine_labelIds.png'


def _lut() -> np.ndarray:
    """Return the train id of each label id, uint8 ``[256]``.

    Label ids are 0 to 33, and 255 for the licence plate, whose id -1 is 255 in 8 bits. Others are unknown.
    """
    lut = np.full(256, UNKNOWN, np.uint8)
    lut[:34] = lut[IGNORE] = IGNORE
    lut[list(LABEL_IDS)] = np.arange(len(LABEL_IDS))
    return lut


_TRAIN_ID_OF = _lut()


class Cityscapes(SegmentationFolder):
    """Cityscapes with fine annotations: ``leftImg8bit/SPLIT/CITY/*_leftImg8bit.png`` and ``gtFine/SPLIT/CITY/*``.

    A label is ``*_gtFine_labelTrainIds.png``, if the scripts of Cityscapes have made it. Otherwise it is the
    ``*_gtFine_labelIds.png`` of the download: of its 34 ids, 19 become the classes that are evaluated, and the others
    are ignored. The name of a sample is ``CITY_SEQUENCE_FRAME``.

    Raises:
        FileNotFoundError: As ``SegmentationFolder``.
        ValueError: The labels have the 34 ids, and the class table is not that of Cityscapes.
    """

    looks_for = 'ROOT/leftImg8bit/SPLIT/CITY/*_leftImg8bit.png and ROOT/gtFine/SPLIT/CITY/*_gtFine_labelIds.png'

    @classmethod
    def fits(cls, root: Path, split: str) -> bool:
        """Return whether the folder has this split of Cityscapes."""
        return (root / 'leftImg8bit' / split).is_dir()

    def name(self, index: int) -> str:
        """Return the name of an image without its suffix, such as ``lindau_000000_000019``."""
        return self._files[index][0].name[: -len(_IMAGE)]

    def _find(self) -> list[tuple[Path, Path]]:
        """Return image and label of each sample in the split. Raises the errors of the class."""
        folder = self.root / 'leftImg8bit' / self.split
        images = sorted(folder.glob(f'*/[!.]*{_IMAGE}'), key=lambda path: path.name)
        if not images:
            raise FileNotFoundError(f'{folder}: no images CITY/*{_IMAGE}')
        return [(image, self._label_path(image)) for image in images]

    def _label_path(self, image: Path) -> Path:
        """Return the label of an image. Raises ValueError if only the 34 ids exist and the class table does not fit."""
        stem = image.name[: -len(_IMAGE)]
        folder = self.root / 'gtFine' / self.split / image.parent.name
        train_ids = folder / f'{stem}{_TRAIN_IDS}'
        if train_ids.is_file():
            return train_ids
        if self.classes.names != CITYSCAPES.names:
            raise ValueError(
                f'{folder}: labels of Cityscapes need the class table cityscapes, found one of {len(self.classes)} '
                f'classes, {", ".join(self.classes.names[:3])}, ...'
            )
        return folder / f'{stem}{_ALL_IDS}'

    def _ids(self, path: Path) -> np.ndarray:
        """Read a label of either kind as train ids, uint8 ``[H, W]``."""
        ids = read_ids(path)
        if path.name.endswith(_TRAIN_IDS):
            return ids
        label = _TRAIN_ID_OF[ids]
        if (label == UNKNOWN).any():
            count_ids(ids, 34, path)  # raises LabelError with the unknown ids
        return label
