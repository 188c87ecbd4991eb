# SPDX-License-Identifier: Apache-2.0
"""Compute and draw what networks see in images, for ``stdc explain``."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from tqdm import tqdm

from stdc_core.classes import ClassTable
from stdc_core.commands.labelled_data import labelled_data
from stdc_core.data.reading import count_ids, read_ids, read_image
from stdc_core.evaluation.evaluate import evenly
from stdc_core.evaluation.metrics import ConfusionMatrix
from stdc_core.evaluation.report import check_folder
from stdc_core.export.calibration_images import find_images
from stdc_core.inference.backend import check_threads
from stdc_core.inference.input_scale import InputScale
from stdc_core.inference.model_file import ModelInfo
from stdc_core.inference.segmenter import check_size
from stdc_core.io.files import write_png
from stdc_core.model.deployed_graph import DeployedGraph, stored_class_offset, stored_input_scale
from stdc_core.model.segmentation import SegmentationNetwork, STDCSeg, normalize, rescale
from stdc_core.model.weights import load_weights
from stdc_core.pictures.explained import Scene, View, explained
from stdc_core.training.detail import detail_target


class _Network(NamedTuple):
    """A network to explain; ``detail_head`` says whether its detail head was trained."""

    caption: str
    model: SegmentationNetwork
    graph: DeployedGraph
    scale: InputScale
    classes: ClassTable
    detail_head: bool


class _Picture(NamedTuple):
    """An image, uint8 BGR ``[H, W, 3]``, and its label, uint8 ``[H, W]``, or None."""

    name: str
    image: np.ndarray
    truth: np.ndarray | None


def explain(
    models: Sequence[Path],
    images: Sequence[Path] | None,
    data: Path | None,
    split: str,
    out: Path,
    limit: int,
    input_scale: float | None = None,
    threads: int = 0,
) -> list[Path]:
    """Draw a picture for each image, and a sheet of all.

    Args:
        models: Weights or model files; all of them have the same classes.
        images: Images and folders of images; None: those of ``data``.
        data: Dataset, whose labels are compared with the masks; None: ``images`` are given.
        split: Split of the dataset.
        out: Folder to write to.
        limit: Largest number of images; more are thinned out evenly.
        input_scale: Scale at which the networks see the images; None: as trained.
        threads: Number of CPU threads; 0 takes all.

    Returns:
        Paths of the pictures; the last one is that of the sheet.

    Raises:
        ValueError: A model or an image cannot be used, or the classes of the models differ.
        FileNotFoundError: A file does not exist.
        FileExistsError: The folder is not empty.
    """
    check_folder(out)
    check_threads(threads)
    if threads:
        torch.set_num_threads(threads)
    networks = [_open(path, input_scale) for path in models]
    classes = networks[0].classes
    for path, network in zip(models, networks, strict=True):
        if network.classes.names != classes.names:
            raise ValueError(
                f'{path}: expected the classes of {models[0]} ({", ".join(classes.names)}), '
                f'found {", ".join(network.classes.names)}'
            )
    scenes, written = [], []
    count, pictures = _dataset(data, split, classes, limit) if data else _files(images or [], classes, limit)
    for picture in tqdm(pictures, total=count, unit='image', disable=None):
        scenes.append(_scene(picture, networks))
        written.append(out / f'{picture.name}_explained.png')
        out.mkdir(parents=True, exist_ok=True)
        write_png(written[-1], explained(scenes[-1:], classes))
    written.append(out / 'sheet.png')
    write_png(written[-1], explained(scenes, classes))
    return written


def _open(path: Path, input_scale: float | None) -> _Network:
    model, classes, provenance = load_weights(path)
    info = ModelInfo(model.name, stored_input_scale(path, provenance), classes, provenance)
    if input_scale is not None:
        info = info.at(input_scale)
    try:
        guided = float(json.loads(provenance['recipe'])['detail_weight']) > 0
    except (KeyError, TypeError, ValueError):
        guided = True  # such as an imported checkpoint
    caption = f'{path.parent.name}/{path.name}: {info.name}' if path.parent.name else f'{path.name}: {info.name}'
    graph = DeployedGraph(model, info.scale.own, stored_class_offset(provenance)).eval()
    return _Network(caption, model, graph, info.scale, classes, guided and path.suffix != '.onnx')


def _dataset(data: Path, split: str, classes: ClassTable, limit: int) -> tuple[int, Iterator[_Picture]]:
    """Return the number of pictures and the pictures of a dataset."""
    dataset = labelled_data(data, split, classes)
    chosen = evenly(limit, len(dataset))
    samples = (dataset[index] for index in chosen)
    return len(chosen), (_Picture(sample.name, sample.image, sample.label) for sample in samples)


def _files(paths: Sequence[Path], classes: ClassTable, limit: int) -> tuple[int, Iterator[_Picture]]:
    """Return the number of pictures and the pictures in files, with labels where a folder ``labels`` has them."""
    found = find_images(paths)
    chosen = [found[index] for index in evenly(limit, len(found))]
    stems = [path.stem for path in chosen]
    names = [stem if stems.count(stem) == 1 else f'{index:03}_{stem}' for index, stem in enumerate(stems)]
    return len(chosen), (
        _Picture(name, read_image(path), _label(path, classes)) for name, path in zip(names, chosen, strict=True)
    )


def _label(path: Path, classes: ClassTable) -> np.ndarray | None:
    label = path.parent.with_name('labels') / f'{path.stem}.png'
    if path.parent.name != 'images' or not label.is_file():
        return None
    ids = read_ids(label)
    count_ids(ids, len(classes), label)
    return ids


def _scene(picture: _Picture, networks: Sequence[_Network]) -> Scene:
    """Raises ValueError, naming the image, if it is too small or does not have the size of its label."""
    target = None
    if picture.truth is not None:
        if picture.truth.shape != picture.image.shape[:2]:
            raise ValueError(
                f'{picture.name}: its label is {picture.truth.shape}, expected {picture.image.shape[:2]} as the image'
            )
        target = detail_target(torch.from_numpy(picture.truth)[None])[0, 0].numpy()
    try:
        views = [_view(picture, network) for network in networks]
    except ValueError as error:
        raise ValueError(f'{picture.name}: {error}') from error
    return Scene(picture.name, picture.image, picture.truth, target, views)


def _view(picture: _Picture, network: _Network) -> View:
    height, width = picture.image.shape[:2]
    scale = network.scale.of((height, width))
    check_size(height, width, scale)
    image = torch.from_numpy(np.ascontiguousarray(picture.image))[None]
    network.graph.input_scale = scale
    with torch.inference_mode():
        mask = network.graph(image)[0][0].numpy()
        seen = normalize(rescale(image.permute(0, 3, 1, 2).float(), scale))
        feature = network.model.details(seen)
        strength = feature.abs().mean(dim=1)[0].numpy()
        details = None
        if network.detail_head and isinstance(network.model, STDCSeg) and '8' in network.model.detail_heads:
            details = network.model.detail_heads['8'](feature).sigmoid()[0, 0].numpy()
    caption = network.caption
    if picture.truth is not None:
        confusion = ConfusionMatrix(len(network.classes))
        confusion.update(mask, picture.truth)
        present = confusion.counts.sum(axis=1) > 0
        if present.any():
            caption += f', mIoU {100 * confusion.iou()[present].mean():.1f} % of this image'
    return View(caption, strength, details, mask)
