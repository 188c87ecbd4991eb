# SPDX-License-Identifier: Apache-2.0
"""Test the choice of the backend, and OpenVINO against ONNX Runtime."""

from __future__ import annotations

from importlib.util import find_spec

import numpy as np
import pytest
from conftest import in_own_process

from stdc_core.data.synthetic import SyntheticDrive
from stdc_core.inference import BackendError, Segmentation, Segmenter

needs_openvino = pytest.mark.skipif(find_spec('openvino') is None, reason='openvino is not installed')


@pytest.fixture(scope='module')
def image() -> np.ndarray:
    return SyntheticDrive(frames=1)[0].image


def test_auto_takes_the_backend_that_the_environment_names(image, monkeypatch):
    segmenter = Segmenter.load(input_scale=1.0)
    assert (segmenter.backend, segmenter.reason) == ('onnxruntime', 'STDC_BACKEND=onnxruntime')
    named = Segmenter.load(input_scale=1.0, backend='onnxruntime')
    np.testing.assert_array_equal(segmenter(image).mask, named(image).mask)
    monkeypatch.setenv('STDC_BACKEND', 'openvion')
    with pytest.raises(
        BackendError, match="^environment variable STDC_BACKEND: backend 'openvion', expected one of auto"
    ):
        Segmenter.load()
    assert Segmenter.load(backend='onnxruntime').reason == ''


def test_unknown_backend_is_an_error():
    with pytest.raises(BackendError, match="^backend 'torch', expected one of auto, onnxruntime, onnxruntime_cuda, op"):
        Segmenter.load(backend='torch')


@pytest.mark.skipif(find_spec('openvino') is not None, reason='openvino is installed')
def test_missing_backend_says_how_to_install_it():
    with pytest.raises(BackendError, match='backend openvino: .*pip install openvino'):
        Segmenter.load(backend='openvino')


def segment(backend: str, images: list[np.ndarray]) -> tuple[str, list[Segmentation]]:
    """Return the name of the backend, and masks and confidences of the shipped model."""
    segmenter = Segmenter.load(input_scale=1.0, backend=backend)
    return segmenter.backend, [segmenter(image, confidence=True) for image in images]


@needs_openvino
def test_openvino_gives_the_same_masks(image):
    # Several sizes, alone and as a batch, and more sizes than the backend keeps.
    sizes = ((360, 480), (96, 128), (97, 131), (64, 64), (120, 200), (360, 480))
    images = [np.ascontiguousarray(image[:height, :width]) for height, width in sizes]
    images.append(np.stack([image, image[:, ::-1]]))
    _, expected = segment('onnxruntime', images)
    name, found = in_own_process(segment, 'openvino', images)
    assert name.startswith('openvino')
    for one, other in zip(found, expected, strict=True):
        assert one.mask.shape == other.mask.shape
        # bfloat16 has 8 bits of precision, so some close decisions differ.
        assert (one.mask == other.mask).mean() > 0.98, one.mask.shape
        differences = np.abs(one.confidence.astype(int) - other.confidence)
        assert np.median(differences) <= 3, one.mask.shape
    # Later results have not overwritten earlier ones.
    np.testing.assert_array_equal(found[0].mask, found[-2].mask)
    assert (found[0].mask == found[-1].mask[0]).mean() > 0.999
