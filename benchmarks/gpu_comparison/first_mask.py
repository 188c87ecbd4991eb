# SPDX-License-Identifier: Apache-2.0
"""Time the first mask of a new process: from its start to the mask of one image."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from gpu_comparison.plan import SEG50
from gpu_comparison.process import WorkerError, environment, reason_of
from gpu_comparison.workload import read_frames, scale_of, weights_of


def time_first_mask(library: str, work: Path, cache: Path, python: str, seconds: float) -> float:
    """Return the seconds from the start of a process until it has the mask of an image.

    Args:
        library: Name of the backend.
        work: Folder of models and frames.
        cache: Folder for engines and kernels, empty or not.
        python: Interpreter.
        seconds: Time limit.

    Raises:
        WorkerError: The process failed, or time ran out.
    """
    command = [python, '-m', 'gpu_comparison.first_mask', library, str(work)]
    start = time.monotonic()
    try:
        done = subprocess.run(
            command,
            env=environment(STDC_CACHE_DIR=str(cache)),
            capture_output=True,
            text=True,
            errors='replace',
            timeout=max(0.0, seconds),
        )
    except subprocess.TimeoutExpired:
        raise WorkerError('no time was left') from None
    except OSError as error:
        raise WorkerError(str(error)) from error
    if done.returncode:
        raise WorkerError(reason_of(done.returncode, done.stderr))
    return float(done.stdout.split()[-1]) - start


def main() -> None:
    """Segment one image with the segmenter, and print the time on the monotonic clock, which all processes share."""
    from stdc_core.inference import Segmenter

    library, work = sys.argv[1], Path(sys.argv[2])
    image = read_frames(work, SEG50)[0]
    segmenter = Segmenter.load(weights_of(work, SEG50), 0, scale_of(work, SEG50), library)
    mask = segmenter(image).mask
    found = time.monotonic()
    if mask.shape != image.shape[:2] or mask.dtype != np.uint8 or not segmenter.backend.startswith(library):
        raise SystemExit(f'{segmenter.backend}: a mask of {mask.dtype} {mask.shape}')
    print(found)


if __name__ == '__main__':
    main()
