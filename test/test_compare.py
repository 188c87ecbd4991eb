# SPDX-License-Identifier: Apache-2.0
"""The comparison of networks: its tables and its plot."""

from __future__ import annotations

import json
import sys

import cv2
from conftest import REPOSITORY

from stdc_core.model.networks import outline
from stdc_core.model.size import multiply_adds, parameters

sys.path.append(str(REPOSITORY / 'benchmarks'))

import compare
from network_comparison.measuring import Row
from network_comparison.report import network_table, plot_points


def cells(text: str, network: str) -> list[list[str]]:
    """Return the cells of the rows of a network in the tables."""
    rows = [[cell.strip() for cell in line.strip('|').split('|')] for line in text.splitlines()]
    return [row for row in rows if row[0] == network]


def test_a_quick_comparison(tmp_path):
    """One network beside STDC2: sizes are those of the networks, and ratios those of the times."""
    compare.main(['--quick', '--only', 'bisenetv2', '--threads', '1', '--out', str(tmp_path)])
    text, found = (tmp_path / 'compare.md').read_text(), json.loads((tmp_path / 'compare.json').read_text())
    reference, other = cells(text, 'STDC2'), cells(text, 'BiSeNetV2')
    assert [row[1] for row in other] == ['64 x 128']
    network = outline('bisenetv2', 19)
    assert other[0][3] == f'{parameters(network) / 1e6:.2f}'
    assert other[0][4] == f'{multiply_adds(network, 64, 128) / 1e9:.2f}'
    # This is the memory of a process of its own. That of this process has torch in it and is larger.
    assert 20 < float(other[0][5]) < 400
    assert reference[0][8] == '1.00'
    times = {(row['network'], row['scale']): row['seconds'] for row in found['networks']}
    assert other[0][8] == f'{times["stdc2", 0.5] / times["bisenetv2", 0.5]:.2f}'
    assert other[0][10:] == ['156.0', '0.83', '73.4']
    assert reference[1][1:5] == ['12.47', '12.5', '1437', '1446']
    assert cv2.imread(str(tmp_path / 'compare.png')).shape == (720, 1100, 3)


def test_measured_accuracy_replaces_the_published_one_in_the_plot():
    rows = [
        Row('stdc2', 0.5, 'onnxruntime', 1, 1, None, 0.1),
        Row('stdc2', 0.75, 'onnxruntime', 1, 1, None, 0.2),
        Row('timm/resnet18', 0.5, 'onnxruntime', 1, 1, None, 0.05),
    ]
    assert [(p.x, p.y, p.name) for p in plot_points(rows)] == [(10, 74.2, 'STDC2 0.5'), (5, 77.0, 'STDC2 0.75')]
    for row, scores in zip(rows, ([50.0, 52.0], [50.0, 52.0], [48.0, 48.5]), strict=True):
        row.miou = scores
    assert [(p.x, p.y, p.name) for p in plot_points(rows)] == [(10, 51.0, 'STDC2'), (20, 48.25, 'ResNet-18')]
    text = network_table(rows, (1024, 2048))
    assert cells(text, 'STDC2')[0][9] == '51.0 (50.0 to 52.0)'
    # Published numbers are beside the row that they belong to, and nowhere else.
    assert [row[10] for row in cells(text, 'STDC2')] == ['188.6', '97.0']
    assert cells(text, 'ResNet-18')[0][10:] == ['', '', '']
