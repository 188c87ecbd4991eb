# SPDX-License-Identifier: Apache-2.0
"""The deployed graph: image bytes in, class ids and confidence out (see the design rule "bytes in, bytes out")."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from stdc_core.inference.input_scale import check_input_scale
from stdc_core.inference.model_file import read_model
from stdc_core.model.segmentation import STDCSeg, normalize, rescale, upsample


class DeployedGraph(nn.Module):
    """A network with everything around it that inference needs, as one graph.

    The image is scaled by ``input_scale`` (Seg50 and Seg75 of the paper are 0.5 and 0.75; bilinear, aligned corners),
    normalised and segmented; the logits are upsampled from stride 8 to the image's size in one step (bilinear, aligned
    corners), and each pixel takes its best class.

    Args:
        model: the network, in evaluation mode.
        input_scale: 0 < scale <= 4; above 1 for images that are small for the network's stride.
        offset: added to the logits, one per class; none: 0. See ``own_offset``.
    """

    def __init__(self, model: STDCSeg, input_scale: float = 1.0, offset: Sequence[float] | None = None):
        super().__init__()
        check_input_scale(input_scale)
        self.model = model
        self.input_scale = input_scale
        added = torch.zeros(model.num_classes) if offset is None else torch.tensor(offset)
        self.register_buffer('offset', added.reshape(1, -1, 1, 1))

    def logits(self, image: Tensor) -> Tensor:
        """uint8 BGR ``[N, H, W, 3]`` to float32 logits ``[N, C, H, W]``."""
        size = (image.shape[1], image.shape[2])
        x = image.permute(0, 3, 1, 2).float()
        return upsample(self.model(normalize(rescale(x, self.input_scale))) + self.offset, size)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """uint8 BGR ``[N, H, W, 3]`` to the mask and its confidence, both uint8 ``[N, H, W]``.

        The confidence is the softmax probability of the mask's class, 0 ... 1 as 0 ... 255.
        """
        logits = self.logits(image)
        best, mask = logits.max(dim=1)
        probability = 1 / (logits - best.unsqueeze(1)).exp().sum(dim=1)
        return mask.to(torch.uint8), (probability * 255).round().to(torch.uint8)


def own_scale(path: str | Path, provenance: dict[str, str]) -> float:
    """The input scale of a network on disk: a model file's, or that which weights were validated at in training.

    Args:
        path: the file, which ``load_weights`` has read.
        provenance: what it says of its origin. Weights whose recipe tells no input scale have 1.
    """
    if Path(path).suffix == '.onnx':
        return read_model(path)[1].input_scale
    try:
        return float(json.loads(provenance['recipe'])['input_scale'])
    except (KeyError, TypeError, ValueError):
        return 1.0


def own_offset(provenance: dict[str, str]) -> list[float] | None:
    """What a network's logits want added, one number per class, if its provenance tells (see ``prior_correction``)."""
    return json.loads(provenance['class_offset']) if 'class_offset' in provenance else None
