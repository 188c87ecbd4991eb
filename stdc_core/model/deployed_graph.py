# SPDX-License-Identifier: Apache-2.0
"""Define the deployed graph: image bytes in, class ids and confidence out."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from stdc_core.inference.input_scale import check_input_scale
from stdc_core.inference.model_file import read_model
from stdc_core.model.segmentation import SegmentationNetwork, normalize, rescale, upsample


class DeployedGraph(nn.Module):
    """Network with all steps before and after it that inference needs, as one graph.

    The graph scales the image by ``input_scale``, normalises and segments it. It then upsamples the logits from stride
    8 to the size of the image in one step, and each pixel gets the class with the largest logit. Both scalings are
    bilinear with aligned corners.

    Args:
        model: Network in evaluation mode.
        input_scale: Scale at which the network sees the image, above 0 and at most 4. The paper has 0.5 (Seg50) and
            0.75 (Seg75). A scale above 1 helps where images are small for the stride of the network.
        offset: Number to add to the logits of each class (see ``stored_class_offset``); None adds nothing.

    Raises:
        ValueError: The input scale is out of its range.
    """

    def __init__(self, model: SegmentationNetwork, input_scale: float = 1.0, offset: Sequence[float] | None = None):
        super().__init__()
        check_input_scale(input_scale)
        self.model = model
        self.input_scale = input_scale
        added = torch.zeros(model.num_classes) if offset is None else torch.tensor(offset)
        self.register_buffer('offset', added.reshape(1, -1, 1, 1))

    def logits(self, image: Tensor) -> Tensor:
        """Return the logits of images at their full size.

        Args:
            image: uint8 BGR ``[N, H, W, 3]``.

        Returns:
            float32 ``[N, C, H, W]``.
        """
        size = (image.shape[1], image.shape[2])
        x = image.permute(0, 3, 1, 2).float()
        return upsample(self.model(normalize(rescale(x, self.input_scale))) + self.offset, size)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Return the masks of images and their confidence.

        Args:
            image: uint8 BGR ``[N, H, W, 3]``.

        Returns:
            Class ids and confidence, both uint8 ``[N, H, W]``. The confidence is the softmax probability of the class
            of the mask, 0 to 1 as 0 to 255.
        """
        logits = self.logits(image)
        best, mask = logits.max(dim=1)
        probability = 1 / (logits - best.unsqueeze(1)).exp().sum(dim=1)
        return mask.to(torch.uint8), (probability * 255).round().to(torch.uint8)


def stored_input_scale(path: str | Path, provenance: dict[str, str]) -> float:
    """Return the input scale of a network on disk.

    A model file names it. Weights have the scale of the validations during their training.

    Args:
        path: File that ``load_weights`` has read.
        provenance: Provenance in the file.

    Returns:
        Input scale; 1 for weights whose recipe does not name one.
    """
    if Path(path).suffix == '.onnx':
        return read_model(path)[1].input_scale
    try:
        return float(json.loads(provenance['recipe'])['input_scale'])
    except (KeyError, TypeError, ValueError):
        return 1.0


def stored_class_offset(provenance: dict[str, str]) -> list[float] | None:
    """Return the numbers to add to the logits of each class, or None if the network was trained without them.

    ``prior_correction`` of ``TrainConfig`` explains them.

    Args:
        provenance: Provenance in the file of the network.
    """
    return json.loads(provenance['class_offset']) if 'class_offset' in provenance else None
