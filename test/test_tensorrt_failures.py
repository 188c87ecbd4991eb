# SPDX-License-Identifier: Apache-2.0
"""Fail and wait on a device that is the CPU: other backends that answer, GPU errors, memory that runs out."""

from __future__ import annotations

import time
import weakref
from unittest.mock import MagicMock

import numpy as np
import pytest
from host_device import (
    Bench,
    HostEngine,
    assert_drawn,
    assert_equal,
    half_scale_model,
    needs_compiler,
    three_images,
    until,
)

from stdc_core.classes import class_table
from stdc_core.inference import BackendError
from stdc_core.inference.onnxruntime_backend import OnnxRuntimeBackend
from stdc_core.inference.tensorrt import cuda
from stdc_core.inference.tensorrt.cuda import CudaError
from stdc_core.inference.tensorrt.library import EngineError

pytestmark = needs_compiler

CLASSES = class_table('camvid')


@pytest.fixture(scope='module')
def model():
    return half_scale_model()


@pytest.fixture(scope='module')
def images() -> np.ndarray:
    return three_images()


@pytest.fixture(scope='module')
def expected(model, images) -> tuple[np.ndarray, np.ndarray]:
    return OnnxRuntimeBackend(model, 1)(images, True)


@pytest.fixture
def bench(model, tmp_path):
    return lambda **settings: Bench(model, tmp_path / 'cache', **settings)


def other_of(model):
    return lambda: OnnxRuntimeBackend(model, 1)


def test_an_image_that_the_other_backend_segmented_has_no_overlay_on_the_gpu(bench, model, images):
    made = bench(other=other_of(model), give_up=True)
    made.backend(images[:1], False)
    made.fail_next('launch graph', 700)
    made.backend(images[1:2], False)
    assert made.backend.overlay(0, CLASSES.blending_bgr(0.5)) is None


@pytest.mark.parametrize('call', ['allocate', 'launch', 'synchronize'])
def test_an_overlay_that_cannot_be_drawn_costs_nothing_else(bench, images, expected, caplog, call):
    made = bench()
    made.backend(images[:1], True)
    made.fail_next(call, 2)
    for _ in range(2):
        assert made.backend.overlay(0, CLASSES.blending_bgr(0.5)) is None
    assert caplog.messages == [f'drawing overlays on the CPU: {call}: cudaErrorMemoryAllocation (2)']
    assert_equal(made.backend(images[:1], True), [each[:1] for each in expected])
    assert made.device.calls.count('capture') == 1


def test_a_second_gpu_backend_answers_until_the_engine_is_built_and_then_gives_its_memory_back(
    bench, model, images, expected, tmp_path
):
    """As TensorRT for RTX does while TensorRT builds."""
    stand_in = Bench(model, tmp_path / 'rtx', library='tensorrt_rtx')
    made = bench(other=lambda: stand_in.backend, wait=False)
    made.building.clear()
    assert_equal(made.backend(images[:1], True), [each[:1] for each in expected])
    assert stand_in.device.calls.count('enqueue') > 0
    assert_drawn(made.backend.overlay(0, CLASSES.blending_bgr(0.5)), images[0], expected[0][0], 0.5)
    assert stand_in.device.allocated
    made.building.set()
    until(lambda: not made.backend.activity)
    assert_equal(made.backend(images[:1], True), [each[:1] for each in expected])
    assert made.device.calls.count('enqueue') > 0
    assert not stand_in.device.allocated
    assert stand_in.device.graphs == 0
    # For the next new size it answers again.
    made.building.clear()
    mask, _ = made.backend(images[:1, :64], False)
    assert mask.shape == (1, 64, 130)
    assert stand_in.device.allocated
    made.building.set()
    until(lambda: not made.backend.activity)


def test_two_threads_share_one_fallback(bench, model, images):
    made_others: list[OnnxRuntimeBackend] = []

    def other():
        time.sleep(0.2)  # so that both threads ask before it is made
        made_others.append(OnnxRuntimeBackend(model, 1))
        return made_others[-1]

    made = bench(other=other, wait=False, give_up=True)
    made.failing = [EngineError('no kernel for Resize')]
    made.backend(images[:1], False)  # while the builder's thread fails and asks for it, too
    until(lambda: made.backend.name == 'onnxruntime')
    assert len(made_others) == 1


def test_while_the_engine_is_built_the_other_backend_answers(bench, model, images, expected):
    made = bench(other=other_of(model), wait=False)
    made.building.clear()
    np.testing.assert_array_equal(made.backend(images[:1], True)[0], expected[0][:1])
    until(lambda: '10 %' in made.backend.activity)
    assert made.backend.activity == 'building the engine for 130x96 images: 10 %'
    np.testing.assert_array_equal(made.backend(images[:1], False)[0], expected[0][:1])
    assert 'enqueue' not in made.device.calls
    made.building.set()
    until(lambda: not made.backend.activity)
    assert_equal(made.backend(images[:1], True), [each[:1] for each in expected])
    assert 'enqueue' in made.device.calls
    assert len(made.built) == 1


def test_an_engine_that_cannot_be_built_beside_is_the_end_where_the_backend_was_named(bench, model, images):
    made = bench(other=other_of(model), wait=False)
    made.failing = [EngineError('no kernel for Resize')]
    made.backend(images[:1], False)
    until(lambda: made.backend.failure)
    with pytest.raises(BackendError, match='^backend tensorrt: no kernel for Resize$'):
        made.backend(images[:1], False)


def test_an_engine_that_cannot_be_built_leaves_it_to_the_other_one_where_that_may(bench, model, images, expected):
    made = bench(other=other_of(model), give_up=True)
    made.failing = [EngineError('no kernel for Resize')] * 2
    for _ in range(2):
        np.testing.assert_array_equal(made.backend(images[:1], True)[0], expected[0][:1])
    assert made.backend.name == 'onnxruntime'
    assert made.backend.reason == 'TensorRT failed: no kernel for Resize'
    assert made.backend.failure is None


@pytest.mark.parametrize('call', ['launch graph', 'synchronize', 'allocate', 'launch'])
def test_after_an_error_everything_is_made_anew_and_the_image_segmented(bench, images, expected, call):
    made = bench()
    made.backend(images[:1], True)
    made.fail_next(call, 2)
    # Memory is allocated, and kernels are begun one by one, for what was not asked for before.
    confidence = call in ('launch graph', 'synchronize')
    mask, _ = made.backend(images[1:2], confidence)
    assert_equal((mask, None), [each[1:2] for each in expected])
    assert_equal(made.backend(images[2:], True), [each[2:] for each in expected])
    assert len(made.built) == 1  # the engine comes from the cache


@pytest.mark.parametrize('call', ['launch graph', 'enqueue'])
def test_before_anything_is_made_anew_nothing_of_tensorrt_is_left(bench, images, monkeypatch, call):
    made = bench()
    made.backend(images[:1], True)
    alive: list[weakref.ref] = []
    left: list[int] = []  # when one is made
    execution = HostEngine.execution

    def watched(*arguments):
        left.append(sum(each() is not None for each in alive))
        run = execution(*arguments)
        alive.append(weakref.ref(run))
        return run

    monkeypatch.setattr(HostEngine, 'execution', watched)
    made.backend(images[:1, :64], False)
    made.backend(images[:1, :64], False)
    assert sum(each() is not None for each in alive) == 1
    made.fail_next(call, 2)
    made.backend(images[:1, :64] if call == 'launch graph' else images[:1, :72], False)
    assert left == ([0, 0] if call == 'launch graph' else [0, 1, 0])


@pytest.mark.parametrize('failing', ['', 'cudaStreamEndCapture', 'cudaGraphInstantiateWithFlags', 'work'])
def test_a_captured_graph_is_given_back_whatever_fails(monkeypatch, failing):
    """With bindings that only note what they are called for."""
    calls: list[str] = []

    class Runtime(MagicMock):
        def __getattr__(self, name):
            if not name.startswith('cuda') or name in (
                'cudaDeviceAttr',
                'cudaStreamCaptureMode',
                'cudaStreamNonBlocking',
            ):
                return super().__getattr__(name)
            return lambda *_: (calls.append(name), (2 if name == failing else 0, MagicMock()))[1]

    def work():
        if failing == 'work':
            raise EngineError('no')

    monkeypatch.setattr(cuda, '_bindings', lambda: (Runtime(), MagicMock(), MagicMock()))
    device = cuda.CudaDevice()
    if failing:
        with pytest.raises((CudaError, EngineError)):
            device.capture(work)
    else:
        graph = device.capture(work)
        graph.launch()
        graph.close()
    assert calls.count('cudaGraphDestroy') == (0 if failing == 'cudaStreamEndCapture' else 1)
    assert calls.count('cudaGraphExecDestroy') == (0 if failing else 1)


def test_errors_that_do_not_end_are_the_end(bench, images):
    made = bench()
    made.backend(images[:1], False)
    made.fail_next('launch graph', *[2] * 9)
    with pytest.raises(BackendError, match=r'^backend tensorrt: launch graph: cudaErrorMemoryAllocation \(2\)$'):
        made.backend(images[:1], False)
    assert made.backend.failure is not None
    assert made.device.calls.count('launch graph') == 3


def test_an_error_that_costs_the_process_its_gpu_is_the_end_at_once(bench, images):
    made = bench()
    made.backend(images[:1], False)
    made.fail_next('synchronize', 700)
    with pytest.raises(BackendError, match=r'^backend tensorrt: synchronize: cudaErrorIllegalAddress \(700\)$'):
        made.backend(images[:1], False)
    assert made.backend.failure is not None


@pytest.mark.parametrize('codes', [[2] * 9, [700]])
def test_errors_that_do_not_end_leave_it_to_the_other_one_where_that_may(bench, model, images, expected, codes):
    made = bench(other=other_of(model), give_up=True)
    made.backend(images[:1], False)
    made.fail_next('launch graph', *codes)
    np.testing.assert_array_equal(made.backend(images[:1], True)[0], expected[0][:1])
    assert made.backend.name == 'onnxruntime'


def test_errors_now_and_then_are_recovered_from_each_time(bench, images, expected):
    made = bench()
    for _ in range(3):
        made.fail_next('synchronize', 2)
        assert_equal(made.backend(images[:1], True), [each[:1] for each in expected])
