# SPDX-License-Identifier: Apache-2.0
"""Find and read the images that a quantised model is calibrated on."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from pathlib import Path

import numpy as np
from onnxruntime.quantization import CalibrationDataReader

from stdc_core.data.folder import IMAGE_SUFFIXES
from stdc_core.data.label_table import LABEL_TABLE, LabelTable
from stdc_core.data.reading import read_image
from stdc_core.inference.input_scale import InputScale
from stdc_core.inference.segmenter import SizeError, check_size
from stdc_core.io.files import walk


class QuantizeError(ValueError):
    """A quantisation that is not possible with these images, data or limits. The message says why."""


def find_images(paths: Sequence[Path]) -> list[Path]:
    """Return the image files among files and in folders, subfolders included.

    Hidden files are left out, and so are the label images of datasets.

    Args:
        paths: Image files and folders.

    Raises:
        FileNotFoundError: A path does not exist, or is a folder without images. The message names it.
    """
    found = []
    for path in paths:
        if not path.exists():
            raise FileNotFoundError(f'{path}: no such image or folder')
        if path.is_dir():
            inside = list(_images_below(path))
            if not inside:
                raise FileNotFoundError(f'{path}: no images ({", ".join(IMAGE_SUFFIXES)})')
            found += inside
        else:
            found.append(path)
    return found


def _images_below(top: Path) -> Iterator[Path]:
    """Yield the images in a folder and its subfolders, without hidden files and labels."""
    for folder, subfolders, names in walk(top, 'stdc quantize'):
        subfolders[:] = [name for name in subfolders if not name.startswith('.')]
        for name in sorted(names):
            file = folder / name
            if file.suffix.lower() in IMAGE_SUFFIXES and not name.startswith('.') and not _is_label(file):
                yield file


def _is_label(file: Path) -> bool:
    """Return whether a picture is a label of one of the dataset layouts: our own, CamVid, SegNet or Cityscapes."""
    folder = file.parent
    if folder.with_name('images').is_dir() and folder.name in ('labels', _label_folder(folder.parent.parent)):
        return True
    if 'label' in folder.name.lower() and file.name.endswith('_L.png'):
        return True
    images = folder.name.removesuffix('annot')
    if images not in ('', folder.name) and folder.with_name(images).is_dir():
        return True
    return re.search(r'_gt(Fine|Coarse)_\w+\.png$', file.name) is not None


@cache
def _label_folder(root: Path) -> str | None:
    """Return the name that the label table of a dataset gives the folders of labels, or None without a table."""
    try:
        return LabelTable.from_yaml(root / LABEL_TABLE).folder
    except (OSError, ValueError):  # a file of that name may belong to another program
        return None


def read_checked_image(path: Path, scale: InputScale) -> np.ndarray:
    """Read an image of a size that the segmenter takes.

    Args:
        path: Image file.
        scale: Input scale of the network.

    Returns:
        uint8 BGR ``[H, W, 3]``.

    Raises:
        QuantizeError: The image is too small or too large. The message names the file.
    """
    image = read_image(path)
    try:
        height, width = image.shape[:2]
        check_size(height, width, scale.of((height, width)))
    except SizeError as error:
        raise QuantizeError(f'{path}: {error}') from error
    return image


class CalibrationImages(CalibrationDataReader):
    """Supplies images to ONNX Runtime's calibration, one at a time, each at its own size.

    Args:
        paths: Image files.
        scale: Input scale of the network.
    """

    def __init__(self, paths: Iterable[Path], scale: InputScale):
        self._paths, self._scale = iter(paths), scale

    def get_next(self) -> dict[str, np.ndarray] | None:
        """Return the inputs of the graph for the next image, or None after the last one. Raises QuantizeError."""
        path = next(self._paths, None)
        return None if path is None else {'image': read_checked_image(path, self._scale)[None]}
