# SPDX-License-Identifier: Apache-2.0
"""The backend for NVIDIA GPUs, on a device that is the CPU; what needs a GPU is in benchmarks/gpu.py."""

from __future__ import annotations

import copy
import logging
import os
import subprocess
import sys
import time
import weakref
from unittest.mock import MagicMock

import cv2
import numpy as np
import pytest
from conftest import REPOSITORY
from host_device import Bench, HostDevice, HostEngine, HostExecution, needs_compiler

from stdc_core.classes import class_table
from stdc_core.commands.main import main
from stdc_core.data.synthetic import SyntheticDrive
from stdc_core.inference import DEFAULT_MODEL, BackendError, Segmenter
from stdc_core.inference.input_scale import InputScale, scaled_size, set_input_scale
from stdc_core.inference.model_file import read_model
from stdc_core.inference.onnxruntime_backend import OnnxRuntimeBackend
from stdc_core.inference.tensorrt import cuda
from stdc_core.inference.tensorrt import pipeline as gpu_pipeline
from stdc_core.inference.tensorrt.backend import KEPT
from stdc_core.inference.tensorrt.cuda import CudaError, missing_driver
from stdc_core.inference.tensorrt.library import EngineError, logger_of
from stdc_core.inference.tensorrt.precision import choose_precision
from stdc_core.inference.tensorrt.progress import PhaseShare
from stdc_core.pictures.overlay import overlay

pytestmark = needs_compiler

no_driver = pytest.mark.skipif(not missing_driver(), reason='there is an NVIDIA driver')


CLASSES = class_table('camvid')


@pytest.fixture(scope='module')
def model():
    model, _ = read_model(DEFAULT_MODEL)
    set_input_scale(model, 0.5)
    return model


@pytest.fixture(scope='module')
def images() -> np.ndarray:
    drive = SyntheticDrive(seed=3, height=96, width=130, frames=60)
    return np.stack([drive[0].image, drive[30].image, drive[50].image])


@pytest.fixture(scope='module')
def expected(model, images) -> tuple[np.ndarray, np.ndarray]:
    return OnnxRuntimeBackend(model, 1)(images, True)


@pytest.fixture
def bench(model, tmp_path):
    return lambda **settings: Bench(model, tmp_path / 'cache', **settings)


def other_of(model):
    return lambda: OnnxRuntimeBackend(model, 1)


def assert_equal(found, expected, share: float = 0.9999) -> None:
    """Masks are, but for rounding; and so are confidences."""
    assert found[0].shape == expected[0].shape
    assert (found[0] == expected[0]).mean() >= share
    if found[1] is not None:
        assert (np.abs(found[1].astype(int) - expected[1]) <= 1).mean() >= share


def test_images_become_the_masks_that_onnx_runtime_gives(bench, images, expected):
    made = bench()
    for _ in range(2):  # the second time from the graph
        assert_equal(made.backend(images[:1], True), [each[:1] for each in expected])
    mask, confidence = made.backend(images[1:2], False)
    assert confidence is None
    assert_equal((mask, None), [each[1:2] for each in expected])
    assert made.backend.name == 'tensorrt fp32'
    assert [options.shape for options in made.built] == [(1, 3, 48, 65)]
    assert made.device.calls.count('capture') == 2  # with and without confidence
    assert made.device.calls.count('launch graph') == 3


@pytest.mark.parametrize('kernels', [True, False])
def test_of_larger_images_than_those_of_the_training_the_network_sees_no_more(bench, model, images, kernels):
    scale = InputScale(0.5, 96 * 130)
    large = cv2.resize(images[0], (180, 140))[None]
    on_cpu = copy.deepcopy(model)
    set_input_scale(on_cpu, scale)
    made = bench(scale=scale, kernels=kernels)
    for image in (images[:1], large):
        assert_equal(made.backend(image, True), OnnxRuntimeBackend(on_cpu, 1)(image, True))
    seen = [scaled_size(size, scale.of(size)) for size in ((96, 130), (140, 180))]
    assert seen == [(48, 65), (49, 63)]
    shapes = [(1, 3, *size) for size in seen] if kernels else [(1, 96, 130, 3), (1, 140, 180, 3)]
    assert [options.shape for options in made.built] == shapes


def test_images_are_uploaded_piece_by_piece(bench, images, expected, monkeypatch):
    monkeypatch.setattr(gpu_pipeline, 'PIECE', 10_000)  # not a divisor of their size
    made = bench(max_batch=2)
    for first in (0, 1):
        assert_equal(made.backend(images[first : first + 2], True), [each[first : first + 2] for each in expected])
    assert made.device.calls.count('upload') == 1 + 2 * -(-images[:2].nbytes // 10_000)


def test_in_half_precision(bench, images, expected):
    mask, confidence = bench(precision='fp16', typed=True).backend(images[:1], True)
    assert (mask == expected[0][:1]).mean() > 0.995
    assert np.abs(confidence.astype(int) - expected[1][:1]).max() < 16


def test_half_precision_changes_less_than_one_label_in_a_thousand_of_a_real_drive(bench, model, camvid):
    made, exact = bench(precision='fp16', typed=True).backend, OnnxRuntimeBackend(model)
    for path in sorted((camvid / 'val' / 'images').iterdir())[::40]:
        image = cv2.imread(str(path))[None]
        mask, confidence = made(image, True)
        expected = exact(image, True)
        assert (mask == expected[0]).mean() >= 0.999
        assert np.abs(confidence.astype(int) - expected[1]).mean() < 0.5


def test_several_images_are_one_batch(bench, images, expected):
    made = bench(max_batch=2)
    assert_equal(made.backend(images, True), expected)
    assert_equal(made.backend(images[:1], True), [each[:1] for each in expected])
    assert [options.shape for options in made.built] == [(2, 3, 48, 65)]


def assert_drawn(found, image, mask, opacity: float) -> None:
    assert np.abs(found.astype(int) - overlay(image, mask, CLASSES, opacity)).max() <= 1


def test_overlays_are_drawn_of_the_images_of_the_last_call(bench, images):
    made = bench(max_batch=2)
    for batch in (images[:2], images[1:], images[:1]):
        mask, _ = made.backend(batch, True)
        for index in reversed(range(len(batch))):
            for opacity in (0.5, 0.25):
                found = made.backend.overlay(index, CLASSES.blending_bgr(opacity))
                assert_drawn(found, batch[index], mask[index], opacity)
    made.backend(images, True)  # in two batches, of which the GPU has but the last
    assert made.backend.overlay(0, CLASSES.blending_bgr(0.5)) is None


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


def test_the_segmenter_asks_for_an_overlay_by_its_opacity(bench, model, images):
    segmenter = Segmenter(read_model(DEFAULT_MODEL)[1], bench().backend)
    mask = segmenter(images[0]).mask
    assert_drawn(segmenter.overlay(0, 0.25), images[0], mask, 0.25)
    with pytest.raises(ValueError, match='^opacity: expected 0 to 1, found 1.5$'):
        segmenter.overlay(0, 1.5)
    on_cpu = Segmenter(segmenter.info, OnnxRuntimeBackend(model, 1))
    on_cpu(images[0])
    assert on_cpu.overlay(0, 0.25) is None


def test_without_a_compiler_for_kernels_the_engine_does_all(bench, images, expected, monkeypatch, caplog):
    monkeypatch.setattr(HostDevice, 'compile', lambda *_: (_ for _ in ()).throw(RuntimeError('no NVRTC')))
    made = bench()
    assert_equal(made.backend(images[:1], True), [each[:1] for each in expected])
    assert_equal(made.backend(images[:1], False), [each[:1] for each in expected])
    assert made.backend.overlay(0, CLASSES.blending_bgr(0.5)) is None
    assert made.built[0].in_one
    assert made.built[0].shape == (1, 96, 130, 3)
    assert 'no NVRTC' in caplog.text


def test_where_no_graph_can_be_captured_every_step_is_begun_alone(bench, images, expected):
    made = bench()
    made.fail_next('capture', 2)
    assert_equal(made.backend(images[:1], True), [each[:1] for each in expected])
    assert 'launch graph' not in made.device.calls


def test_an_engine_that_cannot_be_captured_runs_without_a_graph_and_says_so_once(
    bench, images, expected, caplog, monkeypatch
):
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(HostExecution, 'capturable', False)
    made = bench()
    for _ in range(2):
        assert_equal(made.backend(images[:1], True), [each[:1] for each in expected])
    assert 'capture' not in made.device.calls
    assert caplog.messages.count('running without a CUDA graph: the engine cannot be captured') == 1


def test_kernels_that_the_library_compiled_are_kept_after_the_first_run(bench, images):
    made = bench()
    made.backend(images[:1], False)
    calls = made.device.calls
    assert calls.index('enqueue') < calls.index('keep kernels')
    assert calls.count('keep kernels') == 1


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


def test_memory_of_shapes_that_are_gone_is_given_back(bench):
    made = bench()
    for side in range(40, 40 + 8 * (KEPT + 3), 8):
        made.backend(np.zeros((1, side, side, 3), np.uint8), False)
    pieces = len(made.device.allocated) / KEPT
    assert pieces == 6  # image and mask, each here and there, planes, logits
    assert made.device.graphs == KEPT
    made.backend(np.zeros((1, 40, 40, 3), np.uint8), False)
    assert len(made.device.allocated) == 6 * KEPT


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


def test_what_was_prepared_is_not_built_when_the_image_comes(bench, images):
    made = bench()
    told: list[str] = []
    made.backend.prepare((96, 130), told.append)
    assert told == [f'building the engine for 130x96 images: {percent} %' for percent in (10, 90)]
    made.backend(images[:1], False)
    assert len(made.built) == 1
    made.failing = [EngineError('no memory')]
    with pytest.raises(BackendError, match='^backend tensorrt: no memory$'):
        made.backend.prepare((64, 64), told.append)


@pytest.mark.parametrize(
    ('precision', 'quantized', 'capability', 'chosen'),
    [
        ('auto', False, (9, 0), 'fp16'),
        ('auto', False, (6, 1), 'fp32'),
        ('auto', False, (5, 0), 'fp32'),
        ('auto', True, (9, 0), 'int8'),
        ('fp32', False, (9, 0), 'fp32'),
        ('fp16', False, (6, 1), 'fp16'),
        ('int8', True, (7, 5), 'int8'),
        ('auto', True, (6, 1), 'int8'),
    ],
)
def test_precision(precision, quantized, capability, chosen):
    assert choose_precision(precision, quantized, capability) == chosen


@pytest.mark.parametrize(
    ('precision', 'quantized', 'capability', 'said'),
    [
        ('int8', False, (9, 0), 'stdc quantize'),
        ('fp16', True, (9, 0), 'expected int8 or auto'),
        ('fp16', False, (5, 0), 'compute capability 5.0 has none'),
        ('auto', True, (6, 0), 'precision int8: a GPU of compute capability 6.0 has none'),
        ('int8', True, (6, 2), 'precision int8: a GPU of compute capability 6.2 has none'),
    ],
)
def test_a_precision_that_cannot_be_is_an_error(precision, quantized, capability, said):
    with pytest.raises(BackendError, match=said):
        choose_precision(precision, quantized, capability)


@no_driver
def test_without_a_gpu_auto_says_why_and_a_name_is_an_error():
    segmenter = Segmenter.load()
    assert segmenter.backend == 'onnxruntime'
    assert segmenter.reason == missing_driver()
    with pytest.raises(BackendError, match='^backend tensorrt: no NVIDIA driver is installed$|no usable GPU'):
        Segmenter.load(backend='tensorrt')
    with pytest.raises(BackendError, match="precision 'int4', expected one of auto, fp32"):
        Segmenter.load(precision='int4')


@no_driver
def test_an_engine_cannot_be_built_without_a_gpu(capsys):
    assert main(['engine', '--size', '64x96']) == 2
    assert capsys.readouterr().err == f'stdc engine: backend tensorrt: {missing_driver()}\n'
    assert main(['engine', '--size', '64x96', '--batch', '0']) == 2
    assert capsys.readouterr().err == 'stdc engine: --batch: expected 1 or more, found 0\n'


def test_progress_of_nested_phases_never_falls():
    share = PhaseShare()
    share.start('build', None, 4)
    found = [share.complete('build', 0)]
    share.start('tactics', 'build', 10)
    found += [share.complete('tactics', step) for step in range(9)]
    found += [share.finish('tactics'), share.complete('build', 1), share.complete('build', 2), share.finish('build')]
    assert found == sorted(found)
    assert found[0] == 25
    assert found[5] == 25 + 12
    assert found[-1] == 100


def test_numpy_and_onnx_are_enough_for_engines():
    """As on a machine that has a GPU and little else."""
    others = ['cv2', 'onnxruntime', 'torch', 'yaml']
    code = f'import sys; sys.modules.update(dict.fromkeys({others})); import stdc_core.inference.tensorrt.backend'
    subprocess.run([sys.executable, '-c', code], check=True, env={**os.environ, 'PYTHONPATH': str(REPOSITORY)})


def test_every_name_of_tensorrt_that_is_used_is_there():
    trt = pytest.importorskip('tensorrt', reason='tensorrt is not installed')
    weak = hasattr(trt.BuilderFlag, 'FP16')
    assert weak or hasattr(trt.NetworkDefinitionCreationFlag, 'STRONGLY_TYPED') or int(trt.__version__[:2]) > 10
    assert not weak or hasattr(trt.BuilderFlag, 'INT8')
    assert hasattr(trt, 'PreviewFeature')
    for of, names in {
        trt.Builder: 'create_network create_builder_config create_optimization_profile build_serialized_network',
        trt.IBuilderConfig: 'set_flag clear_flag add_optimization_profile set_preview_feature set_tactic_sources',
        trt.OnnxParser: 'parse num_errors get_error',
        trt.INetworkDefinition: 'get_input get_output num_outputs',
        trt.ITensor: 'name dtype allowed_formats',
        trt.ICudaEngine: 'create_execution_context get_tensor_shape',
        trt.IExecutionContext: 'active_optimization_profile set_optimization_profile_async set_input_shape '
        'set_tensor_address execute_async_v3',
        trt.Runtime: 'deserialize_cuda_engine',
        trt.TensorFormat: 'LINEAR',
    }.items():
        assert not [name for name in names.split() if not hasattr(of, name)]
    logger = logger_of(trt)
    logger.log(trt.ILogger.Severity.ERROR, 'first\n')
    logger.log(trt.ILogger.Severity.INFO, 'second')
    assert logger.said() == 'first'
    assert logger.said() == 'it does not say why'
    assert logger is logger_of(trt)


def until(condition) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)
