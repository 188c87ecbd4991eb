# SPDX-License-Identifier: Apache-2.0
"""Compare STDC with BiSeNet and with other backbones on this machine, beside the numbers of the papers.

    make compare                                       # speed, size and memory of all networks
    make compare COMPARE='--data camvid --seeds 3'     # and the accuracy, after the same short training of each

All networks are exported as by `stdc export`. The segmenter runs them in turns, from the bytes of an image to its mask.
Without timm, the backbones from timm are left out. OUT/compare.md has the tables, OUT/compare.png the plot and
OUT/compare.json the numbers.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib.util
import json
import platform
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from torch import nn
from tqdm import tqdm

from stdc_core.classes import CITYSCAPES
from stdc_core.commands.arguments import image_size
from stdc_core.data.synthetic import SyntheticDrive
from stdc_core.export.onnx import export
from stdc_core.inference import BackendError, Segmenter
from stdc_core.io.files import write_png
from stdc_core.model.networks import make_network, outline
from stdc_core.model.size import multiply_adds, parameters
from stdc_core.model.stdc import STDCClassifier
from stdc_core.model.weights import load_weights, save_weights
from stdc_core.pictures.scatter import Point, scatter
from stdc_core.training.run_folder import RECORD
from stdc_core.training.train import WEIGHTS, resume, train
from stdc_core.training.train_config import load_config

#: Networks, and how the papers call them. STDC2 is the first: all others are compared with it.
NETWORKS = {
    'stdc2': 'STDC2',
    'stdc1': 'STDC1',
    'bisenetv1': 'BiSeNetV1 (ResNet-18)',
    'bisenetv2': 'BiSeNetV2',
    'timm/ghostnet_100': 'GhostNet',
    'timm/mobilenetv3_large_100': 'MobileNetV3',
    'timm/efficientnet_b0': 'EfficientNet-B0',
    'timm/mobilenetv2_100': 'MobileNetV2',
    'timm/resnet18': 'ResNet-18',
    'timm/resnet50': 'ResNet-50',
    'timm/densenet121': 'DenseNet-121',
}

#: Program that prints its peak resident memory in kB. Arguments: model file, threads, height and width. ``getrusage``
#: would begin with the peak of the process that starts it.
MEMORY_PROGRAM = """
import sys, numpy
from stdc_core.inference import Segmenter
segmenter = Segmenter.load(sys.argv[1], int(sys.argv[2]), backend='onnxruntime')
for _ in range(2):
    segmenter(numpy.zeros((int(sys.argv[3]), int(sys.argv[4]), 3), numpy.uint8))
print(next(line.split()[1] for line in open('/proc/self/status') if line.startswith('VmHWM')))
"""

#: Of an image of 1024 x 2048, a network sees 512 x 1024 (Seg50) and 768 x 1536 (Seg75).
SCALES = (0.5, 0.75)


@dataclass(frozen=True)
class Published:
    """Numbers of the STDC paper (Tables 3 and 6) for Cityscapes.

    The speed is that of a GTX 1080 Ti. That of BiSeNetV1 is from its own paper, on a Titan XP.

    Args:
        fps: Frames per second.
        miou: mIoU on val, percent.
    """

    fps: float
    miou: float


PUBLISHED = {
    ('stdc1', 0.5): Published(250.4, 72.2),
    ('stdc2', 0.5): Published(188.6, 74.2),
    ('stdc1', 0.75): Published(126.7, 74.5),
    ('stdc2', 0.75): Published(97.0, 77.0),
    ('bisenetv1', 0.75): Published(65.5, 74.8),
    ('bisenetv2', 0.5): Published(156.0, 73.4),
    ('timm/ghostnet_100', 0.5): Published(135.0, 67.8),
    ('timm/mobilenetv3_large_100', 0.5): Published(148.3, 70.1),
    ('timm/efficientnet_b0', 0.5): Published(99.9, 72.2),
}

#: Classifiers of Table 5 by the names of this package and of timm: parameters in millions, multiply-adds in millions,
#: frames per second on a GTX 1080 Ti, top-1 accuracy on ImageNet.
CLASSIFIERS = {
    'stdc1': (8.4, 813, 1289.0, 73.9),
    'stdc2': (12.5, 1446, 813.6, 76.4),
    'timm/resnet18': (11.2, 1800, 1058.7, 69.0),
    'timm/resnet50': (23.5, 3800, 378.7, 75.3),
    'timm/densenet121': (9.9, 2882, 363.6, 75.0),
    'timm/ghostnet_100': (5.2, 141, 699.1, 73.9),
    'timm/mobilenetv2_100': (3.4, 300, 998.8, 72.0),
    'timm/mobilenetv3_large_100': (5.4, 219, 661.2, 75.2),
    'timm/efficientnet_b0': (5.3, 390, 443.0, 76.3),
}

_OURS, _OTHERS = (40, 40, 220), (200, 120, 40)


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
        seconds: Median time from bytes in to mask out.
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


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--out', type=Path, default=Path('runs/compare'), help='folder (default: runs/compare)')
    parser.add_argument('--size', type=image_size, default=(1024, 2048), metavar='HxW', help='size of the image')
    parser.add_argument('--runs', type=int, default=10, help='timed runs of each network (default: 10)')
    parser.add_argument('--threads', type=int, default=2, help='CPU threads (default: 2)')
    parser.add_argument('--only', action='append', choices=list(NETWORKS), help='compare this network with STDC2')
    parser.add_argument('--backend', action='append', help='backends (default: onnxruntime, and tensorrt on a GPU)')
    parser.add_argument(
        '--quick', action='store_true', help='try the program: one run on an image of 128x256 at one input scale'
    )
    parser.add_argument('--data', type=Path, help='dataset to train and validate each network on')
    parser.add_argument('--seeds', type=int, default=3, help='trainings of each network (default: 3)')
    parser.add_argument('--config', type=Path, default=Path('config/train/camvid_stdc1.yaml'), help='the recipe')
    parser.add_argument('--extra', type=Path, action='append', default=[], help='synthetic drives')
    parser.add_argument('--set', action='append', default=[], metavar='KEY=VALUE', help='override in all trainings')
    options = parser.parse_args(arguments)
    scales = SCALES
    if options.quick:
        options.size, options.runs, scales = (128, 256), 1, SCALES[:1]
    names = ['stdc2', *(name for name in options.only or NETWORKS if name != 'stdc2')]
    if importlib.util.find_spec('timm') is None:
        left_out = [name for name in names if name.startswith('timm/')]
        names = [name for name in names if name not in left_out]
        if left_out:
            print(f'timm is not installed, so {len(left_out)} networks are left out; `make compare` installs it')
    options.out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(options.threads)
    rows = [row for scale in scales for row in time_networks(names, scale, options)]
    classifiers = time_classifiers([name for name in names if name in CLASSIFIERS], options)
    write(options, rows, classifiers)
    if options.data:
        for seed in range(options.seeds):
            for name in names:
                score = train_and_score(options, name, seed)
                for row in rows:
                    if row.network == name:
                        row.miou.append(score)
            # After each seed: a comparison that must end early is complete with fewer seeds.
            write(options, rows, classifiers)
    print((options.out / 'compare.md').read_text())


def time_networks(names: Sequence[str], scale: float, options: argparse.Namespace) -> list[Row]:
    """Export all networks at an input scale, and time them in interleaved runs."""
    image = SyntheticDrive(seed=0, height=options.size[0], width=options.size[1], frames=1)[0].image
    seen = (round(options.size[0] * scale), round(options.size[1] * scale))
    rows: list[Row] = []
    sides: list[Callable[[], object]] = []
    for name in tqdm(names, desc=f'exporting at input scale {scale:g}', disable=None):
        file = model_file(name, scale, options.out)
        network = outline(name, len(CITYSCAPES))
        for backend in options.backend or ('onnxruntime', 'tensorrt'):
            try:
                segmenter = Segmenter.load(file, options.threads, backend=backend)
            except BackendError:  # not installed, or without a GPU
                if options.backend:
                    raise
                continue
            sides.append(lambda segmenter=segmenter: segmenter(image))
            memory = memory_of(file, options) if backend == 'onnxruntime' else None
            counts = parameters(network), multiply_adds(network, *seen)
            rows.append(Row(name, scale, segmenter.backend, *counts, memory, 0.0))
    for row, seconds in zip(rows, interleaved(sides, options.runs, f'input scale {scale:g}'), strict=True):
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


def memory_of(file: Path, options: argparse.Namespace) -> int:
    """Return the peak resident memory of a process that segments with a model, and has no torch, in bytes."""
    numbers = map(str, (options.threads, *options.size))
    command = [sys.executable, '-c', MEMORY_PROGRAM, str(file), *numbers]
    return 1024 * int(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout)


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
            warnings.simplefilter('ignore')  # of the older exporter, which says that it is one
            torch.onnx.export(model, (torch.zeros(1, 3, 224, 224),), str(file), dynamo=False, opset_version=17)
        session = onnxruntime.InferenceSession(str(file), settings, providers=['CPUExecutionProvider'])
        sides.append(lambda session=session: session.run(None, {session.get_inputs()[0].name: image}))
        counts = parameters(model), multiply_adds(model, 224, 224)
        rows.append(Row(name, 1.0, 'onnxruntime', *counts, None, 0.0))
    for row, seconds in zip(rows, interleaved(sides, options.runs, 'classifiers'), strict=True):
        row.seconds = seconds
    return rows


def classifier(name: str) -> nn.Module:
    """Return an ImageNet classifier with random weights."""
    if not name.startswith('timm/'):
        return STDCClassifier(name).eval()
    import timm

    return timm.create_model(name.removeprefix('timm/')).eval()


def interleaved(sides: Sequence[Callable[[], object]], runs: int, what: str) -> list[float]:
    """Return the median time of each side in seconds. All sides take turns, so that a slower phase slows down all."""
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


def train_and_score(options: argparse.Namespace, name: str, seed: int) -> float:
    """Return the mIoU on val in percent of a network after the recipe; take up or read a run that exists."""
    out = options.out / 'trainings' / f'{name.replace("/", "_")}_seed{seed}'
    if not (out / WEIGHTS).is_file():
        if (out / RECORD).is_file():
            resume(out)
        else:
            config = load_config(options.config, [*options.set, f'backbone={name}', f'seed={seed}'])
            train(config, options.data, out, options.extra if config.extra_share else [])
    return 100 * float(load_weights(out / WEIGHTS)[2]['miou'].split()[0])


def write(options: argparse.Namespace, rows: Sequence[Row], classifiers: Sequence[Row]) -> None:
    """Write the tables, the plot and the numbers."""
    found = {'networks': rows, 'classifiers': classifiers}
    text = json.dumps({key: [dataclasses.asdict(row) for row in value] for key, value in found.items()}, indent=1)
    (options.out / 'compare.json').write_text(text)
    (options.out / 'compare.md').write_text(tables(rows, classifiers, machine(options), options.size))
    if points := plotted(rows):
        measured = any(row.miou for row in rows)
        label = f'mIoU in %, {options.data} val' if measured else 'mIoU in %, Cityscapes val, as published'
        write_png(options.out / 'compare.png', scatter(points, 'Speed and accuracy', 'frames/s, measured here', label))


def machine(options: argparse.Namespace) -> str:
    """Return one line about the machine and the versions."""
    cpu = platform.processor() or platform.machine()
    with suppress(OSError, StopIteration):
        lines = Path('/proc/cpuinfo').read_text().splitlines()
        cpu = next(line.split(':')[1].strip() for line in lines if line.startswith('model name'))
    gpu = f', {torch.cuda.get_device_name()}' if torch.cuda.is_available() else ''
    return (
        f'{time.strftime("%Y-%m-%d")}, {cpu}{gpu}, {options.threads} threads, torch {torch.__version__}, '
        f'onnxruntime {onnxruntime.__version__}, image {options.size[0]} x {options.size[1]}, '
        f'medians of {options.runs} interleaved runs, random weights'
    )


def tables(rows: Sequence[Row], classifiers: Sequence[Row], measured_on: str, size: tuple[int, int]) -> str:
    """Return the tables in Markdown. Ratios are of frames per second, to STDC2 on the same backend."""
    text = f'{measured_on}\n\n'
    text += '| network | sees | backend | parameters, M | multiply-adds, G | memory, MB | ms | frames/s | to STDC2 '
    text += '| mIoU in % | published: frames/s | to STDC2 | mIoU in % |\n' + '|---' * 13 + '|\n'
    reference = {(row.scale, row.backend): row.seconds for row in rows if row.network == 'stdc2'}
    for row in rows:
        published, base = PUBLISHED.get((row.network, row.scale)), PUBLISHED['stdc2', row.scale]
        cells = [
            NETWORKS[row.network],
            f'{round(size[0] * row.scale)} x {round(size[1] * row.scale)}',
            row.backend,
            f'{row.parameters / 1e6:.2f}',
            f'{row.multiply_adds / 1e9:.2f}',
            '' if row.memory is None else f'{row.memory / 1e6:.0f}',
            f'{1e3 * row.seconds:.1f}',
            f'{1 / row.seconds:.2f}',
            f'{reference[row.scale, row.backend] / row.seconds:.2f}',
            spread(row.miou),
            *([f'{published.fps}', f'{published.fps / base.fps:.2f}', f'{published.miou}'] if published else [''] * 3),
        ]
        text += f'| {" | ".join(cells)} |\n'
    text += '\nImage classifiers at 224 x 224 (Table 5), with ONNX Runtime:\n\n'
    text += '| classifier | parameters, M | published | multiply-adds, M | published | ms | images/s | to STDC2 '
    text += '| published: images/s | to STDC2 | top-1 in % |\n' + '|---' * 11 + '|\n'
    slowest = next((row.seconds for row in classifiers if row.network == 'stdc2'), float('nan'))
    for row in classifiers:
        million, operations, fps, top1 = CLASSIFIERS[row.network]
        cells = [
            NETWORKS[row.network],
            *(f'{row.parameters / 1e6:.2f}', f'{million}', f'{row.multiply_adds / 1e6:.0f}', f'{operations}'),
            *(f'{1e3 * row.seconds:.1f}', f'{1 / row.seconds:.1f}', f'{slowest / row.seconds:.2f}'),
            *(f'{fps}', f'{fps / CLASSIFIERS["stdc2"][2]:.2f}', f'{top1}'),
        ]
        text += f'| {" | ".join(cells)} |\n'
    return text


def spread(scores: Sequence[float]) -> str:
    """Return the mean, and the lowest and highest of several scores."""
    if not scores:
        return ''
    mean = f'{statistics.mean(scores):.1f}'
    return mean if len(scores) == 1 else f'{mean} ({min(scores):.1f} to {max(scores):.1f})'


def plotted(rows: Sequence[Row]) -> list[Point]:
    """Return the points of the plot: measured accuracy if there is any, else that of the papers."""
    measured = any(row.miou for row in rows)
    points = []
    for row in rows:
        published = PUBLISHED.get((row.network, row.scale))
        accuracy = statistics.mean(row.miou) if row.miou else published.miou if published and not measured else None
        # Trainings validate at one input scale, which is not the scale of the time.
        if accuracy is None or (measured and row.scale != SCALES[0]):
            continue
        name = NETWORKS[row.network] + ('' if measured else f' {row.scale:g}')
        if row.backend != rows[0].backend:
            name += f', {row.backend}'
        points.append(Point(1 / row.seconds, accuracy, name, _OURS if row.network in ('stdc1', 'stdc2') else _OTHERS))
    return points


if __name__ == '__main__':
    main()
