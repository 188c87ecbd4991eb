# SPDX-License-Identifier: Apache-2.0
"""The segmenter against plain PyTorch: the same network, the same image, one run, interleaved."""

from __future__ import annotations

import itertools
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from tqdm import tqdm

from stdc_core.data.synthetic import SyntheticDrive
from stdc_core.export.onnx import export
from stdc_core.export.quantize import quantize
from stdc_core.inference import BACKENDS, DEFAULT_MODEL, BackendError, Segmenter
from stdc_core.inference.backend import MAX_THREADS
from stdc_core.inference.input_scale import check_input_scale, scaled_size
from stdc_core.io.files import write_png
from stdc_core.model.segmentation import STDCSeg, normalize, rescale, upsample
from stdc_core.model.weights import load_weights, save_weights

WARM_UP_RUNS = 3
CALIBRATION_FRAMES = 8
# Worker threads spin for a while after a run; a pause lets one side's come to rest before the other is timed.
PAUSE_S = 0.2


def reference_forward(model: STDCSeg, image: np.ndarray, input_scale: float) -> np.ndarray:
    """Bytes in, mask out as the reference implementation evaluates: eager float32 and every head.

    Normalise and resize; compute the main, auxiliary and four detail heads; upsample three of them to the network's
    input size, the main one on to the image's; softmax; argmax.

    Args:
        model: a network with detail heads at strides 2, 4, 8 and 16, as the reference's has.
        image: uint8 BGR ``[H, W, 3]``.

    Returns:
        uint8 ``[H, W]``.
    """
    x = _input(image, input_scale).contiguous()
    network_size = tuple(x.shape[2:])
    output = model.forward_train(x)
    main, _, _ = (upsample(logits, network_size) for logits in (output.logits, output.aux8, output.aux16))
    probability = upsample(main, image.shape[:2]).softmax(dim=1)
    return probability.argmax(dim=1)[0].to(torch.uint8).numpy()


def tuned_forward(model: STDCSeg, image: np.ndarray, input_scale: float) -> np.ndarray:
    """The same as fast as eager float32 goes: one head, one upsampling, no softmax, channels last throughout."""
    x = _input(image, input_scale).contiguous(memory_format=torch.channels_last)
    return upsample(model(x), image.shape[:2]).argmax(dim=1)[0].to(torch.uint8).numpy()


def _input(image: np.ndarray, input_scale: float) -> torch.Tensor:
    x = normalize(torch.from_numpy(image)[None].permute(0, 3, 1, 2))
    return rescale(x, input_scale)


def _drive(folder: Path, size: tuple[int, int]) -> list[Path]:
    """Frames of a rendered drive, as files."""
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
    """Time both sides and print a table; ratios are against the reference's way and against eager PyTorch tuned.

    The segmenter runs on every backend that can run here.

    Args:
        weights: a model or weights file; None takes the shipped model.
        size: (height, width) of the image in pixels.
        input_scale: the network sees the image at this scale.
        threads: CPU threads of both sides.
        runs: timed runs of each side; the medians count.
        int8: time the network in int8 too, calibrated on a rendered drive.

    Raises:
        ValueError: a number is out of its range, or nothing is left of the image at the input scale.
    """
    if not 1 <= threads <= MAX_THREADS:
        raise ValueError(f'threads: expected 1 to {MAX_THREADS}, found {threads}')
    if runs < 1:
        raise ValueError(f'runs: expected 1 or more, found {runs}')
    check_input_scale(input_scale)
    if not all(scaled_size(size, input_scale)):
        raise ValueError(f'size: nothing is left of {size[0]}x{size[1]} at input scale {input_scale:g}')
    weights = weights or DEFAULT_MODEL
    torch.set_num_threads(threads)
    trained, classes, _ = load_weights(weights)
    model = STDCSeg(trained.backbone.name, len(classes), detail_strides=(2, 4, 8, 16)).eval()
    model.load_state_dict(trained.state_dict(), strict=False)
    tuned = trained.to(memory_format=torch.channels_last)
    image = SyntheticDrive(seed=0, height=size[0], width=size[1], frames=1)[0].image
    with tempfile.TemporaryDirectory() as folder:
        # Without what the file may want added to its logits: the networks on both sides are the same.
        plain = Path(folder) / 'weights.safetensors'
        save_weights(trained, plain, classes, {})
        files = {'': Path(folder) / 'model.onnx'}
        export(plain, files[''], input_scale)
        if int8:
            files[', int8'] = Path(folder) / 'int8.onnx'
            quantize(files[''], files[', int8'], _drive(Path(folder), size), max_loss=100.0)
        segmenters = {}
        for backend, (kind, path) in itertools.product(BACKENDS[1:], files.items()):
            with suppress(BackendError):  # what is not installed, or has no GPU
                segmenters[f'{backend}{kind}'] = Segmenter.load(path, threads, backend=backend)

    sides: dict[str, Callable[[], np.ndarray]] = {
        'PyTorch eager, as the reference runs it': lambda: reference_forward(model, image, input_scale),
        'PyTorch eager, tuned': lambda: tuned_forward(tuned, image, input_scale),
    }
    for name, segmenter in segmenters.items():
        sides[f'segmenter on {name}'] = lambda segmenter=segmenter: segmenter(image).mask
    first = segmenters['onnxruntime']
    sides['segmenter on onnxruntime, with confidence'] = lambda: first(image, confidence=True).mask
    times: dict[str, list[float]] = {name: [] for name in sides}
    with torch.inference_mode():
        expected = tuned_forward(tuned, image, input_scale)
        equal = {name: 100 * float((side() == expected).mean()) for name, side in sides.items()}
        for run in tqdm(range(WARM_UP_RUNS + runs), unit='run', disable=None):
            for name, side in sides.items():
                time.sleep(PAUSE_S)
                start = time.perf_counter()
                side()
                if run >= WARM_UP_RUNS:
                    times[name].append(time.perf_counter() - start)

    medians = {name: 1e3 * statistics.median(values) for name, values in times.items()}
    reference, best = list(medians.values())[:2]
    network = scaled_size(size, input_scale)
    print(
        f'{trained.backbone.name}, {len(classes)} classes, '
        f'image {size[0]} x {size[1]}, network {network[0]} x {network[1]}'
    )
    print(f'{platform.processor() or platform.machine()}, {threads} threads, torch {torch.__version__}, ', end='')
    print(f'onnxruntime {onnxruntime.__version__}, median of {runs} interleaved runs')
    print(f'{"bytes in to mask out":<42} {"ms":>8} {"reference":>10} {"tuned":>6} {"equal labels":>14}')
    for name, value in medians.items():
        ratios = f'{reference / value:9.2f}x {best / value:5.2f}x'
        print(f'{name:<42} {value:8.1f} {ratios} {equal[name]:12.3f} %')
