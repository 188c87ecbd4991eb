# SPDX-License-Identifier: Apache-2.0
"""What a GPU computes is what the CPU does, on a machine with an NVIDIA GPU; how fast it is, benchmarks/gpu.py says.

``pytest -m gpu`` runs these alone, and without it they see no GPU. Engines are built: it takes minutes.
"""

from __future__ import annotations

from itertools import chain

import numpy as np
import pytest
from host_device import HostDevice, needs_compiler

from stdc_core.classes import IGNORE, class_table
from stdc_core.data.synthetic import SyntheticDrive
from stdc_core.inference import Segmenter
from stdc_core.inference.tensorrt import cuda, kernels
from stdc_core.inference.tensorrt import make_backend as tensorrt_backend
from stdc_core.inference.tensorrt.cuda import CudaDevice, CudaError, missing_driver
from stdc_core.inference.tensorrt.kernels import Kernels, Normalization
from stdc_core.pictures.overlay import overlay


def missing() -> str:
    """Why there is nothing to test here; empty: there is."""
    reason = missing_driver()
    if not reason:
        try:
            import tensorrt  # noqa: F401

            cuda._bindings()
        except ImportError as error:
            reason = str(error)
    return reason


REASON = missing()
pytestmark = [pytest.mark.gpu, pytest.mark.skipif(bool(REASON), reason=REASON)]

SIZE = (360, 480)

#: Threads of a block, as without host_device.py, which makes it smaller for every test.
BLOCK, HOST_BLOCK = 128, kernels.BLOCK


@pytest.fixture(autouse=True)
def block(monkeypatch):
    monkeypatch.setattr(kernels, 'BLOCK', BLOCK)


@pytest.fixture(scope='module')
def device() -> CudaDevice:
    return CudaDevice()


def test_the_device_says_what_it_is(device):
    assert device.name
    assert device.capability >= (3, 0)
    free, total = device.free_memory()
    assert 0 < free <= total


def test_what_is_uploaded_comes_back_and_a_graph_does_it_again(device):
    here, there, back = device.pin(1000), device.allocate(1000), device.pin(1000)

    def work():
        device.upload(there, here[:400])
        device.upload(there, here[400:], 400)
        device.download(back, there)

    here[:] = np.random.default_rng(0).integers(0, 256, 1000)
    work()
    device.synchronize()
    np.testing.assert_array_equal(back, here)
    back[:] = 0
    graph = device.capture(work)
    device.synchronize()
    assert not back.any()  # recorded, not done
    for value in (3, 250):
        here[:] = value
        graph.launch()
        device.synchronize()
        assert (back == value).all()
    assert min(device.time(graph.launch, 3)) > 0
    graph.close()
    device.free(here, there, back)


def test_too_little_memory_is_an_error_after_which_the_gpu_goes_on(device):
    with pytest.raises(CudaError) as error:
        device.allocate(1 << 50)
    assert error.value.out_of_memory
    assert not error.value.lasting
    device.synchronize()
    device.free(device.allocate(16))


def computed(device, work, inputs: list[np.ndarray], outputs: list[np.ndarray]) -> list[np.ndarray]:
    """Outputs after ``work``, which is called with the addresses on the device of all these arrays."""
    arrays = [*inputs, *outputs]
    pieces = [(device.pin(array.nbytes), device.allocate(array.nbytes)) for array in arrays]
    for array, (host, memory) in zip(arrays, pieces, strict=True):
        host[:] = array.reshape(-1).view(np.uint8)
        device.upload(memory, host)
    work(*(memory.pointer for _, memory in pieces))
    for host, memory in pieces[len(inputs) :]:
        device.download(host, memory)
    device.synchronize()
    found = [
        host.view(array.dtype).reshape(array.shape).copy()
        for array, (host, _) in zip(outputs, pieces[len(inputs) :], strict=True)
    ]
    device.free(*chain(*pieces))
    return found


@pytest.fixture(params=['float', 'half'])
def dtype(request) -> np.dtype:
    return np.dtype({'float': np.float32, 'half': np.float16}[request.param])


@pytest.fixture
def both(device, dtype, monkeypatch):
    """What the same kernels make of the same arrays on GPU and CPU."""

    def run(work, inputs, outputs):
        found = []
        for each, block in ((device, BLOCK), (HostDevice(), HOST_BLOCK)):
            monkeypatch.setattr(kernels, 'BLOCK', block)
            made = Kernels(each, half=dtype == np.float16)
            found.append(computed(each, lambda *addresses: work(made, *addresses), inputs, outputs))  # noqa: B023
        return zip(*found, strict=True)

    return run


@needs_compiler
@pytest.mark.parametrize('network_size', [(30, 41), (61, 83), (92, 140), (1, 1)])
def test_planes_are_those_of_the_cpu(both, dtype, network_size):
    images = np.random.default_rng(0).integers(0, 256, (2, 61, 83, 3), np.uint8)
    normalization = Normalization((2, 1, 0), (0.0171, 0.0175, 0.0174), (-2.1, -2.0, -1.8))
    planes = np.full((2, 3, *network_size), np.nan, dtype)

    def work(run, images, planes):
        run.prepare(images, planes, 2, (61, 83), network_size, normalization)

    ((found, expected),) = both(work, [images], [planes])
    assert np.isfinite(found).all()
    # The GPU rounds once where it multiplies and adds; then half may fall on the next number.
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 if dtype == np.float32 else 2e-3)


@needs_compiler
@pytest.mark.parametrize('confident', [True, False])
@pytest.mark.parametrize(
    ('classes', 'logits_size', 'size'),
    [(11, (45, 60), (360, 480)), (19, (5, 7), (40, 56)), (255, (2, 300), (3, 600)), (5, (30, 40), (7, 11))],
)
def test_masks_and_confidences_are_those_of_the_cpu(both, dtype, classes, logits_size, size, confident):
    logits = np.random.default_rng(0).normal(0, 4, (2, classes, *logits_size)).astype(dtype)
    poison = np.full((2, *size), 254, np.uint8)

    def work(run, logits, mask, confidence):
        run.classify(logits, mask, confidence if confident else 0, 2, classes, logits_size, size)

    (mask, expected_mask), (confidence, expected) = both(work, [logits], [poison, poison])
    assert (mask == expected_mask).mean() >= 0.999  # two classes may be equal but for rounding
    assert np.abs(confidence.astype(int) - expected).max() <= 1
    assert confident or (confidence == 254).all()


@needs_compiler
@pytest.mark.parametrize('opacity', [0.0, 0.3, 1.0])
def test_colours_are_those_of_the_cpu(both, opacity):
    image = np.random.default_rng(0).integers(0, 256, (61, 67, 3), np.uint8)
    mask = np.random.default_rng(1).integers(0, 12, (61, 67), np.uint8)
    mask[mask == 11] = IGNORE
    blending = class_table('camvid').blending_bgr(opacity)

    def work(run, image, mask, blending, drawn):
        run.draw(image, mask, blending, drawn, 61 * 67)

    ((found, expected),) = both(work, [image, mask, blending], [np.full_like(image, 77)])
    assert np.abs(found.astype(int) - expected).max() <= 1


@pytest.fixture(scope='module')
def frames() -> np.ndarray:
    drive = SyntheticDrive(seed=3, height=SIZE[0], width=SIZE[1], frames=160)
    return np.stack([drive[index].image for index in (0, 50, 100, 150)])


@pytest.fixture(scope='module', autouse=True)
def cache(tmp_path_factory):
    """Engines are kept from test to test, and no longer."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('STDC_CACHE_DIR', str(tmp_path_factory.mktemp('engines')))
        yield


def load(precision: str, max_batch: int = 1, backend: str = 'tensorrt') -> Segmenter:
    return Segmenter.load(input_scale=1.0, backend=backend, precision=precision, max_batch=max_batch)


@pytest.fixture(scope='module')
def expected(frames):
    return load('auto', backend='onnxruntime')(frames, confidence=True)


def assert_alike(found, expected, indices) -> None:
    """As in benchmarks/gpu.py."""
    assert found.mask.shape == expected.mask[indices].shape
    assert (found.mask == expected.mask[indices]).mean() >= 0.999
    assert np.abs(found.confidence.astype(float) - expected.confidence[indices]).mean() <= 1


@pytest.mark.parametrize('precision', ['fp32', 'fp16'])
def test_masks_are_those_of_onnx_runtime(frames, expected, precision):
    segmenter = load(precision)
    assert segmenter.backend == f'tensorrt {precision}'
    for index, frame in enumerate(frames):
        assert_alike(segmenter(frame, confidence=True), expected, index)
    alone = segmenter(frames[0])
    assert alone.confidence is None
    assert (alone.mask == expected.mask[0]).mean() >= 0.999


def test_other_sizes_come_and_go(frames):
    segmenter, on_cpu = load('fp32'), load('auto', backend='onnxruntime')
    for height, width in ((96, 128), (97, 131), (96, 128)):
        image = np.ascontiguousarray(frames[1, :height, :width])
        assert (segmenter(image).mask == on_cpu(image).mask).mean() >= 0.999


def test_batches_are_the_masks_of_their_images(frames, expected):
    segmenter = load('fp32', max_batch=3)
    if segmenter.max_batch == 1:
        pytest.skip('this TensorRT takes no batches')
    for indices in (slice(0, 3), slice(1, 3), slice(2, 3), slice(0, 4)):
        assert_alike(segmenter(frames[indices], confidence=True), expected, indices)


def test_overlays_are_those_of_the_cpu(frames):
    segmenter = load('fp32')
    for frame in frames[:2]:
        mask = segmenter(frame).mask
        drawn = segmenter.overlay(0, 0.5)
        assert drawn is not None, 'NVRTC is not installed'
        assert np.abs(drawn.astype(int) - overlay(frame, mask, segmenter.info.classes, 0.5)).max() <= 1


def test_the_second_time_the_engine_is_read(frames, expected, monkeypatch):
    load('fp32').prepare(SIZE, lambda text: None)
    monkeypatch.setattr(tensorrt_backend, 'build', lambda *_: pytest.fail('built again'))
    told: list[str] = []
    segmenter = load('fp32')
    segmenter.prepare(SIZE, told.append)
    assert told == []
    assert_alike(segmenter(frames[0], confidence=True), expected, 0)
