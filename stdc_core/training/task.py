"""One training step of STDC-Seg, as a Lightning module."""

from __future__ import annotations

import math

import lightning
import torch
from torch import Tensor

from stdc_core.evaluation.metrics import ConfusionMatrix
from stdc_core.model.segmentation import SegmentationOutput, STDCSeg, normalize, upsample
from stdc_core.training.config import TrainConfig
from stdc_core.training.detail import detail_loss, detail_target
from stdc_core.training.losses import ohem_cross_entropy


class SegmentationTask(lightning.LightningModule):
    """Main, auxiliary and detail losses; AdamW with warm-up and cosine decay; mIoU on validation images.

    Batches are pairs of uint8 BGR images ``[N, H, W, 3]`` and uint8 labels ``[N, H, W]``.

    Args:
        model: the network to train.
        config: the recipe.
        class_weight: float ``[C]`` weights of the cross-entropy, or None.
    """

    def __init__(self, model: STDCSeg, config: TrainConfig, class_weight: Tensor | None = None):
        super().__init__()
        # Convolutions on a CPU with AMX and on tensor cores run fastest with channels last.
        self.model = model.to(memory_format=torch.channels_last)
        self.config = config
        self.register_buffer('class_weight', class_weight, persistent=False)
        self.confusion = ConfusionMatrix(model.num_classes)

    def losses(self, output: SegmentationOutput, label: Tensor) -> dict[str, Tensor]:
        """Each weighted part of the loss, scalars: ``label`` int64 ``[N, H, W]``."""
        config = self.config

        def segmentation_loss(logits: Tensor, label: Tensor) -> Tensor:
            logits = upsample(logits.float(), tuple(label.shape[1:]))
            return ohem_cross_entropy(logits, label, config.ohem_threshold, weight=self.class_weight)

        parts = {'main': segmentation_loss(output.logits, label)}
        if config.aux_weight:
            sparse = label[:, :: config.aux_stride, :: config.aux_stride]
            parts['aux8'] = config.aux_weight * segmentation_loss(output.aux8, sparse)
            parts['aux16'] = config.aux_weight * segmentation_loss(output.aux16, sparse)
        if config.detail_weight:
            target = detail_target(label)
            for stride, logits in output.detail.items():
                parts[f'detail{stride}'] = config.detail_weight * sum(detail_loss(logits, target))
        return parts

    def training_step(self, batch: tuple[Tensor, Tensor], _index: int) -> Tensor:
        image, label = batch
        image = normalize(image.permute(0, 3, 1, 2)).contiguous(memory_format=torch.channels_last)
        parts = self.losses(self.model.forward_train(image), label.long())
        total = sum(parts.values())
        self.log('loss', total, prog_bar=True)
        self.log_dict({f'loss/{name}': value for name, value in parts.items()})
        return total

    def on_validation_epoch_start(self) -> None:
        self.confusion = ConfusionMatrix(self.model.num_classes)

    def validation_step(self, batch: tuple[Tensor, Tensor], _index: int) -> None:
        image, label = batch
        logits = self.model(normalize(image.permute(0, 3, 1, 2)).contiguous(memory_format=torch.channels_last))
        prediction = upsample(logits.float(), tuple(label.shape[1:])).argmax(1)
        self.confusion.update(prediction.cpu().numpy(), label.cpu().numpy())

    def on_validation_epoch_end(self) -> None:
        self.log('miou', self.confusion.miou(), prog_bar=True)

    def configure_optimizers(self) -> dict:
        config = self.config
        decayed = [p for p in self.model.parameters() if p.dim() > 1]
        plain = [p for p in self.model.parameters() if p.dim() <= 1]
        optimizer = torch.optim.AdamW(
            [{'params': decayed, 'weight_decay': config.weight_decay}, {'params': plain, 'weight_decay': 0.0}],
            lr=config.learning_rate,
        )

        def factor(step: int) -> float:
            if step < config.warmup_steps:
                return (step + 1) / config.warmup_steps
            done = (step - config.warmup_steps) / max(config.steps - config.warmup_steps, 1)
            return 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))

        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        return {'optimizer': optimizer, 'lr_scheduler': {'scheduler': schedule, 'interval': 'step'}}
