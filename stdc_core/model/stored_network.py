# SPDX-License-Identifier: Apache-2.0
"""Read the networks inside weights files and model files, as named tensors with their description."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

import torch
from onnx import numpy_helper
from safetensors import SafetensorError, safe_open
from torch import Tensor

from stdc_core.classes import ClassTable
from stdc_core.inference.model_file import NETWORK_NAMES, ModelError, is_network, read_model, read_provenance
from stdc_core.inference.onnx_graph.quantized import is_quantized
from stdc_core.io.text import one_line
from stdc_core.model.stdc import STAGE_BLOCKS


class WeightsError(ValueError):
    """A weights file that cannot be used. The message names the file, what was found and what was expected."""


class StoredNetwork(NamedTuple):
    """Content of a file with a segmentation network.

    Args:
        backbone: Name of the network.
        classes: Classes of the network.
        provenance: What a user should know about the training.
        state: Tensor of each key of the network.
    """

    backbone: str
    classes: ClassTable
    provenance: dict[str, str]
    state: dict[str, Tensor]


class StoredClassifier(NamedTuple):
    """Content of a file with an image classifier.

    Args:
        backbone: Name of the backbone.
        classes: Names of the classes; they have no colours.
        provenance: What a user should know about the training.
        state: Tensor of each key of the network.
    """

    backbone: str
    classes: tuple[str, ...]
    provenance: dict[str, str]
    state: dict[str, Tensor]


Stored = StoredNetwork | StoredClassifier


def read_stored(path: str | Path) -> Stored:
    """Read a file, and check its backbone and class offset.

    Args:
        path: Weights file or ``model.onnx``.

    Raises:
        FileNotFoundError: The file does not exist.
        WeightsError: The file is damaged or of another kind.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f'{path}: no such file')
    stored = _read_onnx(path) if Path(path).suffix == '.onnx' else _read_safetensors(path)
    known = stored.backbone in STAGE_BLOCKS if isinstance(stored, StoredClassifier) else is_network(stored.backbone)
    if not known:
        found = one_line(stored.backbone, 20)
        expected = f'one of {", ".join(STAGE_BLOCKS)}' if isinstance(stored, StoredClassifier) else NETWORK_NAMES
        raise WeightsError(f'{path}: found backbone {found!r}, expected {expected}')
    try:
        offset = json.loads(stored.provenance.get('class_offset', 'null'))
    except (ValueError, RecursionError):
        offset = 'damaged'
    if offset is not None and not (isinstance(offset, list) and all(isinstance(number, float) for number in offset)):
        raise WeightsError(f'{path}: class_offset in its provenance: expected a list of numbers')
    if offset is not None and len(offset) != len(stored.classes):
        raise WeightsError(
            f'{path}: class_offset in its provenance: {len(offset)} numbers for {len(stored.classes)} classes'
        )
    return stored


def _read_safetensors(path: str | Path) -> Stored:
    """Read a file from ``save_weights`` or ``save_classifier``. Raises WeightsError if the file is damaged."""
    try:
        with safe_open(path, 'pt') as file:
            metadata = file.metadata() or {}
            state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a dict)
    except (SafetensorError, ValueError, TypeError, RuntimeError, MemoryError) as error:
        advice = '; `stdc import` reads checkpoints' if Path(path).suffix in ('.pth', '.pt', '.tar') else ''
        raise WeightsError(f'{path}: not a safetensors file ({one_line(error)}){advice}') from error
    classifies = metadata.get('kind') == 'classifier'
    missing = {'backbone', 'provenance', 'names' if classifies else 'classes'} - metadata.keys()
    if missing:
        raise WeightsError(
            f'{path}: no {", ".join(sorted(missing))} in its metadata; '
            'expected weights from `stdc train`, `stdc pretrain` or `stdc import`'
        )
    try:
        provenance = read_provenance(metadata['provenance'])
        if classifies:
            return StoredClassifier(metadata['backbone'], _names(metadata['names']), provenance, state)
        return StoredNetwork(metadata['backbone'], ClassTable.from_json(metadata['classes']), provenance, state)
    except ValueError as error:
        raise WeightsError(f'{path}: its metadata is damaged ({one_line(error)})') from error


def _names(text: str) -> tuple[str, ...]:
    """Return the class names in a JSON list of strings. Raises ValueError if the text is not one."""
    try:
        names = json.loads(text)
    except RecursionError as error:
        raise ValueError('names: nested too deeply') from error
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ValueError('names: expected a list of strings')
    return tuple(names)


def _read_onnx(path: str | Path) -> StoredNetwork:
    """Read the weights inside a ``model.onnx``. Raises WeightsError if it is damaged or quantised."""
    try:
        proto, info = read_model(path)
    except ModelError as error:
        raise WeightsError(str(error)) from error
    if is_quantized(proto):
        raise WeightsError(f'{path}: is quantised and has no float weights; expected the model that it was made from')
    prefix = 'model.'
    state = {
        tensor.name.removeprefix(prefix): torch.from_numpy(numpy_helper.to_array(tensor).copy())
        for tensor in proto.graph.initializer
        if tensor.name.startswith(prefix)
    }
    return StoredNetwork(info.backbone, info.classes, info.provenance, state)
