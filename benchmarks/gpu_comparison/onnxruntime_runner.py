# SPDX-License-Identifier: Apache-2.0
"""Run the contenders of ONNX Runtime's CUDA provider, which is the backend ``onnxruntime_cuda``."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from gpu_comparison.plan import Contender
from gpu_comparison.timing import TRIAL_SHAPE, check_trial, host_times, trial_network
from gpu_comparison.workload import read_frames, read_workload_model
from stdc_core.io.text import one_line


def gpu_name() -> str:
    """Return the name of the first GPU as ``nvidia-smi`` gives it."""
    command = ['nvidia-smi', '--query-gpu=name', '--format=csv,noheader']
    try:
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[0].strip()
    except (OSError, subprocess.SubprocessError, IndexError) as error:
        return f'a GPU whose name is not known ({one_line(error, 100)})'


class OnnxRuntimeRunner:
    """Runs deployed graphs with ONNX Runtime.

    Args:
        work: Folder of models and frames.
        cpu: Whether to run on the CPU, in a dry run.
    """

    def __init__(self, work: Path, cpu: bool):
        self._work, self._cpu = work, cpu

    def _session(self, model: bytes) -> Any:
        """Return a session that computes on the GPU. Raises RuntimeError if it would not."""
        import onnxruntime

        wanted = 'CPUExecutionProvider' if self._cpu else 'CUDAExecutionProvider'
        if wanted not in onnxruntime.get_available_providers():
            raise RuntimeError('the installed ONNX Runtime has no CUDA provider; pip install onnxruntime-gpu')
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        session = onnxruntime.InferenceSession(model, options, providers=[wanted], enable_fallback=0)
        if session.get_providers()[0] != wanted:
            raise RuntimeError('the CUDA provider does not start: are CUDA and cuDNN installed?')
        return session

    def probe(self) -> dict[str, str]:
        """Run one convolution."""
        import onnxruntime

        session = self._session(trial_network())
        check_trial(session.run(['logits'], {'planes': np.ones(TRIAL_SHAPE, np.float32)})[0])
        return {'device': 'CPU' if self._cpu else gpu_name(), 'on': f'ONNX Runtime {onnxruntime.__version__}'}

    def prepare(self, contender: Contender) -> PreparedSession:
        """Make a session for the mask alone, as the backend does."""
        from onnx.utils import Extractor

        model = read_workload_model(self._work, contender.model)
        graph: onnx.ModelProto = Extractor(model).extract_model(['image'], ['mask'])
        return PreparedSession(self._session(graph.SerializeToString()), read_frames(self._work, contender.model))


class PreparedSession:
    """A session, and an image and a mask on its device.

    Args:
        session: Session for the mask.
        frames: Images of the model.
    """

    def __init__(self, session: Any, frames: np.ndarray):
        import onnxruntime

        self._session, self._frames = session, frames
        device = 'cuda' if 'CUDA' in session.get_providers()[0] else 'cpu'
        self._binding = session.io_binding()
        image = onnxruntime.OrtValue.ortvalue_from_numpy(frames[:1], device, 0)
        mask = onnxruntime.OrtValue.ortvalue_from_shape_and_type(frames[:1].shape[:3], np.uint8, device, 0)
        self._binding.bind_ortvalue_input('image', image)
        self._binding.bind_ortvalue_output('mask', mask)
        self.about: dict[str, Any] = {}

    def device_ms(self, runs: int) -> list[float]:
        """See ``Prepared``; by the clock of the host, since a run ends when the GPU is done."""
        return host_times(lambda run: self._session.run_with_iobinding(self._binding), runs)

    def _mask(self, image: np.ndarray) -> np.ndarray:
        return self._session.run(['mask'], {'image': image})[0]

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
        del self._binding, self._session
