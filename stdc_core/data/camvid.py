# SPDX-License-Identifier: Apache-2.0
"""Read CamVid: as published, with 701 frames of 720 x 960 pixels and labels in 32 colours, or as SegNet has it.

Brostow, Fauqueur, Cipolla, "Semantic object classes in video: A high-definition ground truth database", Pattern
Recognition Letters 30(2), 2009. The 32 classes are merged into 11, and the frames are split, as for SegNet
(Badrinarayanan, Kendall, Cipolla, 2017), since papers report on these. SegNet's paper does not say which classes were
merged. This is the table of MathWorks' example "Semantic Segmentation Using Deep Learning" (function
camvidPixelLabelIDs, "following the original SegNet training methodology"). github.com/lih627/CamVid makes its
720 x 960 labels with the same table.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from stdc_core.classes import CAMVID, IGNORE
from stdc_core.data.folder import SegmentationFolder, pictures
from stdc_core.data.reading import ids_of_colors, read_ids, some

#: Classes of label_colors.txt, with their RGB colours, that make up each of the 11 classes and void (None).
COLORS = {
    'sky': {'Sky': (128, 128, 128)},
    'building': {
        'Archway': (192, 0, 128),
        'Bridge': (0, 128, 64),
        'Building': (128, 0, 0),
        'Tunnel': (64, 0, 64),
        'Wall': (64, 192, 0),
    },
    'pole': {'Column_Pole': (192, 192, 128), 'TrafficCone': (0, 0, 64)},
    'road': {'LaneMkgsDriv': (128, 0, 192), 'LaneMkgsNonDriv': (192, 0, 64), 'Road': (128, 64, 128)},
    'sidewalk': {'ParkingBlock': (64, 192, 128), 'RoadShoulder': (128, 128, 192), 'Sidewalk': (0, 0, 192)},
    'tree': {'Tree': (128, 128, 0), 'VegetationMisc': (192, 192, 0)},
    'sign': {'Misc_Text': (128, 128, 64), 'SignSymbol': (192, 128, 128), 'TrafficLight': (0, 64, 64)},
    'fence': {'Fence': (64, 64, 128)},
    'car': {
        'Car': (64, 0, 128),
        'OtherMoving': (128, 64, 64),
        'SUVPickupTruck': (64, 128, 192),
        'Train': (192, 64, 128),
        'Truck_Bus': (192, 128, 192),
    },
    'pedestrian': {
        'Animal': (64, 128, 64),
        'CartLuggagePram': (64, 0, 192),
        'Child': (192, 128, 64),
        'Pedestrian': (64, 64, 0),
    },
    'bicyclist': {'Bicyclist': (0, 128, 192), 'MotorcycleScooter': (192, 0, 192)},
    None: {'Void': (0, 0, 0)},
}

_PAIRS = [
    (color, CAMVID.names.index(name) if name else IGNORE) for name, parts in COLORS.items() for color in parts.values()
]
_COLORS, _IDS = (tuple(column) for column in zip(*_PAIRS, strict=True))

#: Number of frames in each split.
FRAMES = {'train': 367, 'val': 101, 'test': 233}

# Folders as published, as commonly renamed, and as redistributed with other splits than SegNet's.
_IMAGES = ('701_StillsRaw_full', '701_StillsRaw', 'images', 'train', 'val', 'test')
_LABELS = ('LabeledApproved_full', 'LabeledApproved', 'labels', 'train_labels', 'val_labels', 'test_labels')

# Id of void in SegNet's labels, after the 11 classes.
_SEGNET_VOID = len(CAMVID)

_FRAME = re.compile(r'(0001TP|0006R0|0016E5|Seq05VD)_f?(\d+)')


def split_of(name: str) -> str | None:
    """Return the SegNet split of a frame.

    The first half of sequence 0001TP is for training, the second half for testing. The 101 frames of 0016E5 at 15 Hz
    are for validation, and Seq05VD is for testing. All other frames are for training.

    Args:
        name: Name of the frame without suffix, such as ``0016E5_07959``.

    Returns:
        ``'train'``, ``'val'``, ``'test'``, or None if the name is not one of CamVid.
    """
    match = _FRAME.fullmatch(name)
    if not match:
        return None
    sequence, frame = match[1], int(match[2])
    if sequence == 'Seq05VD' or (sequence == '0001TP' and frame > 8520):
        return 'test'
    return 'val' if sequence == '0016E5' and 7959 <= frame <= 8159 else 'train'


class CamVid(SegmentationFolder):
    """CamVid as published, with labels in colours.

    Images are in ``701_StillsRaw_full/`` or ``images/``, labels are ``LabeledApproved_full/*_L.png`` or
    ``labels/*_L.png``. Copies with ``train/``, ``train_labels/`` and so on are read, too. The split of a frame follows
    from its name, whatever its folder is.

    Raises:
        FileNotFoundError: As ``SegmentationFolder``.
        ValueError: CamVid does not have the split, or the class table is not that of CamVid.
    """

    looks_for = (
        'ROOT/701_StillsRaw_full/* or ROOT/images/*, and ROOT/LabeledApproved_full/*_L.png or ROOT/labels/*_L.png'
    )

    @classmethod
    def fits(cls, root: Path, split: str) -> bool:
        """Return whether the folder has images and labels as CamVid publishes them."""
        return any(_frames(root / name) for name in _IMAGES) and any(
            next((root / name).glob('[!.]*_L.png'), None) for name in _LABELS
        )

    def _find(self) -> list[tuple[Path, Path]]:
        """Return image and label of each frame in the split. Raises the errors of the class."""
        if self.split not in FRAMES:
            raise ValueError(f'{self.root}: CamVid has the splits {", ".join(FRAMES)}, found {self.split!r}')
        _need_camvid(self)
        images = sorted((p for name in _IMAGES for p in pictures(self.root / name)), key=lambda path: path.name)
        mine = [path for path in images if split_of(path.stem) == self.split]
        if not mine:
            raise FileNotFoundError(
                f"{self.root}: none of {len(images)} images in {', '.join(_IMAGES)} is of CamVid's {self.split} split"
            )
        strange = [path.name for path in images if split_of(path.stem) is None]
        if strange:
            self.warnings.append(
                f'{self}: {len(strange)} images, {some(strange, 3)}, are not frames of CamVid and are left out'
            )
        if len(mine) != FRAMES[self.split]:
            self.warnings.append(f'{self}: {len(mine)} images, but this split of CamVid has {FRAMES[self.split]}')
        folders = [self.root / name for name in _LABELS if (self.root / name).is_dir()]
        labels = {path.name: path for folder in folders for path in folder.glob('*_L.png')}
        default = folders[0] if folders else self.root / _LABELS[0]
        return [(path, labels.get(f'{path.stem}_L.png', default / f'{path.stem}_L.png')) for path in mine]

    def _ids(self, path: Path) -> np.ndarray:
        """Read a label in colours as class ids, uint8 ``[H, W]``."""
        return ids_of_colors(path, _COLORS, _IDS)


class CamVidSegNet(SegmentationFolder):
    """CamVid at 360 x 480 pixels, as in the SegNet tutorial: ``SPLIT/*.png``, and labels ``SPLITannot/*.png``.

    Image and label have the same name. The labels contain the ids of the 11 classes, and 11 for void.

    Raises:
        FileNotFoundError: As ``SegmentationFolder``.
        ValueError: The class table is not that of CamVid.
    """

    looks_for = 'ROOT/SPLIT/*.png and ROOT/SPLITannot/*.png of the same name'

    @classmethod
    def fits(cls, root: Path, split: str) -> bool:
        """Return whether the folder has this split as in the SegNet tutorial."""
        return bool(pictures(root / split)) and (root / f'{split}annot').is_dir()

    def _find(self) -> list[tuple[Path, Path]]:
        """Return image and label of each frame in the split. Raises the errors of the class."""
        _need_camvid(self)
        images = pictures(self.root / self.split)
        if not images:
            raise FileNotFoundError(f'{self.root / self.split}: no images')
        frames = FRAMES.get(self.split, len(images))
        if len(images) != frames:
            self.warnings.append(f'{self}: {len(images)} images, but this split of CamVid has {frames}')
        return [(path, self.root / f'{self.split}annot' / f'{path.stem}.png') for path in images]

    def _ids(self, path: Path) -> np.ndarray:
        """Read a label as class ids, uint8 ``[H, W]``, with void as 255."""
        ids = read_ids(path)
        ids[ids == _SEGNET_VOID] = IGNORE
        return ids


def _need_camvid(dataset: SegmentationFolder) -> None:
    """Raise ValueError unless the class table is that of CamVid."""
    if dataset.classes.names != CAMVID.names:
        raise ValueError(
            f'{dataset.root}: labels of CamVid need the class table camvid, found one of {len(dataset.classes)} '
            f'classes, {", ".join(dataset.classes.names[:3])}, ...'
        )


def _frames(folder: Path) -> bool:
    """Return whether a folder has a frame of CamVid."""
    return any(split_of(path.stem) for path in pictures(folder))
