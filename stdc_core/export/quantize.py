# SPDX-License-Identifier: Apache-2.0
"""Quantise a ``model.onnx`` to int8 after training, for CPUs and for TensorRT, calibrated on the user's images.

Blocks of layers that cost too much accuracy stay in float. Which ones these are is measured.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import helper

from stdc_core.classes import ClassTable
from stdc_core.data.folder import SegmentationFolder
from stdc_core.evaluation.evaluate import Predictor, evaluate, evenly
from stdc_core.evaluation.groups import grouped
from stdc_core.export.calibration_images import QuantizeError, read_checked_image
from stdc_core.export.quantized_layers import block_names, keep_in_float, quantize_layers
from stdc_core.inference.backend import check_threads
from stdc_core.inference.backend_choice import make_backend
from stdc_core.inference.input_scale import InputScale, set_input_scale
from stdc_core.inference.int8_file import MADE_FROM, int8_path
from stdc_core.inference.model_file import ModelError, read_model
from stdc_core.inference.onnx_graph.constant_folding import fold
from stdc_core.inference.onnx_graph.network_search import describe_network
from stdc_core.inference.onnx_graph.quantized import is_quantized
from stdc_core.inference.segmenter import check_size
from stdc_core.io.files import appearing, check_no_folder, check_writable

#: Number of images to take the ranges of the activations from, and of other images to compare the masks on.
CALIBRATED, COMPARED = 32, 8

#: Default limits: changed labels in percent, where there is no labelled data, and loss of mIoU in points.
MAX_CHANGED, MAX_LOST = 1.0, 0.5

#: Function from an image, uint8 BGR ``[H, W, 3]``, to its mask, uint8 ``[H, W]``.
Mask = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Report:
    """Result of a quantisation.

    Args:
        images: Number of images that the model was calibrated on.
        kept: Blocks that stayed in float.
        blocks: Percent of the labels that changed with only this block in float; empty if all blocks are quantised.
        changed: Percent of the labels that differ from those of the float model.
        miou: mIoU of the float model and of the quantised model, percent; None without labelled data.
        size: Size of the float file and of the quantised file, bytes.
    """

    images: int
    kept: list[str]
    blocks: dict[str, float]
    changed: float
    miou: tuple[float, float] | None
    size: tuple[int, int]


def quantize(
    model_path: Path,
    out: Path | None,
    images: Sequence[Path],
    data: SegmentationFolder | None = None,
    max_loss: float | None = None,
    threads: int = 0,
    overwrite: bool = False,
) -> Report:
    """Write a quantised model file.

    Args:
        model_path: ``model.onnx`` from ``stdc export``.
        out: File to write; None for ``mine.int8.onnx`` beside ``mine.onnx``, where precision int8 looks for it.
        images: Image files like those that the model will see. A selection, spread evenly, is used.
        data: Labelled images to measure mIoU on.
        max_loss: Largest loss: of mIoU in points, or without ``data``, of labels in percent. None means 0.5 and 1.
        threads: Number of CPU threads, at most 256; 0 takes every core that this process may use.
        overwrite: Whether to replace ``out`` if it exists.

    Raises:
        FileExistsError: ``out`` exists and ``overwrite`` is false.
        IsADirectoryError: ``out`` is a folder.
        FileNotFoundError: The model does not exist.
        ModelError: The file is not a model, or is quantised already.
        WriteError: ``out`` cannot be written.
        QuantizeError: There are too few images, an image is too small or too large for the network, no pixel of the
            data has a label, or the loss is too large whichever blocks are quantised.
        ValueError: ``max_loss`` or ``threads`` is out of its range.
    """
    out = out or int8_path(model_path)
    check_no_folder(out)
    if out.exists() and not overwrite:
        raise FileExistsError(f'{out} exists; add --overwrite to replace it')
    if max_loss is not None and not 0 <= max_loss < math.inf:
        raise ValueError(f'max loss: expected a finite number of 0 or more, found {max_loss}')
    check_writable(out)
    check_threads(threads)
    if len(images) < 2:
        raise QuantizeError(f'found {len(images)} images to calibrate on, expected at least 2, and better {CALIBRATED}')
    model, info = read_model(model_path)
    if is_quantized(model):
        raise ModelError(f'{model_path}: is quantised already; expected the model that it was made from')
    calibrated = [images[index] for index in evenly(CALIBRATED, len(images))]
    others = [image for image in images if image not in calibrated] or calibrated
    scale = info.scale
    compared = [read_checked_image(others[index], scale) for index in evenly(COMPARED, len(others))]
    if scale.pixels is not None:
        set_input_scale(model, scale)
    folded = fold(model)
    full = quantize_layers(folded, calibrated, scale)
    loss_of = _Loss(folded, compared, data, info.classes, scale, threads)
    limit = max_loss if max_loss is not None else MAX_CHANGED if data is None else MAX_LOST
    candidate, loss, kept, blocks = _search(full, folded, loss_of, limit, model_path)
    if not is_quantized(candidate):
        raise QuantizeError(
            f'{model_path}: no part of it can be quantised with a loss of at most {limit:g}; '
            'allow a larger loss, or use the model in float'
        )
    miou = None if loss_of.miou is None else (loss_of.miou, loss_of.miou - loss)
    changed = loss_of.changed(candidate)
    recipe: dict[str, Any] = {'images': len(calibrated), 'in float': kept, 'labels changed (%)': round(changed, 3)}
    recipe[MADE_FROM] = hashlib.sha256(model_path.read_bytes()).hexdigest()
    if miou is not None:
        recipe['mIoU before and after (%)'] = [round(value, 2) for value in miou]
    provenance = {**info.provenance, 'quantized': json.dumps(recipe)}
    network = info.network or describe_network(model, len(info.classes))
    info = dataclasses.replace(info, provenance=provenance, network=network)
    if scale.pixels is not None:  # a model file has one scale; the segmenter changes it to one for all sizes
        set_input_scale(candidate, scale.own)
    helper.set_model_props(candidate, info.to_metadata())
    onnx.checker.check_model(candidate, full_check=True)
    with appearing(out) as partial:
        partial.write_bytes(candidate.SerializeToString())
    size = model_path.stat().st_size, out.stat().st_size
    return Report(len(calibrated), kept, blocks, changed, miou, size)


def _search(
    full: onnx.ModelProto, folded: onnx.ModelProto, loss_of: _Loss, limit: float, path: Path
) -> tuple[onnx.ModelProto, float, list[str], dict[str, float]]:
    """Return the quantised graph with the fewest blocks in float whose loss is within the limit.

    Blocks turn to float one after another, starting with the block that reduces the changed labels the most when it is
    the only one in float.

    Args:
        full: Graph with all layers quantised.
        folded: Float graph that it was made from.
        loss_of: Loss to keep within the limit.
        limit: Largest loss.
        path: Model file, for errors.

    Returns:
        Graph, its loss, its blocks in float, and the percent of changed labels with only one block in float, by block.

    Raises:
        QuantizeError: The loss is too large even with every block in float.
    """
    loss = loss_of(full)
    if loss <= limit:
        return full, loss, [], {}
    blocks = {block: loss_of.changed(keep_in_float(full, folded, [block])) for block in block_names(folded)}
    kept: list[str] = []
    for block in sorted(blocks, key=lambda block: blocks[block]):
        kept.append(block)
        candidate = keep_in_float(full, folded, kept)
        loss = loss_of(candidate)
        if loss <= limit:
            return candidate, loss, kept, blocks
    raise QuantizeError(f'{path}: the loss is {loss:.2f} with nothing quantised, expected at most {limit}')


class _Loss:
    """Measures what a quantised graph loses against the float graph.

    Args:
        folded: Float graph.
        images: Images to compare the masks on.
        data: Labelled images to measure mIoU on, or None.
        classes: Classes of the model.
        scale: Input scale of the model.
        threads: Number of CPU threads.

    Attributes:
        miou: mIoU of the float graph, percent; None without labelled data.

    Raises:
        QuantizeError: No pixel of the data has a label.
    """

    def __init__(
        self,
        folded: onnx.ModelProto,
        images: Sequence[np.ndarray],
        data: SegmentationFolder | None,
        classes: ClassTable,
        scale: InputScale,
        threads: int,
    ):
        self._images, self._threads = images, threads
        self._data, self._classes, self._scale = data, classes, scale
        reference = _run(folded, threads)
        self._masks = [reference(image) for image in images]
        self.miou = None if data is None else _miou(reference, data, classes, scale)
        if self.miou is not None and math.isnan(self.miou):
            raise QuantizeError(f'{data}: no pixel has a label of a class, expected some to measure mIoU on')

    def changed(self, model: onnx.ModelProto) -> float:
        """Return the percent of labels in which a graph differs from the float graph."""
        mask = _run(model, self._threads)
        pairs = zip(self._images, self._masks, strict=True)
        return 100 * float(np.mean([(mask(image) != expected).mean() for image, expected in pairs]))

    def __call__(self, model: onnx.ModelProto) -> float:
        """Return the loss of mIoU in points, or without labelled data, the percent of changed labels."""
        if self._data is None or self.miou is None:
            return self.changed(model)
        return self.miou - _miou(_run(model, self._threads), self._data, self._classes, self._scale)


def _run(model: onnx.ModelProto, threads: int) -> Mask:
    """Return a function that runs a graph as the segmenter does."""
    backend = make_backend('onnxruntime', model, threads)
    return lambda image: backend(image[None], False)[0][0]


def _miou(mask: Mask, data: SegmentationFolder, classes: ClassTable, scale: InputScale) -> float:
    """Return the mIoU in percent, by the protocol of ``stdc evaluate``.

    Raises:
        ValueError: An image is too small or too large for the network. The message names it.
    """

    def checked(image: np.ndarray) -> np.ndarray:
        height, width = image.shape[:2]
        check_size(height, width, scale.of((height, width)))
        return mask(image)

    predictor, dataset = grouped(Predictor(checked, classes, '', {}), data)
    return 100 * evaluate(predictor, dataset, progress=True).confusion.miou()
