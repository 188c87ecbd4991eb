# SPDX-License-Identifier: Apache-2.0
"""The README's tables, and what README and docs name, against the code."""

import re
from dataclasses import fields
from pathlib import Path

import yaml

from stdc_core.commands.main import _parser
from stdc_ros.node.camera import OUTPUTS
from stdc_ros.node.parameters import Parameters

REPOSITORY = Path(__file__).resolve().parent.parent
PAGES = {page: page.read_text() for page in (REPOSITORY / 'README.md', *sorted((REPOSITORY / 'docs').glob('*.md')))}
README = PAGES[REPOSITORY / 'README.md']


def table(heading: str) -> dict[str, list[str]]:
    """Rows of the first table below a heading: first cell without backticks, to the other cells."""
    section = README.split(f'\n## {heading}\n')[1].split('\n## ')[0]
    rows = [line.strip('|').split('|') for line in section.splitlines() if line.startswith('| `')]
    return {cells[0].strip().split('`')[1]: [cell.strip().strip('`') for cell in cells[1:]] for cells in rows}


def test_parameters_are_those_of_the_node():
    documented = {name: yaml.safe_load(cells[0]) for name, cells in table('Parameters').items()}
    assert documented == {entry.name: [] if entry.default == () else entry.default for entry in fields(Parameters)}
    for entry in fields(Parameters):
        assert table('Parameters')[entry.name][1].startswith('*') == entry.metadata['at_run_time'], entry.name


def test_topics_are_those_of_the_node():
    inputs, reports = {'image', 'image/compressed', 'camera_info'}, {'~/label_info', '~/performance', '/diagnostics'}
    assert set(table('Topics')) == {*inputs, *(f'~/{name}' for name in OUTPUTS), *reports}


def test_launch_arguments_are_those_of_the_launch_file():
    source = (REPOSITORY / 'launch' / 'segmentation.launch.py').read_text()
    declared = re.findall(r"DeclareLaunchArgument\(\s*'(\w+)'", source)
    rows = [
        line.split('|')[1]
        for line in README.split("launch file's arguments:")[1].split('The other programs')[0].splitlines()
        if line.startswith('| `')
    ]
    assert sorted(re.findall(r'(\w+):=', ' '.join(rows))) == sorted(declared)


def test_subcommands_exist():
    text = '\n'.join(PAGES.values())
    commands = set(re.findall(r'^stdc (\w+)', text, re.MULTILINE)) | set(re.findall(r'`stdc (\w+)', text))
    known = next(action for action in _parser()._actions if action.dest == 'command').choices
    assert commands == set(known)


def test_links_and_pictures_exist():
    for page, text in PAGES.items():
        for target in re.findall(r'\]\(([^)#:]+)\)', text):
            assert (page.parent / target).is_file(), f'{page.name}: {target}'


def test_tests_that_are_named_exist():
    tests = '\n'.join(path.read_text() for path in (REPOSITORY / 'test').glob('test_*.py'))
    for page, text in PAGES.items():
        for name in re.findall(r'`(test_\w+)(?:\[[^`]*\])?`', text):
            assert f'def {name}(' in tests, f'{page.name}: {name}'
