# SPDX-License-Identifier: Apache-2.0
"""Take a backbone from timm (PyTorch Image Models), with or without its ImageNet weights.

timm is an optional dependency, the extra ``compare``. It is imported when a backbone is made, and not at inference.
"""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from stdc_core.io.text import one_line
from stdc_core.model.stdc import Backbone

#: Start of the names of these backbones.
PREFIX = 'timm/'

#: Value of the training key ``backbone_weights`` that stands for the ImageNet weights on the Hugging Face hub.
PRETRAINED = 'pretrained'

#: Strides of the features that the decoder takes.
STRIDES = (8, 16, 32)

# Height and width in pixels of the image that the sizes of the features are checked with: no multiples of a stride.
_ODD_SIZE = (45, 75)


class BackboneError(ValueError):
    """A backbone or its weights cannot be used. The message says why and what to do."""


class TimmBackbone(Backbone):
    """Backbone from timm with features at strides 8, 16 and 32.

    The image is normalised with the mean and standard deviation of ImageNet, as for every network here.

    Args:
        name: ``'timm/NAME'``, such as ``'timm/resnet18'``.
        weights: Path of a ``.safetensors`` file with weights of timm's network; None: random weights.

    Raises:
        BackboneError: timm has no such network, its features do not have these strides, or the weights do not fit.
        ModuleNotFoundError: timm or torchvision is not installed.
    """

    def __init__(self, name: str, weights: Path | None = None):
        super().__init__()
        self.name = name
        model = name.removeprefix(PREFIX)
        _need_model(model)
        # On the device `meta` a network has shapes and no numbers: this takes neither time nor memory.
        with torch.device('meta'):
            probe: Any = _features(model)
            index = {stride: i for i, stride in enumerate(probe.feature_info.reduction())}
            missing = [stride for stride in STRIDES if stride not in index]
            if missing:
                found = ', '.join(map(str, index))
                raise BackboneError(f'{name}: expected features at strides 8, 16 and 32, found strides {found}')
            self.levels = tuple(index[stride] for stride in STRIDES)
            _check_sizes(_features(model, out_indices=self.levels), name)
        self.channels = dict(zip(STRIDES, (probe.feature_info.channels()[i] for i in self.levels), strict=True))
        if weights is not None:
            _check_weights(model, weights)
        self.features = _features(model, weights, out_indices=self.levels)

    def forward(self, image: Tensor) -> dict[int, Tensor]:
        """Return the features at strides 8, 16 and 32; see ``Backbone``."""
        return dict(zip(STRIDES, self.features(image), strict=True))


def load_pretrained(backbone: Backbone, source: str) -> None:
    """Load weights of timm's network into a backbone from timm.

    Args:
        backbone: Backbone, changed in place.
        source: Path of a ``.safetensors`` file, or ``'pretrained'`` for the ImageNet weights on the Hugging Face hub.

    Raises:
        BackboneError: The backbone is not from timm, or the weights cannot be had or do not fit.
    """
    if not isinstance(backbone, TimmBackbone):
        raise BackboneError(
            f'backbone_weights: expected a backbone timm/NAME, found {backbone.name}; use --init for its weights'
        )
    path = _download(backbone.name) if source == PRETRAINED else Path(source)
    backbone.load_state_dict(TimmBackbone(backbone.name, path).state_dict())


def _need_model(model: str) -> None:
    import timm

    if not timm.is_model(model):
        near = difflib.get_close_matches(model, timm.list_models(), n=1)
        hint = f'did you mean timm/{near[0]}?' if near else '`timm.list_models()` lists them'
        raise BackboneError(f'timm/{model}: timm {timm.__version__} has no such network; {hint}')


def _features(model: str, weights: Path | None = None, **options: Any) -> nn.Module:
    """Return timm's network as a module from an image to a list of features, whose sizes are rounded up."""
    import timm

    if weights is not None:
        options |= {'pretrained': True, 'pretrained_cfg_overlay': {'file': str(weights)}}
    try:
        features = timm.create_model(model, features_only=True, **options)
    except (RuntimeError, AttributeError, AssertionError, TypeError, ValueError) as error:
        raise BackboneError(f'timm/{model}: timm cannot make a backbone of it ({one_line(error)})') from error
    for module in features.modules():
        # Without this, a pooling leaves out the last row of an odd number of rows.
        if isinstance(module, nn.AvgPool2d | nn.MaxPool2d) and module.kernel_size == module.stride == 2:
            module.ceil_mode = True
    return features


def _check_sizes(features: nn.Module, name: str) -> None:
    """Raise BackboneError unless the features of an image on the device ``meta`` have the expected sizes."""
    height, width = _ODD_SIZE
    try:
        maps = features(torch.zeros(1, 3, height, width))
    except (RuntimeError, AssertionError, ValueError) as error:
        raise BackboneError(f'{name}: takes no image of {height} x {width} ({one_line(error)})') from error
    found = [tuple(each.shape[2:]) for each in maps]
    expected = [(-(-height // stride), -(-width // stride)) for stride in STRIDES]
    if found != expected:
        raise BackboneError(f'{name}: the features of {height} x {width} pixels are {found}, expected {expected}')


def _check_weights(model: str, path: Path) -> None:
    """Raise BackboneError unless a file has all weights of timm's network but those of its classifier."""
    import timm

    if not path.is_file():
        raise BackboneError(f'backbone_weights: {path}: no such file; expected {PRETRAINED} or a .safetensors file')
    try:
        with safe_open(path, 'pt') as file:
            found = {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118 (not a dict)
    except (SafetensorError, OSError, ValueError) as error:
        raise BackboneError(f'backbone_weights: {path}: not a safetensors file ({one_line(error)})') from error
    with torch.device('meta'):
        network = timm.create_model(model)
    heads = network.pretrained_cfg.get('classifier') or ()
    heads = (heads,) if isinstance(heads, str) else heads
    wrong = [
        key
        for key, value in network.state_dict().items()
        if not key.startswith(tuple(f'{head}.' for head in heads))
        and not key.endswith('num_batches_tracked')
        and found.get(key) != tuple(value.shape)
    ]
    if wrong:
        rest = f' and {len(wrong) - 1} more' if len(wrong) > 1 else ''
        raise BackboneError(
            f'backbone_weights: {path}: expected weights of timm/{model}, but {wrong[0]}{rest} '
            'are missing or have another shape'
        )


def _download(name: str) -> Path:
    """Return the path of the ImageNet weights in the cache of the Hugging Face hub, downloaded if necessary.

    Only safetensors are taken: other files of the hub may hold code.
    """
    import timm
    from huggingface_hub import hf_hub_download

    found = timm.get_pretrained_cfg(name.removeprefix(PREFIX))
    repository = found.hf_hub_id if found is not None else None
    if not repository:
        raise BackboneError(f'backbone_weights: timm names no pretrained weights of {name} on the hub; leave it empty')
    try:
        return Path(hf_hub_download(repository, 'model.safetensors'))
    except Exception as error:  # of the HTTP library, which depends on the version of huggingface_hub
        raise BackboneError(
            f'backbone_weights: {repository} cannot be downloaded ({type(error).__name__}: {one_line(error, 100)}); '
            'give the path of its model.safetensors'
        ) from error
