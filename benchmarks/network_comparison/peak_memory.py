# SPDX-License-Identifier: Apache-2.0
"""Print the peak resident memory in kB of a process that segments: peak_memory.py MODEL THREADS HEIGHT WIDTH.

This is a program of its own because the peak of the benchmark has torch in it. It reads ``/proc/self/status``:
``getrusage`` begins with the peak of the process that starts it.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from stdc_core.inference import Segmenter

model, threads, height, width = sys.argv[1:]
segmenter = Segmenter.load(model, int(threads), backend='onnxruntime')
for _ in range(2):
    segmenter(np.zeros((int(height), int(width), 3), np.uint8))
status = Path('/proc/self/status').read_text().splitlines()
print(next(line.split()[1] for line in status if line.startswith('VmHWM')))
