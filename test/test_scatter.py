# SPDX-License-Identifier: Apache-2.0
"""The scatter plot of speed against accuracy."""

from __future__ import annotations

import numpy as np
import pytest

from stdc_core.pictures.scatter import Point, place_names, scatter, ticks


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
