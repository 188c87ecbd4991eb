# SPDX-License-Identifier: Apache-2.0
"""Time work by the clock of the host, and make the small network that shows whether a library runs."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

#: Number of runs before those that are timed, in each turn.
WARM_UP = 5

#: Shape of the input of the trial network, and what it gives inside of the border for ones: 3 channels of 3 x 3 ones.
TRIAL_SHAPE, TRIAL_SUM = (1, 3, 16, 32), 27.0


def host_times(work: Callable[[int], object], runs: int) -> list[float]:
    """Return the milliseconds on the host of each of several runs of work, which is told its number."""
    times = []
    for run in range(runs + WARM_UP):
        start = time.perf_counter()
        work(run)
        times.append(1e3 * (time.perf_counter() - start))
    return times[WARM_UP:]


def trial_network() -> bytes:
    """Return an ONNX file with one convolution of ones, from ``planes`` to ``logits``."""
    from onnx import TensorProto, helper, numpy_helper

    values = [
        helper.make_tensor_value_info('planes', TensorProto.FLOAT, TRIAL_SHAPE),
        helper.make_tensor_value_info('logits', TensorProto.FLOAT, (1, 8, *TRIAL_SHAPE[2:])),
    ]
    node = helper.make_node('Conv', ['planes', 'weights'], ['logits'], kernel_shape=[3, 3], pads=[1, 1, 1, 1])
    weights = numpy_helper.from_array(np.ones((8, 3, 3, 3), np.float32), 'weights')
    graph = helper.make_graph([node], 'trial', values[:1], values[1:], [weights])
    return helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid('', 17)]).SerializeToString()


def check_trial(logits: np.ndarray) -> None:
    """Raise RuntimeError unless the trial network computed the right numbers for an input of ones."""
    inside = np.asarray(logits, np.float32).reshape(1, 8, *TRIAL_SHAPE[2:])[:, :, 1:-1, 1:-1]
    if not np.allclose(inside, TRIAL_SUM):
        raise RuntimeError(f'a convolution of ones gave {inside.min()} to {inside.max()}, expected {TRIAL_SUM}')
