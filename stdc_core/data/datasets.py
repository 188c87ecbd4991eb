# SPDX-License-Identifier: Apache-2.0
"""Open datasets on disk, and recognise their layout."""

from __future__ import annotations

from pathlib import Path

from stdc_core.classes import ClassTable
from stdc_core.data.camvid import CamVid, CamVidSegNet
from stdc_core.data.cityscapes import Cityscapes
from stdc_core.data.folder import SegmentationFolder
from stdc_core.data.reading import some

#: Layouts by name, in the order in which they are tried.
LAYOUTS: dict[str, type[SegmentationFolder]] = {
    'folder': SegmentationFolder,
    'cityscapes': Cityscapes,
    'camvid': CamVid,
    'segnet': CamVidSegNet,
}


def open_dataset(
    root: str | Path, split: str, classes: ClassTable, layout: str = 'auto', require_labels: bool = True
) -> SegmentationFolder:
    """Open one split of a dataset.

    Args:
        root: Folder of the dataset.
        split: ``'train'``, ``'val'`` or another split. CamVid and Cityscapes also have ``'test'``.
        classes: Classes of the label ids.
        layout: ``'folder'``, ``'cityscapes'``, ``'camvid'``, ``'segnet'`` (the classes in ``LAYOUTS`` describe them),
            or ``'auto'`` for the first one whose files exist.
        require_labels: Whether a missing label is an error now (see ``SegmentationFolder``).

    Raises:
        FileNotFoundError: No layout fits, or images or labels are missing. The message says what was looked for.
        ValueError: The layout does not exist, or its labels do not fit the class table.

    Example:
        >>> dataset = open_dataset('camvid', 'val', CAMVID)
        >>> image, label, name = dataset[0]
    """
    root = Path(root)
    if layout != 'auto' and layout not in LAYOUTS:
        raise ValueError(f'layout: expected auto, {", ".join(LAYOUTS)}, found {layout!r}')
    if not root.is_dir():
        raise FileNotFoundError(f'{root}: no such folder; expected a dataset')
    if layout != 'auto':
        return LAYOUTS[layout](root, split, classes, require_labels)
    for dataset in LAYOUTS.values():
        if dataset.fits(root, split):
            return dataset(root, split, classes, require_labels)
    found = sorted(f'{p.name}/' if p.is_dir() else p.name for p in root.iterdir() if not p.name.startswith('.'))
    tried = ''.join(
        f'\n  {name}: {kind.looks_for.replace("ROOT/", "").replace("SPLIT", split)}' for name, kind in LAYOUTS.items()
    )
    raise FileNotFoundError(
        f'{root}: no dataset with a split {split!r}. Looked there for one of{tried}\nfound {some(found) or "nothing"}'
    )
