"""From folders of images and labels to a weights file."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import lightning
import numpy as np
import torch
from lightning.pytorch.callbacks import ModelCheckpoint, WeightAveraging
from lightning.pytorch.loggers import CSVLogger
from torch import Tensor
from torch.utils.data import ConcatDataset, DataLoader, Dataset, WeightedRandomSampler

from stdc_core.classes import CLASS_TABLES
from stdc_core.data.augment import Augmentation
from stdc_core.data.folder import SegmentationFolder
from stdc_core.model.segmentation import STDCSeg
from stdc_core.model.weights import WeightsError, load_weights, save_weights
from stdc_core.training.config import TrainConfig
from stdc_core.training.task import SegmentationTask


class _Augmented(Dataset):
    """Random crops of a folder's samples; the randomness is torch's, so that workers differ and a seed repeats."""

    def __init__(self, folder: SegmentationFolder, augmentation: Augmentation):
        self._folder = folder
        self._augmentation = augmentation

    def __len__(self) -> int:
        return len(self._folder)

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        sample = self._folder[index]
        rng = np.random.default_rng(int(torch.randint(2**63 - 1, ())))
        return self._augmentation(sample.image, sample.label, rng)


class _Whole(Dataset):
    """A folder's samples as they are."""

    def __init__(self, folder: SegmentationFolder):
        self._folder = folder

    def __len__(self) -> int:
        return len(self._folder)

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        sample = self._folder[index]
        return sample.image, sample.label


def class_weights(folder: SegmentationFolder, power: float) -> Tensor:
    """Weights of the cross-entropy, float ``[C]``: inverse class frequency to ``power``, 1 on the average pixel."""
    counts = np.zeros(256, np.int64)
    for index in range(len(folder)):
        counts += np.bincount(folder.label(index).ravel(), minlength=256)
    counts = counts[: len(folder.classes)]
    frequency = np.maximum(counts / counts.sum(), 1e-4)
    weight = frequency**-power
    return torch.from_numpy(weight / (weight * frequency).sum()).float()


def _average(decay: float) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """Exponential moving average whose window grows with the steps done, so that the random start is soon forgotten."""

    def average(averaged: Tensor, current: Tensor, steps: Tensor) -> Tensor:
        if not averaged.is_floating_point():
            return current
        growing = min(decay, (1 + float(steps)) / (10 + float(steps)))
        return averaged.lerp(current, 1 - growing)

    return average


def train(
    config: TrainConfig,
    data: Path,
    out: Path,
    extra: Sequence[Path] = (),
    init: Path | None = None,
    progress: bool = True,
) -> Path:
    """Train and write ``out/weights.safetensors``: the average of the weights at the end of the schedule.

    Args:
        data: folder with ``train`` and ``val`` splits (see ``SegmentationFolder``).
        out: folder for the weights, checkpoints and ``metrics.csv``; it must be empty or not there yet.
        extra: folders whose ``train`` split supplies ``config.extra_share`` of the samples.
        init: weights to begin with.

    Returns:
        The path of the weights.

    Raises:
        FileExistsError: ``out`` already holds something.
        ValueError: extra data and ``extra_share`` do not go together, or ``init`` is of another network.
    """
    weights_path = out / 'weights.safetensors'
    if out.exists() and any(out.iterdir()):
        raise FileExistsError(f'{out} is not empty; choose another folder or move it away')
    if bool(extra) != (config.extra_share > 0):
        raise ValueError(f'extra_share is {config.extra_share}, but {len(extra)} folders of extra data were given')
    lightning.seed_everything(config.seed, workers=True)
    classes = CLASS_TABLES[config.classes]
    own = SegmentationFolder(data, 'train', classes)
    val = SegmentationFolder(data, 'val', classes)
    others = [SegmentationFolder(path, 'train', classes) for path in extra]

    model = STDCSeg(config.backbone, len(classes))
    if init is not None:
        model, init_classes, _ = load_weights(init)
        if (model.backbone.name, init_classes) != (config.backbone, classes):
            raise WeightsError(
                f'{init}: a {model.backbone.name} of classes {init_classes.names}, '
                f'but the configuration wants a {config.backbone} of classes {classes.names}'
            )
    weight = class_weights(own, config.class_balance) if config.class_balance else None
    task = SegmentationTask(model, config, weight)

    augmentation = Augmentation((config.crop_height, config.crop_width), (config.scale_min, config.scale_max))
    others_count = sum(map(len, others))
    share = [(1 - config.extra_share) / len(own)] * len(own)
    share += [config.extra_share / others_count for _ in range(others_count)]
    train_loader = DataLoader(
        ConcatDataset([_Augmented(folder, augmentation) for folder in (own, *others)]),
        batch_size=config.batch_size,
        sampler=WeightedRandomSampler(share, num_samples=config.steps * config.batch_size),
        num_workers=config.workers,
        drop_last=True,
    )
    val_loader = DataLoader(_Whole(val), batch_size=1, num_workers=config.workers)

    checkpoint = ModelCheckpoint(dirpath=out, filename='best-{miou:.4f}', monitor='miou', mode='max', save_last=True)
    trainer = lightning.Trainer(
        max_steps=config.steps,
        val_check_interval=min(config.val_every, config.steps),
        precision=config.precision,
        callbacks=[checkpoint, WeightAveraging(avg_fn=_average(config.ema_decay))],
        logger=CSVLogger(out, name='', version=''),
        log_every_n_steps=50,
        num_sanity_val_steps=0,
        enable_progress_bar=progress,
        enable_model_summary=False,
    )
    trainer.fit(task, train_loader, val_loader)
    # Training ends with a validation whose weights are the average; Lightning leaves those in the model.
    trainer.validate(task, val_loader, verbose=False)
    provenance = {
        'data': ', '.join([data.name, *(path.name for path in extra)]),
        'recipe': json.dumps(dataclasses.asdict(config)),
        'miou': f'{task.confusion.miou():.4f} on {data.name}/val',
    }
    save_weights(task.model, weights_path, classes, provenance)
    return weights_path
