# SPDX-License-Identifier: Apache-2.0
"""Check README and docs against the code: tables, subcommands, links and test names."""

import argparse
import re
from dataclasses import fields
from pathlib import Path

import pytest
import yaml

from stdc_core.commands import evaluate, predict
from stdc_core.commands.main import COMMANDS
from stdc_core.inference import BACKENDS, DEFAULT_MODEL
from stdc_core.inference.model_file import read_model
from stdc_ros.node.camera import OUTPUTS, POINTS
from stdc_ros.node.parameters import Parameters

REPOSITORY = Path(__file__).resolve().parent.parent
README = REPOSITORY / 'README.md'
DOCS = REPOSITORY / 'docs'
PAGES = {page: page.read_text() for page in (README, REPOSITORY / 'CONTRIBUTING.md', *sorted(DOCS.glob('*.md')))}


def section(page: Path, heading: str) -> str:
    """Return the text of a page below a heading."""
    return PAGES[page].split(f'\n## {heading}\n')[1].split('\n## ')[0]


def table(heading: str) -> dict[str, list[str]]:
    """Return the table of ``docs/node.md`` below a heading: first cell without backticks, to the other cells."""
    lines = section(DOCS / 'node.md', heading).splitlines()
    rows = [line.strip('|').split('|') for line in lines if line.startswith('| `')]
    return {cells[0].strip().split('`')[1]: [cell.strip().strip('`') for cell in cells[1:]] for cells in rows}


def test_parameters_are_those_of_the_node():
    documented = {name: yaml.safe_load(cells[0]) for name, cells in table('Parameters').items()}
    assert documented == {entry.name: [] if entry.default == () else entry.default for entry in fields(Parameters)}
    for entry in fields(Parameters):
        assert table('Parameters')[entry.name][1].startswith('*') == entry.metadata['at_run_time'], entry.name


def test_topics_are_those_of_the_node():
    inputs, reports = {'image', 'image/compressed', 'camera_info', 'points'}, {'~/performance', '/diagnostics'}
    outputs = {f'~/{name}' for name in (*OUTPUTS, POINTS, 'label_info')}
    assert set(table('Topics')) == inputs | outputs | reports


def test_launch_arguments_are_those_of_the_launch_file():
    source = (REPOSITORY / 'launch' / 'segmentation.launch.py').read_text()
    declared = re.findall(r"DeclareLaunchArgument\(\s*'(\w+)'", source)
    rows = [
        line.split('|')[1]
        for line in section(DOCS / 'node.md', 'Launch arguments').splitlines()
        if line.startswith('| `')
    ]
    assert sorted(re.findall(r'(\w+):=', ' '.join(rows))) == sorted(declared)


def test_class_ids_are_those_of_the_shipped_model():
    names = re.findall(r'\| (\d+) \| (\w+) (?=\|)', section(DOCS / 'model_card.md', 'Classes'))
    _, info = read_model(DEFAULT_MODEL)
    assert sorted((int(number), name) for number, name in names) == [*enumerate(info.classes.names), (255, 'none')]


def test_parameters_that_are_comments_are_named():
    text = (REPOSITORY / 'config' / 'segmentation.yaml').read_text()
    sentence = section(DOCS / 'node.md', 'Parameters').split('comments there')[1].split('Parameters marked')[0]
    assert re.findall(r'`(\w+)`', sentence) == re.findall(r'^    # (\w+): \[', text, re.MULTILINE)


def test_python_examples_compile():
    for page, text in PAGES.items():
        for block in re.findall(r'^```python\n(.*?)^```', text, re.MULTILINE | re.DOTALL):
            compile(block, page.name, 'exec')


def test_programs_are_those_that_are_installed():
    installed = set(re.findall(r"'(\w+) = stdc_ros", (REPOSITORY / 'setup.py').read_text())) | {'stdc'}
    assert set(re.findall(r'^\| `ros2 run stdc_ros (\w+)', PAGES[README], re.MULTILINE)) == installed


def test_readme_installs_what_rosdep_does_not():
    needed = re.search(r'install_requires=\[(.*?)\n    \]', (REPOSITORY / 'setup.py').read_text(), re.DOTALL).group(1)
    # Packages of rosdep or of every environment, and one that rosbags installs.
    others = {'setuptools', 'numpy', 'opencv-python-headless', 'pyyaml', 'tqdm', 'backports.zstd'}
    (line,) = re.findall(r'^pip install (.*onnxruntime[^#]*)', section(README, 'With ROS 2'), re.MULTILINE)
    assert set(re.findall(r"^ +'([\w.-]+)", needed, re.MULTILINE)) - others <= set(line.split())


def test_readme_fits_two_screens():
    lines = PAGES[README].splitlines()
    assert len(lines) <= 150
    assert max(map(len, lines)) <= 100


def test_index_names_every_page():
    linked = set(re.findall(r'\]\((\w+\.md)\)', PAGES[DOCS / 'index.md']))
    assert linked == {page.name for page in DOCS.glob('*.md')} - {'index.md'}


def test_subcommands_exist():
    text = '\n'.join(PAGES.values())
    commands = set(re.findall(r'^stdc (\w+)', text, re.MULTILINE)) | set(re.findall(r'`stdc (\w+)', text))
    assert commands == set(COMMANDS)


def test_commands_name_an_interpreter_that_exists():
    # Debian has no `python`, and pytest is only in the environment.
    for page, text in PAGES.items():
        assert not re.findall(r'(?<![\w/])python [\w./-]+|(?<!-m )pytest -[^`\n]*', text), page.name
        if '.venv-test/bin/python' in text and page.parent == DOCS:
            assert '(../CONTRIBUTING.md#test)' in text, page.name


@pytest.mark.parametrize('command', [evaluate, predict])
def test_help_names_every_backend(command):
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    (text,) = (action.help for action in parser._actions if '--backend' in action.option_strings)
    assert set(BACKENDS) <= set(re.findall(r'\w+', text))


def test_links_and_pictures_exist():
    for page, text in PAGES.items():
        for target in re.findall(r'\]\(([^)#:]+)(?:#[\w-]+)?\)', text):
            assert (page.parent / target).is_file(), f'{page.name}: {target}'


def test_files_that_the_architecture_names_exist():
    rows = section(DOCS / 'architecture.md', 'Where a change belongs')
    files = re.findall(r'`(stdc_(?:core|ros)/[\w/.]*)`', rows)
    assert files
    assert not [file for file in files if not (REPOSITORY / file).exists()]


def test_tests_that_are_named_are_in_the_file_before_them():
    files = {path.name: path.read_text() for path in (REPOSITORY / 'test').rglob('test_*.py')}
    for page, text in PAGES.items():
        file = ''
        for name, is_file in re.findall(r'`(test_\w+)(\.py)?(?:\[[^`]*\])?`', text):
            if is_file:
                file = f'{name}.py'
                assert file in files, f'{page.name}: {file}'
            else:
                assert f'def {name}(' in files.get(file, ''), f'{page.name}: {name} is not in {file or "any file"}'
