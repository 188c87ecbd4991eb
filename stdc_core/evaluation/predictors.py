# SPDX-License-Identifier: Apache-2.0
"""Open a file for evaluation: a ``model.onnx`` with the segmenter, everything else with torch."""

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
    """Open a network to evaluate.

    The segmenter runs a ``model.onnx``, as the node does. It cannot average over scales or mirrored images, nor use the
    CUDA device of torch; with these arguments, and for weights, torch runs the same graph in float32.

    Args:
        path: ``model.onnx`` from ``stdc export``, or weights from ``stdc train``.
        input_scale: Scale at which the network sees images. None takes that of the file (see ``stored_input_scale``),
            and less for larger images than in the training.
        scales: Factors on the input scale; the probabilities of several are averaged.
        flip: Whether to average over the mirrored image, too.
        threads: Number of CPU threads, at most 256; 0 takes every core that this process may use.
        device: ``'cpu'``, ``'cuda'``, or ``'auto'`` for the GPU if torch finds one.
        backend: Backend of the segmenter.
        precision: Precision of the segmenter.

    Raises:
        FileNotFoundError: The file does not exist.
        ValueError: The file or an argument cannot be used.
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
            raise ValueError(f'{name} {value}: works only for a model.onnx without --scales, --flip and --device cuda')
    from stdc_core.evaluation.torch_predictor import torch_predictor

    return torch_predictor(path, input_scale, scales, flip, threads, device)


def _segmenter(path: Path, input_scale: float | None, threads: int, backend: str, precision: str) -> Predictor:
    """Open a ``model.onnx`` with the segmenter."""
    segmenter = Segmenter.load(path, threads, input_scale, backend, precision)
    protocol = {
        'input_scale': segmenter.scale.own,
        'full_scale_pixels': segmenter.scale.pixels,
        'scales': [1.0],
        'flip': False,
        'backend': segmenter.backend,
    }
    return Predictor(lambda image: segmenter(image).mask, segmenter.info.classes, segmenter.info.name, protocol)
