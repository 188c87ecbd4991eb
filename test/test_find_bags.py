"""Which bags are found in what a user names, and where their outputs go."""

from __future__ import annotations

from pathlib import Path

import pytest

from stdc_ros.bags import BagError
from stdc_ros.find_bags import find_bags
from stdc_ros.segment_tasks import Task


@pytest.fixture
def drives(tmp_path) -> Path:
    """A folder with bags and other things; nothing here looks into the files."""
    for name in (
        'drive.mcap',
        'north/drive.bag',
        'south/drive/drive_0.db3',
        'south/drive/metadata.yaml',
        'unclosed/drive_0.mcap',
        'unclosed/drive_1.mcap',
        '.hidden/other.mcap',
        '.other.mcap',
        'out/drive.mcap',
        'empty/notes.txt',
        'notes.txt',
    ):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return tmp_path


def test_bags_in_a_folder_keep_their_place(drives):
    out = drives / 'out'
    expected = [
        Task(drives / 'drive.mcap', out / 'drive.mcap'),
        Task(drives / 'north' / 'drive.bag', out / 'north' / 'drive.mcap'),
        Task(drives / 'south' / 'drive', out / 'south' / 'drive.mcap'),
        # A recorder that was killed leaves no metadata.yaml: what it has written are bags, each by itself.
        Task(drives / 'unclosed' / 'drive_0.mcap', out / 'unclosed' / 'drive_0.mcap'),
        Task(drives / 'unclosed' / 'drive_1.mcap', out / 'unclosed' / 'drive_1.mcap'),
    ]
    assert find_bags([drives], out) == expected
    assert find_bags([drives, drives / 'drive.mcap'], out) == expected


def test_a_bag_that_is_named_goes_to_the_top(drives):
    out = drives / 'out'
    assert find_bags([drives / 'south' / 'drive'], out) == [Task(drives / 'south' / 'drive', out / 'drive.mcap')]
    assert find_bags([drives / 'north' / 'drive.bag'], out) == [
        Task(drives / 'north' / 'drive.bag', out / 'drive.mcap')
    ]


@pytest.mark.parametrize(
    'inputs, out, message',
    [
        (['no'], 'out', 'no: no such bag or folder'),
        (['empty'], 'out', r'empty: holds no bags \(\.bag, \.mcap, \.db3'),
        (['notes.txt'], 'out', 'notes.txt: expected .bag, .mcap, .db3 or a folder'),
        (['drive.mcap', 'north/drive.bag'], 'out', 'would both be written to .*out/drive.mcap'),
        (['.'], '.', 'is read and written to'),
        (['drive.mcap'], '.', 'drive.mcap: is to be read and written'),
        (['north'], 'notes.txt', 'notes.txt: is a file, expected a folder'),
    ],
)
def test_inputs_that_cannot_be_meant(drives, inputs, out, message):
    with pytest.raises(BagError, match=message):
        find_bags([drives / name for name in inputs], drives / out)
