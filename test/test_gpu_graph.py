# SPDX-License-Identifier: Apache-2.0
"""Compare kernels and the graphs that TensorRT gets with the deployed graph."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from host_device import HostDevice, needs_compiler

from stdc_core.classes import IGNORE, class_table
from stdc_core.data.synthetic import SyntheticDrive
from stdc_core.inference import DEFAULT_MODEL
from stdc_core.inference.input_scale import set_input_scale
from stdc_core.inference.model_file import read_model
from stdc_core.inference.onnx_graph.network_split import LOGITS, PLANES, split, to_half, whole
from stdc_core.inference.tensorrt.cuda import CudaError, compile_kernels
from stdc_core.inference.tensorrt.kernels import SHARED, SOURCE, Kernels, spans
from stdc_core.pictures.overlay import overlay


def session(model: onnx.ModelProto) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=['CPUExecutionProvider'])


def model_at(scale: float) -> onnx.ModelProto:
    model, _ = read_model(DEFAULT_MODEL)
    set_input_scale(model, scale)
    return model


@pytest.fixture(scope='module')
def images() -> np.ndarray:
    """Return two images of an odd size."""
    drive = SyntheticDrive(seed=3, height=150, width=203, frames=60)
    return np.stack([drive[0].image, drive[50].image])


@pytest.fixture(scope='module', params=[False, True], ids=['float', 'half'])
def kernels(request) -> tuple[Kernels, HostDevice, np.dtype]:
    device = HostDevice()
    return Kernels(device, half=request.param), device, np.dtype(np.float16 if request.param else np.float32)


def prepared(kernels, parts, images: np.ndarray) -> np.ndarray:
    run, _, dtype = kernels
    height, width = parts.network_size(images.shape[1:3])
    planes = np.full((len(images), 3, height, width), np.nan, dtype)
    run.prepare(
        images.ctypes.data, planes.ctypes.data, len(images), images.shape[1:3], (height, width), parts.normalization
    )
    return planes


def classified(kernels, logits: np.ndarray, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    run, _, dtype = kernels
    logits = np.ascontiguousarray(logits.astype(dtype))
    count, classes, *logits_size = logits.shape
    mask, confidence = (np.full((count, *size), 77, np.uint8) for _ in range(2))
    run.classify(logits.ctypes.data, mask.ctypes.data, confidence.ctypes.data, count, classes, tuple(logits_size), size)
    return mask, confidence


def upsampled(logits: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Upsample bilinearly with aligned corners, in float64."""
    for axis, to in ((2, size[0]), (3, size[1])):
        count = logits.shape[axis]
        position = np.arange(to) * (count - 1) / (to - 1) if to > 1 else np.zeros(1)
        low = np.minimum(position.astype(int), count - 1)
        share = np.expand_dims(position - low, list(range(1, 4 - axis)))
        first, second = (np.take(logits, np.minimum(low + k, count - 1), axis) for k in (0, 1))
        logits = first + share * (second - first)
    return logits


@needs_compiler
@pytest.mark.parametrize('scale', [0.5, 1.0, 1.5])
def test_parts_together_equal_the_deployed_graph(kernels, images, scale):
    model = model_at(scale)
    parts = split(model)
    planes = prepared(kernels, parts, images)
    logits = session(parts.network).run([LOGITS], {PLANES: planes.astype(np.float32)})[0]
    mask, confidence = classified(kernels, logits, images.shape[1:3])
    expected = session(model).run(['mask', 'confidence'], {'image': images})
    exact = kernels[2] == np.float32
    assert parts.classes == 11
    full = upsampled(logits.astype(np.float64), images.shape[1:3])
    chosen, wanted = (np.take_along_axis(full, each[:, None].astype(int), 1) for each in (mask, expected[0]))
    # Labels may differ only where two classes are equal up to rounding, which is rare.
    np.testing.assert_allclose(chosen, wanted, rtol=0, atol=1e-4 if exact else 0.02)
    assert (mask == expected[0]).mean() >= (0.9999 if exact else 0.999)
    difference = np.abs(confidence.astype(int) - expected[1])
    assert difference.max() <= (1 if exact else 16)


@needs_compiler
@pytest.mark.parametrize(
    ('classes', 'logits_size', 'size'),
    [
        (19, (5, 7), (40, 56)),
        (3, (1, 1), (9, 5)),
        (2, (4, 1), (1, 1)),
        (4, (6, 9), (1, 70)),
        (255, (2, 300), (3, 600)),
        (11, (8, 400), (8, 1300)),
        (5, (30, 40), (7, 11)),
    ],
)
def test_upsampling_and_argmax_at_every_pixel(kernels, classes, logits_size, size):
    logits = np.random.default_rng(0).normal(0, 4, (2, classes, *logits_size)).astype(kernels[2])
    mask, confidence = classified(kernels, logits, size)
    full = upsampled(logits.astype(np.float64), size)
    chosen = np.take_along_axis(full, mask[:, None].astype(int), 1)[:, 0]
    # Where two classes are equal up to rounding, both are right.
    np.testing.assert_allclose(chosen, full.max(axis=1), atol=1e-4)
    probability = 255 / np.exp(full - full.max(axis=1, keepdims=True)).sum(axis=1)
    np.testing.assert_allclose(confidence, probability, atol=0.51)


@needs_compiler
@pytest.mark.parametrize('opacity', [0.0, 0.3, 1.0])
def test_overlay_of_every_class(kernels, opacity):
    run, _, _ = kernels
    image = np.random.default_rng(0).integers(0, 256, (61, 67, 3), np.uint8)
    mask = np.random.default_rng(1).integers(0, 12, (61, 67), np.uint8)
    mask[mask == 11] = IGNORE
    classes = class_table('camvid')
    blending = classes.blending_bgr(opacity)
    drawn = np.full((*mask.shape, 4), 77, np.uint8)  # an extra channel that must not be written
    run.draw(image.ctypes.data, mask.ctypes.data, blending.ctypes.data, drawn.ctypes.data, mask.size)
    found, beyond = np.split(drawn.reshape(-1), [image.size])
    colors = (1 - opacity) * image + opacity * classes.palette_bgr()[mask].astype(float)
    expected = np.where((mask == IGNORE)[..., None], image, colors)
    np.testing.assert_allclose(found.reshape(image.shape), expected, atol=0.501)
    assert np.abs(found.reshape(image.shape).astype(int) - overlay(image, mask, classes, opacity)).max() <= 1
    assert (beyond == 77).all()


@needs_compiler
def test_columns_of_a_block():
    for classes, width, to_width in ((19, 128, 1024), (255, 4096, 4096), (11, 720, 31), (150, 7, 9000), (2, 1, 1)):
        span, columns = spans(classes, width, to_width)
        assert 4 * classes * columns <= SHARED
        begins = np.arange(0, to_width, span)
        ends = np.minimum(begins + span, to_width) - 1
        position = np.float32(width - 1) / np.float32(max(to_width - 1, 1))
        first, last = (np.float32(begins) * position).astype(int), (np.float32(ends) * position).astype(int) + 1
        assert (np.minimum(last, width - 1) - first + 1).max() <= columns


def test_single_graph_equals_the_deployed_graph(images):
    model = model_at(0.5)
    in_one = whole(model)
    types = {node.op_type for node in in_one.graph.node if 'image' in node.input}
    assert types == {'Cast'}
    # Its batch norms are folded, so sums are rounded differently.
    for name, tolerance in (('mask', 0), ('confidence', 1)):
        expected, found = (session(each).run([name], {'image': images})[0] for each in (model, in_one))
        assert (np.abs(found.astype(int) - expected) <= tolerance).mean() > 0.9999


def test_network_in_half_precision(images):
    parts = split(model_at(0.5))
    planes = np.random.default_rng(0).normal(size=(1, 3, 70, 101)).astype(np.float32)
    expected = session(parts.network).run([LOGITS], {PLANES: planes})[0]
    half = to_half(parts.network)
    onnx.checker.check_model(half, full_check=True)
    found = session(half).run([LOGITS], {PLANES: planes.astype(np.float16)})[0]
    assert found.dtype == np.float16
    assert np.abs(found.astype(np.float32) - expected).max() < 0.05 * np.abs(expected).max()


def test_kernels_compile_for_every_gpu():
    nvrtc = pytest.importorskip('cuda.bindings.nvrtc', reason='cuda-bindings is not installed')
    try:
        nvrtc.nvrtcVersion()
    except RuntimeError as error:
        pytest.skip(f'NVRTC is not installed: {error}')
    for capability in ((7, 5), (8, 0), (8, 6), (8, 7), (8, 9), (9, 0), (10, 0), (12, 0)):
        for macros in ((), ('HALF',)):
            assert compile_kernels(nvrtc, SOURCE.read_text(), capability, macros).startswith(b'\x7fELF')
    assert b'.target' in compile_kernels(nvrtc, SOURCE.read_text(), (99, 0))
    assert_every_program_is_freed(nvrtc)


def assert_every_program_is_freed(nvrtc) -> None:
    """Check that NVRTC programs are freed whether they compile or not."""

    class Counting:
        programs = 0

        def __getattr__(self, name):
            Counting.programs += {'nvrtcCreateProgram': 1, 'nvrtcDestroyProgram': -1}.get(name, 0)
            return getattr(nvrtc, name)

    compile_kernels(Counting(), SOURCE.read_text(), (9, 0))
    with pytest.raises(CudaError, match='gibberish'):
        compile_kernels(Counting(), 'gibberish', (9, 0))
    assert Counting.programs == 0


def test_graph_without_a_network_is_an_error():
    model = onnx.helper.make_model(onnx.helper.make_graph([], 'empty', [], []))
    with pytest.raises(ValueError, match='expected a model file from `stdc export`'):
        split(model)
