# SPDX-License-Identifier: Apache-2.0
"""Test the confusion matrix, and masks as pictures."""

import numpy as np
import pytest

from stdc_core.classes import CAMVID, CITYSCAPES, ClassTable
from stdc_core.evaluation.metrics import ConfusionMatrix
from stdc_core.pictures.overlay import colorize, overlay


def test_iou_of_a_worked_example():
    confusion = ConfusionMatrix(3)
    confusion.update(np.array([[0, 0, 1, 1]]), np.array([[0, 1, 1, 255]]))
    assert confusion.iou()[:2] == pytest.approx([1 / 2, 1 / 2])
    assert np.isnan(confusion.iou()[2])
    assert confusion.miou() == pytest.approx(0.5)
    assert confusion.pixel_accuracy() == pytest.approx(2 / 3)


def test_counts_add_up_over_images():
    rng = np.random.default_rng(0)
    predictions, labels = rng.integers(0, 11, (2, 5, 40, 60), np.uint8)
    whole, parts = ConfusionMatrix(11), ConfusionMatrix(11)
    whole.update(predictions, labels)
    for prediction, label in zip(predictions, labels, strict=True):
        parts.update(prediction, label)
    assert np.array_equal(whole.counts, parts.counts)
    assert whole.counts.sum() == labels.size


def test_predicted_id_outside_the_table_is_wrong():
    confusion = ConfusionMatrix(2)
    confusion.update(np.array([255, 0]), np.array([0, 0]))
    assert confusion.iou()[0] == pytest.approx(0.5)
    assert confusion.pixel_accuracy() == pytest.approx(0.5)


def test_empty_confusion_matrix_gives_nan():
    confusion = ConfusionMatrix(2)
    confusion.update(np.array([0]), np.array([255]))
    assert np.isnan(confusion.miou())
    assert np.isnan(confusion.pixel_accuracy())


def test_shapes_must_match():
    with pytest.raises(ValueError, match=r'expected the shape of the label, \(3,\), found \(2,\)'):
        ConfusionMatrix(2).update(np.zeros(2, int), np.zeros(3, int))


def test_class_tables():
    assert (len(CAMVID), len(CITYSCAPES)) == (11, 19)
    assert ClassTable.from_json(CITYSCAPES.to_json()) == CITYSCAPES
    with pytest.raises(ValueError, match='2 class names, but 1 colours'):
        ClassTable(('a', 'b'), ((0, 0, 0),))
    with pytest.raises(ValueError, match="class 'a': expected a colour"):
        ClassTable(('a',), ((0, 0, 256),))


def test_colours_of_a_mask():
    mask = np.array([[3, 255]], np.uint8)
    assert colorize(mask, CAMVID).tolist() == [[[128, 64, 128], [0, 0, 0]]]
    mask = np.array([[1]], np.uint8)
    assert colorize(mask, CAMVID).tolist() == [[[0, 0, 128]]]  # building is red, and images are BGR


def test_overlay_blends_and_leaves_ignored_pixels_alone():
    image = np.full((1, 2, 3), 100, np.uint8)
    mask = np.array([[3, 255]], np.uint8)
    assert overlay(image, mask, CAMVID, opacity=0).tolist() == image.tolist()
    assert overlay(image, mask, CAMVID, opacity=1).tolist() == [[[128, 64, 128], [100, 100, 100]]]
    assert overlay(image, mask, CAMVID, opacity=0.5)[0, 0].tolist() == [114, 82, 114]
