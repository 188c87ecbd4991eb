# SPDX-License-Identifier: Apache-2.0
"""Test which bags are found in files and folders, and where their outputs go."""

from __future__ import annotations

from pathlib import Path

import pytest

from stdc_ros.bags.message import BagError
from stdc_ros.offline.discovery import find_bags
from stdc_ros.offline.task import Task


@pytest.fixture
def drives(tmp_path) -> Path:
    """Return a folder with bags and other files, which have no content: only names matter here."""
    for name in (
        'drive.mcap',
        'north/drive.bag',
        'south/drive/drive_0.db3',
        'south/drive/metadata.yaml',
        'unclosed/drive_0.mcap',
        'unclosed/drive_1.mcap',
        'killed/drive_0.db3.zstd',
        'killed/drive_1.db3',
        'killed/note.bag',
        'killed/inner/drive.mcap',
        'killed_last/drive_0.mcap.zstd',
        'killed_packing/drive_0.mcap',
        'killed_packing/drive_0.mcap.zstd',
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


def test_bags_in_a_folder_keep_their_relative_path(drives):
    out = drives / 'out'
    expected = [
        Task(drives / 'drive.mcap', out / 'drive.mcap'),
        # Compressed files of a killed recorder form one bag with the files beside them.
        Task(drives / 'killed', out / 'killed.mcap'),
        Task(drives / 'killed' / 'inner' / 'drive.mcap', out / 'killed' / 'inner' / 'drive.mcap'),
        Task(drives / 'killed' / 'note.bag', out / 'killed' / 'note.mcap'),
        Task(drives / 'killed_last', out / 'killed_last.mcap'),
        # The recorder was killed while it compressed, so the uncompressed file is the complete one.
        Task(drives / 'killed_packing' / 'drive_0.mcap', out / 'killed_packing' / 'drive_0.mcap'),
        Task(drives / 'north' / 'drive.bag', out / 'north' / 'drive.mcap'),
        Task(drives / 'south' / 'drive', out / 'south' / 'drive.mcap'),
        # A killed recorder leaves no metadata.yaml. Each of its files is a bag.
        Task(drives / 'unclosed' / 'drive_0.mcap', out / 'unclosed' / 'drive_0.mcap'),
        Task(drives / 'unclosed' / 'drive_1.mcap', out / 'unclosed' / 'drive_1.mcap'),
    ]
    assert find_bags([drives], out) == expected
    assert find_bags([drives, drives / 'drive.mcap'], out) == expected


def test_named_bag_goes_to_the_output_folder(drives):
    out = drives / 'out'
    assert find_bags([drives / 'south' / 'drive'], out) == [Task(drives / 'south' / 'drive', out / 'drive.mcap')]
    assert find_bags([drives / 'north' / 'drive.bag'], out) == [
        Task(drives / 'north' / 'drive.bag', out / 'drive.mcap')
    ]
    assert find_bags([drives / 'killed_last'], out) == [Task(drives / 'killed_last', out / 'killed_last.mcap')]


@pytest.mark.parametrize(
    ('inputs', 'out', 'message'),
    [
        (['no'], 'out', 'no: no such bag or folder'),
        (['empty'], 'out', r'empty: holds no bags \(\.bag, \.mcap, \.db3'),
        (['notes.txt'], 'out', 'notes.txt: expected .bag, .mcap, .db3 or a folder'),
        (['drive.mcap', 'north/drive.bag'], 'out', 'would both be written to .*out/drive.mcap'),
        (['.'], '.', 'would be read and written'),
        (['drive.mcap'], '.', 'drive.mcap: would be read and written'),
        (['north'], 'notes.txt', 'notes.txt: is a file, expected a folder'),
    ],
)
def test_wrong_inputs_are_errors(drives, inputs, out, message):
    with pytest.raises(BagError, match=message):
        find_bags([drives / name for name in inputs], drives / out)
