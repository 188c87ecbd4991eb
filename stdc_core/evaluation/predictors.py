# SPDX-License-Identifier: Apache-2.0
"""From a file to something that is evaluated: the segmenter for a ``model.onnx``, torch for everything else."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from stdc_core.evaluation.evaluate import Predictor
from stdc_core.inference import Segmenter
from stdc_core.inference.backend import check_threads


def open_predictor(
    path: Path,
    input_scale: float | None = None,
    scales: Sequence[float] = (1.0,),
    flip: bool = False,
    threads: int = 0,
    device: str = 'auto',
    backend: str = 'auto',
    precision: str = 'auto',
) -> Predictor:
    """A network to evaluate.

    A ``model.onnx`` is run by the segmenter, as the node runs it, unless an argument asks for what the segmenter does
    not do: other scales, flipping, or torch's CUDA device. Then, and for weights always, torch runs the same graph in
    float32.

    Args:
        path: a ``model.onnx`` from ``stdc export`` or weights from ``stdc train``.
        input_scale: the network sees the image at this scale. None: a model file's own; of weights, that which they
            were validated at in training, or else 1; and of larger images than in the training as many pixels as there.
        scales: factors on the input scale; the probabilities at several are averaged.
        flip: average over the mirrored image too.
        threads: CPU threads, at most 256; 0 takes every core that this process may use.
        device: ``'cpu'``, ``'cuda'``, or ``'auto'``: what torch finds.
        backend, precision: of the segmenter.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file or an argument cannot be used; the message says why.
        ModuleNotFoundError: torch is needed and not installed.
    """
    check_threads(threads)
    if not scales or not all(math.isfinite(scale) and scale > 0 for scale in scales):
        raise ValueError(f'scales: expected positive numbers, found {", ".join(map(str, scales)) or "none"}')
    if not path.is_file():
        raise FileNotFoundError(f'{path}: no such file; expected a model.onnx or weights (.safetensors)')
    as_shipped = tuple(scales) == (1.0,) and not flip and device != 'cuda'
    if path.suffix == '.onnx' and as_shipped:
        return _segmenter(path, input_scale, threads, backend, precision)
    for name, value in (('backend', backend), ('precision', precision)):
        if value != 'auto':
            raise ValueError(f'{name} {value}: only for a model.onnx without --scales, --flip and --device cuda')
    from stdc_core.evaluation.torch_predictor import torch_predictor

    return torch_predictor(path, input_scale, scales, flip, threads, device)


def _segmenter(path: Path, input_scale: float | None, threads: int, backend: str, precision: str) -> Predictor:
    segmenter = Segmenter.load(path, threads, input_scale, backend, precision)
    protocol = {
        'input_scale': segmenter.scale.own,
        'full_scale_pixels': segmenter.scale.pixels,
        'scales': [1.0],
        'flip': False,
        'backend': segmenter.backend,
    }
    return Predictor(lambda image: segmenter(image).mask, segmenter.info.classes, segmenter.info.name, protocol)
