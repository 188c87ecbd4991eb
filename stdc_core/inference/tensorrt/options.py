# SPDX-License-Identifier: Apache-2.0
"""Options of the backends for NVIDIA GPUs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from stdc_core.inference.backend import Backend
from stdc_core.inference.input_scale import InputScale


@dataclass(frozen=True)
class GpuOptions:
    """How a GPU backend is used, whatever the model and the GPU are.

    Args:
        max_batch: Largest number of images in one call.
        other: Function that makes the backend which answers while an engine is built, and after a failure; None if
            there is no such backend.
        wait: Whether an image waits until its engine is built. If false, the other backend answers meanwhile.
        give_up: Whether the other backend takes over after a failure. If false, the failure is reported.
        tactics: Names of the ``TacticSource`` to choose from; empty leaves the choice to the library.
        kernels: Whether our own kernels surround the network. If false, the engine does everything, which is slower;
            it serves to compare with.
        scale: Scale at which the network sees images; None takes the scale of the model.
    """

    max_batch: int = 1
    other: Callable[[], Backend] | None = None
    wait: bool = True
    give_up: bool = False
    tactics: tuple[str, ...] = ()
    kernels: bool = True
    scale: InputScale | None = None
