# SPDX-License-Identifier: Apache-2.0
"""Make the Lightning trainer of a run, and end the run well when it is stopped."""

from __future__ import annotations

import logging
import signal
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import Callback, TQDMProgressBar, WeightAveraging
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger
from lightning.pytorch.utilities.exceptions import SIGTERMException
from torch import Tensor

from stdc_core.data.check import DataError
from stdc_core.io.signals import first_signal, sigterm_without_interrupt
from stdc_core.training.checkpoints import BEST, LAST, AtomicCheckpoints, BestCheckpoint, LastCheckpoint
from stdc_core.training.config import ConfigError
from stdc_core.training.exhaustion import what_ran_out
from stdc_core.training.ranks import process_rank

# Hide Lightning's advertisements, and its warnings about two things that are intended: the folder of a run contains its
# record, and a resumed run takes its batches from the step.
logging.getLogger('lightning.pytorch').setLevel(logging.WARNING)
for _message in (
    '.*exists and is not empty',
    '.*your dataloader is not resumable',
    '.*have no `val_dataloader`',
    '.*does not have many workers',
):
    warnings.filterwarnings('ignore', message=_message)
# What Lightning calls in a deprecated way does not concern the user.
for _category in (DeprecationWarning, FutureWarning):
    warnings.filterwarnings('ignore', category=_category, module='lightning')


def precision(name: str, gpu: bool) -> Any:
    """Return Lightning's name of a precision, with ``auto`` replaced by one that is fast on this machine.

    Args:
        name: Value of ``MachineConfig.precision``.
        gpu: Whether the training runs on a GPU.
    """
    if name != 'auto':
        return name
    if gpu:
        return 'bf16-mixed' if torch.cuda.is_bf16_supported(including_emulation=False) else '16-mixed'
    return 'bf16-mixed' if has_bfloat16_instructions() else '32-true'


def has_bfloat16_instructions() -> bool:
    """Return whether this CPU computes in bfloat16 (AMX, AVX-512 BF16), as far as PyTorch tells."""
    # These functions are private to PyTorch. If a version lacks them, training is in float32.
    probes = (getattr(torch.cpu, name, None) for name in ('_is_amx_tile_supported', '_is_avx512_bf16_supported'))
    return any(probe() for probe in probes if probe is not None)


def growing_average(decay: float) -> Callable[[Sequence[Tensor], Sequence[Tensor], Tensor], None]:
    """Return a function that updates an exponential moving average of weights, for ``WeightAveraging``.

    The window of the average grows with the steps done, so that the random initial weights soon stop counting.

    Args:
        decay: Decay per step that the average grows towards, 0 to 1.

    Returns:
        Function of the averaged tensors, which it changes, the current tensors and the number of steps done. All
        tensors have one dtype and one device. They are updated together, because hundreds of small kernels would take
        a GPU as long as the training step itself.
    """

    def average(averaged: Sequence[Tensor], current: Sequence[Tensor], steps: Tensor) -> None:
        if not averaged[0].is_floating_point():
            torch._foreach_copy_(list(averaged), list(current))
            return
        # The steps stay a tensor: to turn them into a Python number, the CPU would wait for the GPU.
        done = steps.to(torch.float64)
        weight = (1 - ((1 + done) / (10 + done)).clamp(max=decay)).to(averaged[0].device, averaged[0].dtype)
        change = torch._foreach_sub(list(current), list(averaged))
        torch._foreach_mul_(change, weight)
        torch._foreach_add_(list(averaged), change)

    return average


def make_trainer(config: Any, out: Path, start: int, monitor: str, progress: bool) -> lightning.Trainer:
    """Make the Lightning trainer of a run.

    Args:
        config: Configuration with ``steps``, ``warmup_steps``, ``val_every``, ``checkpoint_every``, ``ema_decay``,
            ``precision``, ``accelerator``, ``devices`` and ``num_nodes``.
        out: Folder of the run.
        start: Step that the run is resumed from. Its logs are written beside the earlier ones.
        monitor: Logged number whose largest value selects ``best.ckpt``; empty for a run without validation.
        progress: Whether to show a progress bar.

    Raises:
        ConfigError: A GPU is asked for, and PyTorch finds none.
    """
    gpu = config.accelerator == 'gpu' or (config.accelerator == 'auto' and torch.cuda.is_available())
    if config.accelerator == 'gpu' and not torch.cuda.is_available():
        raise ConfigError('accelerator: gpu was asked for, but PyTorch finds none')
    if config.warmup_steps >= config.steps and not process_rank():
        print(
            f'warning: the learning rate rises for {config.warmup_steps} steps, but the run has only {config.steps}; '
            'set a smaller warmup_steps, or more steps',
            file=sys.stderr,
        )
    devices = config.devices or (torch.cuda.device_count() if gpu else 1)
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
        # BatchSchedule divides the batches among the devices. PyTorch synchronises batch norms only on GPUs.
        use_distributed_sampler=False,
        sync_batchnorm=gpu and devices * config.num_nodes > 1,
        callbacks=_callbacks(config, out, monitor, gpu, progress),
        plugins=[AtomicCheckpoints()],
        logger=loggers,
        log_every_n_steps=min(50, config.steps),
        num_sanity_val_steps=0,
        enable_progress_bar=progress,
        enable_model_summary=False,
    )


def _callbacks(config: Any, out: Path, monitor: str, gpu: bool, progress: bool) -> list[Callback]:
    """Return the callbacks of a run: checkpoints, average of the weights and progress bar."""
    callbacks: list[Callback] = []
    if monitor:
        callbacks.append(
            BestCheckpoint(
                dirpath=out,
                filename=Path(BEST).stem,
                monitor=monitor,
                mode='max',
                save_on_train_epoch_end=False,  # with a validation at every step, Lightning would choose true
                enable_version_counter=False,
            )
        )
    callbacks.append(
        LastCheckpoint(
            dirpath=out,
            filename=Path(LAST).stem,
            every_n_train_steps=min(config.checkpoint_every, config.steps),
            enable_version_counter=False,
        )
    )
    if config.ema_decay:
        # Without a device, the average would be made on the CPU, where the model is before training.
        where = 'cuda' if gpu else 'cpu'
        callbacks.append(WeightAveraging(device=where, multi_avg_fn=growing_average(config.ema_decay)))
    if progress:
        callbacks.append(TQDMProgressBar(leave=True))
    return callbacks


@contextmanager
def others_wait(trainer: lightning.Trainer) -> Iterator[None]:
    """Let the other processes of a run wait until the first one has written its results in the block.

    Args:
        trainer: Trainer of the run.
    """
    try:
        yield
    finally:
        trainer.strategy.barrier()


@contextmanager
def stoppable(trainer: lightning.Trainer, out: Path) -> Iterator[None]:
    """End a run that is stopped in the block like other programs end, and say on stderr how to continue it.

    Args:
        trainer: Trainer that runs in the block.
        out: Folder of the run.

    Raises:
        KeyboardInterrupt: Ctrl-C was pressed. Lightning would exit with status 1.
        SystemExit: SIGTERM was received; the status is 143. Lightning would exit with status 0. The first of several
            signals counts.
        DataError: A worker could not read an image. The traceback of the worker is left out.
    """
    try:
        with sigterm_without_interrupt(), _bars_closed(trainer):  # Lightning ends the step, and then the run
            yield
        if first_signal() is not None:  # SIGTERM in the last step
            raise KeyboardInterrupt
    except (SystemExit, KeyboardInterrupt, RuntimeError) as error:
        # SIGTERM to all processes also ends the workers, which is a RuntimeError here.
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
            print(f'stopped by {stopped}; --resume --out {out} continues the run', file=sys.stderr)
        raise end from None
    except (ValueError, OSError) as error:
        if not str(error).startswith('Caught '):
            raise
        if what_ran_out(error):
            raise
        # PyTorch puts the traceback of the worker into the message; the last line is the error.
        reason = str(error).rstrip().rpartition('\n')[2].partition(': ')[2]
        again = f'; `--resume --out {out}` continues the run' if isinstance(error, OSError) else ''
        raise DataError(reason + again) from error


@contextmanager
def _bars_closed(trainer: lightning.Trainer) -> Iterator[None]:
    """Close the progress bars if an error ends the block, so that the next message has its own line."""
    try:
        yield
    except BaseException:
        bar = trainer.progress_bar_callback
        if isinstance(bar, TQDMProgressBar):
            for name in ('val_progress_bar', 'train_progress_bar'):
                with suppress(TypeError):  # there is no such bar yet
                    getattr(bar, name).close()
        raise
