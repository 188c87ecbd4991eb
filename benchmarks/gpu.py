"""Checks and times everything that needs an NVIDIA GPU: PYTHONPATH=. python benchmarks/gpu.py.

First whether the masks are right, then how fast they come: both networks at both of the paper's scales, in every
precision, from host to host and on the device alone, beside PyTorch. Each step is a process of its own: one that fails
is named in the end, and the others' numbers are there. What matters most comes first, for where time is short.

TensorRT and PyTorch may live in different environments: ``--tensorrt-python`` names the interpreter of TensorRT, 3.9 or
later, which has numpy, onnx and cuda-bindings too. ``--make-only`` makes models and frames in ``--work``, anywhere.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import NamedTuple

import numpy as np

NETWORKS = (('stdc1', 0.5), ('stdc1', 0.75), ('stdc2', 0.5), ('stdc2', 0.75))
SIZE = (1024, 2048)
CLASSES = 19
FRAMES = 8
BATCHES = (2, 4, 8)
WARM_UP = 20
KINDS = ('check', 'time', 'pytorch', 'cpu')
# PyTorch's float32 lets convolutions round to TF32, as everybody runs it; that of TensorRT is float32 here.
WAYS = ('eager float32 with TF32', 'eager float16, channels last', 'compiled float16, channels last')

#: How far confidences may be off on average, in their 255 steps.
UNSURE = 1.0

#: And every value of an overlay, which is rounded.
ROUNDED = 0.51
OPACITY = 0.3

#: What a mask can never hold: outputs are filled with it before they are looked at.
POISON = 251

#: The paper's Table 6, frames per second with TensorRT on a GTX 1080 Ti, Seg50 at 512 x 1024 and Seg75 at 768 x 1536.
PAPER = {('stdc1', 0.5): 250.4, ('stdc2', 0.5): 188.6, ('stdc1', 0.75): 126.7, ('stdc2', 0.75): 97.0}


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


def name_of(backbone: str, scale: float) -> str:
    return f'{backbone}-seg{scale * 100:g}'


def steps() -> list[Step]:
    """What matters most comes first."""
    checks = [Step('check', 'shipped', 'fp32'), Step('check', 'shipped', 'fp16'), Step('check', 'int8', 'int8')]
    checks += [Step('check', 'shipped', 'fp16', batch=2), Step('check', 'shipped', 'fp32', kernels=False)]
    times = []
    for index, network in enumerate(NETWORKS):
        name = name_of(*network)
        times += [Step('time', name, 'fp16'), *(Step('pytorch', name, way) for way in WAYS)]
        times += [Step('time', name, 'fp16', kernels=False), Step('time', name, 'fp32')]
        if index == 0:
            times += [Step('time', 'int8', 'int8'), *(Step('time', name, 'fp16', batch=batch) for batch in BATCHES)]
    return [*checks, *times, Step('cpu', 'shipped', 'overlay')]


def main() -> int:
    """Take every step and print the tables. Exit status 1: something is wrong, or a step failed; 2: there is no GPU."""
    parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
    parser.add_argument('--runs', type=int, default=300, help='timed runs of each step; medians count (default: 300)')
    parser.add_argument('--minutes', type=float, default=60, help='no step goes on for longer (default: 60)')
    parser.add_argument('--tensorrt-python', default=sys.executable, help='interpreter that has TensorRT')
    parser.add_argument('--tactics', default='', help='TacticSources to choose from, with commas; default: all')
    parser.add_argument('--out', type=Path, help='JSON file for all numbers, written after each step')
    parser.add_argument('--work', type=Path, help='folder of models and frames, made if they are not there')
    parser.add_argument('--make-only', action='store_true', help='make models and frames, and end')
    parser.add_argument('--step', type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    from stdc_core.inference.cuda import missing_driver

    if missing_driver() and not options.make_only:
        print(f'nothing to measure: {missing_driver()}', file=sys.stderr)
        return 2
    if options.step is not None:
        tactics = tuple(filter(None, options.tactics.split(',')))
        found = take(steps()[options.step], options.work, options.runs, tactics)
        (options.work / f'step{options.step}.json').write_text(json.dumps(found))
        return 0
    with tempfile.TemporaryDirectory() as folder:
        work = options.work or Path(folder)
        if not (work / 'expected.npz').is_file():  # which is written last
            work.mkdir(parents=True, exist_ok=True)
            make_models(work)
        if options.make_only:
            return 0
        numbers = take_all(options, work)
    report(numbers)
    return 1 if numbers['failed'] or not all(map(is_right, numbers['check'])) else 0


def is_right(row: dict) -> bool:
    """Whether a check found what it should. Of int8, whose labels are others, only that there is a number."""
    drawn = row['overlay_off'] <= ROUNDED if row['kernels'] else row['overlay_off'] is None
    return drawn and (row['way'] == 'int8' or (row['equal'] >= 99.9 and row['confidence_off'] <= UNSURE))


def take_all(options: argparse.Namespace, work: Path) -> dict:
    """Each step in a process of its own; their numbers by kind, and by label why others have none."""
    numbers: dict = {kind: [] for kind in KINDS} | {'failed': {}}
    root = str(Path(__file__).resolve().parent.parent)
    path = os.pathsep.join(filter(None, [root, os.environ.get('PYTHONPATH')]))
    until = time.monotonic() + 60 * options.minutes
    for index, step in enumerate(steps()):
        print(step.label, flush=True)
        (work / f'step{index}.json').unlink(missing_ok=True)
        python = options.tensorrt_python if step.kind in ('check', 'time') else sys.executable
        command = [python, __file__, '--step', str(index), '--work', str(work), '--runs', str(options.runs)]
        command += ['--tactics', options.tactics]
        try:
            environment = {**os.environ, 'PYTHONPATH': path}
            subprocess.run(command, env=environment, check=True, timeout=max(0.0, until - time.monotonic()))
            numbers[step.kind].append(json.loads((work / f'step{index}.json').read_text()))
            print(f'  {numbers[step.kind][-1]}', flush=True)
        except (subprocess.SubprocessError, OSError) as error:
            late = isinstance(error, subprocess.TimeoutExpired)
            numbers['failed'][step.label] = 'no time was left' if late else str(error)
            print(f'  failed: {numbers["failed"][step.label]}', flush=True)
        if options.out:
            options.out.write_text(json.dumps(numbers, indent=1))
    return numbers


def make_models(work: Path) -> None:
    """Model files of random weights, on which speed does not depend; frames; and what ONNX Runtime makes of those."""
    import onnx
    import torch

    from stdc_core.classes import class_table
    from stdc_core.data.synthetic import SyntheticDrive
    from stdc_core.export.onnx import export
    from stdc_core.export.quantize import quantize
    from stdc_core.files import write_png
    from stdc_core.inference import DEFAULT_MODEL, Segmenter
    from stdc_core.inference.input_scale import set_input_scale
    from stdc_core.inference.model_file import read_model
    from stdc_core.model.segmentation import STDCSeg
    from stdc_core.model.weights import save_weights

    torch.manual_seed(0)
    for backbone, scale in NETWORKS:
        weights = work / f'{backbone}.safetensors'
        if not weights.is_file():
            save_weights(STDCSeg(backbone, CLASSES), weights, class_table('cityscapes'), {})
        export(weights, work / f'{name_of(backbone, scale)}.onnx', scale, overwrite=True)
    drive = SyntheticDrive(seed=0, height=SIZE[0], width=SIZE[1], frames=FRAMES * 20)
    frames = np.stack([drive[index * 20].image for index in range(FRAMES)])
    np.save(work / 'frames.npy', frames)
    model, _ = read_model(DEFAULT_MODEL)
    set_input_scale(model, 0.5)
    onnx.save(model, work / 'shipped.onnx')
    for index, frame in enumerate(frames):
        write_png(work / f'frame{index}.png', frame)
    pictures = sorted(work.glob('frame*.png'))
    quantize(work / 'shipped.onnx', work / 'int8.onnx', pictures, max_loss=100.0, overwrite=True)
    found = Segmenter.load(work / 'shipped.onnx', backend='onnxruntime')
    masks, confidences = zip(*(found(frame, confidence=True) for frame in frames), strict=True)
    np.savez(work / 'expected.npz', masks=np.stack(masks), confidences=np.stack(confidences))


def make_backend(path: Path, precision: str, **settings):
    """The backend as the segmenter makes it, with the settings of a measurement."""
    from stdc_core.inference.model_file import read_model
    from stdc_core.inference.tensorrt_backend import make_tensorrt_backend

    return make_tensorrt_backend(read_model(path)[0], precision, **settings)


def take(step: Step, work: Path, runs: int, tactics: tuple[str, ...], make: Callable = make_backend) -> dict:
    """The numbers of a step, beside what it is."""
    numbers = step._asdict()
    frames = np.load(work / 'frames.npy')
    if step.kind == 'pytorch':
        return {**numbers, **time_pytorch(step, work, frames, runs)}
    if step.kind == 'cpu':
        return {**numbers, **time_drawing(work, frames, runs)}
    backend = make(work / f'{step.model}.onnx', step.way, kernels=step.kernels, max_batch=step.batch, tactics=tactics)
    if backend.max_batch != step.batch:
        raise SystemExit(f'this TensorRT takes batches of {backend.max_batch} at most')
    if backend.name != f'tensorrt {step.way}':
        raise SystemExit(f'it would run as {backend.name}')
    if step.kernels and backend.kernels is None:
        raise SystemExit('it would run without kernels: is NVRTC installed?')
    start = time.perf_counter()
    backend.prepare(frames.shape[1:3], lambda text: print(f'  {text}', flush=True))
    numbers.update(engine_s=time.perf_counter() - start, on=backend.reason, python=platform.python_version())
    if step.kind == 'check':
        masks, confidences, numbers['overlay_off'] = poisoned_outputs(backend, frames, step.batch)
        expected = np.load(work / 'expected.npz')
        numbers['equal'] = 100 * float((masks == expected['masks']).mean())
        numbers['confidence_off'] = float(np.abs(confidences - expected['confidences'].astype(float)).mean())
    else:
        numbers.update(time_backend(backend, frames.shape[1:], runs, step.batch))
    return numbers


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


def time_drawing(work: Path, frames: np.ndarray, runs: int) -> dict:
    """Milliseconds that the CPU takes for an overlay."""
    import cv2

    from stdc_core.classes import class_table
    from stdc_core.visualization import overlay

    classes, masks = class_table('cityscapes'), np.load(work / 'expected.npz')['masks']
    drawing = time_on_host(lambda index: overlay(frames[index], masks[index], classes, OPACITY), runs)
    return {'overlay_ms': drawing, 'on': f'OpenCV {cv2.__version__}, {cv2.getNumThreads()} threads'}


def time_on_host(work: Callable[[int], object], runs: int) -> float:
    """Milliseconds of the host that work takes, which is told the index of a frame."""
    times = []
    for run in range(runs + WARM_UP):
        start = time.perf_counter()
        work(run % FRAMES)
        times.append(1e3 * (time.perf_counter() - start))
    return statistics.median(times[WARM_UP:])


def time_backend(backend, shape: tuple[int, int, int], runs: int, batch: int) -> dict:
    """Milliseconds from host to host and on the device alone, with and without a CUDA graph; and memory taken.

    These are of the mask alone. What the confidence costs beside it, one more of them tells; the engine that does all
    computes it anyway. An overlay is drawn after the mask is there: its time is its own, up to the picture on the host.
    """
    images = np.random.default_rng(0).integers(0, 256, (FRAMES, batch, *shape), np.uint8)
    device = backend.device
    before = device.free_memory()[0]
    pipeline = backend.pipeline((batch, *shape), False)
    taken = before - device.free_memory()[0]
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


def time_pytorch(step: Step, work: Path, frames: np.ndarray, runs: int) -> dict:
    """Milliseconds from the image on the device to the mask there, by CUDA's events."""
    import torch

    from stdc_core.export.graph import DeployedGraph
    from stdc_core.model.weights import load_weights

    backbone, scale = next(network for network in NETWORKS if name_of(*network) == step.model)
    images = torch.from_numpy(frames).cuda()
    graph = DeployedGraph(load_weights(work / f'{backbone}.safetensors')[0], scale).eval().cuda()
    half = 'float16' in step.way
    if half:
        graph = graph.to(memory_format=torch.channels_last)

    def mask(image: torch.Tensor) -> torch.Tensor:
        return graph.logits(image).argmax(dim=1).to(torch.uint8)

    run = torch.compile(mask, mode='max-autotune') if 'compiled' in step.way else mask
    times = []
    with torch.inference_mode(), torch.autocast('cuda', torch.float16, enabled=half):
        for index in range(runs + WARM_UP):
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            run(images[index % len(images)][None])  # as in CudaDevice.time: the clock starts on a busy GPU
            start.record()
            run(images[index % len(images)][None])
            end.record()
            end.synchronize()
            times.append(start.elapsed_time(end))
    return {'device_ms': statistics.median(times[WARM_UP:]), 'on': f'PyTorch {torch.__version__}'}


def report(numbers: dict) -> None:
    """Print the tables of docs/benchmarks.md, of what there is."""
    everything = [row for kind in KINDS for row in numbers[kind]]
    on = dict.fromkeys(row['on'] + (f', Python {row["python"]}' if 'python' in row else '') for row in everything)
    print(f'\n{date.today()}, {"; ".join(on) or "nothing was measured"}, image {SIZE[0]} x {SIZE[1]}\n')
    for row in numbers['check']:
        drawn = '' if row['overlay_off'] is None else f', overlay by {row["overlay_off"]:.2f} at most'
        print(
            f'{label_of(row)}: {row["equal"]:.3f} % of labels as ONNX Runtime in float32, '
            f'confidence off by {row["confidence_off"]:.2f} of 255{drawn}'
        )
    drawing = [row for row in numbers['time'] if row['overlay_ms'] is not None]
    for row in drawing[:1] + numbers['cpu']:
        print(f'an overlay, {label_of(row)}: {row["overlay_ms"]:.3f} ms')
    columns = ['network', 'the paper, GTX 1080 Ti', 'what computes', 'device ms', 'without graph', 'with confidence']
    print(f'\n| {" | ".join([*columns, "host to host ms", "x eager"])} |')
    print('|---|---|---|---|---|---|---|---|')
    times = [row for row in numbers['time'] if row['batch'] == 1]
    for network in NETWORKS:
        name = name_of(*network)
        others = [row for row in numbers['pytorch'] if row['model'] == name]
        eager = next((row['device_ms'] for row in others if row['way'] == WAYS[0]), float('nan'))
        for row in others:
            faster = eager / row['device_ms']
            print(f'| {name} | | PyTorch {row["way"]} | {row["device_ms"]:.3f} | | | | {faster:.1f} |')
        for row in (row for row in times if row['model'] == name):
            print(f'| {name} | {1e3 / PAPER[network]:.2f} ms | {times_of(row)} | {eager / row["device_ms"]:.1f} |')
    for row in (row for row in times if row['model'] == 'int8'):
        print(f'| stdc1-seg50, 11 classes | | {times_of(row)} | |')
    print('\n| batch (stdc1-seg50, fp16) | device ms | host to host ms | images a second | memory MB |')
    print('|---|---|---|---|---|')
    first = name_of(*NETWORKS[0])
    for row in numbers['time']:
        if row['model'] == first and row['way'] == 'fp16' and row['kernels']:
            rate = 1e3 * row['batch'] / row['host_to_host_ms']
            print(
                f'| {row["batch"]} | {row["device_ms"]:.3f} | {row["host_to_host_ms"]:.3f} | {rate:.0f} | '
                f'{row["memory_mb"]:.0f} |'
            )
    print('\nengines, seconds to build or to read:')
    for row in numbers['check'] + numbers['time']:
        print(f'  {label_of(row)}: {row["engine_s"]:.1f}')
    for label, reason in numbers['failed'].items():
        print(f'failed: {label}: {reason}')


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
