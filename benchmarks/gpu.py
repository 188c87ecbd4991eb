# SPDX-License-Identifier: Apache-2.0
"""Checks and times everything that needs an NVIDIA GPU: PYTHONPATH=. python benchmarks/gpu.py.

First whether the masks are right, then how fast they come: both networks at both of the paper's scales, in every
precision, from host to host and on the device alone, beside PyTorch. Each step is a process of its own: one that fails
is named in the end, and the others' numbers are there. What matters most comes first, for where time is short.

TensorRT and PyTorch may live in different environments: ``--tensorrt-python`` names the interpreter of TensorRT, 3.10
or later, which has numpy, onnx and cuda-bindings too. ``--make-only`` makes models and frames in ``--work``, anywhere.
With ``--data``, the frames that the shipped model is checked on are real ones.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import math
import os
import platform
import shlex
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import date
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import NamedTuple

import numpy as np


class Network(NamedTuple):
    """A network of random weights, on which speed does not depend.

    Args:
        backbone: ``'stdc1'`` or ``'stdc2'``.
        scale: at which it sees the image.
        paper: frames per second of Table 6, with TensorRT on a GTX 1080 Ti, where it sees as many pixels.
        every: its images are every so manyth row and column of a frame.
    """

    backbone: str
    scale: float
    paper: float
    every: int = 1


SMALL, SEG50 = 'stdc1-512x1024', 'stdc1-seg50'
NETWORKS = {
    SMALL: Network('stdc1', 1.0, 250.4, every=2),
    SEG50: Network('stdc1', 0.5, 250.4),
    'stdc1-seg75': Network('stdc1', 0.75, 126.7),
    'stdc2-seg50': Network('stdc2', 0.5, 188.6),
    'stdc2-seg75': Network('stdc2', 0.75, 97.0),
}
SIZE = (1024, 2048)
CLASSES = 19
FRAMES = 8
BATCHES = (2, 4, 8)
WARM_UP = 20
KINDS = ('check', 'time', 'pytorch', 'cpu')
# PyTorch's float32 lets convolutions round to TF32, as everybody runs it; that of TensorRT is float32 here.
WAYS = ('eager float32 with TF32', 'eager float16, channels last', 'compiled float16, channels last')

#: Frames that each of the networks is checked on, and real ones, at most, that the shipped model is.
CHECKED, REAL = 2, 32

#: Percent of labels that are those of float32, and points of mIoU that int8 may lose.
EQUAL, LOST = 99.9, 0.5

#: How far confidences may be off on average, in their 255 steps.
UNSURE = 1.0

#: And every value of an overlay, which is rounded.
ROUNDED = 0.51
OPACITY = 0.3

#: Accuracy that ``quantize`` may give up; None: as little as `stdc quantize` allows.
MAX_LOSS: float | None = None

#: What a mask can never hold: outputs are filled with it before they are looked at.
POISON = 251


class Step(NamedTuple):
    """A check or a measurement.

    Args:
        kind: ``'check'`` and ``'time'`` of TensorRT, ``'pytorch'``, ``'cpu'`` of what the CPU can do instead.
        model: name of the model file in the work folder.
        way: precision, or how PyTorch computes.
        kernels: False: the engine does all.
        batch: images in one call.
    """

    kind: str
    model: str
    way: str
    kernels: bool = True
    batch: int = 1

    @property
    def label(self) -> str:
        one = '' if self.kernels else ', all in the engine'
        return f'{self.kind} {self.model}: {self.way}{one}{f", batch {self.batch}" if self.batch > 1 else ""}'


def steps() -> list[Step]:
    """What matters most comes first."""
    checks = [Step('check', 'shipped', 'fp32'), Step('check', 'shipped', 'fp16'), Step('check', 'int8', 'int8')]
    checks += [Step('check', 'shipped', 'fp16', batch=2), Step('check', 'shipped', 'fp32', kernels=False)]
    checks += [Step('check', name, 'fp32') for name in NETWORKS]
    times = []
    for name in NETWORKS:
        times += [Step('time', name, 'fp16'), *(Step('pytorch', name, way) for way in WAYS)]
        times += [Step('time', name, 'fp16', kernels=False), Step('time', name, 'fp32')]
        if name == SEG50:
            times += [Step('time', 'int8-seg50', 'int8'), Step('time', name, 'fp32', kernels=False)]
            times += [Step('time', name, 'fp16', batch=batch) for batch in BATCHES]
    return [*checks, *times, Step('cpu', SEG50, 'overlay')]


def main() -> int:
    """Take every step and print the tables. Exit status 1: something is wrong, or a step failed; 2: there is no GPU."""
    parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
    parser.add_argument('--runs', type=int, default=300, help='timed runs of each step; medians count (default: 300)')
    parser.add_argument('--minutes', type=float, default=10, help='no step goes on for longer (default: 10)')
    parser.add_argument('--tensorrt-python', default=sys.executable, help='interpreter that has TensorRT')
    parser.add_argument(
        '--library',
        choices=('tensorrt', 'tensorrt_rtx'),
        default='tensorrt',
        help='library that runs the engines (default: tensorrt)',
    )
    parser.add_argument('--tactics', default='', help='TacticSources to choose from, with commas; default: all')
    parser.add_argument('--out', type=Path, help='JSON file for all numbers, written after each step')
    parser.add_argument('--work', type=Path, help='folder of models and frames, made if they are not there')
    parser.add_argument('--data', type=Path, help='dataset on whose val images the shipped model is checked')
    parser.add_argument('--make-only', action='store_true', help='make models and frames, and end')
    parser.add_argument('--step', type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    from stdc_core.inference.tensorrt.cuda import missing_driver

    if missing_driver() and not options.make_only:
        print(f'nothing to measure: {missing_driver()}', file=sys.stderr)
        return 2
    if options.step is not None:
        tactics = tuple(filter(None, options.tactics.split(',')))
        make = partial(make_backend, library=options.library)
        found = take(steps()[options.step], options.work, options.runs, tactics, make)
        (options.work / f'step{options.step}.json').write_text(json.dumps(found, allow_nan=False))
        return 0
    with tempfile.TemporaryDirectory() as folder:
        work = options.work or Path(folder)
        made = make_ready(work, options.data)
        if options.make_only:
            return 0
        numbers = take_all(options, work, {**surroundings(), **made})
    report(numbers)
    return 1 if numbers['failed'] or not all(map(is_right, numbers['check'])) else 0


def make_ready(work: Path, data: Path | None) -> dict:
    """Make models and frames unless they are there. Returns what the shipped model is checked on."""
    file = work / 'made.json'  # which is written last
    if not file.is_file():
        work.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(make_models(work, data)))
    made = json.loads(file.read_text())
    if data and made['data'] != str(data):
        raise SystemExit(f'{work}: was made of {made["data"] or "rendered frames"}, not of {data}; remove it')
    return made


def surroundings() -> dict:
    """Date and command; the driver, and the CUDA that it is of, where they can be asked for."""
    found = {'date': str(date.today()), 'command': shlex.join(sys.argv)}
    with suppress(OSError, subprocess.SubprocessError):
        command = ['nvidia-smi', '--query-gpu=driver_version', '--format=csv,noheader']
        found['driver'] = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[0]
    with suppress(OSError):
        number = ctypes.c_int()
        ctypes.CDLL('libcuda.so.1').cuDriverGetVersion(ctypes.byref(number))
        found['cuda'] = f'{number.value // 1000}.{number.value % 1000 // 10}'
    return found


def is_right(row: dict) -> bool:
    """Whether a check found what it should: of int8, whose labels are others, nearly the mIoU of float32."""
    drawn = row['overlay_off'] <= ROUNDED if row['kernels'] else row['overlay_off'] is None
    if row['way'] == 'int8':
        return drawn and row['miou'] is not None and row['miou_expected'] - row['miou'] <= LOST
    return drawn and row['equal'] >= EQUAL and row['confidence_off'] <= UNSURE


def take_all(options: argparse.Namespace, work: Path, origin: dict) -> dict:
    """Each step in a process of its own; their numbers by kind, and by label why others have none."""
    numbers: dict = origin | {kind: [] for kind in KINDS} | {'impossible': {}, 'failed': {}}
    until = time.monotonic() + 60 * options.minutes
    for index, step in enumerate(steps()):
        print(step.label, flush=True)
        found, reason = take_apart(index, step, options, work, until - time.monotonic())
        if reason:
            numbers['failed'][step.label] = reason
        elif 'impossible' in found:
            numbers['impossible'][step.label] = found['impossible']
        else:
            numbers[step.kind].append(found)
        print(f'  {f"failed: {reason}" if reason else found}', flush=True)
        if options.out:
            options.out.write_text(json.dumps(numbers, indent=1, allow_nan=False))
    return numbers


def take_apart(index: int, step: Step, options: argparse.Namespace, work: Path, seconds: float) -> tuple[dict, str]:
    """The numbers of a step that a process of its own takes; or, not empty, why it has none."""
    file = work / f'step{index}.json'
    file.unlink(missing_ok=True)
    python = options.tensorrt_python if step.kind in ('check', 'time') else sys.executable
    command = [python, __file__, '--step', str(index), '--work', str(work), '--runs', str(options.runs)]
    command += ['--tactics', options.tactics, '--library', options.library]
    root = str(Path(__file__).resolve().parent.parent)
    environment = {**os.environ, 'PYTHONPATH': os.pathsep.join(filter(None, [root, os.environ.get('PYTHONPATH')]))}
    said = {'stderr': subprocess.PIPE, 'text': True, 'errors': 'replace'}
    try:
        done = subprocess.run(command, env=environment, timeout=max(0.0, seconds), **said)
        print(done.stderr, end='', file=sys.stderr, flush=True)
        if done.returncode:
            return {}, reason_of(done.returncode, done.stderr)
        return json.loads(file.read_text()), ''
    except subprocess.TimeoutExpired:
        return {}, 'no time was left'
    except OSError as error:
        return {}, str(error)


def reason_of(status: int, said: str) -> str:
    """The last line that a process said, after how it ended."""
    how = f'exit status {status}' if status > 0 else signal.Signals(-status).name
    return ': '.join([how, *said.strip().splitlines()[-1:]])


def make_models(work: Path, data: Path | None = None) -> dict:
    """Model files, frames, and what ONNX Runtime makes of those. Returns what the shipped model is checked on."""
    import onnxruntime
    import torch

    from stdc_core.classes import class_table
    from stdc_core.export.onnx import export
    from stdc_core.model.segmentation import STDCSeg
    from stdc_core.model.weights import save_weights

    real = real_images(data) if data else None
    drive = render(0)
    np.save(work / 'frames.npy', np.stack([frame.image for frame in drive]))
    samples = make_shipped(work, real, drive)
    torch.manual_seed(0)
    for name, network in NETWORKS.items():
        weights = work / f'{network.backbone}.safetensors'
        if not weights.is_file():
            save_weights(STDCSeg(network.backbone, CLASSES), weights, class_table('cityscapes'), {})
        export(weights, work / f'{name}.onnx', network.scale, overwrite=True)
        expect(work, name, frames_of(name, work)[:CHECKED])
    found = {'data': str(data) if data else None, 'images': len(samples), 'size': samples[0].label.shape}
    return {**found, 'expected_by': f'ONNX Runtime {onnxruntime.__version__}'}


def make_shipped(work: Path, real: tuple[list, list[Path]] | None, drive: list) -> list:
    """The shipped model, its int8 calibrated on other images than it is checked on. Returns the latter."""
    import onnx

    from stdc_core.export.quantize import quantize
    from stdc_core.inference import DEFAULT_MODEL
    from stdc_core.inference.model_file import read_model
    from stdc_core.io.files import write_png

    with tempfile.TemporaryDirectory() as folder:
        if real:
            samples, pictures = real
            np.save(work / 'real.npy', np.stack([sample.image for sample in samples]))
        else:
            samples, pictures = drive, [Path(folder, f'{index}.png') for index in range(FRAMES)]
            for picture, frame in zip(pictures, render(1), strict=True):
                write_png(picture, frame.image)
        own = read_model(DEFAULT_MODEL)[1].input_scale
        onnx.save(at_one_scale(DEFAULT_MODEL, own if real else 0.5), work / 'shipped.onnx')
        quantize(work / 'shipped.onnx', work / 'int8.onnx', pictures, max_loss=MAX_LOSS, overwrite=True)
    expect(work, 'shipped', [sample.image for sample in samples], [sample.label for sample in samples])
    onnx.save(at_one_scale(work / 'int8.onnx', 0.5), work / 'int8-seg50.onnx')
    return samples


def at_one_scale(path: Path, scale: float):
    """A model whose network sees images of every size at this scale."""
    from onnx import helper

    from stdc_core.inference.input_scale import set_input_scale
    from stdc_core.inference.model_file import read_model

    model, info = read_model(path)
    set_input_scale(model, scale)
    helper.set_model_props(model, info.at(scale).to_metadata())
    return model


def render(seed: int) -> list:
    """Frames of a drive, with labels."""
    from stdc_core.data.synthetic import SyntheticDrive

    drive = SyntheticDrive(seed, *SIZE, frames=FRAMES * 20)
    return [drive[index * 20] for index in range(FRAMES)]


def real_images(data: Path) -> tuple[list, list[Path]]:
    """An even number of samples of val, and the image files of train."""
    from stdc_core.classes import CAMVID
    from stdc_core.data.datasets import open_dataset
    from stdc_core.evaluation.evaluate import evenly

    try:
        val, train = open_dataset(data, 'val', CAMVID), open_dataset(data, 'train', CAMVID, require_labels=False)
        samples = [val[index] for index in evenly(min(REAL, len(val) // 2 * 2), len(val))]
    except (OSError, ValueError) as error:
        raise SystemExit(f'--data: {error}') from error
    sizes = {sample.label.shape for sample in samples}
    if len(sizes) != 1:
        raise SystemExit(f'--data: {val}: {len(val)} images of {len(sizes)} sizes, expected 2 or more of one size')
    return samples, [train.files(index)[0] for index in range(len(train))]


def expect(work: Path, name: str, frames, labels=None) -> None:
    """Write what ONNX Runtime makes of frames, beside their labels."""
    from stdc_core.inference import Segmenter

    segmenter = Segmenter.load(work / f'{name}.onnx', backend='onnxruntime')
    masks, confidences = zip(*(segmenter(frame, confidence=True) for frame in frames), strict=True)
    known = {} if labels is None else {'labels': np.stack(labels)}
    np.savez_compressed(work / f'{name}.npz', masks=np.stack(masks), confidences=np.stack(confidences), **known)


def frames_of(model: str, work: Path) -> np.ndarray:
    """Images for a model: real ones, where there are, to check the shipped one on."""
    if model in ('shipped', 'int8') and (work / 'real.npy').is_file():
        return np.load(work / 'real.npy')
    every = NETWORKS[model].every if model in NETWORKS else 1
    return np.ascontiguousarray(np.load(work / 'frames.npy')[:, ::every, ::every])


def make_backend(path: Path, precision: str, library: str = 'tensorrt', **settings):
    """Make the backend as the segmenter does, with the settings of a measurement."""
    from stdc_core.inference.model_file import read_model
    from stdc_core.inference.tensorrt.make_backend import make_rtx_backend, make_tensorrt_backend
    from stdc_core.inference.tensorrt.options import GpuOptions

    make = make_rtx_backend if library == 'tensorrt_rtx' else make_tensorrt_backend
    return make(read_model(path)[0], precision, GpuOptions(**settings))


def take(step: Step, work: Path, runs: int, tactics: tuple[str, ...], make: Callable = make_backend) -> dict:
    """The numbers of a step, beside what it is; or ``impossible`` and why this TensorRT cannot do it."""
    numbers = step._asdict()
    if step.kind == 'pytorch':
        return {**numbers, **time_pytorch(step, work, runs)}
    if step.kind == 'cpu':
        return {**numbers, **time_drawing(step, work, runs)}
    backend = make(work / f'{step.model}.onnx', step.way, kernels=step.kernels, max_batch=step.batch, tactics=tactics)
    reason = impossible(step, backend)
    if reason:
        return {**numbers, 'impossible': f'not possible with {backend.reason}: {reason}'}
    if backend.name.rpartition(' ')[2] != step.way:
        raise SystemExit(f'it would run as {backend.name}')
    if step.kernels and backend.kernels is None:
        raise SystemExit('it would run without kernels: is NVRTC installed?')
    frames = frames_of(step.model, work)
    free, start = backend.device.free_memory()[0], time.perf_counter()
    backend.prepare(frames.shape[1:3], lambda text: print(f'  {text}', flush=True))
    numbers.update(
        engine_s=time.perf_counter() - start, device=backend.device.name, on=f'{backend.reason}, {versions()}'
    )
    if step.kind == 'check':
        return {**numbers, **check(backend, frames, work, step)}
    return {**numbers, **time_backend(backend, frames.shape[1:], runs, step.batch, free)}


def impossible(step: Step, backend) -> str:
    """Why this version of TensorRT cannot do a step; empty: it can."""
    if backend.max_batch != step.batch:
        return f'it takes batches of {backend.max_batch} at most'
    if not step.kernels and step.way == 'fp16' and backend.name.endswith(' fp32'):
        return 'it computes in the types of the graph, which in one piece are float32'
    return ''


def versions() -> str:
    """Of Python, and of the packages that TensorRT's steps need."""
    found = [f'Python {platform.python_version()}']
    for package in ('numpy', 'onnx', 'cuda-bindings'):
        with suppress(PackageNotFoundError):
            found.append(f'{package} {version(package)}')
    return ', '.join(found)


def check(backend, frames: np.ndarray, work: Path, step: Step) -> dict:
    """How masks and confidences differ from those of ONNX Runtime in float32; mIoU of both where there are labels."""
    name = 'shipped' if step.model == 'int8' else step.model
    expected = np.load(work / f'{name}.npz')
    masks, confidences, overlay_off = poisoned_outputs(backend, frames[: len(expected['masks'])], step.batch)
    labels = expected['labels'] if 'labels' in expected.files else None
    return {
        'overlay_off': overlay_off,
        'equal': 100 * float((masks == expected['masks']).mean()),
        'confidence_off': float(np.abs(confidences - expected['confidences'].astype(float)).mean()),
        'miou': miou(masks, labels),
        'miou_expected': miou(expected['masks'], labels),
    }


def miou(masks: np.ndarray, labels: np.ndarray | None) -> float | None:
    """In percent, of CamVid's classes; None: nothing is labelled."""
    from stdc_core.classes import CAMVID
    from stdc_core.evaluation.metrics import ConfusionMatrix

    confusion = ConfusionMatrix(len(CAMVID))
    for mask, label in zip(masks, () if labels is None else labels):  # noqa: B905  (Python 3.9 has no strict)
        confusion.update(mask, label)
    return None if math.isnan(confusion.miou()) else 100 * confusion.miou()


def blending() -> np.ndarray:
    """What overlays are drawn with: see ``ClassTable.blending_bgr``."""
    from stdc_core.classes import class_table

    return class_table('cityscapes').blending_bgr(OPACITY)


def poisoned_outputs(backend, frames: np.ndarray, batch: int) -> tuple[np.ndarray, np.ndarray, float | None]:
    """Masks and confidences of frames, each written over what no mask holds, on the device and on the host.

    And how far overlays are off, at most; None: none were drawn.
    """
    pipeline = backend.pipeline((batch, *frames.shape[1:]), True)
    found, table, farthest = [], blending(), []
    for first in range(0, len(frames), batch):
        images = frames[first : first + batch]
        for memory, host in pipeline.outputs:
            host[:] = POISON
            backend.device.upload(memory, host)
        found.append(pipeline(images))
        for index, (image, mask) in enumerate(zip(images, found[-1][0])):  # noqa: B905  (Python 3.9 has no strict)
            drawn = pipeline.overlay(index, table)
            if drawn is not None:
                row = table[mask]
                farthest.append(float(np.abs(drawn - (row[..., 3:] * image + row[..., :3])).max()))
    pipeline.close()
    masks, confidences = zip(*found)  # noqa: B905  (Python 3.9 has no strict)
    return np.concatenate(masks), np.concatenate(confidences), max(farthest, default=None)


def time_drawing(step: Step, work: Path, runs: int) -> dict:
    """Milliseconds that the CPU takes for an overlay."""
    import cv2

    from stdc_core.classes import class_table
    from stdc_core.pictures.overlay import overlay

    classes, masks = class_table('cityscapes'), np.load(work / f'{step.model}.npz')['masks']
    frames = frames_of(step.model, work)

    def draw(index: int) -> None:
        overlay(frames[index % CHECKED], masks[index % CHECKED], classes, OPACITY)

    on = f'OpenCV {cv2.__version__}, {cv2.getNumThreads()} threads'
    return {'overlay_ms': time_on_host(draw, runs), 'on': on}


def time_on_host(work: Callable[[int], object], runs: int) -> float:
    """Milliseconds of the host that work takes, which is told the index of a frame."""
    times = []
    for run in range(runs + WARM_UP):
        start = time.perf_counter()
        work(run % FRAMES)
        times.append(1e3 * (time.perf_counter() - start))
    return statistics.median(times[WARM_UP:])


def time_backend(backend, shape: tuple[int, int, int], runs: int, batch: int, free: int) -> dict:
    """Milliseconds from host to host and on the device alone, with and without a CUDA graph; and memory taken.

    Args:
        shape: of an image.
        free: bytes of memory on the device before the engine was made ready.

    These are of the mask alone. What the confidence costs beside it, one more of them tells; the engine that does all
    computes it anyway. An overlay is drawn after the mask is there: its time is its own, up to the picture on the host.
    """
    images = np.random.default_rng(0).integers(0, 256, (FRAMES, batch, *shape), np.uint8)
    device = backend.device
    pipeline = backend.pipeline((batch, *shape), False)
    taken = free - device.free_memory()[0]
    whole = time_on_host(lambda index: pipeline(images[index]), runs)
    table = blending()
    drawing = time_on_host(lambda _: pipeline.overlay(0, table), runs)
    ungraphed = device.time(pipeline.compute, runs + WARM_UP)
    alone = time_graph(pipeline, device, runs)
    pipeline.close()
    pipeline = backend.pipeline((batch, *shape), True)
    confident = time_graph(pipeline, device, runs)
    pipeline.close()
    return {
        'host_to_host_ms': whole,
        'device_ms': statistics.median(alone[WARM_UP:]),
        'device_without_graph_ms': statistics.median(ungraphed[WARM_UP:]),
        'device_with_confidence_ms': statistics.median(confident[WARM_UP:]),
        'overlay_ms': drawing if backend.kernels else None,
        'memory_mb': taken / 1e6,
    }


def time_graph(pipeline, device, runs: int) -> list[float]:
    """Milliseconds on the device of runs of a pipeline, captured."""
    graph = device.capture(pipeline.compute)
    times = device.time(graph.launch, runs + WARM_UP)
    graph.close()
    return times


def time_pytorch(step: Step, work: Path, runs: int) -> dict:
    """Milliseconds from the image on the device to the mask there, by CUDA's events."""
    import torch

    images = torch.from_numpy(frames_of(step.model, work)).cuda()
    logits = pytorch_logits(step, work, 'cuda')

    def mask(image: torch.Tensor) -> torch.Tensor:
        return logits(image).argmax(dim=1).to(torch.uint8)

    run = torch.compile(mask, mode='max-autotune') if 'compiled' in step.way else mask
    times = []
    with torch.inference_mode():
        for index in range(runs + WARM_UP):
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            run(images[index % len(images)][None])  # as in CudaDevice.time: the clock starts on a busy GPU
            start.record()
            run(images[index % len(images)][None])
            end.record()
            end.synchronize()
            times.append(start.elapsed_time(end))
    found = {'device': torch.cuda.get_device_name(), 'on': f'PyTorch {torch.__version__}, CUDA {torch.version.cuda}'}
    return {**found, 'device_ms': statistics.median(times[WARM_UP:])}


def pytorch_logits(step: Step, work: Path, device: str) -> Callable:
    """What ``DeployedGraph.logits`` does, with float16 weights if they are wanted, and nothing sent from the host."""
    import torch

    from stdc_core.model.segmentation import normalize, rescale, upsample
    from stdc_core.model.weights import load_weights

    network = NETWORKS[step.model]
    model = load_weights(work / f'{network.backbone}.safetensors')[0].eval().to(device)
    kind = torch.float16 if 'float16' in step.way else torch.float32
    if kind == torch.float16:
        model = model.half().to(memory_format=torch.channels_last)
    black, white = (normalize(torch.full((1, 3, 1, 1), value, device=device)) for value in (0.0, 255.0))
    gain = (white - black) / 255

    def logits(images: torch.Tensor) -> torch.Tensor:
        planes = rescale(images.permute(0, 3, 1, 2).float(), network.scale).flip(1)
        return upsample(model((planes * gain + black).to(kind)), images.shape[1:3])

    return logits


def report(numbers: dict) -> None:
    """Print the tables of docs/benchmarks.md, of what there is."""
    report_origin(numbers)
    for row in numbers['check']:
        drawn = '' if row['overlay_off'] is None else f', overlay by {row["overlay_off"]:.2f} at most'
        scores = '' if row['miou'] is None else f', mIoU {row["miou"]:.2f} % (there {row["miou_expected"]:.2f} %)'
        print(
            f'{label_of(row)}: {row["equal"]:.3f} % of labels as ONNX Runtime in float32, '
            f'confidence off by {row["confidence_off"]:.2f} of 255{drawn}{scores}{"" if is_right(row) else ": WRONG"}'
        )
    drawing = [row for row in numbers['time'] if row['model'] == SEG50 and row['overlay_ms'] is not None]
    for row in drawing[:1] + numbers['cpu']:
        print(f'an overlay, {label_of(row)}: {row["overlay_ms"]:.3f} ms')
    report_times(numbers)
    report_batches(numbers)
    print('\nengines, seconds to build or to read:')
    for row in numbers['check'] + numbers['time']:
        print(f'  {label_of(row)}: {row["engine_s"]:.1f}')
    for label, reason in numbers['impossible'].items():
        print(f'{label}: {reason}')
    for label, reason in numbers['failed'].items():
        print(f'failed: {label}: {reason}')
    report_targets(numbers)


def report_origin(numbers: dict) -> None:
    """Date, command, devices, versions, images."""
    print(f'\n{numbers["date"]}: {numbers["command"]}')
    on = dict.fromkeys(row['on'] for kind in KINDS for row in numbers[kind])
    known = [f'{name} {numbers[key]}' for name, key in (('driver', 'driver'), ('CUDA', 'cuda')) if key in numbers]
    print('; '.join([*devices(numbers), *known, *on]) or 'nothing was measured')
    height, width = numbers['size']
    frames = f'val of {numbers["data"]}' if numbers['data'] else 'rendered'
    print(f'checked on {numbers["images"]} images of {height} x {width}, {frames}, by {numbers["expected_by"]}')
    print(f'image {SIZE[0]} x {SIZE[1]}, of {SMALL} {SIZE[0] // 2} x {SIZE[1] // 2}\n')


def devices(numbers: dict) -> list[str]:
    """The GPUs of all steps."""
    return list(dict.fromkeys(row['device'] for kind in KINDS if kind != 'cpu' for row in numbers[kind]))


def report_times(numbers: dict) -> None:
    def faster(row: dict) -> str:
        found = faster_than_pytorch(numbers, row['model'], row['device_ms'])
        return ' | '.join('' if value is None else f'{value:.1f}' for value in found)

    columns = ['network', 'the paper, GTX 1080 Ti', 'what computes', 'device ms', 'without graph', 'with confidence']
    print(f'\n| {" | ".join([*columns, "host to host ms", "x eager", "x best of PyTorch"])} |')
    print('|---|---|---|---|---|---|---|---|---|')
    for name, network in NETWORKS.items():
        for row in numbers['pytorch']:
            if row['model'] == name:
                print(f'| {name} | | PyTorch {row["way"]} | {row["device_ms"]:.3f} | | | | {faster(row)} |')
        for row in numbers['time']:
            if row['model'] == name and row['batch'] == 1:
                print(f'| {name} | {1e3 / network.paper:.2f} ms | {times_of(row)} | {faster(row)} |')
    for row in numbers['time']:
        if row['model'] == 'int8-seg50':
            print(f'| stdc1-seg50, 11 classes | | {times_of(row)} | | |')


def report_batches(numbers: dict) -> None:
    print(f'\n| batch ({SEG50}, fp16) | device ms | host to host ms | images a second | memory MB |')
    print('|---|---|---|---|---|')
    for row in numbers['time']:
        if row['model'] == SEG50 and row['way'] == 'fp16' and row['kernels']:
            rate = 1e3 * row['batch'] / row['host_to_host_ms']
            print(
                f'| {row["batch"]} | {row["device_ms"]:.3f} | {row["host_to_host_ms"]:.3f} | {rate:.0f} | '
                f'{row["memory_mb"]:.0f} |'
            )


def report_targets(numbers: dict) -> None:
    """What was aimed at, and whether it was reached."""
    print(f'\n| target, for an H200 | measured, {", ".join(devices(numbers)) or "nothing"} | |')
    print('|---|---|---|')
    for what, goal, value in targets(numbers):
        if value is None:
            print(f'| {what}: {goal:g} | | not measured |')
        else:
            met = value >= goal if 'at least' in what else value <= goal
            print(f'| {what}: {goal:g} | {value:.3f} | {"met" if met else "not met"} |')


def targets(numbers: dict) -> list[tuple[str, float, float | None]]:
    """What each is of, its limit, and what was measured of it; on rendered frames that is nothing."""
    times = {name: value_of(numbers, 'time', 'device_ms', name, 'fp16') for name in NETWORKS}
    faster = [faster_than_pytorch(numbers, name, time) for name, time in times.items() if name != SMALL]
    eager, best = (None if None in found else min(found) for found in zip(*faster))  # noqa: B905  (Python 3.9)
    whole = [(value_of(numbers, 'time', 'device_ms', SEG50, way, False), way) for way in ('fp16', 'fp32')]
    fused = [ratio(time, value_of(numbers, 'time', 'device_ms', SEG50, way)) for time, way in whole]
    equal = value_of(numbers, 'check', 'equal', 'shipped', 'fp16')
    scores = [value_of(numbers, 'check', name, 'int8', 'int8') for name in ('miou_expected', 'miou')]
    lost = None if None in scores else scores[0] - scores[1]
    return [
        (f'{SMALL}, fp16, on the device, ms: at most', 0.35, times[SMALL]),
        (f'{SEG50}, fp16, host to host, ms: at most', 1.0, value_of(numbers, 'time', 'host_to_host_ms', SEG50, 'fp16')),
        ('all four of the paper, fp16, times as fast as PyTorch eager float32: at least', 10, eager),
        ('the same, times as fast as the best of PyTorch: at least', 2, best),
        ('kernels, times as fast as upsampling and argmax in the engine: at least', 1, next(filter(None, fused), None)),
        ('fp16, % of labels of real frames as in float32: at least', EQUAL, equal if numbers['data'] else None),
        ('int8, points of mIoU lost on real frames: at most', LOST, lost if numbers['data'] else None),
        ('CPU, int8, times as fast as PyTorch eager float32 (`stdc benchmark --int8` tells): at least', 6, None),
    ]


def faster_than_pytorch(numbers: dict, model: str, time: float | None) -> tuple[float | None, float | None]:
    """How many times as fast as PyTorch eager in float32, and as the best of its ways, where all of them were timed."""
    others = {row['way']: row['device_ms'] for row in numbers['pytorch'] if row['model'] == model}
    best = min(others.values()) if len(others) == len(WAYS) else None
    return ratio(others.get(WAYS[0]), time), ratio(best, time)


def ratio(time: float | None, ours: float | None) -> float | None:
    return None if None in (time, ours) else time / ours


def value_of(numbers: dict, kind: str, name: str, model: str, way: str, kernels: bool = True) -> float | None:
    """A number of a step, of single images; None: it was not taken."""
    wanted = (model, way, kernels, 1)
    rows = (row for row in numbers[kind] if (row['model'], row['way'], row['kernels'], row['batch']) == wanted)
    return next((row[name] for row in rows), None)


def label_of(row: dict) -> str:
    return Step(**{name: row[name] for name in Step._fields}).label


def times_of(row: dict) -> str:
    """The middle of a row of the table."""
    how = row['way'] + ('' if row['kernels'] else ', all in the engine')
    kinds = ('device_ms', 'device_without_graph_ms', 'device_with_confidence_ms', 'host_to_host_ms')
    times = [row[name] for name in kinds]
    return f'TensorRT {how} | ' + ' | '.join(f'{value:.3f}' for value in times)


if __name__ == '__main__':
    sys.exit(main())
