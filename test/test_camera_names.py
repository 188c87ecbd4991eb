# SPDX-License-Identifier: Apache-2.0
"""Test parsing camera names in every form that users type."""

from __future__ import annotations

import pytest

from stdc_ros.node.camera_names import parse_camera_names


@pytest.mark.parametrize(
    'value',
    [
        'front,left',
        'front, left',
        'front left',
        '[front, left]',
        "['front', 'left']",
        ' [front,left] ',
        ['front', 'left'],
    ],
)
def test_lists_and_texts_give_the_same_names(value):
    assert parse_camera_names(value) == ('front', 'left')


@pytest.mark.parametrize('value', ['', '[]', ' ', [], ()])
def test_empty_value_gives_no_names(value):
    assert parse_camera_names(value) == ()


@pytest.mark.parametrize(
    ('value', 'words'),
    [
        ('front/left', "'front/left', expected letters, digits and _"),
        ('2nd', "'2nd', expected letters"),
        ('größe', "'größe', expected letters"),
        (['front', ''], "'', expected letters"),
        (['front\n'], r"'front\\n', expected letters"),
        ('front,front', 'front, front, expected names that differ'),
        (5, 'cameras is 5, expected names such as'),
        ([1, 2], r'cameras is \[1, 2\], expected names such as'),
    ],
)
def test_invalid_camera_names_give_one_line(value, words):
    with pytest.raises(ValueError, match=words) as caught:
        parse_camera_names(value)
    assert '\n' not in str(caught.value)
