# SPDX-License-Identifier: Apache-2.0
"""Read and write weights: safetensors with the kind of network, its backbone, classes and provenance as metadata."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from safetensors.torch import save
from torch import Tensor, nn

from stdc_core.classes import ClassTable
from stdc_core.io.files import appearing
from stdc_core.io.text import one_line
from stdc_core.model.networks import make_network, outline
from stdc_core.model.segmentation import SegmentationNetwork, STDCSeg
from stdc_core.model.stdc import STDCBackbone, STDCClassifier
from stdc_core.model.stored_network import Stored, StoredClassifier, StoredNetwork, WeightsError, read_stored
from stdc_core.model.timm_backbone import BackboneError

#: Beginnings of the keys of STDCSeg that only training uses; a model.onnx does not contain them.
TRAINING_ONLY = ('aux8_head.', 'aux16_head.', 'detail_heads.')
# Layers of STDCSeg with an output for each class.
_CLASS_LAYERS = ('head.1.', 'aux8_head.1.', 'aux16_head.1.')


def save_weights(model: SegmentationNetwork, path: str | Path, classes: ClassTable, provenance: dict[str, str]) -> None:
    """Write a segmentation network. A file at ``path`` is replaced at once or not at all.

    Convolutions are stored as float16, which halves the file and changes weights less than training noise does. Batch
    norms are stored as float32.

    Args:
        model: Network.
        path: File to write.
        classes: Classes of the network.
        provenance: What a user should know about the training: data, recipe, mIoU.

    Raises:
        WriteError: The file cannot be written.
    """
    _save(model, model.name, path, provenance, classes=classes.to_json())


def save_classifier(model: STDCClassifier, path: str | Path, names: Sequence[str], provenance: dict[str, str]) -> None:
    """Write an image classifier, in the same way as ``save_weights`` writes a segmentation network.

    Args:
        model: Network.
        path: File to write.
        names: Class name of each output.
        provenance: What a user should know about the training.

    Raises:
        ValueError: The number of names is not the number of outputs.
        WriteError: The file cannot be written.
    """
    if len(names) != model.fc2.out_features:
        raise ValueError(f'{path}: {len(names)} class names for {model.fc2.out_features} outputs')
    _save(model, model.backbone.name, path, provenance, kind='classifier', names=json.dumps(list(names)))


def _save(model: nn.Module, name: str, path: str | Path, provenance: dict[str, str], **metadata: str) -> None:
    """Write a network with its provenance and further metadata. Raises WriteError."""
    state = {key: value.half() if value.dim() > 1 else value for key, value in model.state_dict().items()}
    metadata |= {'backbone': name, 'provenance': json.dumps(provenance)}
    with appearing(Path(path)) as partial:
        partial.write_bytes(save({key: value.contiguous() for key, value in state.items()}, metadata))


def load_weights(path: str | Path) -> tuple[SegmentationNetwork, ClassTable, dict[str, str]]:
    """Read a segmentation network from a file of ``save_weights`` or from a ``model.onnx``.

    A ``model.onnx`` has no auxiliary and detail heads, which only training uses. They keep their random initial values.

    Args:
        path: Weights or model file.

    Returns:
        Network in float32 and evaluation mode, its classes and its provenance.

    Raises:
        FileNotFoundError: The file does not exist.
        WeightsError: The file is damaged, or does not contain an STDC-Seg network.
    """
    stored = read_stored(path)
    if isinstance(stored, StoredClassifier):
        raise WeightsError(
            f'{path}: an image classifier, expected a segmentation network; '
            '`stdc train --init` takes the backbone of a classifier'
        )
    if Path(path).suffix == '.onnx':
        strides: tuple[int, ...] = (8,)
    else:
        strides = tuple(sorted(_detail_strides(stored.state)))
    model = _network(stored, strides, path)
    return model.eval(), stored.classes, stored.provenance


def _network(stored: StoredNetwork, strides: tuple[int, ...], path: str | Path) -> SegmentationNetwork:
    """Return the network of a file with its weights.

    The state is checked before the network takes any memory: a small file may name a network with billions of weights.

    Raises:
        WeightsError: The state is not that of the network.
    """
    count = len(stored.classes)
    absent = TRAINING_ONLY if Path(path).suffix == '.onnx' else None
    try:
        hollow = outline(stored.backbone, count, strides)
        check_state(hollow, _completed(hollow, stored.state, absent), path)
        model = make_network(stored.backbone, count, strides)
    except BackboneError as error:
        raise WeightsError(f'{path}: {error}') from error
    model.load_state_dict(_completed(model, stored.state, absent))
    return model


def load_classifier(path: str | Path) -> tuple[STDCClassifier, tuple[str, ...], dict[str, str]]:
    """Read an image classifier from a file of ``save_classifier``.

    Args:
        path: Weights file.

    Returns:
        Network in float32 and evaluation mode, the names of its classes and its provenance.

    Raises:
        FileNotFoundError: The file does not exist.
        WeightsError: The file is damaged, or does not contain an image classifier.
    """
    stored = read_stored(path)
    if isinstance(stored, StoredNetwork):
        raise WeightsError(f'{path}: a segmentation network, expected an image classifier')
    outputs = stored.state.get('fc2.weight')
    # Checked before a network with this number of outputs takes memory.
    if outputs is None or outputs.shape[:1] != (len(stored.classes),):
        found = 'no fc2.weight' if outputs is None else f'an fc2.weight of shape {list(outputs.shape)}'
        raise WeightsError(f'{path}: {len(stored.classes)} class names, but {found}')
    model = STDCClassifier(stored.backbone, len(stored.classes))
    load_state(model, stored.state, path)
    return model.eval(), stored.classes, stored.provenance


def initialise(model: SegmentationNetwork, path: str | Path, classes: ClassTable) -> str:
    """Initialise a model for training with the weights in a file. Other weights of the model keep their values.

    A segmentation network with the same class names supplies all of its weights. A segmentation network with other
    classes supplies all except the layers with an output for each class. An image classifier supplies its backbone. A
    ``model.onnx`` does not have the auxiliary and detail heads. Detail heads are taken at the strides that both have.

    Args:
        model: Network to initialise, in place.
        path: Weights or model file.
        classes: Classes of the model.

    Returns:
        Sentence that says what was taken.

    Raises:
        FileNotFoundError: The file does not exist.
        WeightsError: The file is damaged, is not one of the three, or has another backbone. The model is unchanged.
    """
    stored = read_stored(path)
    _expect_backbone(stored, model.name, path)
    if isinstance(stored, StoredClassifier):
        assert isinstance(model, STDCSeg)  # as its name is that of a classifier
        prefix = 'backbone.'
        state = {key.removeprefix(prefix): value for key, value in stored.state.items() if key.startswith(prefix)}
        _load_all_but(model.backbone, state, (), path)
        return f'{path}: took the {stored.backbone} backbone of a classifier of {len(stored.classes)} classes'
    own_strides = _detail_strides(model.state_dict())
    strides = _detail_strides(stored.state)
    onnx = Path(path).suffix == '.onnx'
    absent = TRAINING_ONLY if onnx else tuple(f'detail_heads.{s}.' for s in own_strides - strides)
    surplus = tuple(f'detail_heads.{s}.' for s in strides - own_strides)
    left = ['the auxiliary heads'] if onnx else []
    if own_strides - strides:
        left.append(f'the detail heads at stride {", ".join(map(str, sorted(own_strides - strides)))}')
    if stored.classes.names != classes.names:
        absent, surplus = (*absent, *_CLASS_LAYERS), (*surplus, *_CLASS_LAYERS)
        left.append('the last layers, because the classes differ')
    state = {key: value for key, value in stored.state.items() if not key.startswith(surplus)}
    _load_all_but(model, state, absent, path)
    everything = f'{path}: took the {stored.backbone} network of {len(stored.classes)} classes'
    return f'{everything}, except {" and ".join(left)}' if left else everything


def load_state(model: nn.Module, state: dict[str, Tensor], source: str | Path) -> None:
    """Copy a complete state into a model.

    Args:
        model: Network to change, in place.
        state: Tensor of each key of the model.
        source: File, for errors.

    Raises:
        WeightsError: See ``check_state``.
    """
    check_state(model, state, source)
    model.load_state_dict(state)


def check_state(model: nn.Module, state: dict[str, Tensor], source: str | Path) -> None:
    """Compare a state with that of a model.

    Args:
        model: Network, which may be on the device ``meta``.
        state: Tensor of each key of the model.
        source: File, for errors.

    Raises:
        WeightsError: Keys are missing, unexpected, or have another shape or kind of number. The message names them.
    """
    expected = model.state_dict()
    problems = [f'missing {key}' for key in expected if key not in state]
    problems += [f'unexpected {one_line(key, 80)}' for key in state if key not in expected]
    problems += [
        f'{key} has shape {tuple(state[key].shape)}, expected {tuple(value.shape)}'
        for key, value in expected.items()
        if key in state and state[key].shape != value.shape
    ]
    problems += [
        f'{key} has type {str(state[key].dtype).removeprefix("torch.")}, expected {wanted}'
        for key, value in expected.items()
        if key in state
        for wanted in ['floats' if value.is_floating_point() else 'integers']
        if state[key].is_complex() or state[key].is_floating_point() != value.is_floating_point()
    ]
    if problems:
        rest = f'; and {len(problems) - 8} more' if len(problems) > 8 else ''
        raise WeightsError(f'{source}: {"; ".join(problems[:8])}{rest}')


def _load_all_but(model: nn.Module, state: dict[str, Tensor], absent: tuple[str, ...], source: str | Path) -> None:
    """Copy a state into a model; keys that begin with one of ``absent``, and batch counters, may be missing.

    Raises:
        WeightsError: As ``load_state``.
    """
    load_state(model, _completed(model, state, absent), source)


def _completed(model: nn.Module, state: dict[str, Tensor], absent: tuple[str, ...] | None) -> dict[str, Tensor]:
    """Return the state with the model's own values for keys that may be missing.

    These are keys that begin with one of ``absent``, and counters of batches. None: no key may be missing.
    """
    if absent is None:
        return state
    kept = {
        key: value
        for key, value in model.state_dict().items()
        if key.startswith(absent) or (key.endswith('num_batches_tracked') and key not in state)
    }
    return state | kept


def _detail_strides(state: dict[str, Tensor]) -> set[int]:
    """Return the strides at which a state has a detail head."""
    return {s for s in STDCBackbone.channels if any(key.startswith(f'detail_heads.{s}.') for key in state)}


def _expect_backbone(stored: Stored, name: str, path: str | Path) -> None:
    """Raise WeightsError if a file has another backbone than ``name``."""
    if stored.backbone != name:
        raise WeightsError(f'{path}: found backbone {stored.backbone}, expected {name}')
