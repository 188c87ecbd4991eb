"""What the segmenter computes with."""

from __future__ import annotations

from importlib.util import find_spec

import numpy as np
import pytest

from stdc_core.data.synthetic import SyntheticDrive
from stdc_core.inference import BackendError, Segmenter

needs_openvino = pytest.mark.skipif(find_spec('openvino') is None, reason='openvino is not installed')


@pytest.fixture(scope='module')
def image() -> np.ndarray:
    return SyntheticDrive(frames=1)[0].image


def test_auto_is_onnx_runtime(image):
    segmenter = Segmenter.load(input_scale=1.0)
    assert segmenter.backend == 'onnxruntime'
    named = Segmenter.load(input_scale=1.0, backend='onnxruntime')
    np.testing.assert_array_equal(segmenter(image).mask, named(image).mask)


def test_a_backend_that_nobody_knows_is_an_error():
    with pytest.raises(BackendError, match="^backend 'torch', expected one of auto, onnxruntime, openvino"):
        Segmenter.load(backend='torch')


@pytest.mark.skipif(find_spec('openvino') is not None, reason='openvino is installed')
def test_a_backend_that_is_not_installed_says_how_to_install_it():
    with pytest.raises(BackendError, match='backend openvino: .*pip install openvino'):
        Segmenter.load(backend='openvino')


@needs_openvino
def test_openvino_computes_the_same_network(image):
    reference, segmenter = (Segmenter.load(input_scale=1.0, backend=name) for name in ('onnxruntime', 'openvino'))
    assert segmenter.backend.startswith('openvino')
    # Of every size, alone and as a batch, and more sizes than are kept.
    for size in ((360, 480), (96, 128), (97, 131), (64, 64), (120, 200), (360, 480)):
        small = np.ascontiguousarray(image[: size[0], : size[1]])
        expected, found = (s(small, confidence=True) for s in (reference, segmenter))
        # bfloat16 has 8 bits: of close decisions some fall otherwise.
        assert (found.mask == expected.mask).mean() > 0.98, size
        differences = np.abs(found.confidence.astype(int) - expected.confidence)
        assert np.median(differences) <= 3, size
    np.testing.assert_array_equal(segmenter(image).mask, found.mask)
    batch = segmenter(np.stack([image, image[:, ::-1]]))
    assert batch.mask.shape == (2, *image.shape[:2])
    assert (batch.mask[0] == found.mask).mean() > 0.999


@needs_openvino
def test_results_of_openvino_stay_when_the_next_come(image):
    segmenter = Segmenter.load(input_scale=1.0, backend='openvino')
    first = segmenter(image).mask
    copy = first.copy()
    segmenter(255 - image)
    np.testing.assert_array_equal(first, copy)
