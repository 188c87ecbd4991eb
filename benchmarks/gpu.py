"""Checks and times everything that needs an NVIDIA GPU: PYTHONPATH=. python benchmarks/gpu.py.

First whether the masks are right, then how fast they come: both networks at both of the paper's scales, in every
precision, from host to host and on the device alone, beside PyTorch. Two halves in processes of their own, as TensorRT
and PyTorch may live in different environments: ``--tensorrt-python`` names the interpreter of the first, 3.9 or later.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import date
from pathlib import Path

import numpy as np

BACKBONES, SCALES = ('stdc1', 'stdc2'), (0.5, 0.75)
SIZE = (1024, 2048)
CLASSES = 19
FRAMES = 8
BATCHES = (1, 2, 4, 8)
WARM_UP = 20

#: The paper's Table 6, frames per second with TensorRT on a GTX 1080 Ti, Seg50 at 512 x 1024 and Seg75 at 768 x 1536.
PAPER = {('stdc1', 0.5): 250.4, ('stdc2', 0.5): 188.6, ('stdc1', 0.75): 126.7, ('stdc2', 0.75): 97.0}


def name_of(backbone: str, scale: float) -> str:
    return f'{backbone}-seg{scale * 100:g}'


def main() -> int:
    """Run both halves and print the tables. Exit status 1: a mask is wrong; 2: there is no GPU."""
    parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
    parser.add_argument('--runs', type=int, default=300, help='timed runs of each side; medians count (default: 300)')
    parser.add_argument('--tensorrt-python', default=sys.executable, help='interpreter that has TensorRT')
    parser.add_argument('--tactics', default='', help='TacticSources to choose from, with commas; default: all')
    parser.add_argument('--out', type=Path, help='JSON file for all numbers')
    parser.add_argument('--half', choices=['tensorrt'], help=argparse.SUPPRESS)
    parser.add_argument('--work', type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    from stdc_core.inference.cuda import missing_driver

    if missing_driver():
        print(f'nothing to measure: {missing_driver()}', file=sys.stderr)
        return 2
    if options.half:
        return tensorrt_half(options.work, options.runs, tuple(filter(None, options.tactics.split(','))))
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        make_models(work)
        command = [options.tensorrt_python, __file__, '--half', 'tensorrt', '--work', str(work)]
        command += ['--runs', str(options.runs), '--tactics', options.tactics]
        root = str(Path(__file__).resolve().parent.parent)
        path = os.pathsep.join(filter(None, [root, os.environ.get('PYTHONPATH')]))
        status = subprocess.run(command, env={**os.environ, 'PYTHONPATH': path}).returncode
        if not (work / 'tensorrt.json').is_file():
            return status or 1
        numbers = json.loads((work / 'tensorrt.json').read_text())
        numbers['pytorch'] = pytorch_half(work, options.runs)
    report(numbers)
    if options.out:
        options.out.write_text(json.dumps(numbers, indent=1))
    return status


def make_models(work: Path) -> None:
    """Model files of random weights, on which speed does not depend; frames; and what ONNX Runtime makes of those."""
    import torch

    from stdc_core.classes import class_table
    from stdc_core.data.synthetic import SyntheticDrive
    from stdc_core.export.onnx import export
    from stdc_core.inference import DEFAULT_MODEL, Segmenter
    from stdc_core.model.segmentation import STDCSeg
    from stdc_core.model.weights import save_weights

    torch.manual_seed(0)
    for backbone in BACKBONES:
        save_weights(STDCSeg(backbone, CLASSES), work / f'{backbone}.safetensors', class_table('cityscapes'), {})
        for scale in SCALES:
            export(work / f'{backbone}.safetensors', work / f'{name_of(backbone, scale)}.onnx', scale)
    drive = SyntheticDrive(seed=0, height=SIZE[0], width=SIZE[1], frames=FRAMES * 20)
    frames = np.stack([drive[index * 20].image for index in range(FRAMES)])
    np.save(work / 'frames.npy', frames)
    found = Segmenter.load(DEFAULT_MODEL, input_scale=0.5, backend='onnxruntime')
    np.save(work / 'masks.npy', np.stack([found(frame).mask for frame in frames]))


def make_backend(path: Path, precision: str, scale: float | None = None, **settings):
    """The backend as the segmenter makes it, with the settings of a measurement."""
    from stdc_core.inference.input_scale import set_input_scale
    from stdc_core.inference.model_file import read_model
    from stdc_core.inference.tensorrt_backend import make_tensorrt_backend

    model, _ = read_model(path)
    if scale is not None:
        set_input_scale(model, scale)
    return make_tensorrt_backend(model, precision, **settings)


def tensorrt_half(work: Path, runs: int, tactics: tuple, make=make_backend) -> int:
    """Everything on TensorRT; numbers go to a file in the work folder. Returns 1 if a mask is wrong."""
    frames = np.load(work / 'frames.npy')
    size = frames.shape[1:3]
    numbers: dict = {'equal': {}, 'rows': [], 'batches': [], 'builds': {}}

    def prepared(path: Path, precision: str, **settings):
        backend = make(path, precision, tactics=tactics, **settings)
        start = time.perf_counter()
        backend.prepare(size, lambda text: print(f'  {text}', flush=True))
        numbers['builds'][f'{path.stem} {precision} {settings}'] = time.perf_counter() - start
        return backend

    shipped = shipped_model()
    expected = np.load(work / 'masks.npy')
    masks = {}
    for label, precision, settings in (
        ('fp32 against ONNX Runtime', 'fp32', {}),
        ('fp32 in one engine against ONNX Runtime', 'fp32', {'kernels': False}),
        ('fp16 against fp32', 'fp16', {}),
    ):
        backend = prepared(shipped, precision, scale=0.5, **settings)
        masks[label] = np.concatenate([backend(frame[None], True)[0] for frame in frames])
        like = expected if precision == 'fp32' else masks['fp32 against ONNX Runtime']
        numbers['equal'][label] = 100 * float((masks[label] == like).mean())
        numbers['on'] = backend.reason
    for backbone, scale in itertools.product(BACKBONES, SCALES):
        path = work / f'{name_of(backbone, scale)}.onnx'
        for precision, kernels in (('fp32', True), ('fp16', True), ('fp16', False)):
            backend = prepared(path, precision, kernels=kernels)
            numbers['rows'].append(
                {'model': path.stem, 'precision': precision, 'kernels': kernels, **time_backend(backend, frames, runs)}
            )
    for batch in BATCHES:
        backend = prepared(work / f'{name_of("stdc1", 0.5)}.onnx', 'fp16', max_batch=batch)
        stack = np.resize(frames, (batch, *frames.shape[1:]))
        numbers['batches'].append({'batch': batch, **time_backend(backend, stack, runs, batch)})
    (work / 'tensorrt.json').write_text(json.dumps(numbers))
    return 0 if min(numbers['equal'].values()) >= 99.9 else 1


def shipped_model() -> Path:
    from stdc_core.inference import DEFAULT_MODEL

    return DEFAULT_MODEL


def time_backend(backend, frames: np.ndarray, runs: int, batch: int = 1) -> dict:
    """Milliseconds from host to host and on the device alone, with and without a CUDA graph; and memory taken."""
    frames = np.random.default_rng(0).permutation(frames)
    device = backend.device
    before = device.free_memory()[0]
    pipeline = backend.pipeline((batch, *frames.shape[1:]), False)
    taken = before - device.free_memory()[0]
    slices = [frames[index : index + batch] for index in range(0, len(frames) - batch + 1, batch)]
    whole, alone, ungraphed = [], [], []
    for run in range(runs + WARM_UP):
        start = time.perf_counter()
        pipeline(slices[run % len(slices)])
        whole.append(1e3 * (time.perf_counter() - start))
    pipeline.compute()
    device.synchronize()
    graph = device.capture(pipeline.compute)
    for work, times in ((graph.launch, alone), (pipeline.compute, ungraphed)):
        times += device.time(work, runs + WARM_UP)
    graph.close()
    pipeline.close()
    return {
        'host_to_host_ms': statistics.median(whole[WARM_UP:]),
        'device_ms': statistics.median(alone[WARM_UP:]),
        'device_without_graph_ms': statistics.median(ungraphed[WARM_UP:]),
        'memory_mb': taken / 1e6,
    }


def pytorch_half(work: Path, runs: int) -> list[dict]:
    """PyTorch three ways, image on the device to mask on the device."""
    import torch

    from stdc_core.export.graph import DeployedGraph
    from stdc_core.model.weights import load_weights

    frames = torch.from_numpy(np.load(work / 'frames.npy')).cuda()
    rows = []
    for backbone, scale in itertools.product(BACKBONES, SCALES):
        for way in ('eager float32', 'eager float16, channels last', 'compiled float16, channels last'):
            graph = DeployedGraph(load_weights(work / f'{backbone}.safetensors')[0], scale).eval().cuda()
            half = 'float16' in way
            if half:
                graph = graph.to(memory_format=torch.channels_last)
            run = torch.compile(graph, mode='max-autotune') if 'compiled' in way else graph
            times = []
            with torch.inference_mode(), torch.autocast('cuda', torch.float16, enabled=half):
                for index in range(runs + WARM_UP):
                    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
                    start.record()
                    run(frames[index % len(frames)][None])
                    end.record()
                    end.synchronize()
                    times.append(start.elapsed_time(end))
            rows.append(
                {'model': name_of(backbone, scale), 'way': way, 'device_ms': statistics.median(times[WARM_UP:])}
            )
            print(f'  {rows[-1]}', flush=True)
    return rows


def report(numbers: dict) -> None:
    """Print the tables of docs/benchmarks.md."""
    print(f'\n{date.today()}, {numbers["on"]}, Python {platform.python_version()}, image {SIZE[0]} x {SIZE[1]}\n')
    for label, percent in numbers['equal'].items():
        print(f'{label}: {percent:.3f} % of labels equal (expected 99.9)')
    print(
        '\n| network | the paper, GTX 1080 Ti | what computes | device ms | without graph | host to host ms | x eager |'
    )
    print('|---|---|---|---|---|---|---|')
    for backbone, scale in itertools.product(BACKBONES, SCALES):
        name = name_of(backbone, scale)
        others = [row for row in numbers['pytorch'] if row['model'] == name]
        slowest = others[0]['device_ms']
        for row in others:
            print(
                f'| {name} | | PyTorch {row["way"]} | {row["device_ms"]:.3f} | | | {slowest / row["device_ms"]:.1f} |'
            )
        for row in (row for row in numbers['rows'] if row['model'] == name):
            how = row['precision'] + ('' if row['kernels'] else ', all in the engine')
            print(
                f'| {name} | {1e3 / PAPER[backbone, scale]:.2f} ms | TensorRT {how} | {row["device_ms"]:.3f} | '
                f'{row["device_without_graph_ms"]:.3f} | {row["host_to_host_ms"]:.3f} | '
                f'{slowest / row["device_ms"]:.1f} |'
            )
    print('\n| batch (stdc1-seg50, fp16) | device ms | host to host ms | images a second | memory MB |')
    print('|---|---|---|---|---|')
    for row in numbers['batches']:
        rate = 1e3 * row['batch'] / row['host_to_host_ms']
        print(
            f'| {row["batch"]} | {row["device_ms"]:.3f} | {row["host_to_host_ms"]:.3f} | {rate:.0f} | '
            f'{row["memory_mb"]:.0f} |'
        )
    print('\nengines, seconds to build or to read:')
    for what, seconds in numbers['builds'].items():
        print(f'  {what}: {seconds:.1f}')


if __name__ == '__main__':
    sys.exit(main())
