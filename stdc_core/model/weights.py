"""Weights on disk: safetensors with the backbone, the class table and the provenance in the file's metadata."""

from __future__ import annotations

import json
import os
from pathlib import Path

import torch
from onnx import numpy_helper
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from stdc_core.classes import ClassTable
from stdc_core.inference.model_file import ModelError, read_model
from stdc_core.model.segmentation import STDCSeg


class WeightsError(ValueError):
    """A weights file that cannot be used; the message names the file, what was found and what was expected."""


def save_weights(model: STDCSeg, path: str | Path, classes: ClassTable, provenance: dict[str, str]) -> None:
    """Write a network; a file at ``path`` is replaced at once or not at all.

    Convolutions are stored as float16, which loses less than training noise and halves the file; batch norms as
    float32.

    Args:
        provenance: what a user should know of the training: data, recipe, mIoU.
    """
    state = {key: value.half() if value.dim() > 1 else value for key, value in model.state_dict().items()}
    metadata = {
        'backbone': model.backbone.name,
        'classes': classes.to_json(),
        'provenance': json.dumps(provenance),
    }
    partial = Path(f'{path}.part')
    partial.write_bytes(save({key: value.contiguous() for key, value in state.items()}, metadata))
    os.replace(partial, path)


def load_weights(path: str | Path) -> tuple[STDCSeg, ClassTable, dict[str, str]]:
    """Read weights that ``save_weights`` wrote, or those inside a ``model.onnx``.

    A model file has no auxiliary and detail heads, which training alone uses: they keep their random start.

    Returns:
        The network in float32 and evaluation mode, its classes and its provenance.

    Raises:
        FileNotFoundError: there is no such file.
        WeightsError: it is neither, or not of an STDC-Seg network; the message says why.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f'{path}: no such file')
    if Path(path).suffix == '.onnx':
        return _load_onnx(path)
    try:
        with safe_open(path, 'pt') as file:
            metadata = file.metadata() or {}
            state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a dict)
    except SafetensorError as error:
        raise WeightsError(f'{path}: not a safetensors file ({error})') from error
    missing = {'backbone', 'classes', 'provenance'} - metadata.keys()
    if missing:
        raise WeightsError(
            f'{path}: no {", ".join(sorted(missing))} in its metadata; expected weights from `stdc train`'
        )
    try:
        classes = ClassTable.from_json(metadata['classes'])
        strides = tuple(sorted({int(key.split('.')[1]) for key in state if key.startswith('detail_heads.')}))
        model = STDCSeg(metadata['backbone'], len(classes), strides)
        provenance = json.loads(metadata['provenance'])
    except ValueError as error:
        raise WeightsError(f'{path}: its metadata is damaged ({error})') from error
    load_state(model, state, path)
    return model.eval(), classes, provenance


def _load_onnx(path: str | Path) -> tuple[STDCSeg, ClassTable, dict[str, str]]:
    try:
        proto, info = read_model(path)
    except ModelError as error:
        raise WeightsError(str(error)) from error
    model = STDCSeg(info.backbone, len(info.classes))
    prefix = 'model.'
    state = {
        tensor.name.removeprefix(prefix): torch.from_numpy(numpy_helper.to_array(tensor).copy())
        for tensor in proto.graph.initializer
        if tensor.name.startswith(prefix)
    }
    untold = ('aux8_head.', 'aux16_head.', 'detail_heads.')
    own = model.state_dict()
    state |= {key: own[key] for key in own if key.startswith(untold) or key.endswith('num_batches_tracked')}
    load_state(model, state, path)
    return model.eval(), info.classes, info.provenance


def load_state(model: STDCSeg, state: dict[str, torch.Tensor], source: str | Path) -> None:
    """Copy a complete state into a model.

    Raises:
        WeightsError: keys are missing, left over or of another shape; the message names them and ``source``.
    """
    expected = model.state_dict()
    problems = [f'missing {key}' for key in expected if key not in state]
    problems += [f'unexpected {key}' for key in state if key not in expected]
    problems += [
        f'{key} is {tuple(state[key].shape)}, expected {tuple(value.shape)}'
        for key, value in expected.items()
        if key in state and state[key].shape != value.shape
    ]
    if problems:
        rest = f'; and {len(problems) - 8} more' if len(problems) > 8 else ''
        raise WeightsError(f'{source}: {"; ".join(problems[:8])}{rest}')
    model.load_state_dict(state)
