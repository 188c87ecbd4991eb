# SPDX-License-Identifier: Apache-2.0
"""Define training and validation steps of STDC-Seg as a Lightning module."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol

import lightning
import numpy as np
import torch
import torch.nn.functional as F
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor, nn

from stdc_core.classes import IGNORE, ClassTable
from stdc_core.evaluation.metrics import ConfusionMatrix
from stdc_core.model.segmentation import SegmentationNetwork, SegmentationOutput, normalize, rescale, upsample
from stdc_core.pictures.overlay import colorize
from stdc_core.training.detail import detail_loss, detail_target
from stdc_core.training.losses import ohem_cross_entropy, teacher_loss
from stdc_core.training.train_config import TrainConfig

# Modules whose learning rate is multiplied by `head_rate`: feature fusion and all heads.
_HEADS = ('ffm.', 'aggregation.', 'head.', 'aux8_head.', 'aux16_head.', 'detail_heads.')
# Number of validation images to show in TensorBoard.
_PICTURES = 4


class SegmentationTask(lightning.LightningModule):
    """Trains with main, auxiliary and detail losses, and validates by mIoU.

    The optimiser is AdamW or SGD, its learning rate rises linearly and then decays. Batches are uint8 BGR images
    ``[N, H, W, 3]``, uint8 labels ``[N, H, W]`` and, with a teacher, its probabilities, uint8
    ``[N, C, ceil(H/4), ceil(W/4)]``.

    Args:
        model: Network to train.
        config: Recipe.
        classes: Classes of the network.
        class_weight: Class weights of the cross-entropy, float ``[C]``, or None.
        label_sets: Sets of classes that labels stand for: label ``C + k`` is set ``k``.
    """

    def __init__(
        self,
        model: SegmentationNetwork,
        config: TrainConfig,
        classes: ClassTable,
        class_weight: Tensor | None = None,
        label_sets: Sequence[frozenset[int]] = (),
    ):
        super().__init__()
        # Convolutions on a CPU with AMX and on tensor cores run fastest with channels last.
        self.model: SegmentationNetwork = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        # A head without a loss gets no gradients, and with several devices, DDP would wait for them.
        for part, weight in (('aux', config.aux_weight), ('detail_heads.', config.detail_weight)):
            for name, parameter in model.named_parameters():
                if name.startswith(part) and not weight:
                    parameter.requires_grad_(False)
        self.config = config
        self.classes = classes
        self.class_weight: Tensor | None
        self.register_buffer('class_weight', class_weight, persistent=False)
        sets = torch.tensor([[c in each for c in range(model.num_classes)] for each in label_sets])
        self.sets: Tensor | None
        self.register_buffer('sets', sets if label_sets else None, persistent=False)
        offset = torch.zeros(model.num_classes)
        if class_weight is not None:
            # A class weight w adds log w to the logit (Menon et al., "Long-tail learning via logit adjustment").
            offset = -config.prior_correction * class_weight.log()
        self.offset: Tensor
        self.register_buffer('offset', offset.reshape(1, -1, 1, 1), persistent=False)
        self.confusion = ConfusionMatrix(model.num_classes)

    def losses(self, output: SegmentationOutput, label: Tensor, soft: Tensor | None = None) -> dict[str, Tensor]:
        """Return the weighted parts of the loss, scalars, by name.

        Args:
            output: Logits of all heads.
            label: int64 ``[N, H, W]``.
            soft: Probabilities of a teacher, uint8 ``[N, C, ceil(H/4), ceil(W/4)]``; None without a teacher.
        """
        config = self.config

        def segmentation_loss(logits: Tensor, label: Tensor) -> Tensor:
            logits = upsample(logits.float(), (label.shape[1], label.shape[2]))
            return ohem_cross_entropy(logits, label, config.ohem_threshold, weight=self.class_weight, sets=self.sets)

        crop, label = label, _subsample(label, config.loss_stride)
        parts = {'main': segmentation_loss(output.logits, label)}
        if config.aux_weight:
            sparse = _subsample(crop, config.aux_stride)
            parts['aux8'] = config.aux_weight * segmentation_loss(output.aux8, sparse)
            parts['aux16'] = config.aux_weight * segmentation_loss(output.aux16, sparse)
        if config.detail_weight:
            known, target = None, detail_target(label)
            if soft is not None:
                # With a teacher, images may lack labels, and a pixel without a label may lie on an edge.
                known = (label != IGNORE).unsqueeze(1)
            if self.sets is not None:
                # Pixels labelled with a set do not count: neither the inside nor the border of a set shows the edges.
                coarse = (label >= self.model.num_classes) & (label != IGNORE)
                fine, target = ~coarse.unsqueeze(1), detail_target(label.masked_fill(coarse, IGNORE))
                known = fine if known is None else fine & known
            for stride, logits in output.detail.items():
                parts[f'detail{stride}'] = config.detail_weight * torch.stack(detail_loss(logits, target, known)).sum()
        if soft is not None:
            parts |= self._teacher_losses(output, crop, soft.float() / 255)
        return parts

    def _teacher_losses(self, output: SegmentationOutput, label: Tensor, soft: Tensor) -> dict[str, Tensor]:
        """Return the loss of each head against the probabilities of a teacher, float 0 to 1, for a whole crop."""
        config, size = self.config, (soft.shape[2], soft.shape[3])
        label = F.interpolate(label.unsqueeze(1).float(), size=size, mode='nearest-exact').squeeze(1).long()

        def loss(logits: Tensor) -> Tensor:
            logits = upsample(logits.float(), size)
            return teacher_loss(logits, soft, label, self.sets, config.teacher_confidence, config.teacher_hard_weight)

        parts = {'teacher': config.teacher_weight * loss(output.logits)}
        if config.aux_weight:
            weight = config.teacher_weight * config.aux_weight
            parts |= {'teacher_aux8': weight * loss(output.aux8), 'teacher_aux16': weight * loss(output.aux16)}
        return parts

    def training_step(self, batch: Sequence[Tensor], _index: int) -> Tensor:
        """Return the total loss of a batch, and log its parts."""
        image, label, *soft = batch
        image = normalize(image.permute(0, 3, 1, 2)).contiguous(memory_format=torch.channels_last)
        parts = self.losses(self.model.forward_train(image), label.long(), *soft)
        total = torch.stack(list(parts.values())).sum()
        self.log('loss', total, prog_bar=True)
        self.log_dict({f'loss/{name}': value for name, value in parts.items()})
        return total

    def on_validation_epoch_start(self) -> None:
        """Begin a new confusion matrix."""
        self.confusion = ConfusionMatrix(self.model.num_classes)

    def validation_step(self, batch: tuple[Tensor, Tensor], index: int) -> None:
        """Count the pixels of an image in the confusion matrix, and show the first images in TensorBoard."""
        image, label = batch
        network_input = normalize(image.permute(0, 3, 1, 2)).contiguous(memory_format=torch.channels_last)
        logits = self.model(rescale(network_input, self.config.input_scale)) + self.offset
        prediction = upsample(logits.float(), (label.shape[1], label.shape[2])).argmax(1).to(torch.uint8).cpu().numpy()
        self.confusion.update(prediction, label.cpu().numpy())
        if index < _PICTURES:
            self._show(index, image[0].cpu().numpy(), label[0].cpu().numpy(), prediction[0])

    def on_validation_epoch_end(self) -> None:
        """Log mIoU and the IoU of each class over the images of all ranks."""
        # Each rank has counted its part of the images.
        counts = torch.from_numpy(self.confusion.counts).to(self.device)
        self.confusion = ConfusionMatrix.of(self.trainer.strategy.reduce(counts, reduce_op='sum').cpu().numpy())
        # The values are equal on all ranks. `sync_dist` silences Lightning's warning that they might differ.
        self.log('miou', self.confusion.miou(), prog_bar=True, sync_dist=True)
        iou = dict(zip(self.classes.names, self.confusion.iou(), strict=True))
        self.log_dict({f'iou/{name}': value for name, value in iou.items()}, sync_dist=True)

    def _show(self, index: int, image: np.ndarray, label: np.ndarray, prediction: np.ndarray) -> None:
        """Show image, label and prediction side by side in TensorBoard, if that is installed."""
        for logger in self.loggers:
            if isinstance(logger, TensorBoardLogger):
                masks = [colorize(mask, self.classes) for mask in (label, prediction)]
                picture = np.ascontiguousarray(np.hstack([image, *masks])[..., ::-1])
                logger.experiment.add_image(f'validation/{index}', picture, self.global_step, dataformats='HWC')

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """Return optimiser and schedule. Heads have a learning rate, and convolutions a weight decay, of their own."""
        config = self.config
        groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
        for name, parameter in self.model.named_parameters():
            if not parameter.requires_grad:
                continue
            fast = name.startswith(_HEADS)
            groups.setdefault((fast, parameter.dim() > 1), []).append(parameter)
        parameters = [
            {
                'params': members,
                'lr': config.learning_rate * (config.head_rate if fast else 1),
                'weight_decay': config.weight_decay if decayed else 0.0,
            }
            for (fast, decayed), members in groups.items()
        ]
        if config.optimizer == 'sgd':
            optimizer: torch.optim.Optimizer = torch.optim.SGD(parameters, momentum=config.momentum)
        else:
            optimizer = torch.optim.AdamW(parameters)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: rate_factor(config, step))
        return {'optimizer': optimizer, 'lr_scheduler': {'scheduler': schedule, 'interval': 'step'}}


class RateSchedule(Protocol):
    """Keys of a configuration that ``rate_factor`` needs."""

    @property
    def steps(self) -> int: ...

    @property
    def warmup_steps(self) -> int: ...

    @property
    def schedule(self) -> str: ...

    @property
    def poly_power(self) -> float: ...


def rate_factor(config: RateSchedule, step: int) -> float:
    """Return the factor on the learning rate: linear warm-up, then cosine or poly decay to 0.

    Args:
        config: Configuration with the schedule.
        step: Optimiser step, from 0.

    Returns:
        Factor of 0 to 1.
    """
    if step < config.warmup_steps:
        return (step + 1) / config.warmup_steps
    left = 1 - min((step - config.warmup_steps) / max(config.steps - config.warmup_steps, 1), 1.0)
    if config.schedule == 'poly':
        return left**config.poly_power
    return 0.5 * (1 - math.cos(math.pi * left))


def _subsample(label: Tensor, stride: int) -> Tensor:
    """Return every ``stride``-th pixel of a label ``[N, H, W]`` in both directions.

    The first and the last pixel are included, so that the result matches logits that are upsampled with aligned
    corners.
    """
    if stride == 1:
        return label
    rows, columns = (torch.linspace(0, n - 1, max(n // stride, 1)).round().long() for n in label.shape[1:])
    return label[:, rows.to(label.device)][:, :, columns.to(label.device)]
