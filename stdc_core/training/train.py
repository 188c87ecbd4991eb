# SPDX-License-Identifier: Apache-2.0
"""From images and labels to a weights file."""

from __future__ import annotations

import dataclasses
import functools
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import lightning
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Subset

from stdc_core.classes import ClassTable, class_table
from stdc_core.data.check import check, need_all_classes, raise_if_bad, shared_images
from stdc_core.data.datasets import open_dataset
from stdc_core.data.folder import SegmentationFolder
from stdc_core.data.resident import Sizes
from stdc_core.data.soft_targets import SoftTargets
from stdc_core.model.segmentation import STDCSeg
from stdc_core.model.weights import initialise, save_weights
from stdc_core.training.config import RUN_KEYS, ConfigError, TrainConfig
from stdc_core.training.exhaustion import exhaustion_told
from stdc_core.training.extra_data import ExtraData
from stdc_core.training.fitting import (
    BEST,
    LAST,
    RECORD,
    awaited,
    begin,
    make_trainer,
    need_empty,
    reached,
    recall,
    running,
)
from stdc_core.training.loaders import largest_size, need_image_for_each, train_loader
from stdc_core.training.ranks import process_rank
from stdc_core.training.task import SegmentationTask
from stdc_core.training.teacher import open_teacher, teach

WEIGHTS = 'weights.safetensors'
BEST_WEIGHTS = 'best.safetensors'
#: Folder of a run with the probabilities of its teacher.
TEACHER = 'teacher'


class _Whole(Dataset):
    """A folder's samples as they are."""

    def __init__(self, folder: SegmentationFolder):
        self._folder = folder

    def __len__(self) -> int:
        return len(self._folder)

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        sample = self._folder[index]
        return sample.image, sample.label


def class_weights(counts: np.ndarray, power: float) -> Tensor:
    """Weights of the cross-entropy, float ``[C]``: inverse class frequency to ``power``, 1 on the average pixel.

    Args:
        counts: int64 ``[C]`` pixels per class.
    """
    frequency = np.maximum(counts / max(counts.sum(), 1), 1e-4)
    weight = frequency**-power
    return torch.from_numpy(weight / (weight * frequency).sum()).float()


def train(
    config: TrainConfig,
    data: Path,
    out: Path,
    extra: Sequence[Path | ExtraData] = (),
    init: Path | None = None,
    progress: bool = True,
    teacher: Sequence[Path] = (),
) -> Path:
    """Check the data, train, and write ``out/weights.safetensors``: the weights at the end of the schedule.

    With ``config.ema_decay`` they are the average. Beside them lie ``best.safetensors``, of the best validation, the
    checkpoints ``last.ckpt`` and ``best.ckpt``, ``metrics.csv``, ``run.yaml`` and what TensorBoard reads.

    Args:
        data: dataset with the splits that the configuration names (see ``open_dataset``).
        out: folder of the run; it must be empty or not there yet.
        extra: More datasets, whose ``train`` split is trained on. Those without a share of their own supply
            ``config.extra_share`` of the samples together.
        init: weights to begin with: of a network, or of a backbone alone (see ``initialise``).
        teacher: Files of a network to learn from (see ``open_teacher``). Extra data may then be without labels.

    Returns:
        The path of the weights.

    Raises:
        FileExistsError: ``out`` already holds something.
        DataError: images or labels that cannot be trained on; the message lists the files.
        ConfigError: extra data and ``extra_share`` do not go together, or there is too little of data or batch for the
            devices.
        ValueError: ``init`` is of another network.
    """
    others = [each if isinstance(each, ExtraData) else ExtraData(each) for each in extra]
    pooled = [each for each in others if each.share is None]
    if config.extra_share and not pooled:
        raise ConfigError(
            f'extra_share is {config.extra_share}, but no extra data was given: give `--extra FOLDER` '
            '(`stdc render FOLDER` makes one) or `--set extra_share=0`'
        )
    if pooled and not config.extra_share:
        raise ConfigError(
            f'extra_share is 0, but extra data was given, {pooled[0].path}: set the share of the samples drawn from '
            f'it, such as `--extra {pooled[0].path}=0.25` or `--set extra_share=0.25`'
        )
    if init is not None and not init.is_file():
        raise FileNotFoundError(f'{init}: no such file')
    need_empty(out, config.num_nodes)
    with exhaustion_told(out, RECORD):
        return _run(config, class_table(config.classes), data, out, others, init, progress, teacher, resumed=False)


def resume(out: Path, overrides: Sequence[str] = (), data: Path | None = None, progress: bool = True) -> Path:
    """Take up a run that was interrupted, at its last checkpoint, so that it ends as if it had not been.

    Args:
        out: folder of the run.
        overrides: ``key=value`` of what may change: ``stdc_core.training.config.RUN_KEYS``.
        data: where the dataset is now, if it was moved.

    Raises:
        FileNotFoundError: no run was begun in ``out``.
        FileExistsError: the run is complete.
        ConfigError: its record is damaged or a key that must not change is overridden.
    """
    config, sources = recall(out, TrainConfig, list(overrides), RUN_KEYS)
    if (out / WEIGHTS).is_file():
        raise FileExistsError(f'{out / WEIGHTS} is there: the run is complete')
    # The table that the run began with, whatever is in its file now. Runs of older versions have not kept it.
    classes = _kept_table(out, sources['class_table']) if 'class_table' in sources else class_table(config.classes)
    teacher = [Path(text) for text in sources['teacher']]
    init = Path(sources['init']) if sources['init'] else None
    try:
        extra = [ExtraData.parse(text) for text in sources['extra']]
    except ValueError as error:
        raise ConfigError(f'{out / RECORD}: damaged (extra: {error})') from error
    with exhaustion_told(out, RECORD):
        return _run(config, classes, data or Path(sources['data']), out, extra, init, progress, teacher, resumed=True)


def _kept_table(out: Path, text: str) -> ClassTable:
    """The class table in a run's record. Raises ConfigError if it is damaged."""
    try:
        return ClassTable.from_json(text)
    except ValueError as error:
        raise ConfigError(f'{out / RECORD}: damaged (class_table: {error})') from error


def _run(
    config: TrainConfig,
    classes: ClassTable,
    data: Path,
    out: Path,
    extra: Sequence[ExtraData],
    init: Path | None,
    progress: bool,
    teacher: Sequence[Path],
    resumed: bool,
) -> Path:
    lightning.seed_everything(config.seed, workers=True, verbose=False)
    # Labels that are missing are listed by the check, with everything else that is wrong.
    open_ = functools.partial(open_dataset, classes=classes, require_labels=False)
    own = [open_(data, split) for split in config.train_split.split('+')]
    others = [open_(each.path, 'train') for each in extra]
    val = open_(data, config.val_split) if config.val_split else None
    if teacher:
        for dataset in others:
            dataset.allow_no_labels()
    # Every dataset numbers the sets of classes that labels stand for alike.
    datasets = [*own, *others, *([val] if val else [])]
    label_sets = tuple(dict.fromkeys(each for dataset in datasets for each in dataset.label_sets))
    for dataset in datasets:
        dataset.use_label_sets(label_sets)
    counts, sizes = _checked(own, others, val, progress, refuse=config.absent_classes == 'refuse' and not teacher)

    for path in teacher if not resumed else ():
        open_teacher(path, classes)
    start = reached(out)
    model = STDCSeg(config.backbone, len(classes))
    if init is not None and not start:
        taken = initialise(model, init, classes)
        if progress and not process_rank():
            print(taken)
    weights = class_weights(counts, config.class_balance) if config.class_balance else None
    task = SegmentationTask(model, config, classes, weights, label_sets)
    trainer = make_trainer(config, out, start, 'miou' if val else '', progress)
    soft = SoftTargets(out / TEACHER, len(classes)) if teacher else None
    loader = train_loader(config, own, others, [each.share for each in extra], sizes, start, trainer, soft)
    val_loader = None
    if val is not None:
        need_image_for_each(len(val), val, trainer.world_size)
        mine = Subset(_Whole(val), range(trainer.global_rank, len(val), trainer.world_size))
        val_loader = DataLoader(mine, batch_size=1, num_workers=config.workers)
    if not resumed:
        # With all that a resumed run reads, wherever it is started.
        sources = {
            'data': str(data.absolute()),
            'extra': [str(ExtraData(each.path.absolute(), each.share)) for each in extra],
            'init': str(init.absolute()) if init else '',
            'teacher': [str(path.absolute()) for path in teacher],
            'class_table': classes.to_json(),
        }
        begin(out, config, sources)
    if soft is not None:
        teach(teacher, [*own, *others], classes, soft, progress)
    if start < config.steps:
        with running(trainer, out):
            trainer.fit(task, loader, val_loader, ckpt_path=out / LAST if start else None, weights_only=True)
    else:
        # The run was killed after its last step. A checkpoint holds the averaged weights under this name.
        task.load_state_dict(torch.load(out / LAST, map_location='cpu', weights_only=True)['state_dict'])
    stale = start == config.steps or config.steps % min(config.val_every, config.steps)
    if val_loader is not None and stale:
        # The last validation was of earlier weights, or of an earlier process.
        with running(trainer, out):
            trainer.validate(task, val_loader, verbose=False)

    provenance = {
        'data': ', '.join([f'{data.name}/{config.train_split}', *(f'{each.path.name}/train' for each in extra)]),
        'recipe': json.dumps(dataclasses.asdict(config)),
        'largest_image': '{}x{}'.format(*largest_size(sizes[: len(own)])),
        **({'init': init.name} if init else {}),
        **({'teacher': ', '.join(path.name for path in teacher)} if teacher else {}),
        **({'class_offset': json.dumps(task.offset.flatten().tolist())} if config.prior_correction else {}),
    }
    with awaited(trainer):
        if trainer.is_global_zero:
            last = {name: value.clone() for name, value in task.state_dict().items()}
            miou = trainer.callback_metrics.get('miou')
            results: dict[str, tuple[dict[str, Tensor], Tensor | None]] = {}
            if val is not None:
                results[BEST_WEIGHTS] = _best(out / BEST, last, miou)
            # The last one, by which a run is known to be complete.
            results[WEIGHTS] = last, miou
            for name, (state, score) in results.items():
                task.load_state_dict(state)
                measured = (
                    {'miou': f'{float(score):.4f} on {data.name}/{val.split}'}
                    if val is not None and score is not None
                    else {}
                )
                save_weights(task.model.cpu(), out / name, classes, provenance | measured)
    return out / WEIGHTS


def _best(path: Path, last: dict[str, Tensor], miou: Tensor | None) -> tuple[dict[str, Tensor], Tensor | None]:
    """Weights of the best validation, and its mIoU: of the checkpoint, or of the last one, which may not be in it.

    Args:
        path: the checkpoint; a run that was killed in its first validation has none.
        last, miou: of the last validation.
    """
    if path.is_file():
        best = torch.load(path, map_location='cpu', weights_only=True)
        score = max(state['best_model_score'] for state in best['callbacks'].values() if state.get('monitor'))
        if miou is None or float(score) >= float(miou):
            return best['state_dict'], score
    return last, miou


def _checked(
    own: list[SegmentationFolder],
    others: list[SegmentationFolder],
    val: SegmentationFolder | None,
    progress: bool,
    refuse: bool,
) -> tuple[np.ndarray, list[Sizes]]:
    """Check all data; int64 ``[C]`` pixels per class of ``own``, and the sizes of its images and those of ``others``.

    Args:
        refuse: Whether a class without any pixel is an error where 255 occurs.

    Raises:
        DataError: something is wrong with it.
    """
    first = not process_rank()
    validated = [val] if val is not None else []
    reports = [check(dataset, progress=progress and first) for dataset in (*own, *others, *validated)]
    raise_if_bad(*reports)
    if refuse:
        need_all_classes(reports[: len(own) + len(others)])
    if first:
        warnings = [warning for report in reports for warning in report.warnings]
        warnings += [warning for dataset in own for other in validated for warning in shared_images(dataset, other)]
        for warning in warnings:
            print(f'warning: {warning}', file=sys.stderr)
    counts = np.sum([report.counts for report in reports[: len(own)]], axis=0)
    return counts, [report.sizes for report in reports[: len(own) + len(others)]]
