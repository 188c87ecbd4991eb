# SPDX-License-Identifier: Apache-2.0
"""Compare TensorRT, TensorRT for RTX, ONNX Runtime and PyTorch on an NVIDIA GPU: PYTHONPATH=. python benchmarks/gpu.py.

Every library is tried first, and within a minute it is said which of them run here. The run goes on with those. They
take turns, so that all of them meet the same conditions. What matters most comes first, for where time is short. In the
end come tables, and whether each target was met. Whether masks are right, ``pytest -m gpu`` tells in detail.

``--make-only --work FOLDER`` makes models and frames ahead, on any machine; ``--work FOLDER`` takes them up.
``--tensorrt-python`` names the interpreter that has TensorRT, if that is another one. ``--dry-run`` goes through all
steps on a CPU with small images.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import shlex
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

from gpu_comparison.first_mask import time_first_mask
from gpu_comparison.measuring import Comparison
from gpu_comparison.plan import ONNXRUNTIME, RTX, TENSORRT, dry_groups, groups
from gpu_comparison.process import WorkerError, WorkerProcess, environment
from gpu_comparison.report import report
from gpu_comparison.workload import FRAMES, SIZE, make_ready

#: Size and number of frames, and points of accuracy that int8 may lose, of a dry run.
DRY_SIZE, DRY_FRAMES, DRY_LOSS = (64, 128), 2, 100.0


def main(arguments: list[str] | None = None) -> int:
    """Run the benchmark. Returns 0; 1 if something failed; 2 if no library runs here."""
    options = parse(arguments)
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        work = options.work or Path(folder, 'work')
        made = make(work, options)
        if options.make_only:
            return 0
        numbers = surroundings() | made | {'runs': options.runs, 'dry': options.dry_run}
        comparison = compare(options, work, Path(folder), numbers, started)
    if not comparison.numbers['libraries']:
        print('nothing to measure: no library runs here', file=sys.stderr)
        return 2
    report(comparison.numbers)
    return 1 if comparison.numbers['failed'] else 0


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Return the options."""
    parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
    parser.add_argument('--runs', type=int, default=300, help='timed runs of each contender (default: 300)')
    parser.add_argument('--minutes', type=float, default=10, help='time limit of the whole run (default: 10)')
    parser.add_argument('--tensorrt-python', default=sys.executable, help='interpreter that has TensorRT')
    parser.add_argument('--tactics', default='', help='TacticSources of TensorRT, with commas (default: all)')
    parser.add_argument('--out', type=Path, help='JSON file for all numbers, written after each group')
    parser.add_argument('--work', type=Path, help='folder of models and frames, made if they are not there')
    parser.add_argument('--data', type=Path, help='dataset whose val images the masks are compared on')
    parser.add_argument('--make-only', action='store_true', help='make models and frames, and end')
    parser.add_argument('--dry-run', action='store_true', help='small images on the CPU, to try this program')
    options = parser.parse_args(arguments)
    if options.runs < 1:
        parser.error(f'--runs: expected 1 or more, found {options.runs}')
    return options


def make(work: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Make models and frames, or find them. Returns what the masks are compared on, and the size of the frames."""
    size, frames, loss = (DRY_SIZE, DRY_FRAMES, DRY_LOSS) if options.dry_run else (SIZE, FRAMES, None)
    return make_ready(work, options.data, size, frames, loss) | {'frame_size': list(size)}


def compare(
    options: argparse.Namespace, work: Path, folder: Path, numbers: dict[str, Any], started: float
) -> Comparison:
    """Try the libraries, and measure with those that run until the time is over."""

    def start(library: str) -> WorkerProcess:
        python = options.tensorrt_python if library == TENSORRT else sys.executable
        command = [python, '-m', 'gpu_comparison.worker', library, '--work', str(work)]
        command += ['--tactics', options.tactics] if library == TENSORRT else []
        command += ['--cpu'] if options.dry_run else []
        cache = environment(STDC_CACHE_DIR=str(folder / 'cache'))
        return WorkerProcess(command, folder / f'{library}.log', cache)

    def keep(found: dict[str, Any]) -> None:
        if options.out:
            options.out.write_text(json.dumps(found, indent=1, allow_nan=False))

    comparison = Comparison(start, numbers, started + 60 * options.minutes, options.runs, keep)
    try:
        comparison.probe()
        comparison.numbers['first_mask'] = first_masks(options, work, folder / 'cache', comparison)
        if comparison.numbers['libraries']:
            for group in dry_groups() if options.dry_run else groups():
                comparison.measure(group)
    finally:
        comparison.close()
    return comparison


def first_masks(options: argparse.Namespace, work: Path, cache: Path, comparison: Comparison) -> dict[str, Any]:
    """Time the first mask with an empty cache and with the one that this leaves, for the libraries that run."""
    found: dict[str, Any] = {}
    for library in (RTX, TENSORRT, ONNXRUNTIME):
        if library not in comparison.numbers['libraries'] or options.dry_run:
            continue
        python = options.tensorrt_python if library == TENSORRT else sys.executable
        take = partial(time_first_mask, library, work, cache, python)
        for state in ('empty', 'full'):
            try:
                found.setdefault(library, {})[state] = take(comparison.left())
                print(f'{library}: first mask with {state} cache after {found[library][state]:.1f} s', flush=True)
            except WorkerError as error:
                comparison.numbers['failed'][f'first mask of {library}, {state} cache'] = str(error)
                print(f'{library}: first mask with {state} cache: {error}', flush=True)
                break
    return found


def surroundings() -> dict[str, Any]:
    """Return date and command; and driver and CUDA version, where they can be asked for."""
    found = {'date': str(date.today()), 'command': shlex.join(sys.argv)}
    with suppress(OSError, subprocess.SubprocessError, IndexError):
        command = ['nvidia-smi', '--query-gpu=driver_version', '--format=csv,noheader']
        found['driver'] = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[0]
    with suppress(OSError):
        number = ctypes.c_int()
        ctypes.CDLL('libcuda.so.1').cuDriverGetVersion(ctypes.byref(number))
        found['cuda'] = f'{number.value // 1000}.{number.value % 1000 // 10}'
    return found


if __name__ == '__main__':
    sys.exit(main())
