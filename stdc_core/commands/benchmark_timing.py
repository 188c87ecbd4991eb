# SPDX-License-Identifier: Apache-2.0
"""Time the segmenter and plain PyTorch on the same network and image, in interleaved runs."""

from __future__ import annotations

import itertools
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from tqdm import tqdm

from stdc_core.classes import ClassTable
from stdc_core.data.synthetic import SyntheticDrive
from stdc_core.export.onnx import export
from stdc_core.export.quantize import quantize
from stdc_core.inference import BACKENDS, DEFAULT_MODEL, BackendError, Segmenter
from stdc_core.inference.backend import MAX_THREADS
from stdc_core.inference.input_scale import check_input_scale, scaled_size
from stdc_core.io.files import write_png
from stdc_core.model.networks import make_network
from stdc_core.model.segmentation import SegmentationNetwork, normalize, rescale, upsample
from stdc_core.model.weights import load_weights, save_weights

WARM_UP_RUNS = 3
CALIBRATION_FRAMES = 8
#: Pause before each timed run. Worker threads spin for a while after a run, and would slow down the other side.
PAUSE_S = 0.2

#: Function that segments the image of the benchmark and returns the mask, uint8 ``[H, W]``.
Side = Callable[[], np.ndarray]


def reference_forward(model: SegmentationNetwork, image: np.ndarray, input_scale: float) -> np.ndarray:
    """Segment an image as the reference implementation does in its evaluation: eager float32 with all heads.

    It normalises and resizes the image, and computes the main, the auxiliary and four detail heads. It upsamples three
    of them to the input size of the network, and the main one to the size of the image. Softmax and argmax follow.

    Args:
        model: Network with detail heads at strides 2, 4, 8 and 16, as in the reference implementation.
        image: Image, uint8 BGR ``[H, W, 3]``.
        input_scale: Scale at which the network sees the image.

    Returns:
        Class ids, uint8 ``[H, W]``.
    """
    x = _input(image, input_scale).contiguous()
    network_size = (x.shape[2], x.shape[3])
    output = model.forward_train(x)
    main, _, _ = (upsample(logits, network_size) for logits in (output.logits, output.aux8, output.aux16))
    probability = upsample(main, (image.shape[0], image.shape[1])).softmax(dim=1)
    return probability.argmax(dim=1)[0].to(torch.uint8).numpy()


def tuned_forward(model: SegmentationNetwork, image: np.ndarray, input_scale: float) -> np.ndarray:
    """Segment an image as fast as eager float32 allows: one head, one upsampling, no softmax, channels last.

    Args:
        model: Network, its weights in channels-last order.
        image: Image, uint8 BGR ``[H, W, 3]``.
        input_scale: Scale at which the network sees the image.

    Returns:
        Class ids, uint8 ``[H, W]``.
    """
    x = _input(image, input_scale).contiguous(memory_format=torch.channels_last)
    return upsample(model(x), (image.shape[0], image.shape[1])).argmax(dim=1)[0].to(torch.uint8).numpy()


def _input(image: np.ndarray, input_scale: float) -> torch.Tensor:
    """Return the input of the network for an image, float32 ``[1, 3, h, w]``."""
    x = normalize(torch.from_numpy(image)[None].permute(0, 3, 1, 2))
    return rescale(x, input_scale)


def _drive(folder: Path, size: tuple[int, int]) -> list[Path]:
    """Write the frames of a rendered drive as files, and return their paths."""
    files = []
    for index, frame in enumerate(SyntheticDrive(seed=1, height=size[0], width=size[1], frames=CALIBRATION_FRAMES)):
        files.append(folder / f'{index}.png')
        write_png(files[-1], frame.image)
    return files


def benchmark(
    weights: Path | None,
    size: tuple[int, int],
    input_scale: float,
    threads: int,
    runs: int,
    int8: bool = False,
) -> None:
    """Time the segmenter on every backend of this machine and PyTorch, and print a table.

    Args:
        weights: Model or weights file; None: the shipped model.
        size: (height, width) of the image in pixels.
        input_scale: Scale at which the network sees the image.
        threads: Number of CPU threads of both sides.
        runs: Number of timed runs of each side; the table shows the medians.
        int8: Whether to time the network in int8 too, calibrated on a rendered drive.

    Raises:
        ValueError: A number is out of its range, or the input scale leaves no pixel of the image.
    """
    if not 1 <= threads <= MAX_THREADS:
        raise ValueError(f'threads: expected 1 to {MAX_THREADS}, found {threads}')
    if runs < 1:
        raise ValueError(f'runs: expected 1 or more, found {runs}')
    check_input_scale(input_scale)
    if not all(scaled_size(size, input_scale)):
        raise ValueError(f'size: no pixel of {size[0]}x{size[1]} is left at input scale {input_scale:g}')
    torch.set_num_threads(threads)
    trained, classes, _ = load_weights(weights or DEFAULT_MODEL)
    image = SyntheticDrive(seed=0, height=size[0], width=size[1], frames=1)[0].image
    with tempfile.TemporaryDirectory() as folder:
        files = _export(trained, classes, Path(folder), size, input_scale, int8)
        segmenters = _segmenters(files, threads)
        defaults = {kind: Segmenter.load(path, threads) for kind, path in files.items()}
    sides = _sides(trained, len(classes), segmenters, image, input_scale)
    times, equal = _time(sides, runs)
    network = scaled_size(size, input_scale)
    print(f'{trained.name}, {len(classes)} classes, image {size[0]} x {size[1]}, network {network[0]} x {network[1]}')
    print(f'{platform.processor() or platform.machine()}, {threads} threads, torch {torch.__version__}, ', end='')
    print(f'onnxruntime {onnxruntime.__version__}, median of {runs} interleaved runs')
    print(f'{"bytes in to mask out":<42} {"ms":>8} {"reference":>10} {"tuned":>6} {"equal labels":>14}')
    medians = {name: 1e3 * statistics.median(values) for name, values in times.items()}
    reference, tuned = list(medians.values())[:2]
    for name, value in medians.items():
        ratios = f'{reference / value:9.2f}x {tuned / value:5.2f}x'
        print(f'{name:<42} {value:8.1f} {ratios} {equal[name]:12.3f} %')
    for kind, segmenter in defaults.items():
        print(f'backend auto{kind}: {segmenter.backend} ({segmenter.reason})')


def _export(
    trained: SegmentationNetwork,
    classes: ClassTable,
    folder: Path,
    size: tuple[int, int],
    input_scale: float,
    int8: bool,
) -> dict[str, Path]:
    """Export the network. Return its file by the end of the names of its sides: '' and, with int8, ', int8'."""
    # Saved without provenance, which may contain an offset for the logits, so that both sides compute the same.
    plain = folder / 'weights.safetensors'
    save_weights(trained, plain, classes, {})
    files = {'': folder / 'model.onnx'}
    export(plain, files[''], input_scale)
    if int8:
        files[', int8'] = folder / 'int8.onnx'
        quantize(files[''], files[', int8'], _drive(folder, size), max_loss=100.0)
    return files


def _segmenters(files: dict[str, Path], threads: int) -> dict[str, Segmenter]:
    """Load the files on every backend that this machine has."""
    segmenters = {}
    for backend, (kind, path) in itertools.product(BACKENDS[1:], files.items()):
        with suppress(BackendError):  # not installed, or without a GPU
            segmenters[f'{backend}{kind}'] = Segmenter.load(path, threads, backend=backend)
    return segmenters


def _sides(
    trained: SegmentationNetwork, classes: int, segmenters: dict[str, Segmenter], image: np.ndarray, input_scale: float
) -> dict[str, Side]:
    """Return the functions to time; the first two are PyTorch as in the reference implementation, and tuned."""
    model = make_network(trained.name, classes, detail_strides=(2, 4, 8, 16)).eval()
    model.load_state_dict(trained.state_dict(), strict=False)
    tuned = trained.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # missing in the stubs of torch

    def segment(segmenter: Segmenter, confidence: bool = False) -> np.ndarray:
        return segmenter(image, confidence=confidence).mask

    sides: dict[str, Side] = {
        'PyTorch eager, as the reference runs it': partial(reference_forward, model, image, input_scale),
        'PyTorch eager, tuned': partial(tuned_forward, tuned, image, input_scale),
    }
    for name, segmenter in segmenters.items():
        sides[f'segmenter on {name}'] = partial(segment, segmenter)
    sides['segmenter on onnxruntime, with confidence'] = partial(segment, segmenters['onnxruntime'], confidence=True)
    return sides


def _time(sides: dict[str, Side], runs: int) -> tuple[dict[str, list[float]], dict[str, float]]:
    """Return the times of each side in seconds, and the percentage of labels that equal those of tuned PyTorch."""
    times: dict[str, list[float]] = {name: [] for name in sides}
    with torch.inference_mode():
        expected = list(sides.values())[1]()
        equal = {name: 100 * float((side() == expected).mean()) for name, side in sides.items()}
        for run in tqdm(range(WARM_UP_RUNS + runs), unit='run', disable=None):
            for name, side in sides.items():
                time.sleep(PAUSE_S)
                start = time.perf_counter()
                side()
                if run >= WARM_UP_RUNS:
                    times[name].append(time.perf_counter() - start)
    return times, equal
