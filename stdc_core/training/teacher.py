# SPDX-License-Identifier: Apache-2.0
"""Compute the class probabilities of a teacher network on every image, once, and keep them on disk."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import onnxruntime
import torch
import torch.nn.functional as F
from tqdm import tqdm

from stdc_core.classes import ClassTable
from stdc_core.data.folder import SegmentationFolder
from stdc_core.data.label_table import LABEL_TABLE, LabelTable
from stdc_core.data.soft_targets import SoftTargets
from stdc_core.inference.model_file import ModelInfo
from stdc_core.io.cpu import cores
from stdc_core.io.files import appearing
from stdc_core.io.memory_error import memory_error
from stdc_core.io.text import one_line
from stdc_core.model.deployed_graph import stored_class_offset, stored_input_scale
from stdc_core.model.segmentation import normalize, rescale
from stdc_core.model.weights import WeightsError, load_weights
from stdc_core.training.ranks import process_rank

#: Side of the cells that share one stored probability, pixels of the teacher's input.
_CELL = 4


class TeacherError(ValueError):
    """A teacher that cannot be used. The message names the file, what was found and what was expected."""


class Teacher(NamedTuple):
    """Network that computes class probabilities.

    Args:
        path: File that it was read from.
        size: (height, width) of the images that it takes, pixels; None if it takes any size.
        scores: Function from an image, uint8 BGR ``[H, W, 3]`` of ``size``, to probabilities, float32 ``[K, h, w]``.
        mapping: Matrix ``[C, K]``, float32: 1 where output ``k`` of the teacher counts as class ``c``.
    """

    path: Path
    size: tuple[int, int] | None
    scores: Callable[[np.ndarray], np.ndarray]
    mapping: np.ndarray

    def probabilities(self, image: np.ndarray) -> np.ndarray:
        """Return the probability of each class in cells of the image.

        Args:
            image: uint8 BGR ``[H, W, 3]``, of any size.

        Returns:
            uint8 ``[C, h, w]``, 0 to 1 as 0 to 255. The sum is less than 1 where the teacher sees classes that the
            student lacks.
        """
        if self.size is not None and image.shape[:2] != self.size:
            shrinks = self.size[0] * self.size[1] < image.shape[0] * image.shape[1]
            image = cv2.resize(image, self.size[::-1], interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
        scores = self.scores(image)
        mapped = np.tensordot(self.mapping, scores, 1)
        cell = max(1, round(_CELL * scores.shape[1] / image.shape[0]))
        height, width = max(scores.shape[1] // cell, 1), max(scores.shape[2] // cell, 1)
        cells = [cv2.resize(plane, (width, height), interpolation=cv2.INTER_AREA) for plane in mapped]
        return np.rint(np.stack(cells) * 255).astype(np.uint8)


def open_teacher(path: Path, classes: ClassTable) -> Teacher:
    """Open a teacher.

    A teacher is weights or a ``model.onnx`` of ``stdc``, or another ONNX file. Another ONNX file takes one image, float
    ``[1, 3, H, W]`` RGB normalised with the mean and standard deviation of ImageNet, and returns logits or
    probabilities ``[1, K, h, w]``. It needs a table beside it, ``NAME.yaml`` or ``labels.yaml`` (see ``LabelTable``),
    that says which class each output is.

    Args:
        path: File of the teacher.
        classes: Classes of the student.

    Raises:
        FileNotFoundError: The file does not exist.
        TeacherError: The file is not a teacher, or its classes cannot be mapped.
    """
    if not path.is_file():
        raise FileNotFoundError(f'{path}: no such file; expected the weights or the ONNX file of a teacher')
    if path.suffix != '.onnx' or _is_own(path):
        return _own(path, classes)
    return _foreign(path, classes)


def _is_own(path: Path) -> bool:
    """Return whether an ONNX file is a ``model.onnx`` of ``stdc``."""
    try:
        load_weights(path)
    except WeightsError:
        return False
    return True


def _own(path: Path, classes: ClassTable) -> Teacher:
    """Open a network of ``stdc``; classes are mapped by name."""
    model, own, provenance = load_weights(path)
    mapping = np.array([[name == other for other in own.names] for name in classes.names], np.float32)
    if not mapping.any():
        raise TeacherError(
            f'{path}: has the classes {", ".join(own.names)}, expected one or more of {", ".join(classes.names)}'
        )
    scale = ModelInfo(model.name, stored_input_scale(path, provenance), own, provenance).scale
    offset = torch.tensor(stored_class_offset(provenance) or [0.0]).reshape(1, -1, 1, 1)

    def scores(image: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            batch = normalize(torch.from_numpy(np.ascontiguousarray(image))[None].permute(0, 3, 1, 2))
            logits = model(rescale(batch, scale.of(image.shape[:2]))) + offset
            return _at_cell_centres(logits, image.shape[:2]).softmax(1)[0].numpy()

    return Teacher(path, None, scores, mapping)


def _at_cell_centres(logits: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Return the logits at the centres of the cells into which their grid divides an image.

    The corners of the grid lie on the corner pixels of the image, as in the deployed graph. So the centre of a cell
    lies between the points of the grid.

    Args:
        logits: float ``[1, K, h, w]``.
        size: (height, width) of the image, pixels.

    Returns:
        float ``[1, K, h, w]``.
    """
    axes = []
    for cells, pixels in zip(logits.shape[2:], size, strict=True):
        centres = (torch.arange(cells) + 0.5) * pixels / cells - 0.5
        axes.append(centres * 2 / max(pixels - 1, 1) - 1)
    grid = torch.stack(torch.meshgrid(*axes, indexing='ij')[::-1], -1)
    return F.grid_sample(logits, grid[None], padding_mode='border', align_corners=True)


def _foreign(path: Path, classes: ClassTable) -> Teacher:
    """Open another segmentation network; classes are mapped by the table beside it."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = cores()
    try:
        session = onnxruntime.InferenceSession(path, options, providers=['CPUExecutionProvider'])
    except Exception as error:  # ONNX Runtime's exceptions have no common base
        raise TeacherError(f'{path}: ONNX Runtime cannot load it ({one_line(error)})') from error
    inputs, outputs = session.get_inputs(), session.get_outputs()
    shape = inputs[0].shape
    fixed = [isinstance(side, int) for side in shape]
    if (
        len(inputs) != 1
        or inputs[0].type != 'tensor(float)'
        or len(shape) != 4
        or shape[1] != 3
        or (fixed[0] and shape[0] != 1)
        or fixed[2] != fixed[3]
    ):
        found = ', '.join(f'{each.name} {each.type} {each.shape}' for each in inputs)
        raise TeacherError(
            f'{path}: expected one input, float [1, 3, H, W] of one size or of any size, found {one_line(found)}'
        )
    tables = [path.with_suffix('.yaml'), path.parent / LABEL_TABLE]
    table = next((LabelTable.from_yaml(each) for each in tables if each.is_file()), None)
    if table is None:
        raise TeacherError(
            f'{path}: its classes are not known; expected {tables[0].name} or {LABEL_TABLE} beside it, '
            'with a line `- {id: 0, name: road}` for each output'
        )
    meant = table.sets(classes)
    count = 1 + max(meant)
    several = [number for number, each in meant.items() if len(each) > 1]
    if several:
        raise TeacherError(f'{table.path}: id {several[0]}: expected one class for a teacher, found several')
    mapping = np.zeros((len(classes), count), np.float32)
    for number, each in meant.items():
        mapping[list(each), number] = 1
    size = (shape[2], shape[3]) if fixed[2] else None
    name, mean, std = (
        inputs[0].name,
        np.array([0.485, 0.456, 0.406], np.float32),
        np.array([0.229, 0.224, 0.225], np.float32),
    )

    def scores(image: np.ndarray) -> np.ndarray:
        rgb = (image[..., ::-1].astype(np.float32) / 255 - mean) / std
        try:
            found = session.run([outputs[0].name], {name: np.ascontiguousarray(rgb.transpose(2, 0, 1)[None])})[0]
        except Exception as error:  # ONNX Runtime's exceptions have no common base
            if memory_error(error):
                raise
            height, width = image.shape[:2]
            raise TeacherError(
                f'{path}: cannot segment an image of {width} x {height} pixels ({one_line(error)}); '
                'export it for one image size'
            ) from error
        if found.ndim != 4 or found.shape[1] != count:
            raise TeacherError(
                f'{path}: expected [1, {count}, h, w] by {table.path.name}, found an output of {list(found.shape)}'
            )
        found = found[0]
        if found.min() >= 0 and abs(found.sum(0) - 1).max() < 1e-2:
            return found
        exponentials = np.exp(found - found.max(0))
        return exponentials / exponentials.sum(0)

    return Teacher(path, size, scores, mapping)


def teach(
    paths: Sequence[Path],
    datasets: Sequence[SegmentationFolder],
    classes: ClassTable,
    targets: SoftTargets,
    progress: bool,
) -> None:
    """Compute the probabilities of a teacher for every image of some datasets. Existing files are kept.

    Args:
        paths: Files of the teacher. If there are several, each image goes to the one whose image size is the nearest
            in its ratio of width to height.
        datasets: Datasets in the order of the training.
        classes: Classes of the student.
        targets: Folder to write to.
        progress: Whether to show a progress bar on a terminal.

    Raises:
        FileNotFoundError: A file of the teacher does not exist.
        TeacherError: As ``open_teacher``.
    """
    missing = [
        (number, index)
        for number, dataset in enumerate(datasets)
        for index in range(len(dataset))
        if not targets.path(number, index).is_file()
    ]
    if not missing:
        return
    if process_rank():
        # torchrun starts all processes together; the first one computes the probabilities for all.
        while not all(targets.path(*each).is_file() for each in missing):
            time.sleep(1)
        return
    teachers = [open_teacher(path, classes) for path in paths]
    for number, index in tqdm(missing, 'running the teacher', unit='image', disable=None if progress else True):
        image = datasets[number].image(index)
        probabilities = _nearest(teachers, image.shape[:2]).probabilities(image)
        path = targets.path(number, index)
        path.parent.mkdir(parents=True, exist_ok=True)
        with appearing(path) as partial, partial.open('wb') as file:
            np.save(file, probabilities)


def _nearest(teachers: Sequence[Teacher], size: tuple[int, int]) -> Teacher:
    """Return the teacher whose image size has the nearest ratio of width to height to that of an image.

    Args:
        teachers: Teachers. One that takes any size is always the nearest.
        size: (height, width) of the image, pixels.
    """

    def distance(teacher: Teacher) -> float:
        if teacher.size is None:
            return 0.0
        return abs(math.log(teacher.size[1] / teacher.size[0] * size[0] / size[1]))

    return min(teachers, key=distance)
