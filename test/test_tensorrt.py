# SPDX-License-Identifier: Apache-2.0
"""Run the GPU backend on a device that is the CPU: masks, overlays, precision, graphs and memory."""

from __future__ import annotations

import copy
import logging

import cv2
import numpy as np
import pytest
from host_device import (
    Bench,
    HostDevice,
    HostExecution,
    assert_drawn,
    assert_equal,
    half_scale_model,
    needs_compiler,
    three_images,
)

from stdc_core.classes import class_table
from stdc_core.inference import DEFAULT_MODEL, BackendError, Segmenter
from stdc_core.inference.input_scale import InputScale, scaled_size, set_input_scale
from stdc_core.inference.model_file import read_model
from stdc_core.inference.onnxruntime_backend import OnnxRuntimeBackend
from stdc_core.inference.tensorrt import pipeline as gpu_pipeline
from stdc_core.inference.tensorrt.backend import KEPT
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


def test_memory_of_shapes_that_are_gone_is_given_back(bench):
    made = bench()
    for side in range(40, 40 + 8 * (KEPT + 3), 8):
        made.backend(np.zeros((1, side, side, 3), np.uint8), False)
    pieces = len(made.device.allocated) / KEPT
    assert pieces == 6  # image and mask, each here and there, planes, logits
    assert made.device.graphs == KEPT
    made.backend(np.zeros((1, 40, 40, 3), np.uint8), False)
    assert len(made.device.allocated) == 6 * KEPT


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
