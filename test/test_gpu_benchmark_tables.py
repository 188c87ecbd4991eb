# SPDX-License-Identifier: Apache-2.0
"""The GPU benchmark: targets and tables of what was measured."""

from __future__ import annotations

import pytest
from gpu_comparison.plan import (
    AUTOTUNED,
    COMPILED,
    EAGER_16,
    EAGER_32,
    INT8,
    NETWORKS,
    ONNXRUNTIME,
    PYTORCH,
    RTX,
    SEG50,
    SHIPPED,
    SMALL,
    TENSORRT,
    Contender,
)
from gpu_comparison.report import report
from gpu_comparison.targets import targets


def measured() -> dict:
    """Return numbers of an H200 on which RTX meets every target but one, and of TensorRT one number."""
    rows = []

    def row(group, library, precision, model, kernels=True, **numbers):
        found = {'group': group, **Contender(library, precision, model, kernels)._asdict(), **numbers}
        rows.append(found)
        return found

    for index, name in enumerate(NETWORKS):
        row(name, RTX, 'fp16', name, device_ms=0.2 + 0.1 * index, host_ms=0.9)
        for way, time_ms in ((EAGER_32, 8.0), (EAGER_16, 2.0), (COMPILED, 1.1)):
            row(name, PYTORCH, way, name, device_ms=time_ms, host_ms=9.0)
    row(SMALL, TENSORRT, 'fp16', SMALL, device_ms=0.3)
    row('masks of the shipped model', RTX, 'fp16', SHIPPED, equal=99.95, miou=80.0, miou_expected=80.1)
    row('masks of the shipped model', RTX, 'int8', INT8, equal=98.0, miou=79.8, miou_expected=80.1)
    row(f'variants of {SEG50}', RTX, 'fp16', SEG50, device_ms=0.3)
    row(f'variants of {SEG50}', RTX, 'fp16', SEG50, False, device_ms=0.6)
    libraries = {RTX: {'device': 'NVIDIA H200', 'on': 'TensorRT for RTX 1.7.1'}}
    origin = {'date': '2026-11-29', 'command': 'gpu.py', 'driver': '580.65', 'runs': 300, 'dry': False}
    return {
        **origin,
        'rows': rows,
        'libraries': libraries,
        'data': 'camvid',
        'images': 32,
        'size': [360, 480],
        'frame_size': [1024, 2048],
        'expected_by': 'ONNX Runtime 1',
        'first_mask': {RTX: {'empty': 7.0, 'full': 2.0}},
        'missing': {ONNXRUNTIME: 'no CUDA provider'},
        'impossible': {'b': 'not possible with TensorRT 8.5'},
        'failed': {},
    }


def values(numbers, library=RTX) -> list[float | None]:
    return [each.value if each.value is None else pytest.approx(each.value) for each in targets(numbers, library)]


def test_the_targets():
    numbers = measured()
    # The slowest of the paper's networks takes 0.6 ms here.
    assert values(numbers) == [0.2, 0.9, 8 / 0.6, 1.1 / 0.6, 99.95, 7, 2, 0.3, 2]
    assert [each.verdict for each in targets(numbers, RTX)] == ['met'] * 3 + ['not met'] + ['met'] * 5
    assert values(numbers, TENSORRT) == [0.3, *[None] * 8]
    assert [each.verdict for each in targets(numbers, TENSORRT)] == ['accepted', *['not measured'] * 8]


def test_targets_of_which_something_is_missing_are_not_measured():
    numbers = measured()
    assert values({**numbers, 'data': None})[4] is None  # rendered frames are not real ones
    without = [row for row in numbers['rows'] if row['precision'] != COMPILED]
    assert values({**numbers, 'rows': without})[2:4] == [pytest.approx(8 / 0.6), None]
    without = [row for row in numbers['rows'] if row['model'] != 'stdc2-seg75']
    assert values({**numbers, 'rows': without})[2:4] == [None, None]
    assert values({**numbers, 'rows': [], 'first_mask': {}}) == [None] * 9


def test_max_autotune_counts_as_the_best_of_pytorch_where_it_was_measured():
    numbers = measured()
    tuned = {'group': 'x', **Contender(PYTORCH, AUTOTUNED, SEG50)._asdict(), 'device_ms': 0.3}
    numbers['rows'].append(tuned)
    assert values(numbers)[3] == 1


def test_the_tables(capsys):
    report(measured())
    told = capsys.readouterr().out
    assert '2026-11-29: gpu.py\ndriver 580.65; TensorRT for RTX 1.7.1 on NVIDIA H200\n' in told
    assert 'masks of 32 val images of camvid\nof 360 x 480 compared with ONNX Runtime 1\n' in told
    assert f'{SMALL} (the paper on a GTX 1080 Ti: 3.99 ms)\n' in told
    assert '| what computes | device ms | host to host ms | x eager float32 | x best of PyTorch |' in told
    assert '| tensorrt_rtx fp16 | 0.200 | 0.900 | 40.0 | 5.5 |' in told
    assert '| tensorrt_rtx fp16 | 99.950 | 80.00 | 80.10 |\n| int8, tensorrt_rtx int8 | 98.000 |' in told
    assert '| tensorrt_rtx fp16, all in the engine | 0.600 |' in told
    assert '| tensorrt_rtx | 7.0 | 2.0 |' in told
    assert (
        f'| {SMALL}, fp16, image and mask on the device, ms | at most 0.2 (0.35) | 0.300 accepted | 0.200 met |' in told
    )
    assert 'onnxruntime_cuda: does not run here: no CUDA provider\nb: not possible with TensorRT 8.5\n' in told


def test_what_failed_is_told_in_the_end(capsys):
    report({**measured(), 'failed': {'a contender': 'no memory'}})
    assert capsys.readouterr().out.endswith('a contender: failed: no memory\n')
