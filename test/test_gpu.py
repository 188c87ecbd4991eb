# SPDX-License-Identifier: Apache-2.0
"""Compare what a GPU computes with what the CPU computes: memory, graphs and kernels.

``pytest -m gpu`` runs these tests alone; without it, tests see no GPU. Engines are in test_gpu_engines.py, and
``benchmarks/gpu.py`` measures the speed.
"""

from __future__ import annotations

from itertools import chain

import numpy as np
import pytest
from host_device import HostDevice, needs_compiler

from stdc_core.classes import IGNORE, class_table
from stdc_core.inference.tensorrt import cuda, kernels
from stdc_core.inference.tensorrt.cuda import CudaDevice, CudaError, missing_driver
from stdc_core.inference.tensorrt.kernels import Kernels, Normalization


def missing() -> str:
    """Return why there is nothing to test here, or an empty text."""
    reason = missing_driver()
    if not reason:
        try:
            cuda._bindings()
        except ImportError as error:
            reason = str(error)
    return reason


REASON = missing()
pytestmark = [pytest.mark.gpu, pytest.mark.skipif(bool(REASON), reason=REASON)]

#: Number of threads of a block, as without host_device.py, which makes it smaller for every test.
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
