# SPDX-License-Identifier: Apache-2.0
"""Import checkpoints (``.pth``, ``.tar``) of the reference implementation, github.com/MichaelFan01/STDC-Seg."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from stdc_core.classes import ClassTable
from stdc_core.io.text import one_line
from stdc_core.model.segmentation import STDCSeg
from stdc_core.model.stdc import STAGE_BLOCKS, STDCClassifier
from stdc_core.model.weights import WeightsError, load_state

_BACKBONE = 'cp.backbone.'
# Names of the modules outside the backbone: in the reference, and here.
_MODULES = {
    'cp.conv_avg': 'global_context',
    'cp.arm32.conv_atten': 'arm32.gate',
    'cp.arm32.bn_atten': 'arm32.gate_bn',
    'cp.arm32.conv': 'arm32.conv',
    'cp.arm16.conv_atten': 'arm16.gate',
    'cp.arm16.bn_atten': 'arm16.gate_bn',
    'cp.arm16.conv': 'arm16.conv',
    'cp.conv_head32': 'refine16',
    'cp.conv_head16': 'refine8',
    'ffm.convblk': 'ffm.conv',
    'ffm.conv1': 'ffm.squeeze',
    'ffm.conv2': 'ffm.excite',
    'conv_out.conv_out': 'head.1',
    'conv_out.conv': 'head.0',
    'conv_out16.conv_out': 'aux8_head.1',
    'conv_out16.conv': 'aux8_head.0',
    'conv_out32.conv_out': 'aux16_head.1',
    'conv_out32.conv': 'aux16_head.0',
    **{f'conv_out_sp{s}.conv_out': f'detail_heads.{s}.1' for s in (2, 4, 8, 16)},
    **{f'conv_out_sp{s}.conv': f'detail_heads.{s}.0' for s in (2, 4, 8, 16)},
}
# The same for ImageNet classifiers, in which keys of the backbone have no prefix.
_CLASSIFIER_MODULES = {'conv_last': 'conv_last', 'fc': 'fc1', 'linear': 'fc2'}
# Keys to skip in classifiers: a batch norm after `fc` that the forward pass does not use, and second names of stages.
_CLASSIFIER_UNUSED = re.compile(r'(bn|x2|x4|x8|x16|x32)\.')
# Keys to skip in segmentation networks: the unused head of the ImageNet classifier, and second names of stages.
_UNUSED = re.compile(r'cp\.backbone\.(conv_last|fc|bn|linear|x2|x4|x8|x16|x32)\.')
# The batch norms of the reference's decoder are InPlace-ABN, which scales by |weight| + epsilon.
_ABN_EPSILON = 1e-5


def import_reference(path: str | Path, classes: ClassTable) -> STDCSeg | STDCClassifier:
    """Read a checkpoint of the reference implementation: a segmentation network or an ImageNet classifier.

    The keys tell which of the two it is. The file is read without running code from it.

    Args:
        path: ``.pth`` or ``.tar`` with STDC1 or STDC2.
        classes: Classes of a segmentation network, in the order of its outputs.

    Returns:
        Network in evaluation mode: a segmentation network with every detail head of the checkpoint, or a classifier
        with its head.

    Raises:
        FileNotFoundError: The file does not exist.
        WeightsError: The file is not such a checkpoint, or has another number of classes. The message names the keys.
    """
    state = _read(path)
    if any(key.startswith('features.') for key in state):
        return _classifier(state, path)
    return _segmentation(state, classes, path)


def _read(path: str | Path) -> dict[str, Tensor]:
    """Read the tensors of a checkpoint.

    Raises:
        FileNotFoundError: The file does not exist.
        WeightsError: The file is not a checkpoint of plain tensors.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f'{path}: no such file')
    try:
        _check_uncompressed(path)
        loaded = torch.load(path, map_location='cpu', weights_only=True)
    except Exception as error:  # damaged bytes make the unpickler raise anything: KeyError, IndexError, ...
        reason = one_line((str(error).splitlines() or [''])[0])
        raise WeightsError(f'{path}: not a PyTorch file of plain tensors ({type(error).__name__}: {reason})') from error
    if isinstance(loaded, dict) and isinstance(loaded.get('state_dict'), dict):
        loaded = loaded['state_dict']
    if not isinstance(loaded, dict) or not all(_is_plain(value) for value in loaded.values()):
        raise WeightsError(f'{path}: expected a dictionary of tensors')
    return {str(key).removeprefix('module.'): value for key, value in loaded.items()}


def _check_uncompressed(path: str | Path) -> None:
    """Raise ValueError if the file is an archive with compressed entries.

    torch does not write such entries, and a small file of them could fill the memory.
    """
    if not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as archive:
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
            raise ValueError('its entries are compressed')


def _is_plain(value: Any) -> bool:
    """Return whether a value is a dense tensor with all of its numbers in the file."""
    if not isinstance(value, Tensor) or value.layout != torch.strided or value.is_quantized or value.is_meta:
        return False
    return value.numel() * value.element_size() <= value.untyped_storage().nbytes()


def _classifier(state: dict[str, Tensor], path: str | Path) -> STDCClassifier:
    """Build the classifier of a checkpoint. Raises WeightsError if the checkpoint does not fit."""
    name = _backbone_name(state, '', path)
    outputs = state.get('linear.weight')
    if outputs is None or outputs.dim() != 2:
        found = 'no such key' if outputs is None else f'shape {tuple(outputs.shape)}'
        raise WeightsError(f'{path}: linear.weight: expected [classes, 1024], found {found}')
    model = STDCClassifier(name, outputs.shape[0])
    converted = {
        _our_key(key, name, '', _CLASSIFIER_MODULES): value
        for key, value in state.items()
        if not _CLASSIFIER_UNUSED.match(key)
    }
    _expect_complete(model, converted, name, '', _CLASSIFIER_MODULES, path)
    load_state(model, converted, path)
    return model.eval()


def _segmentation(state: dict[str, Tensor], classes: ClassTable, path: str | Path) -> STDCSeg:
    """Build the segmentation network of a checkpoint. Raises WeightsError if the checkpoint does not fit."""
    name = _backbone_name(state, _BACKBONE, path)
    strides = tuple(s for s in (2, 4, 8, 16) if f'conv_out_sp{s}.conv_out.weight' in state)
    model = STDCSeg(name, len(classes), strides)

    converted: dict[str, Tensor] = {}
    reference_key: dict[str, str] = {}
    for key, value in state.items():
        if not _UNUSED.match(key):
            ours = _our_key(key, name, _BACKBONE, _MODULES)
            converted[ours], reference_key[ours] = value, key
    outputs = {
        key: value.shape[0]
        for key, value in state.items()
        if value.dim() and re.fullmatch(r'conv_out(16|32)?\.conv_out\.weight', key)
    }
    wrong = [f'{key} has {count}' for key, count in outputs.items() if count != len(classes)]
    if wrong:
        raise WeightsError(f'{path}: expected {len(classes)} classes, but {", ".join(wrong)}')
    _expect_complete(model, converted, name, _BACKBONE, _MODULES, path)
    for ours, key in reference_key.items():
        is_batch_norm = ours.endswith('.weight') and ours.removesuffix('weight') + 'running_mean' in converted
        if is_batch_norm and not key.startswith(_BACKBONE) and converted[ours].is_floating_point():
            converted[ours] = converted[ours].abs() + _ABN_EPSILON
    load_state(model, converted, path)
    return model.eval()


def _expect_complete(
    model: nn.Module, converted: dict[str, Tensor], name: str, backbone: str, modules: dict[str, str], path: str | Path
) -> None:
    """Add missing batch counters to a converted state, and raise WeightsError for any other missing key.

    Args:
        model: Network that the state is for.
        converted: State with the keys of ``model``; changed in place.
        name: Name of the backbone.
        backbone: Prefix of the backbone's keys in the reference.
        modules: Names of the modules outside ``features``, in the reference and here.
        path: Checkpoint, for errors. They name missing keys as the reference does.
    """
    for key, value in model.state_dict().items():
        if key.endswith('num_batches_tracked'):  # InPlace-ABN, in the reference's decoder, does not count batches
            converted.setdefault(key, value)
    missing = [key for key in model.state_dict() if key not in converted]
    if missing:
        names = ', '.join(_reference_key(key, name, backbone, modules) for key in missing[:8])
        raise WeightsError(f'{path}: {len(missing)} keys of a {name} checkpoint are missing, among them {names}')


def _backbone_name(state: dict[str, Tensor], backbone: str, path: str | Path) -> str:
    """Return ``stdc1`` or ``stdc2``, which differ in the length of the reference's flat list of backbone modules.

    Raises:
        WeightsError: The checkpoint has no backbone, or one of another length.
    """
    features = f'{backbone}features.'
    indices = {int(match[1]) for key in state if (match := re.match(rf'{re.escape(features)}(\d{{1,3}})\.', key))}
    if not indices:
        raise WeightsError(
            f'{path}: no key {_BACKBONE}features.* or features.*; '
            'expected a reference checkpoint of STDC-Seg or of an STDC classifier'
        )
    lengths = {name: 2 + sum(blocks) for name, blocks in STAGE_BLOCKS.items()}
    for name, length in lengths.items():
        if max(indices) + 1 == length:
            return name
    expected = ' or '.join(f'{length} ({name})' for name, length in lengths.items())
    raise WeightsError(f'{path}: {features}* has {max(indices) + 1} modules, expected {expected}')


def _stages(name: str) -> list[str]:
    """Return our module for each index of the reference's ``features``."""
    blocks = [
        f'stage{stage}.{i}' for stage, count in zip((3, 4, 5), STAGE_BLOCKS[name], strict=True) for i in range(count)
    ]
    return ['stage1', 'stage2', *blocks]


def _our_key(key: str, name: str, backbone: str, modules: dict[str, str]) -> str:
    """Return our name of a reference key. An unknown key stays as it is; loading the state then reports it.

    Args:
        key: Key in the checkpoint.
        name: Name of the backbone.
        backbone: Prefix of the backbone's keys in the reference.
        modules: Names of the modules outside ``features``, in the reference and here.
    """
    if match := re.fullmatch(rf'{re.escape(backbone)}features\.(\d{{1,3}})\.(.+)', key):
        rest = match[2].replace('conv_list.', 'blocks.').replace('avd_layer.', 'downsample.')
        return f'backbone.{_stages(name)[int(match[1])]}.{rest}'
    for theirs, ours in modules.items():
        if key.startswith(f'{theirs}.'):
            return ours + key.removeprefix(theirs)
    return key


def _reference_key(key: str, name: str, backbone: str, modules: dict[str, str]) -> str:
    """Return the reference's name of one of our keys: the inverse of ``_our_key``, with the same arguments."""
    for index, stage in enumerate(_stages(name)):
        if key.startswith(f'backbone.{stage}.'):
            rest = key.removeprefix(f'backbone.{stage}.')
            rest = rest.replace('blocks.', 'conv_list.').replace('downsample.', 'avd_layer.')
            return f'{backbone}features.{index}.{rest}'
    for theirs, ours in modules.items():
        if key.startswith(f'{ours}.'):
            return theirs + key.removeprefix(ours)
    return key
