# SPDX-License-Identifier: Apache-2.0
"""Post-training quantisation: a ``model.onnx`` in int8, for CPUs and for TensorRT, calibrated on the user's images.

Weights are int8 per output channel, activations int8 per tensor, both symmetric around 0, as QuantizeLinear and
DequantizeLinear around each layer. Layers that cost too much accuracy stay in float; which those are is measured.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import math
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

from stdc_core.classes import ClassTable
from stdc_core.data.folder import IMAGE_SUFFIXES
from stdc_core.data.reading import read_image
from stdc_core.evaluation.evaluate import Dataset, Predictor, evaluate, evenly
from stdc_core.inference.backend import check_threads
from stdc_core.inference.backend_choice import make_backend
from stdc_core.inference.input_scale import InputScale, set_input_scale
from stdc_core.inference.model_file import ModelError, read_model
from stdc_core.inference.onnx_graph.constant_folding import fold, remove_unused
from stdc_core.inference.onnx_graph.network_search import describe_network
from stdc_core.inference.onnx_graph.quantized import is_quantized
from stdc_core.inference.segmenter import SizeError, check_size
from stdc_core.io.files import appearing, check_no_folder, check_writable, walk

#: Images that the ranges of the activations are taken from, and others that the result is compared on.
CALIBRATED, COMPARED = 32, 8

#: Percent: of labels that change without labelled data, else points of mIoU.
MAX_CHANGED, MAX_LOST = 1.0, 0.5

QUANTIZED = ('Conv', 'Concat', 'AveragePool')

_DEQUANTIZED = '_DequantizeLinear_Output'

#: uint8 ``[H, W, 3]`` to uint8 ``[H, W]``.
Mask = Callable[[np.ndarray], np.ndarray]


class QuantizeError(ValueError):
    """What makes a quantised model impossible."""


@dataclass(frozen=True)
class Report:
    """What came of a quantisation.

    Args:
        images: so many were calibrated on.
        kept: blocks that stayed in float.
        blocks: how many percent of the labels changed with each block alone in float; empty: all could be quantised.
        changed: percent of labels that differ from the float model's.
        miou: of the float and of the quantised model, in percent; None: no labelled data was given.
        size: bytes of the float and of the quantised file.
    """

    images: int
    kept: list[str]
    blocks: dict[str, float]
    changed: float
    miou: tuple[float, float] | None
    size: tuple[int, int]


def quantize(
    model_path: Path,
    out: Path,
    images: Sequence[Path],
    data: Dataset | None = None,
    max_loss: float | None = None,
    threads: int = 0,
    overwrite: bool = False,
) -> Report:
    """Write a quantised model file.

    Args:
        model_path: a ``model.onnx`` of ``stdc export``.
        out: the file to write.
        images: image files like those that the model will see; some are taken, evenly.
        data: labelled images to measure mIoU on.
        max_loss: of mIoU in points, or without ``data`` of labels in percent; None: 0.5 and 1.
        threads: CPU threads, at most 256; 0 takes every core that this process may use.

    Raises:
        FileExistsError: ``out`` exists and ``overwrite`` is false; IsADirectoryError: it is a folder.
        FileNotFoundError, ModelError: there is no such model, or it is none, or quantised already.
        WriteError: nothing can be written to ``out``.
        QuantizeError: there are too few images, one is too small or too large for the network, the data has no labelled
            pixel, or the loss is too large with any part quantised.
        ValueError: ``max_loss`` or ``threads`` is out of its range.
    """
    check_no_folder(out)
    if out.exists() and not overwrite:
        raise FileExistsError(f'{out} exists; say --overwrite to replace it')
    if max_loss is not None and not 0 <= max_loss < math.inf:
        raise ValueError(f'max loss: expected a finite number of 0 or more, found {max_loss}')
    check_writable(out)
    check_threads(threads)
    if len(images) < 2:
        raise QuantizeError(f'{len(images)} images to calibrate on, expected 2 at least and better {CALIBRATED}')
    model, info = read_model(model_path)
    if is_quantized(model):
        raise ModelError(f'{model_path}: is quantised already; expected the model that it was made of')
    calibrated = [images[index] for index in evenly(CALIBRATED, len(images))]
    others = [image for image in images if image not in calibrated] or calibrated
    scale = info.scale
    compared = [_image(others[index], scale) for index in evenly(COMPARED, len(others))]
    if scale.pixels is not None:
        set_input_scale(model, scale)
    folded = fold(model)
    full = _quantized(folded, calibrated, scale)
    reference = _run(folded, threads)
    changed = _Changed(reference, compared, threads)
    before = _miou(reference, data, info.classes, scale) if data is not None else None
    if before is not None and math.isnan(before):
        raise QuantizeError(f'{data}: no pixel has a label of a class, expected some to measure mIoU on')
    limit = max_loss if max_loss is not None else MAX_CHANGED if data is None else MAX_LOST

    def lost(candidate: onnx.ModelProto) -> float:
        if data is None or before is None:
            return changed(candidate)
        return before - _miou(_run(candidate, threads), data, info.classes, scale)

    candidate = full
    kept: list[str] = []
    blocks: dict[str, float] = {}
    loss = lost(full)
    if not loss <= limit:
        blocks = {block: changed(_in_float(full, folded, [block])) for block in block_names(folded)}
        # The block whose staying in float helps most goes first.
        for block in sorted(blocks, key=lambda block: blocks[block]):
            kept.append(block)
            candidate = _in_float(full, folded, kept)
            loss = lost(candidate)
            if loss <= limit:
                break
        else:
            raise QuantizeError(f'{model_path}: loses {loss:.2f} with nothing quantised, expected at most {limit}')
    if not is_quantized(candidate):
        raise QuantizeError(
            f'{model_path}: no part of it can be quantised with a loss of at most {limit:g}; '
            'allow a larger loss, or use the model in float'
        )
    miou = None if before is None else (before, before - loss)
    share = changed(candidate)
    recipe: dict[str, Any] = {'images': len(calibrated), 'in float': kept, 'labels changed (%)': round(share, 3)}
    if miou is not None:
        recipe['mIoU before and after (%)'] = [round(value, 2) for value in miou]
    provenance = {**info.provenance, 'quantized': json.dumps(recipe)}
    network = info.network or describe_network(model, len(info.classes))
    info = dataclasses.replace(info, provenance=provenance, network=network)
    if scale.pixels is not None:  # as every model file, which the segmenter makes for all sizes
        set_input_scale(candidate, scale.own)
    helper.set_model_props(candidate, info.to_metadata())
    onnx.checker.check_model(candidate, full_check=True)
    with appearing(out) as partial:
        partial.write_bytes(candidate.SerializeToString())
    size = model_path.stat().st_size, out.stat().st_size
    return Report(len(calibrated), kept, blocks, share, miou, size)


def find_images(paths: Sequence[Path]) -> list[Path]:
    """Image files: those given, and all in the folders given but for hidden ones and the labels of datasets.

    Raises:
        FileNotFoundError: something is not there, or is a folder without images; the message names it.
    """
    found = []
    for path in paths:
        if not path.exists():
            raise FileNotFoundError(f'{path}: no such image or folder')
        if path.is_dir():
            inside = list(_inside(path))
            if not inside:
                raise FileNotFoundError(f'{path}: no images ({", ".join(IMAGE_SUFFIXES)})')
            found += inside
        else:
            found.append(path)
    return found


def _inside(top: Path) -> Iterator[Path]:
    for folder, subfolders, names in walk(top, 'stdc quantize'):
        subfolders[:] = [name for name in subfolders if not name.startswith('.')]
        for name in sorted(names):
            file = folder / name
            if file.suffix.lower() in IMAGE_SUFFIXES and not name.startswith('.') and not _is_label(file):
                yield file


def _is_label(file: Path) -> bool:
    """Whether a picture is a label: of our own layout, of CamVid as published, of SegNet's, or of Cityscapes."""
    folder = file.parent
    if folder.name == 'labels' and folder.with_name('images').is_dir():
        return True
    if 'label' in folder.name.lower() and file.name.endswith('_L.png'):
        return True
    images = folder.name.removesuffix('annot')
    if images not in ('', folder.name) and folder.with_name(images).is_dir():
        return True
    return re.search(r'_gt(Fine|Coarse)_\w+\.png$', file.name) is not None


def block_names(model: onnx.ModelProto) -> list[str]:
    """The parts of the network that stay in float together, such as ``backbone.stage3.0`` or ``ffm``."""
    return list(dict.fromkeys(_block(node) for node in _layers(model)))


def _layers(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    """Layers to quantise: all that are large. What follows a global average is small, and a gate needs its accuracy."""
    gates: set[str] = set()
    features: set[str] = set()
    for node in model.graph.node:
        if node.op_type == 'ReduceMean' or (node.op_type in ('Conv', 'Relu', 'Sigmoid') and gates & set(node.input)):
            gates.update(node.output)
        elif node.op_type == 'Relu':
            features.update(node.output)
    return [
        node
        for node in model.graph.node
        if node.op_type in QUANTIZED
        and not gates & set(node.output)
        # Other Concats put shapes together.
        and (node.op_type != 'Concat' or features & set(node.input))
    ]


def _block(node: onnx.NodeProto) -> str:
    """Of ``/model/backbone/stage3/stage3.0/...`` ``backbone.stage3.0``, of ``/model/ffm/conv/Conv`` ``ffm``."""
    first, second, *rest = node.name.split('/')[2:]
    if first != 'backbone':
        return first
    return f'{first}.{rest[0] if rest and rest[0].startswith(second) else second}'


def _image(path: Path, scale: InputScale) -> np.ndarray:
    """Raises QuantizeError, naming the file, for an image that the segmenter would not take."""
    image = read_image(path)
    try:
        height, width = image.shape[:2]
        check_size(height, width, scale.of((height, width)))
    except SizeError as error:
        raise QuantizeError(f'{path}: {error}') from error
    return image


class _Reader(CalibrationDataReader):
    """One image at a time, at its own size."""

    def __init__(self, images: Iterable[Path], scale: InputScale):
        self._images, self._scale = iter(images), scale

    def get_next(self) -> dict[str, np.ndarray] | None:
        path = next(self._images, None)
        return None if path is None else {'image': _image(path, self._scale)[None]}


@contextmanager
def _only_errors(logger: logging.Logger) -> Iterator[None]:
    """Leave out what is less than an error."""
    level = logger.level
    logger.setLevel(max(level, logging.ERROR))
    try:
        yield
    finally:
        logger.setLevel(level)


def _quantized(folded: onnx.ModelProto, images: Sequence[Path], scale: InputScale) -> onnx.ModelProto:
    """All layers quantised."""
    layers = {node.name for node in _layers(folded)}
    # It advises to preprocess, which is done, and warns of every tensor that it leaves alone.
    with _only_errors(logging.getLogger()), tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / 'float.onnx', Path(folder) / 'int8.onnx'
        onnx.save(folded, source)
        quantize_static(
            source,
            target,
            _Reader(images, scale),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            weight_type=QuantType.QInt8,
            activation_type=QuantType.QInt8,
            nodes_to_quantize=sorted(layers),
            # TensorRT takes neither zero points nor int32 biases.
            extra_options={'ActivationSymmetric': True, 'WeightSymmetric': True, 'QuantizeBias': False},
        )
        model = onnx.load(target)
    _release_others(model.graph, layers)
    return model


def _release_others(graph: onnx.GraphProto, layers: set[str]) -> None:
    """Let what is no quantised layer take the numbers as they are.

    A ReLU above all: all runtimes compute it as one with the convolution before it.
    """
    producers = {name: node for node in graph.node for name in node.output}
    for node in graph.node:
        if node.name in layers or node.op_type in ('QuantizeLinear', 'DequantizeLinear'):
            continue
        for index, name in enumerate(node.input):
            dequantize = producers.get(name)
            if dequantize is not None and dequantize.op_type == 'DequantizeLinear':
                node.input[index] = producers[dequantize.input[0]].input[0]
    remove_unused(graph)


def _in_float(quantized: onnx.ModelProto, folded: onnx.ModelProto, blocks: Sequence[str]) -> onnx.ModelProto:
    """A copy in which the layers of some blocks take float activations and weights."""
    model = onnx.ModelProto()
    model.CopyFrom(quantized)
    producers = {name: node for node in model.graph.node for name in node.output}
    weights = {tensor.name: tensor for tensor in folded.graph.initializer}
    names = {node.name for node in _layers(folded) if _block(node) in blocks}
    for node in model.graph.node:
        for index, name in enumerate(node.input if node.name in names else ()):
            source = producers.get(name)
            if source is None or source.op_type != 'DequantizeLinear':
                continue
            weight = name.removesuffix(_DEQUANTIZED)
            if weight in weights:
                model.graph.initializer.append(weights[weight])
                node.input[index] = weight
            else:
                node.input[index] = producers[source.input[0]].input[0]
    remove_unused(model.graph)
    return model


def _run(model: onnx.ModelProto, threads: int) -> Mask:
    """A graph as the segmenter runs it."""
    backend = make_backend('onnxruntime', model, threads)
    return lambda image: backend(image[None], False)[0][0]


class _Changed:
    """Percent of labels in which a graph differs from the float one."""

    def __init__(self, reference: Mask, images: Sequence[np.ndarray], threads: int):
        self._images, self._threads = images, threads
        self._masks = [reference(image) for image in images]

    def __call__(self, model: onnx.ModelProto) -> float:
        mask = _run(model, self._threads)
        pairs = zip(self._images, self._masks, strict=True)
        return 100 * float(np.mean([(mask(image) != expected).mean() for image, expected in pairs]))


def _miou(mask: Mask, data: Dataset, classes: ClassTable, scale: InputScale) -> float:
    """In percent, by the protocol of ``stdc evaluate``, of images that the segmenter takes at the input scale."""

    def checked(image: np.ndarray) -> np.ndarray:
        height, width = image.shape[:2]
        check_size(height, width, scale.of((height, width)))
        return mask(image)

    return 100 * evaluate(Predictor(checked, classes, '', {}), data, progress=True).confusion.miou()
