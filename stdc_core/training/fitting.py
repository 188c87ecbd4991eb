# SPDX-License-Identifier: Apache-2.0
"""What every training shares: its folder, its checkpoints, the average of the weights, the Lightning trainer."""

from __future__ import annotations

import dataclasses
import io
import logging
import os
import signal
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import lightning
import torch
import yaml
from lightning.pytorch.callbacks import Callback, ModelCheckpoint, TQDMProgressBar, WeightAveraging
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger
from lightning.pytorch.plugins.io import TorchCheckpointIO
from lightning.pytorch.utilities.exceptions import SIGTERMException
from torch import Tensor

from stdc_core.data.check import DataError
from stdc_core.io.files import appearing
from stdc_core.io.signals import first_signal, sigterm_without_interrupt
from stdc_core.io.text import one_line
from stdc_core.io.yaml_file import read_yaml
from stdc_core.training.config import ConfigError, make_config
from stdc_core.training.ranks import process_rank

# Lightning's advertisements, and warnings of what is meant to be: a run's folder holds its record, and its batches
# follow from the step.
logging.getLogger('lightning.pytorch').setLevel(logging.WARNING)
for _message in ('.*exists and is not empty', '.*your dataloader is not resumable', '.*does not have many workers'):
    warnings.filterwarnings('ignore', message=_message)

RECORD = 'run.yaml'
LAST = 'last.ckpt'
BEST = 'best.ckpt'


def need_empty(out: Path, num_nodes: int = 1) -> None:
    """Raise FileExistsError if the folder of a run that is to begin holds something, or is a file.

    Args:
        num_nodes: machines that the run is on.
    """
    if out.exists() and not out.is_dir():
        raise FileExistsError(f'{out}: is a file, expected a folder to write to')
    # Another process of the same run may have begun it, on another machine, too.
    machine = os.environ.get('NODE_RANK', os.environ.get('GROUP_RANK', '0')) if num_nodes > 1 else '0'
    if not process_rank() and machine == '0' and out.exists() and any(out.iterdir()):
        resumable = '; --resume continues the run in it' if (out / RECORD).is_file() else ''
        raise FileExistsError(f'{out} is not empty{resumable}; choose another folder or move it away')


def begin(out: Path, config: Any, sources: dict[str, Any]) -> None:
    """Claim an empty folder for a run and write down what it does in ``run.yaml``.

    Args:
        config: a configuration dataclass.
        sources: paths that the run reads, as text or lists of text, and what else it needs to be resumed.

    Raises:
        FileExistsError: ``out`` already holds something.
    """
    need_empty(out, config.num_nodes)
    if not process_rank():
        record = {'config': dataclasses.asdict(config), **sources}
        with appearing(out / RECORD) as partial:
            partial.write_text(yaml.safe_dump(record, sort_keys=False))


def recall(out: Path, cls: type, overrides: list[str], changeable: tuple[str, ...]) -> tuple[Any, dict[str, Any]]:
    """Configuration and sources of the run in a folder, to resume it.

    Args:
        cls: the configuration's dataclass.
        overrides: ``key=value`` of keys that are ``changeable``, those that do not move the curve.

    Raises:
        FileNotFoundError: no run was begun in ``out``.
        ConfigError: its record is damaged, or another key is overridden.
    """
    path = out / RECORD
    if not path.is_file():
        raise FileNotFoundError(f'{path}: not there, so {out} holds no run to resume')
    try:
        record = read_yaml(path)
        stored = dict(record.pop('config'))
        sources = {'extra': [], 'init': '', 'teacher': [], **record}
        texts = (sources['data'], sources['init'], *sources['extra'], *sources['teacher'], *sources.get('classes', []))
        if not all(isinstance(text, str) for text in texts):
            raise TypeError('data, extra, init and classes: expected text')
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ConfigError(f'{path}: damaged ({one_line(error)})') from error
    for override in overrides:
        name = override.partition('=')[0]
        if name not in changeable:
            raise ConfigError(f'{name}: cannot change when a run is resumed; only {", ".join(changeable)} can')
    return make_config(cls, stored, str(path), overrides), sources


def reached(out: Path) -> int:
    """Optimiser steps of the checkpoint that a run in this folder would take up; 0 without one.

    Raises:
        ConfigError: it cannot be read.
    """
    path = out / LAST
    if not path.is_file():
        return 0
    try:
        return int(torch.load(path, map_location='cpu', weights_only=True, mmap=True)['global_step'])
    except Exception as error:  # the unpickler raises whatever the bytes lead it to
        raise ConfigError(
            f'{path}: not a checkpoint, or a damaged one ({type(error).__name__}: {one_line(error)}); '
            'if it is moved away, the run begins anew'
        ) from error


def precision(name: str, gpu: bool) -> Any:
    """Lightning's name of the arithmetic that ``auto`` stands for on this machine."""
    if name != 'auto':
        return name
    if gpu:
        return 'bf16-mixed' if torch.cuda.is_bf16_supported(including_emulation=False) else '16-mixed'
    return 'bf16-mixed' if has_bfloat16_instructions() else '32-true'


def has_bfloat16_instructions() -> bool:
    """Return whether this CPU computes in bfloat16 (AMX, AVX-512 BF16), as far as PyTorch tells."""
    # The names are PyTorch's own and may go. A version without them trains in float32.
    probes = (getattr(torch.cpu, name, None) for name in ('_is_amx_tile_supported', '_is_avx512_bf16_supported'))
    return any(probe() for probe in probes if probe is not None)


def growing_average(decay: float) -> Callable[[Sequence[Tensor], Sequence[Tensor], Tensor], None]:
    """Exponential moving average whose window grows with the steps done, so that the random start is soon forgotten.

    It changes the first tensors, all of one type and device; the others are the current weights. All at once: hundreds
    of small kernels would take a GPU as long as the step itself.
    """

    def average(averaged: Sequence[Tensor], current: Sequence[Tensor], steps: Tensor) -> None:
        if not averaged[0].is_floating_point():
            torch._foreach_copy_(list(averaged), list(current))
            return
        # On the device: as a number of Python's, the count of the steps would have to be waited for.
        done = steps.to(torch.float64)
        weight = (1 - ((1 + done) / (10 + done)).clamp(max=decay)).to(averaged[0].device, averaged[0].dtype)
        change = torch._foreach_sub(list(current), list(averaged))
        torch._foreach_mul_(change, weight)
        torch._foreach_add_(list(averaged), change)

    return average


class _Checkpoints(TorchCheckpointIO):
    """Write checkpoints beside their final place, and rename them.

    Lightning writes to a temporary folder. If that is on another disk, it copies the file over the last checkpoint, and
    a kill or a full disk leaves a truncated one.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None) -> None:
        data = io.BytesIO()  # PyTorch's own errors on a full disk do not name the file
        torch.save(checkpoint, data)
        with appearing(Path(path)) as partial:
            partial.write_bytes(data.getbuffer())


class _Last(ModelCheckpoint):
    """Writes ``last.ckpt`` every so many steps, and after validations, whose best score a resumed run has to know."""

    def on_validation_end(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        super().on_validation_end(trainer, module)
        if trainer.state.fn == 'fit':
            assert self.dirpath is not None
            trainer.save_checkpoint(Path(self.dirpath) / LAST)


class _Best(ModelCheckpoint):
    """Writes ``best.ckpt``. Lightning's own forgets the best score, and replaces it, if the run's folder was moved."""

    @property
    def state_key(self) -> str:
        """As of Lightning's own, by which runs of older versions know it."""
        return super().state_key.replace(type(self).__qualname__, ModelCheckpoint.__qualname__, 1)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        assert self.dirpath is not None
        folder = self.dirpath

        def here(path: str) -> str:
            return path and str(Path(folder, Path(path).name))

        paths = {name: here(state_dict[name]) for name in ('best_model_path', 'kth_best_model_path')}
        scores = {here(path): score for path, score in state_dict['best_k_models'].items()}
        super().load_state_dict({**state_dict, **paths, 'dirpath': self.dirpath, 'best_k_models': scores})


def make_trainer(config: Any, out: Path, start: int, monitor: str, progress: bool) -> lightning.Trainer:
    """The Lightning trainer of a run.

    Args:
        config: has ``steps``, ``warmup_steps``, ``val_every``, ``checkpoint_every``, ``ema_decay``, ``precision``,
            ``accelerator``, ``devices`` and ``num_nodes``.
        start: the step it is resumed from; what it logs from there on does not replace what was logged before.
        monitor: the logged number whose highest value makes ``best.ckpt``; empty: none.
        progress: show a bar.
    """
    gpu = config.accelerator == 'gpu' or (config.accelerator == 'auto' and torch.cuda.is_available())
    if config.accelerator == 'gpu' and not torch.cuda.is_available():
        raise ConfigError('accelerator: gpu was asked for, but PyTorch finds none')
    if config.warmup_steps >= config.steps and not process_rank():
        print(
            f'warning: the learning rate rises for {config.warmup_steps} steps, and the run has {config.steps}: '
            'it ends before it has learnt much',
            file=sys.stderr,
        )
    devices = config.devices or (torch.cuda.device_count() if gpu else 1)
    callbacks: list[Callback] = []
    if monitor:
        callbacks.append(
            _Best(
                dirpath=out,
                filename=Path(BEST).stem,
                monitor=monitor,
                mode='max',
                save_on_train_epoch_end=False,  # Lightning would, with validations at every step
                enable_version_counter=False,
            )
        )
    callbacks.append(
        _Last(
            dirpath=out,
            filename=Path(LAST).stem,
            every_n_train_steps=min(config.checkpoint_every, config.steps),
            enable_version_counter=False,
        )
    )
    if config.ema_decay:
        # Without a device, it would be where the model is before it is moved to the GPU.
        where = 'cuda' if gpu else 'cpu'
        callbacks.append(WeightAveraging(device=where, multi_avg_fn=growing_average(config.ema_decay)))
    if progress:
        callbacks.append(TQDMProgressBar(leave=True))
    version = f'from_step_{start}' if start else ''
    loggers: list[Logger] = [CSVLogger(out, name='', version=version)]
    if find_spec('tensorboard'):
        loggers.append(TensorBoardLogger(out, name='', version='', sub_dir='tensorboard'))
    return lightning.Trainer(
        max_steps=config.steps,
        val_check_interval=min(config.val_every, config.steps) if monitor else None,
        precision=precision(config.precision, gpu),
        accelerator='gpu' if gpu else 'cpu',
        devices=devices,
        num_nodes=config.num_nodes,
        strategy='ddp' if devices * config.num_nodes > 1 else 'auto',
        # The batches are dealt out to the devices by our own schedule. PyTorch synchronises batch norms on GPUs alone.
        use_distributed_sampler=False,
        sync_batchnorm=gpu and devices * config.num_nodes > 1,
        callbacks=callbacks,
        plugins=[_Checkpoints()],
        logger=loggers,
        log_every_n_steps=min(50, config.steps),
        num_sanity_val_steps=0,
        enable_progress_bar=progress,
        enable_model_summary=False,
    )


@contextmanager
def awaited(trainer: lightning.Trainer) -> Iterator[None]:
    """Around what the first process writes in the end: the others wait for it, because their caller may read it."""
    try:
        yield
    finally:
        trainer.strategy.barrier()


@contextmanager
def running(trainer: lightning.Trainer, out: Path) -> Iterator[None]:
    """Around what the trainer does: a run that is stopped ends as others do, and one line on stderr says what then.

    Args:
        out: folder of the run.

    Raises:
        KeyboardInterrupt: Ctrl-C, of which Lightning makes exit status 1.
        SystemExit: status 143 on SIGTERM, of which Lightning makes 0. The first of several signals counts.
        DataError: a process that reads could not; without that process's traceback.
    """
    try:
        with sigterm_without_interrupt():  # Lightning ends the step, and then the run
            yield
        if first_signal() is not None:  # SIGTERM in the last step
            raise KeyboardInterrupt
    except (SystemExit, KeyboardInterrupt, RuntimeError) as error:
        # SIGTERM to all processes ends those that read, too, which is a RuntimeError here.
        interrupted = isinstance(error, KeyboardInterrupt) or isinstance(error.__context__, KeyboardInterrupt)
        terminated = trainer.received_sigterm or isinstance(error, SIGTERMException)
        end: BaseException
        if terminated and first_signal() != signal.SIGINT:
            stopped, end = 'SIGTERM', SystemExit(128 + signal.SIGTERM)
        elif interrupted or terminated:
            stopped, end = 'Ctrl-C', KeyboardInterrupt()
        else:
            raise
        if not process_rank():
            # The bar's line has no end yet.
            print(f'\nstopped by {stopped}; --resume --out {out} continues the run', file=sys.stderr)
        raise end from None
    except (ValueError, OSError) as error:
        if not str(error).startswith('Caught '):
            raise
        # PyTorch puts the traceback of the process that reads in the message; the last line is the error.
        raise DataError(str(error).rstrip().rpartition('\n')[2].partition(': ')[2]) from error
