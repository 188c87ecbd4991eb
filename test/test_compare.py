# SPDX-License-Identifier: Apache-2.0
"""The comparison of networks: its tables and its plot."""

from __future__ import annotations

import json
import sys
from importlib.util import module_from_spec, spec_from_file_location

import cv2
import numpy as np
import pytest
from conftest import REPOSITORY

from stdc_core.model.networks import outline
from stdc_core.model.size import multiply_adds, parameters
from stdc_core.pictures.scatter import Point, place_names, scatter, ticks


@pytest.fixture(scope='module')
def compare():
    spec = spec_from_file_location('compare', REPOSITORY / 'benchmarks' / 'compare.py')
    module = module_from_spec(spec)
    sys.modules['compare'] = module
    spec.loader.exec_module(module)
    return module


def cells(text: str, network: str) -> list[list[str]]:
    """Return the cells of the rows of a network in the tables."""
    rows = [[cell.strip() for cell in line.strip('|').split('|')] for line in text.splitlines()]
    return [row for row in rows if row[0] == network]


@pytest.mark.parametrize(
    ('values', 'expected'),
    [
        ([1.2, 4.9], [1, 2, 3, 4, 5]),
        ([67.8, 77.0], [66, 68, 70, 72, 74, 76, 78]),
        ([0, 1000], [0, 200, 400, 600, 800, 1000]),
        ([3.0], [2, 2.5, 3, 3.5, 4]),
    ],
)
def test_ticks_are_round_and_enclose_the_values(values, expected):
    assert ticks(values) == pytest.approx(expected)


def test_points_lie_where_their_values_are():
    red, blue = (0, 0, 255), (255, 0, 0)
    points = [Point(0, 0, '', red), Point(10, 5, '', blue)]
    picture = scatter(points, 'title', 'x', 'y')
    centres = [np.argwhere((picture == color).all(axis=2)).mean(axis=0) for color in (red, blue)]
    assert centres[0][0] > centres[1][0] and centres[0][1] < centres[1][1]


def test_names_of_close_points_do_not_overlap():
    (first, same, far) = place_names(['STDC1', 'EfficientNet-B0', 'STDC2'], [(100, 50), (101, 50), (400, 50)])
    assert first == (111, 54) and far == (411, 54)
    assert same[1] - first[1] >= 12


def test_a_quick_comparison(compare, tmp_path):
    """One network beside STDC2: sizes are those of the networks, and ratios those of the times."""
    compare.main(['--quick', '--only', 'bisenetv2', '--threads', '1', '--out', str(tmp_path)])
    text, found = (tmp_path / 'compare.md').read_text(), json.loads((tmp_path / 'compare.json').read_text())
    reference, other = cells(text, 'STDC2'), cells(text, 'BiSeNetV2')
    assert [row[1] for row in other] == ['64 x 128']
    network = outline('bisenetv2', 19)
    assert other[0][3] == f'{parameters(network) / 1e6:.2f}'
    assert other[0][4] == f'{multiply_adds(network, 64, 128) / 1e9:.2f}'
    # Of a process of its own: torch, which this process has loaded, takes more.
    assert 20 < float(other[0][5]) < 400
    assert reference[0][8] == '1.00'
    times = {(row['network'], row['scale']): row['seconds'] for row in found['networks']}
    assert other[0][8] == f'{times["stdc2", 0.5] / times["bisenetv2", 0.5]:.2f}'
    assert other[0][10:] == ['156.0', '0.83', '73.4']
    assert reference[1][1:5] == ['12.47', '12.5', '1437', '1446']
    assert cv2.imread(str(tmp_path / 'compare.png')).shape == (720, 1100, 3)


def test_measured_accuracy_replaces_the_published_one_in_the_plot(compare):
    rows = [
        compare.Row('stdc2', 0.5, 'onnxruntime', 1, 1, None, 0.1),
        compare.Row('stdc2', 0.75, 'onnxruntime', 1, 1, None, 0.2),
        compare.Row('timm/resnet18', 0.5, 'onnxruntime', 1, 1, None, 0.05),
    ]
    assert [(p.x, p.y, p.name) for p in compare.plotted(rows)] == [(10, 74.2, 'STDC2 0.5'), (5, 77.0, 'STDC2 0.75')]
    for row, scores in zip(rows, ([50.0, 52.0], [50.0, 52.0], [48.0, 48.5]), strict=True):
        row.miou = scores
    assert [(p.x, p.y, p.name) for p in compare.plotted(rows)] == [(10, 51.0, 'STDC2'), (20, 48.25, 'ResNet-18')]
    text = compare.tables(rows, [], 'here', (1024, 2048))
    assert cells(text, 'STDC2')[0][9] == '51.0 (50.0 to 52.0)'
    # Published numbers are beside the row that they belong to, and nowhere else.
    assert [row[10] for row in cells(text, 'STDC2')] == ['188.6', '97.0']
    assert cells(text, 'ResNet-18')[0][10:] == ['', '', '']
