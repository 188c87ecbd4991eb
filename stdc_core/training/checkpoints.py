# SPDX-License-Identifier: Apache-2.0
"""Write and read the checkpoints of a run: ``last.ckpt``, to resume from, and ``best.ckpt``, of the best validation."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.plugins.io import TorchCheckpointIO

from stdc_core.io.files import appearing
from stdc_core.io.text import one_line
from stdc_core.training.config import ConfigError

LAST = 'last.ckpt'
BEST = 'best.ckpt'


def checkpoint_step(out: Path) -> int:
    """Return the optimiser step of the last checkpoint in the folder of a run; 0 if there is none.

    Raises:
        ConfigError: The checkpoint cannot be read.
    """
    path = out / LAST
    if not path.is_file():
        return 0
    try:
        return int(torch.load(path, map_location='cpu', weights_only=True, mmap=True)['global_step'])
    except Exception as error:  # damaged bytes make the unpickler raise anything
        raise ConfigError(
            f'{path}: not a checkpoint, or a damaged one ({type(error).__name__}: {one_line(error)}); '
            'move it away to start the run from its beginning'
        ) from error


class AtomicCheckpoints(TorchCheckpointIO):
    """Writes checkpoints beside their final place, and renames them.

    Lightning writes to a temporary folder. If that is on another disk, it copies the file over the last checkpoint, and
    a kill or a full disk leaves a truncated one.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None) -> None:
        """Write a checkpoint. Raises WriteError if the disk is full; PyTorch's own errors do not name the file."""
        data = io.BytesIO()
        torch.save(checkpoint, data)
        with appearing(Path(path)) as partial:
            partial.write_bytes(data.getbuffer())


class LastCheckpoint(ModelCheckpoint):
    """Writes ``last.ckpt`` at regular steps, and after each validation, since a resumed run needs the best score."""

    @property
    def state_key(self) -> str:
        """Return the key under which runs of older versions have stored the state."""
        return super().state_key.replace(type(self).__qualname__, '_Last', 1)

    def on_train_batch_end(
        self, trainer: lightning.Trainer, module: lightning.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Write ``last.ckpt`` at regular steps, unless ``on_validation_end`` is going to write it at the same step.

        Lightning does not make up for a validation after the step that a run is resumed from. If the run was killed
        during this validation, its score would be missing. After the last step, ``train`` validates itself.
        """
        every = trainer.val_check_interval
        validates = trainer.enable_validation and isinstance(every, int) and (batch_idx + 1) % every == 0
        if not validates or trainer.global_step == trainer.max_steps:
            super().on_train_batch_end(trainer, module, outputs, batch, batch_idx)

    def on_validation_end(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        """Write ``last.ckpt`` after a validation that is part of the training."""
        super().on_validation_end(trainer, module)
        if trainer.state.fn == 'fit':
            assert self.dirpath is not None
            trainer.save_checkpoint(Path(self.dirpath) / LAST)


class BestCheckpoint(ModelCheckpoint):
    """Writes ``best.ckpt``, and keeps the best score when the folder of a run is moved.

    Lightning's own callback then forgets the score, and replaces the file with the next validation's.
    """

    @property
    def state_key(self) -> str:
        """Return the key of Lightning's own callback, under which runs of older versions have stored the state."""
        return super().state_key.replace(type(self).__qualname__, ModelCheckpoint.__qualname__, 1)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the state, with paths in the present folder of the run."""
        assert self.dirpath is not None
        folder = self.dirpath

        def here(path: str) -> str:
            return path and str(Path(folder, Path(path).name))

        paths = {name: here(state_dict[name]) for name in ('best_model_path', 'kth_best_model_path')}
        scores = {here(path): score for path, score in state_dict['best_k_models'].items()}
        super().load_state_dict({**state_dict, **paths, 'dirpath': self.dirpath, 'best_k_models': scores})
