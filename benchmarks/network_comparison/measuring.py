# SPDX-License-Identifier: Apache-2.0
"""Export networks and classifiers with random weights, and measure their size, speed and memory."""

from __future__ import annotations

import argparse
import dataclasses
import os
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from torch import nn
from tqdm import tqdm

from stdc_core.classes import CITYSCAPES
from stdc_core.data.synthetic import SyntheticDrive
from stdc_core.export.onnx import export
from stdc_core.inference import DEFAULT_MODEL, BackendError, Segmenter
from stdc_core.model.networks import make_network, outline
from stdc_core.model.size import multiply_adds, parameters
from stdc_core.model.stdc import STDCClassifier
from stdc_core.model.weights import save_weights


@dataclass
class Row:
    """Measurements of one network at one input scale on one backend, or of one classifier.

    Args:
        network: Name of the network.
        scale: Input scale; 1 for a classifier.
        backend: Name of the backend.
        parameters: Number of parameters.
        multiply_adds: Number of multiply-adds for one image.
        memory: Peak resident memory of a process that segments with the network, bytes; None: not measured.
        seconds: Median time from the bytes of an image to its mask.
        miou: mIoU in percent, one number for each seed; empty: not measured.
    """

    network: str
    scale: float
    backend: str
    parameters: int
    multiply_adds: int
    memory: int | None
    seconds: float
    miou: list[float] = dataclasses.field(default_factory=list)


def usable_backends(options: argparse.Namespace) -> list[str]:
    """Return the backends of ``--backend`` or, without it, ONNX Runtime and, if it runs here, TensorRT.

    Raises:
        BackendError: A backend of ``--backend`` does not run here.
    """
    for backend in options.backend or ():
        Segmenter.load(DEFAULT_MODEL, options.threads, backend=backend)
    if options.backend:
        return options.backend
    try:
        Segmenter.load(DEFAULT_MODEL, options.threads, backend='tensorrt')
    except BackendError as error:
        print(f'TensorRT is left out: {error}')
        return ['onnxruntime']
    return ['onnxruntime', 'tensorrt']


def time_networks(
    names: Sequence[str], backends: Sequence[str], scale: float, options: argparse.Namespace
) -> list[Row]:
    """Export all networks at an input scale, and time them in turns on each backend."""
    image = SyntheticDrive(seed=0, height=options.size[0], width=options.size[1], frames=1)[0].image
    seen = (round(options.size[0] * scale), round(options.size[1] * scale))
    rows: list[Row] = []
    sides: list[Callable[[], object]] = []
    for name in tqdm(names, desc=f'exporting at input scale {scale:g}', disable=None):
        file = model_file(name, scale, options.out)
        network = outline(name, len(CITYSCAPES))
        for backend in backends:
            segmenter = Segmenter.load(file, options.threads, backend=backend)
            sides.append(lambda segmenter=segmenter: segmenter(image))
            memory = peak_memory(file, options) if backend == 'onnxruntime' else None
            counts = parameters(network), multiply_adds(network, *seen)
            rows.append(Row(name, scale, segmenter.backend, *counts, memory, 0.0))
    for row, seconds in zip(rows, time_in_turns(sides, options.runs, f'input scale {scale:g}'), strict=True):
        row.seconds = seconds
    return rows


def model_file(name: str, scale: float, out: Path) -> Path:
    """Return the model file of a network with random weights and the classes of Cityscapes; make it if necessary."""
    stem = name.replace('/', '_')
    weights, file = out / 'models' / f'{stem}.safetensors', out / 'models' / f'{stem}_{scale:g}.onnx'
    if not file.is_file():
        file.parent.mkdir(exist_ok=True)
        torch.manual_seed(0)
        save_weights(make_network(name, len(CITYSCAPES)).eval(), weights, CITYSCAPES, {})
        export(weights, file, scale)
    return file


def peak_memory(file: Path, options: argparse.Namespace) -> int:
    """Return the peak resident memory in bytes of a process without torch that segments with a model."""
    program = Path(__file__).with_name('peak_memory.py')
    numbers = map(str, (options.threads, *options.size))
    environment = {**os.environ, 'PYTHONPATH': os.pathsep.join(sys.path)}
    command = [sys.executable, str(program), str(file), *numbers]
    run = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=environment)
    return 1024 * int(run.stdout)


def time_classifiers(names: Sequence[str], options: argparse.Namespace) -> list[Row]:
    """Time image classifiers on 224 x 224 with ONNX Runtime, as exported from torch."""
    image = np.zeros((1, 3, 224, 224), np.float32)
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = options.threads
    rows: list[Row] = []
    sides: list[Callable[[], object]] = []
    for name in tqdm(names, desc='exporting classifiers', disable=None):
        model = classifier(name)
        file = options.out / 'models' / f'{name.replace("/", "_")}_classifier.onnx'
        file.parent.mkdir(exist_ok=True)
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')  # the older exporter warns that it is the older one
            torch.onnx.export(model, (torch.zeros(1, 3, 224, 224),), str(file), dynamo=False, opset_version=17)
        session = onnxruntime.InferenceSession(str(file), settings, providers=['CPUExecutionProvider'])
        sides.append(lambda session=session: session.run(None, {session.get_inputs()[0].name: image}))
        counts = parameters(model), multiply_adds(model, 224, 224)
        rows.append(Row(name, 1.0, 'onnxruntime', *counts, None, 0.0))
    for row, seconds in zip(rows, time_in_turns(sides, options.runs, 'classifiers'), strict=True):
        row.seconds = seconds
    return rows


def classifier(name: str) -> nn.Module:
    """Return an ImageNet classifier with random weights."""
    if not name.startswith('timm/'):
        return STDCClassifier(name).eval()
    import timm

    return timm.create_model(name.removeprefix('timm/')).eval()


def time_in_turns(sides: Sequence[Callable[[], object]], runs: int, what: str) -> list[float]:
    """Return the median time of each side in seconds. All sides take turns, so that a slow phase slows down all."""
    times: list[list[float]] = [[] for _ in sides]
    for side in sides:
        side()
    for _ in tqdm(range(runs), desc=what, unit='run', disable=None):
        for side, values in zip(sides, times, strict=True):
            # Threads of the last side spin for a while after their work.
            time.sleep(0.1)
            start = time.perf_counter()
            side()
            values.append(time.perf_counter() - start)
    return [statistics.median(values) for values in times]
