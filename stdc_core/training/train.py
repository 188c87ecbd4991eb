# SPDX-License-Identifier: Apache-2.0
"""Train a segmentation network: from images and labels to a weights file."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

import lightning
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Subset

from stdc_core.classes import ClassTable, class_table
from stdc_core.data.soft_targets import SoftTargets
from stdc_core.model.networks import make_network
from stdc_core.model.segmentation import STDCSeg
from stdc_core.model.timm_backbone import load_pretrained
from stdc_core.model.weights import initialise, save_weights
from stdc_core.training.checkpoints import BEST, LAST, checkpoint_step
from stdc_core.training.config import ConfigError
from stdc_core.training.exhaustion import explain_exhaustion
from stdc_core.training.extra_data import ExtraData
from stdc_core.training.fitting import make_trainer, others_wait, stoppable
from stdc_core.training.loaders import check_image_for_each, largest_size, make_schedule, train_loader
from stdc_core.training.ranks import process_rank
from stdc_core.training.run_folder import RECORD, check_empty, read_record, write_record
from stdc_core.training.task import SegmentationTask
from stdc_core.training.teacher import open_teacher, teach
from stdc_core.training.train_config import RUN_KEYS, TrainConfig
from stdc_core.training.training_data import ImagesAndLabels, class_weights, open_training_data

WEIGHTS = 'weights.safetensors'
BEST_WEIGHTS = 'best.safetensors'
#: Folder of a run with the probabilities of its teacher.
TEACHER = 'teacher'


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

    With ``config.ema_decay``, they are averaged. The folder also gets ``best.safetensors``, of the best validation, the
    checkpoints ``last.ckpt`` and ``best.ckpt``, ``metrics.csv``, ``run.yaml`` and logs for TensorBoard.

    Args:
        config: Recipe.
        data: Dataset with the splits that the configuration names (see ``open_dataset``).
        out: Folder of the run, empty or not there yet.
        extra: More datasets, whose ``train`` split is trained on. Those without a share of their own supply
            ``config.extra_share`` of the samples together.
        init: Initial weights, of a network or of a backbone alone (see ``initialise``).
        progress: Whether to show progress bars.
        teacher: Files of networks to learn from (see ``open_teacher``). Extra data may then lack labels.

    Returns:
        Path of the weights.

    Raises:
        FileExistsError: ``out`` is not empty.
        FileNotFoundError: A dataset, ``init`` or ``teacher`` does not exist.
        DataError: Images or labels cannot be trained on. The message lists the files.
        ConfigError: The extra data and ``extra_share`` contradict each other, or the data or the batch is too small for
            the devices.
        WeightsError: ``init`` cannot be read, or has another backbone.
        ExhaustedError: Memory or processes ran out.
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
    check_empty(out, config.num_nodes)
    with explain_exhaustion(out, RECORD):
        return _run(config, class_table(config.classes), data, out, others, init, progress, teacher, resumed=False)


def resume(out: Path, overrides: Sequence[str] = (), data: Path | None = None, progress: bool = True) -> Path:
    """Continue an interrupted run from its last checkpoint. The result is the same as without the interruption.

    Args:
        out: Folder of the run.
        overrides: ``key=value`` of keys in ``stdc_core.training.train_config.RUN_KEYS``.
        data: Folder of the dataset, if it was moved.
        progress: Whether to show progress bars.

    Returns:
        Path of the weights.

    Raises:
        FileNotFoundError: There is no run in ``out``.
        FileExistsError: The run is complete.
        ConfigError: The record of the run is damaged, or a key is overridden that must not change.
        DataError: As ``train``.
        ExhaustedError: As ``train``.
    """
    config, sources = read_record(out, TrainConfig, list(overrides), RUN_KEYS)
    if (out / WEIGHTS).is_file():
        raise FileExistsError(f'{out / WEIGHTS} exists: the run is complete')
    # The file of the class table may have changed since the run began. Runs of older versions did not store the table.
    classes = _stored_table(out, sources['class_table']) if 'class_table' in sources else class_table(config.classes)
    teacher = [Path(text) for text in sources['teacher']]
    init = Path(sources['init']) if sources['init'] else None
    try:
        extra = [ExtraData.parse(text) for text in sources['extra']]
    except ValueError as error:
        raise ConfigError(f'{out / RECORD}: damaged (extra: {error})') from error
    with explain_exhaustion(out, RECORD):
        return _run(config, classes, data or Path(sources['data']), out, extra, init, progress, teacher, resumed=True)


def _stored_table(out: Path, text: str) -> ClassTable:
    """Return the class table in the record of a run. Raises ConfigError if it is damaged."""
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
    """Begin or continue a run; the arguments are those of ``train``."""
    lightning.seed_everything(config.seed, workers=True, verbose=False)
    datasets = open_training_data(config, classes, data, extra, bool(teacher))
    own, val = datasets.own, datasets.val
    counts, sizes = datasets.check(progress, config.absent_classes == 'refuse', bool(teacher))
    for path in teacher if not resumed else ():
        open_teacher(path, classes)
    start = checkpoint_step(out)
    model = make_network(config.backbone, len(classes))
    if config.backbone_weights and not start and isinstance(model, STDCSeg):
        load_pretrained(model.backbone, config.backbone_weights)
    if init is not None and not start:
        taken = initialise(model, init, classes)
        if progress and not process_rank():
            print(taken)
    weights = class_weights(counts, config.class_balance) if config.class_balance else None
    task = SegmentationTask(model, config, classes, weights, datasets.label_sets)
    trainer = make_trainer(config, out, start, 'miou' if val else '', progress)
    soft = SoftTargets(out / TEACHER, len(classes)) if teacher else None
    schedule = make_schedule(config, own, datasets.extra, [each.share for each in extra], trainer.world_size)
    val_loader = None
    if val is not None:
        check_image_for_each(len(val), val, trainer.world_size)
        mine = Subset(ImagesAndLabels(val), range(trainer.global_rank, len(val), trainer.world_size))
        val_loader = DataLoader(mine, batch_size=1, num_workers=config.workers)
    if not resumed:
        # Absolute paths, so that a run can be resumed from any folder.
        sources = {
            'data': str(data.absolute()),
            'extra': [str(ExtraData(each.path.absolute(), each.share)) for each in extra],
            'init': str(init.absolute()) if init else '',
            'teacher': [str(path.absolute()) for path in teacher],
            'class_table': classes.to_json(),
        }
        write_record(out, config, sources)
    if soft is not None:
        teach(teacher, [*own, *datasets.extra], classes, soft, progress)
    largest = largest_size(sizes[: len(own)])
    loader = train_loader(config, schedule, [*own, *datasets.extra], sizes, largest, start, trainer, soft)
    if start < config.steps:
        with stoppable(trainer, out):
            trainer.fit(task, loader, val_loader, ckpt_path=out / LAST if start else None, weights_only=True)
    else:
        # The run was killed after its last step. `state_dict` in a checkpoint has the averaged weights.
        task.load_state_dict(torch.load(out / LAST, map_location='cpu', weights_only=True)['state_dict'])
    if val_loader is not None and (start == config.steps or config.steps % min(config.val_every, config.steps)):
        # The last validation was before the last step, or in a process that was killed.
        with stoppable(trainer, out):
            trainer.validate(task, val_loader, verbose=False)

    provenance = {
        'data': ', '.join([f'{data.name}/{config.train_split}', *(f'{each.path.name}/train' for each in extra)]),
        'recipe': json.dumps(dataclasses.asdict(config)),
        'largest_image': '{}x{}'.format(*largest),
        **({'init': init.name} if init else {}),
        **({'teacher': ', '.join(path.name for path in teacher)} if teacher else {}),
        **({'class_offset': json.dumps(task.offset.flatten().tolist())} if config.prior_correction else {}),
    }
    with others_wait(trainer):
        if trainer.is_global_zero:
            measured_on = f'{data.name}/{val.split}' if val is not None else ''
            _save_results(task, out, classes, provenance, trainer.callback_metrics.get('miou'), measured_on)
    return out / WEIGHTS


def _save_results(
    task: SegmentationTask,
    out: Path,
    classes: ClassTable,
    provenance: dict[str, str],
    miou: Tensor | None,
    measured_on: str,
) -> None:
    """Write the weights of the best validation, and those of the last step.

    Args:
        task: Task with the weights of the last step.
        out: Folder of the run.
        classes: Classes of the network.
        provenance: Provenance without the mIoU.
        miou: mIoU of the last validation, 0 to 1.
        measured_on: Name of the validation data; empty if there is none.
    """
    last = {name: value.clone() for name, value in task.state_dict().items()}
    results: dict[str, tuple[dict[str, Tensor], Tensor | None]] = {}
    if measured_on:
        results[BEST_WEIGHTS] = _best(out / BEST, last, miou)
    # Written last, since it marks the run as complete.
    results[WEIGHTS] = last, miou
    for name, (state, score) in results.items():
        task.load_state_dict(state)
        measured = {'miou': f'{float(score):.4f} on {measured_on}'} if measured_on and score is not None else {}
        save_weights(task.model.cpu(), out / name, classes, provenance | measured)


def _best(path: Path, last: dict[str, Tensor], miou: Tensor | None) -> tuple[dict[str, Tensor], Tensor | None]:
    """Return the weights of the best validation and its mIoU.

    The last validation may be the best one, and its weights need not be in the checkpoint.

    Args:
        path: Checkpoint of the best validation. A run that was killed during its first validation has none.
        last: Weights of the last validation.
        miou: mIoU of the last validation, 0 to 1.
    """
    if path.is_file():
        best = torch.load(path, map_location='cpu', weights_only=True)
        score = max(state['best_model_score'] for state in best['callbacks'].values() if state.get('monitor'))
        if miou is None or float(score) >= float(miou):
            return best['state_dict'], score
    return last, miou
