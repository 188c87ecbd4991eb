# SPDX-License-Identifier: Apache-2.0
"""Run the deployed graph in float32 with torch, at one scale or several, mirrored or not."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from stdc_core.evaluation.evaluate import Predictor
from stdc_core.inference.input_scale import scaled_size
from stdc_core.inference.model_file import ModelInfo
from stdc_core.model.deployed_graph import DeployedGraph, stored_class_offset, stored_input_scale
from stdc_core.model.weights import load_weights


def torch_predictor(
    path: Path, input_scale: float | None, scales: Sequence[float], flip: bool, threads: int, device: str
) -> Predictor:
    """Open a network with torch, for ``stdc_core.evaluation.predictors.open_predictor``.

    Args:
        path: ``model.onnx`` or weights.
        input_scale: Scale at which the network sees images, or None for that of the file.
        scales: Factors on the input scale; the probabilities of several are averaged.
        flip: Whether to average over the mirrored image, too.
        threads: Number of CPU threads; 0 leaves the choice to torch.
        device: ``'cpu'``, ``'cuda'`` or ``'auto'``.

    Raises:
        FileNotFoundError: The file does not exist.
        ValueError: The file cannot be read, or the device is missing or unknown.
    """
    model, classes, provenance = load_weights(path)
    info = ModelInfo(model.name, stored_input_scale(path, provenance), classes, provenance)
    if input_scale is not None:
        info = info.at(input_scale)
    scale = info.scale
    if threads:
        torch.set_num_threads(threads)
    place = _device(device)
    # The graphs of all scales share the network.
    graphs = [
        DeployedGraph(model, scale.own * factor, stored_class_offset(provenance)).eval().to(place) for factor in scales
    ]

    def mask(image: np.ndarray) -> np.ndarray:
        seen = scale.of(image.shape[:2])
        for graph, factor in zip(graphs, scales, strict=True):
            graph.input_scale = seen * factor
        if not all(scaled_size(image.shape[:2], min(graph.input_scale for graph in graphs))):
            raise ValueError(f'image: found shape {list(image.shape)}, of which no pixel is left at scale {seen:g}')
        batch = torch.from_numpy(np.ascontiguousarray(image)).to(place)[None]
        with torch.inference_mode(), torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            scores = average_scores(graphs, batch, flip)
            return scores.argmax(dim=1)[0].to(torch.uint8).cpu().numpy()

    protocol = {
        'input_scale': scale.own,
        'full_scale_pixels': scale.pixels,
        'scales': list(map(float, scales)),
        'flip': flip,
        'backend': 'torch, float32',
        'device': torch.cuda.get_device_name(place) if place.type == 'cuda' else 'cpu',
    }
    return Predictor(mask, classes, info.name, protocol)


def average_scores(graphs: Sequence[DeployedGraph], image: Tensor, flip: bool) -> Tensor:
    """Return scores of each class, whose argmax is the mask.

    They are the logits of a single graph, or the sum of the softmax probabilities of several graphs. With ``flip``, the
    sum includes those of the mirrored image, mirrored back.

    Args:
        graphs: Graphs at their scales.
        image: uint8 BGR ``[N, H, W, 3]``.
        flip: Whether to use the mirrored image, too.

    Returns:
        float32 ``[N, C, H, W]``.
    """
    if len(graphs) == 1 and not flip:
        return graphs[0].logits(image)
    total: Tensor | None = None
    for graph in graphs:
        for mirrored in (False, True)[: 1 + flip]:
            logits = graph.logits(image.flip(2)).flip(3) if mirrored else graph.logits(image)
            probability = logits.softmax(dim=1)
            total = probability if total is None else total.add_(probability)
    assert total is not None
    return total


def _device(name: str) -> torch.device:
    """Return a torch device. Raises ValueError if it does not exist here."""
    if name not in ('auto', 'cpu', 'cuda'):
        raise ValueError(f'device: expected auto, cpu or cuda, found {name!r}')
    if name == 'cuda' and not torch.cuda.is_available():
        raise ValueError('device: cuda was asked for, but torch finds no CUDA device here; expected cpu or auto')
    return torch.device('cuda' if name != 'cpu' and torch.cuda.is_available() else 'cpu')
