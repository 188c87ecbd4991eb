# SPDX-License-Identifier: Apache-2.0
"""Pretrain a backbone as an image classifier, from a folder of images to a file for ``stdc train --init``."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import torch
import torch.nn.functional as F
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from stdc_core.data.image_folder import ImageFolder, RandomCrop, centre_crop
from stdc_core.data.reading import some
from stdc_core.data.schedule import BatchSchedule, SampleKey, ScheduleSampler
from stdc_core.io.text import one_line
from stdc_core.model.segmentation import normalize
from stdc_core.model.stdc import STDCClassifier
from stdc_core.model.weights import save_classifier
from stdc_core.training.checkpoints import LAST, checkpoint_step
from stdc_core.training.config import ConfigError
from stdc_core.training.exhaustion import explain_exhaustion
from stdc_core.training.fitting import make_trainer, others_wait, stoppable
from stdc_core.training.loaders import check_even_batches, check_image_for_each, one_opencv_thread
from stdc_core.training.pretrain_config import RUN_KEYS, PretrainConfig, PretrainPlan
from stdc_core.training.run_folder import RECORD, check_empty, read_record, write_record
from stdc_core.training.task import rate_factor

CLASSIFIER = 'classifier.safetensors'


class _Augmented(Dataset):
    """Random crops, addressed by ``SampleKey``. A key gives the same crop in any worker."""

    def __init__(self, folder: ImageFolder, crop: RandomCrop):
        self._folder, self._crop = folder, crop

    def __getitem__(self, sample: SampleKey) -> tuple[np.ndarray, int]:
        image, label = self._folder[sample.sample]
        return self._crop(image, np.random.default_rng(sample.seed)), label


class _Centred(Dataset):
    """Centre crops of every ``world``-th image, from image ``rank`` on."""

    def __init__(self, folder: ImageFolder, size: int, rank: int, world: int):
        self._folder, self._size, self._indices = folder, size, range(rank, len(folder), world)

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
        image, label = self._folder[self._indices[index]]
        return centre_crop(image, self._size), label


class ClassificationTask(lightning.LightningModule):
    """Trains with cross-entropy and smoothed labels, and validates by top-1 and top-5 accuracy.

    The optimiser is SGD with linear warm-up and cosine decay. Batches are pairs of uint8 BGR images ``[N, H, W, 3]``
    and int64 classes ``[N]``.

    Args:
        model: Network to train.
        plan: Recipe, from ``PretrainConfig.in_steps``.
    """

    def __init__(self, model: STDCClassifier, plan: PretrainPlan):
        super().__init__()
        self.model: STDCClassifier = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.plan = plan
        self._counts = torch.zeros(3)

    def forward(self, image: Tensor) -> Tensor:
        """Return the class logits, float32 ``[N, C]``, of BGR images, uint8 ``[N, H, W, 3]``."""
        x = normalize(image.permute(0, 3, 1, 2)).contiguous(memory_format=torch.channels_last)
        return self.model(x).float()

    def training_step(self, batch: tuple[Tensor, Tensor], _index: int) -> Tensor:
        """Return the loss of a batch."""
        image, label = batch
        # The seed of the dropout follows from the step, so that a resumed run gives the same result.
        draw = np.random.SeedSequence([self.plan.seed, self.global_step, self.global_rank])
        torch.manual_seed(int(draw.generate_state(1)[0]))
        loss = F.cross_entropy(self(image), label, label_smoothing=self.plan.label_smoothing)
        self.log('loss', loss, prog_bar=True)
        return loss

    def on_validation_epoch_start(self) -> None:
        """Begin new counts of hits and images."""
        self._counts = torch.zeros(3, dtype=torch.float64, device=self.device)

    def validation_step(self, batch: tuple[Tensor, Tensor], _index: int) -> None:
        """Count top-1 hits, top-5 hits and images of a batch."""
        image, label = batch
        logits = self(image)
        hits = logits.topk(min(5, logits.shape[1]), dim=1).indices == label[:, None]
        self._counts += torch.stack([hits[:, 0].sum(), hits.sum(), torch.tensor(len(label), device=self.device)])

    def on_validation_epoch_end(self) -> None:
        """Log top-1 and top-5 accuracy over the images of all ranks."""
        # Each rank has counted its part of the images.
        top1, top5, images = self.trainer.strategy.reduce(self._counts, reduce_op='sum').tolist()
        self.log_dict({'top1': top1 / images, 'top5': top5 / images}, prog_bar=True, sync_dist=True)

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """Return optimiser and schedule. Batch norms have no weight decay."""
        plan = self.plan
        groups = [
            {'params': [p for p in self.model.parameters() if p.dim() > 1], 'weight_decay': plan.weight_decay},
            {'params': [p for p in self.model.parameters() if p.dim() <= 1], 'weight_decay': 0.0},
        ]
        optimizer = torch.optim.SGD(groups, lr=plan.learning_rate, momentum=plan.momentum)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: rate_factor(plan, step))
        return {'optimizer': optimizer, 'lr_scheduler': {'scheduler': schedule, 'interval': 'step'}}


def pretrain(config: PretrainConfig, data: Path, out: Path, progress: bool = True) -> Path:
    """Train a classifier and write ``out/classifier.safetensors``: the weights at the end of the schedule.

    With ``config.ema_decay``, they are averaged. The folder also gets the checkpoints ``last.ckpt`` and ``best.ckpt``,
    ``metrics.csv``, ``run.yaml`` and logs for TensorBoard. ``initialise`` takes the backbone from the result.

    Args:
        config: Recipe.
        data: Folder with ``train/CLASS/*`` and ``val/CLASS/*``, the layout of ImageNet (see ``ImageFolder``).
        out: Folder of the run, empty or not there yet.
        progress: Whether to show progress bars.

    Returns:
        Path of the weights.

    Raises:
        FileNotFoundError: A split or its images are missing.
        FileExistsError: ``out`` is not empty.
        ConfigError: The batch does not fit the data or the devices.
        ExhaustedError: Memory or processes ran out.
    """
    splits = _open(config, data)
    check_empty(out, config.num_nodes)
    with explain_exhaustion(out, RECORD):
        return _run(config, data, splits, out, progress, resumed=False)


def resume(out: Path, overrides: Sequence[str] = (), data: Path | None = None, progress: bool = True) -> Path:
    """Continue an interrupted run from its last checkpoint. The result is the same as without the interruption.

    Args:
        out: Folder of the run.
        overrides: ``key=value`` of keys in ``RUN_KEYS``.
        data: Folder of the images, if they were moved.
        progress: Whether to show progress bars.

    Returns:
        Path of the weights.

    Raises:
        FileNotFoundError: There is no run in ``out``, or the images are missing.
        FileExistsError: The run is complete.
        ConfigError: The record of the run is damaged, a key is overridden that must not change, or the classes or the
            number of images have changed.
        ExhaustedError: Memory or processes ran out.
    """
    config, sources = read_record(out, PretrainConfig, list(overrides), RUN_KEYS)
    if (out / CLASSIFIER).is_file():
        raise FileExistsError(f'{out / CLASSIFIER} exists: the run is complete')
    data = data or Path(sources['data'])
    splits = _open(config, data)
    _need_same(data, splits[0], sources)
    with explain_exhaustion(out, RECORD):
        return _run(config, data, splits, out, progress, resumed=True)


def _open(config: PretrainConfig, data: Path) -> tuple[ImageFolder, ImageFolder]:
    """Open the splits ``train`` and ``val``, and check that the data has a batch.

    Raises:
        FileNotFoundError: A split or its images are missing.
        ConfigError: There are fewer images than a batch has.
    """
    train = ImageFolder(data, 'train')
    config.in_steps(len(train))
    return train, ImageFolder(data, 'val', train.classes)


def _need_same(data: Path, train: ImageFolder, sources: dict[str, Any]) -> None:
    """Raise ConfigError if the classes or the number of images differ from those in the record of the run."""
    begun = sources.get('classes', list(train.classes))
    if begun != list(train.classes):
        missing = some([name for name in begun if name not in train.classes], 3)
        new = some([name for name in train.classes if name not in begun], 3)
        raise ConfigError(
            f'{data}/train: expected the {len(begun)} classes that the run began with, found {len(train.classes)}; '
            f'missing: {missing or "none"}; new: {new or "none"}'
        )
    images = sources.get('images', len(train))
    if images != len(train):
        raise ConfigError(
            f'{data}/train: expected the {one_line(images)} images that the run began with, found {len(train)}'
        )


def _run(
    config: PretrainConfig,
    data: Path,
    splits: tuple[ImageFolder, ImageFolder],
    out: Path,
    progress: bool,
    resumed: bool,
) -> Path:
    """Begin or continue a run; the arguments are those of ``pretrain``."""
    lightning.seed_everything(config.seed, workers=True, verbose=False)
    train, val = splits
    plan = config.in_steps(len(train))
    start = checkpoint_step(out)
    task = ClassificationTask(STDCClassifier(config.backbone, len(train.classes), config.dropout), plan)
    trainer = make_trainer(plan, out, start, 'top1', progress)
    rank, world = trainer.global_rank, trainer.world_size
    gpu = trainer.strategy.root_device.type == 'cuda'
    if config.workers:
        one_opencv_thread()
    loading: dict[str, Any] = {'num_workers': config.workers, 'pin_memory': gpu}
    check_even_batches(config.batch_size, world)
    check_image_for_each(len(val), f'{data}/val', world)
    if not resumed:
        write_record(out, config, {'data': str(data.absolute()), 'classes': list(train.classes), 'images': len(train)})
    schedule = BatchSchedule([len(train)], None, config.batch_size, config.seed)
    crop = RandomCrop(config.image_size, config.area_min, config.jitter)
    sampler = ScheduleSampler(schedule, plan.steps, start, rank, world)
    loader = DataLoader(_Augmented(train, crop), batch_sampler=sampler, **loading)
    centred = _Centred(val, config.image_size, rank, world)
    val_loader = DataLoader(centred, batch_size=max(1, config.batch_size // world), **loading)
    if start < plan.steps:
        with stoppable(trainer, out):
            trainer.fit(task, loader, val_loader, ckpt_path=out / LAST if start else None, weights_only=True)
    else:
        # The run was killed after its last step. `state_dict` in a checkpoint has the averaged weights.
        task.load_state_dict(torch.load(out / LAST, map_location='cpu', weights_only=True)['state_dict'])
    if config.epochs % config.val_epochs or 'top1' not in trainer.callback_metrics:
        # The last validation was before the last step, or in a process that was killed.
        with stoppable(trainer, out):
            trainer.validate(task, val_loader, verbose=False)
    top1, top5 = (float(trainer.callback_metrics[name]) for name in ('top1', 'top5'))
    provenance = {
        'data': f'{data.name}/train',
        'recipe': json.dumps(dataclasses.asdict(config)),
        'accuracy': f'top-1 {top1:.4f}, top-5 {top5:.4f} on {data.name}/val',
    }
    with others_wait(trainer):
        if trainer.is_global_zero:
            save_classifier(task.model.cpu(), out / CLASSIFIER, train.classes, provenance)
    return out / CLASSIFIER
