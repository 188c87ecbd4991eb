# SPDX-License-Identifier: Apache-2.0
"""Run the contenders of PyTorch: eager in float32 and float16, and compiled."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gpu_comparison.plan import AUTOTUNED, COMPILED, Contender
from gpu_comparison.timing import TRIAL_SHAPE, WARM_UP, check_trial, host_times
from gpu_comparison.workload import read_frames, scale_of, weights_of

_MODES = {COMPILED: 'reduce-overhead', AUTOTUNED: 'max-autotune'}


class PyTorchRunner:
    """Runs the network in PyTorch.

    Args:
        work: Folder of models and frames.
        device: ``'cuda'``, or ``'cpu'`` in a dry run.
    """

    def __init__(self, work: Path, device: str):
        self._work, self._device = work, device
        torch.backends.cudnn.benchmark = True  # cuDNN's fastest convolutions for this size

    def probe(self) -> dict[str, str]:
        """Run one convolution."""
        planes = torch.ones(TRIAL_SHAPE, device=self._device)
        weights = torch.ones((8, 3, 3, 3), device=self._device)
        check_trial(torch.nn.functional.conv2d(planes, weights, padding=1).cpu().numpy())
        name = torch.cuda.get_device_name() if self._device == 'cuda' else 'CPU'
        return {'device': name, 'on': f'PyTorch {torch.__version__}, CUDA {torch.version.cuda}'}

    def prepare(self, contender: Contender) -> PreparedNetwork:
        """Load the weights, and compile and run the network once."""
        half = 'float16' in contender.precision
        logits = network_logits(self._work, contender.model, half, self._device)
        mode = _MODES.get(contender.precision)
        return PreparedNetwork(logits, mode, read_frames(self._work, contender.model), self._device)


def network_logits(work: Path, name: str, half: bool, device: str) -> Callable[[torch.Tensor], torch.Tensor]:
    """Return a function that does what ``DeployedGraph.logits`` does, and sends nothing from the host.

    Args:
        work: Folder of models and frames.
        name: Name of the model.
        half: Whether weights and activations are float16 in channels last, else float32.
        device: Device of PyTorch.
    """
    from stdc_core.model.deployed_graph import stored_class_offset
    from stdc_core.model.segmentation import normalize, rescale, upsample
    from stdc_core.model.weights import load_weights

    scale = scale_of(work, name)
    network, classes, provenance = load_weights(weights_of(work, name))
    model = network.eval().to(device)
    offset = torch.tensor(stored_class_offset(provenance) or [0.0] * len(classes), device=device).reshape(1, -1, 1, 1)
    kind = torch.float16 if half else torch.float32
    if half:
        model = model.half().to(memory_format=torch.channels_last)
    black, white = (normalize(torch.full((1, 3, 1, 1), value, device=device)) for value in (0.0, 255.0))
    gain = (white - black) / 255

    def logits(images: torch.Tensor) -> torch.Tensor:
        planes = rescale(images.permute(0, 3, 1, 2).float(), scale).flip(1)
        return upsample(model((planes * gain + black).to(kind)) + offset.to(kind), images.shape[1:3])

    return logits


class PreparedNetwork:
    """A network from image to mask.

    Args:
        logits: Function of :func:`network_logits`.
        mode: Mode of ``torch.compile``; None runs it eager.
        frames: Images of the model.
        device: Device of PyTorch.
    """

    def __init__(
        self, logits: Callable[[torch.Tensor], torch.Tensor], mode: str | None, frames: np.ndarray, device: str
    ):
        def mask(image: torch.Tensor) -> torch.Tensor:
            return logits(image).argmax(dim=1).to(torch.uint8)

        self._run = torch.compile(mask, mode=mode) if mode else mask
        self._frames, self._device = frames, device
        self._image = torch.from_numpy(frames[:1]).to(device)
        self.about: dict[str, Any] = {}
        self._mask(frames[:1])

    def _mask(self, image: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return self._run(torch.from_numpy(image).to(self._device)).cpu().numpy()

    def device_ms(self, runs: int) -> list[float]:
        """See ``Prepared``; by CUDA's events. As for engines, the clock starts on a busy GPU."""
        if self._device == 'cpu':
            return host_times(lambda run: self._mask(self._frames[:1]), runs)
        times = []
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        with torch.inference_mode():
            for _ in range(runs + WARM_UP):
                self._run(self._image)
                start.record()
                self._run(self._image)
                end.record()
                end.synchronize()
                times.append(start.elapsed_time(end))
        return times[WARM_UP:]

    def host_ms(self, runs: int) -> list[float]:
        """See ``Prepared``."""
        return host_times(lambda run: self._mask(self._frames[run % len(self._frames)][None]), runs)

    def masks(self, images: np.ndarray) -> np.ndarray:
        """See ``Prepared``."""
        return np.concatenate([self._mask(image[None]) for image in images])

    def details(self, runs: int) -> dict[str, float]:
        """See ``Prepared``; there are none."""
        return {}

    def close(self) -> None:
        """See ``Prepared``."""
        del self._run, self._image
        if self._device == 'cuda':
            torch.cuda.empty_cache()
