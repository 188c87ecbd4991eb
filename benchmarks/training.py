# SPDX-License-Identifier: Apache-2.0
"""Compare ways to load training data, and time the parts of a training step: python benchmarks/training.py.

The same training step (`SegmentationTask`, backward pass and optimiser, bfloat16) gets its batches from an ordinary
DataLoader, from a DataLoader with decoded images in memory, and from the device's own memory. For comparison, it also
runs on one constant batch without any loading. All variants take turns in one run; medians are reported.
"""

from __future__ import annotations

import argparse
import itertools
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import cv2
import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel
from torch.utils.data import DataLoader
from tqdm import tqdm

from stdc_core.classes import CAMVID
from stdc_core.commands.main import main as stdc
from stdc_core.data.augment import Augmentation
from stdc_core.data.check import check
from stdc_core.data.folder import SegmentationFolder
from stdc_core.data.resident import ResidentDataset, ResidentLoader
from stdc_core.data.schedule import AugmentedSamples, BatchSchedule, ScheduleSampler
from stdc_core.io.cpu import cores
from stdc_core.model.segmentation import SegmentationOutput, STDCSeg, normalize
from stdc_core.training.fitting import growing_average
from stdc_core.training.task import SegmentationTask
from stdc_core.training.train_config import TrainConfig

Batch = tuple[Tensor, Tensor]
Loader = Callable[[ScheduleSampler], Iterable[Batch]]

# Number of warm-up steps, in which workers start and kernels are selected.
WARM_UP_STEPS = 5
# Number of rendered drives, and frames of each, if no data is given.
DRIVES, FRAMES = 16, 12


class TrainingStep:
    """Training step and its parts."""

    def __init__(self, config: TrainConfig, device: torch.device):
        torch.manual_seed(0)
        self.device = device
        self.task = SegmentationTask(STDCSeg(config.backbone, len(CAMVID)), config, CAMVID).to(device).train()
        self.optimizer = self.task.configure_optimizers()['optimizer']
        self.average = AveragedModel(
            self.task.model, device, multi_avg_fn=growing_average(config.ema_decay), use_buffers=True
        )
        # There is no trainer that could log.
        self.task.log = self.task.log_dict = lambda *_, **__: None

    def __call__(self, batch: Batch) -> None:
        self.optimizer.zero_grad()
        with self._mixed():
            loss = self.task.training_step(batch, 0)
        loss.backward()
        self.optimizer.step()
        self.average.update_parameters(self.task.model)

    def network(self, batch: Batch) -> None:
        """Run normalisation, forward and backward pass, with a loss that takes almost no time."""
        self.optimizer.zero_grad()
        with self._mixed():
            output = self.output(batch)
        torch.autograd.backward([logits.float().mean() for logits in _logits(output)])

    def losses(self, output: SegmentationOutput, label: Tensor) -> None:
        """Run the forward and backward pass of the losses, down to the logits."""
        with self._mixed():
            loss = sum(self.task.losses(output, label.long()).values())
        loss.backward()

    def output(self, batch: Batch) -> SegmentationOutput:
        image = normalize(batch[0].permute(0, 3, 1, 2)).contiguous(memory_format=torch.channels_last)
        return self.task.model.forward_train(image)

    def detached_output(self, batch: Batch) -> SegmentationOutput:
        with torch.no_grad(), self._mixed():
            output = self.output(batch)
        for logits in _logits(output):
            logits.requires_grad_()
        return output

    def wait(self) -> None:
        """Wait until the device has finished."""
        if self.device.type == 'cuda':
            torch.cuda.synchronize(self.device)

    def _mixed(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16)


def _logits(output: SegmentationOutput) -> list[Tensor]:
    return [output.logits, output.aux8, output.aux16, *output.detail.values()]


def make_loaders(options: argparse.Namespace, device: torch.device, data: Path) -> dict[str, Loader]:
    """Return the three loaders by name. Each is called with the sampler of a run."""
    datasets = [SegmentationFolder(data, 'train', CAMVID)]
    augmentation = Augmentation(options.crop)
    resident = ResidentDataset(datasets, [check(dataset).sizes for dataset in datasets], device)
    print(f'{len(datasets[0])} images, {resident.pixels.nbytes / 2**20:.0f} MB on the device')

    def ordinary(samples: AugmentedSamples) -> Loader:
        def batches(sampler: ScheduleSampler) -> Iterator[Batch]:
            loader = DataLoader(
                samples,
                batch_sampler=sampler,
                num_workers=options.workers,
                pin_memory=device.type == 'cuda',
            )
            for image, label in loader:
                yield image.to(device, non_blocking=True), label.to(device, non_blocking=True)

        return batches

    workers = f'DataLoader and OpenCV, {options.workers} workers'
    return {
        workers: ordinary(AugmentedSamples(datasets, augmentation)),
        f'{workers}, decoded images in memory': ordinary(AugmentedSamples(datasets, augmentation, cache=True)),
        'images and augmentation on the device': lambda sampler: ResidentLoader(resident, augmentation, sampler),
    }


def seconds_per_step(step: TrainingStep, batches: Iterator[Batch], steps: int) -> float:
    """Return the mean time of ``steps`` consecutive steps after a warm-up."""
    for batch in itertools.islice(batches, WARM_UP_STEPS):
        step(batch)
    step.wait()
    start = time.perf_counter()
    for batch in itertools.islice(batches, steps):
        step(batch)
    step.wait()
    return (time.perf_counter() - start) / steps


def seconds(step: TrainingStep, work: Callable[[], object], runs: int) -> float:
    """Return the median time of single runs, each until the device has finished."""
    times = []
    for run in range(WARM_UP_STEPS + runs):
        step.wait()
        start = time.perf_counter()
        work()
        step.wait()
        if run >= WARM_UP_STEPS:
            times.append(time.perf_counter() - start)
    return statistics.median(times)


def compare(
    options: argparse.Namespace, step: TrainingStep, loaders: dict[str, Loader], schedule: BatchSchedule
) -> None:
    """Run the step with each loader in turns. Print a table, and the times of the parts of the step."""
    steps = WARM_UP_STEPS + options.steps
    resident = list(loaders.values())[-1]
    (fixed,) = resident(ScheduleSampler(schedule, 1))
    sides = dict(loaders) | {'the step alone, one batch that stays': lambda sampler: (fixed for _ in sampler)}
    times: dict[str, list[float]] = {name: [] for name in sides}
    for turn in tqdm(range(options.rounds), unit='round', disable=None):
        for name, side in sides.items():
            batches = iter(side(ScheduleSampler(schedule, (turn + 1) * steps, turn * steps)))
            times[name].append(seconds_per_step(step, batches, options.steps))
            # The workers of a DataLoader end with its iterator.
            del batches

    medians = {name: statistics.median(values) for name, values in times.items()}
    first, alone = next(iter(medians.values())), list(medians.values())[-1]
    print(f'{"":<64} {"images/s":>9} {"ms/step":>8} {"DataLoader":>11} {"step alone":>11}')
    for name, value in medians.items():
        rate = options.batch_size / value
        print(f'{name:<64} {rate:9.1f} {1e3 * value:8.1f} {first / value:10.2f}x {100 * alone / value:10.1f}%')

    output = step.detached_output(fixed)
    data = iter(resident(ScheduleSampler(schedule, WARM_UP_STEPS + options.steps)))
    parts = {
        'network, forward and backward': lambda: step.network(fixed),
        'losses, forward and backward': lambda: step.losses(output, fixed[1]),
        'optimiser': step.optimizer.step,
        'average of the weights': lambda: step.average.update_parameters(step.task.model),
        'for comparison: the whole step': lambda: step(fixed),
        'for comparison: making a batch on the device': lambda: next(data),
    }
    print(f'{"one after the other, waiting for each":<64} {"":>9} {"ms":>8}')
    for name, work in parts.items():
        print(f'{name:<64} {"":>9} {1e3 * seconds(step, work, options.steps):8.1f}')


def _machine(device: torch.device) -> str:
    if device.type == 'cuda':
        return torch.cuda.get_device_name(device)
    return f'{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads'


def _size(text: str) -> tuple[int, int]:
    height, width = text.split('x')
    return int(height), int(width)


def main() -> None:
    """Read the options, render data unless some is given, measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--data', type=Path, help='dataset of CamVid ids with a train split (default: rendered drives)')
    parser.add_argument('--image-size', default='360x480', metavar='HxW', help='of rendered drives (default: 360x480)')
    parser.add_argument('--batch-size', type=int, default=16, help='default: 16')
    parser.add_argument('--crop', type=_size, default=(256, 320), metavar='HxW', help='default: 256x320')
    parser.add_argument('--backbone', default='stdc1', choices=('stdc1', 'stdc2'))
    parser.add_argument('--steps', type=int, default=50, help='timed steps of each side and round (default: 50)')
    parser.add_argument('--rounds', type=int, default=3, help='default: 3')
    parser.add_argument('--workers', type=int, default=cores(), help='of the DataLoaders (default: one per core)')
    parser.add_argument('--device', default='cuda' if torch.cuda.is_available() else 'cpu')
    options = parser.parse_args()
    # There is one worker per core. Set before the fork, because a forked worker would wait for threads that it lacks.
    cv2.setNumThreads(1)
    device = torch.device(options.device)
    config = TrainConfig(backbone=options.backbone)
    with tempfile.TemporaryDirectory() as folder:
        data = options.data
        if data is None:
            data = Path(folder)
            render = ['render', folder, '--drives', str(DRIVES), '--frames', str(FRAMES), '--size', options.image_size]
            if stdc(render):
                raise SystemExit(2)
        height, width = options.crop
        print(f'{_machine(device)}, torch {torch.__version__}, OpenCV {cv2.__version__}')
        print(f'{options.backbone}, {options.batch_size} crops of {height} x {width}, bfloat16, ', end='')
        print(f'medians of {options.rounds} rounds of {options.steps} steps')
        loaders = make_loaders(options, device, data)
        schedule = BatchSchedule([len(SegmentationFolder(data, 'train', CAMVID))], None, options.batch_size)
        compare(options, TrainingStep(config, device), loaders, schedule)


if __name__ == '__main__':
    main()
