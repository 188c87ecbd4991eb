# SPDX-License-Identifier: Apache-2.0
"""Test the package as colcon, ROS 2 and pip install it."""

from __future__ import annotations

import ast
import hashlib
import importlib
import json
import os
import re
import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path
from xml.etree import ElementTree

import pytest
from conftest import REPOSITORY

#: Suffixes of the files in launch/ and config/.
SHARED = ('.py', '.yaml', '.xml', '.rviz', '.json')

#: rosdep key by module, for modules whose package has another name.
KEYS = {
    'cv2': 'python3-opencv',
    'hypothesis': 'python3-hypothesis',
    'numpy': 'python3-numpy',
    'pytest': 'python3-pytest',
    'tf2_ros': 'tf2_ros_py',
    'tqdm': 'python3-tqdm',
    'yaml': 'python3-yaml',
}

#: Modules that pip installs because rosdep has no key for them, and modules of the extras in setup.py.
PIP = {
    *('av', 'backports', 'colcon_core', 'compression', 'google', 'lz4', 'onnx', 'onnxruntime', 'rosbags', 'simplejpeg'),
    *('cuda', 'lightning', 'openvino', 'ray', 'safetensors', 'tensorrt', 'tensorrt_rtx', 'torch', 'torchmetrics'),
    *('huggingface_hub', 'timm'),
}


@pytest.fixture(scope='module')
def installed(tmp_path_factory) -> Path:
    """Return the prefix of an installation like that of colcon."""
    prefix, build = tmp_path_factory.mktemp('install'), tmp_path_factory.mktemp('build')
    command = ['setup.py', '-q', 'egg_info', '--egg-base', str(build), 'build', '--build-base', str(build)]
    command += ['install', '--prefix', str(prefix), '--record', str(build / 'record')]
    command += ['--single-version-externally-managed']
    result = subprocess.run([sys.executable, *command], cwd=REPOSITORY, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return prefix


@pytest.fixture(scope='module')
def metadata(installed) -> str:
    return next(installed.glob('**/*.egg-info/PKG-INFO')).read_text()


def entry_points(installed: Path) -> list[EntryPoint]:
    text = next(installed.glob('**/*.egg-info/entry_points.txt')).read_text()
    pairs = re.findall(r'^(\w+) = (.+)$', text, re.MULTILINE)
    return [EntryPoint(name, value, 'console_scripts') for name, value in pairs]


def test_colcon_identifies_a_ros_package():
    # With an invalid package.xml, colcon silently identifies a `python` package, which ROS 2 does not find.
    pytest.importorskip('colcon_core')
    environment = {**os.environ, 'COLCON_LOG_PATH': os.devnull}
    command = [sys.executable, '-m', 'colcon', 'list', '--base-paths', str(REPOSITORY)]
    result = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert '(ros.ament_python)' in result.stdout, result.stdout + result.stderr


def imported(folder: str) -> dict[str, str]:
    """Return the external top-level modules that a folder imports, each with a file that imports it."""
    own = {
        'stdc_core',
        'stdc_ros',
        *sys.stdlib_module_names,
        *(path.stem for path in (REPOSITORY / 'test').rglob('*.py')),
        *(path.stem for path in (REPOSITORY / 'benchmarks').iterdir()),
    }
    found: dict[str, str] = {}
    for path in (REPOSITORY / folder).rglob('*.py'):
        for node in ast.walk(ast.parse(path.read_text())):
            names: list[str] = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and not node.level:
                names = [node.module or '']
            elif isinstance(node, ast.Call) and ast.unparse(node.func) in ('pytest.importorskip', 'importorskip'):
                names = [str(ast.literal_eval(node.args[0]))]
            found.update({name.partition('.')[0]: str(path.relative_to(REPOSITORY)) for name in names})
    return {name: path for name, path in found.items() if name not in own}


@pytest.mark.parametrize('folder', ['stdc_ros', 'stdc_core/inference', 'stdc_core/io', 'launch', 'test'])
def test_manifest_declares_all_imports(folder):
    # rosdep installs only declared packages. If one test module cannot be imported, `colcon test` runs no test.
    manifest = ElementTree.parse(REPOSITORY / 'package.xml').getroot()
    kinds = ('exec_depend', 'test_depend') if folder == 'test' else ('exec_depend',)
    declared = {element.text for kind in kinds for element in manifest.iter(kind)}
    modules = imported(folder)
    assert modules
    missing = {name: path for name, path in modules.items() if KEYS.get(name, name) not in declared | PIP}
    assert not missing


def test_name_version_and_license_come_from_the_manifest(metadata):
    manifest = ElementTree.parse(REPOSITORY / 'package.xml').getroot()
    assert manifest.get('format') == '3'
    assert re.search(r'^Name: (.+)$', metadata, re.MULTILINE).group(1).replace('-', '_') == manifest.findtext('name')
    assert f'\nVersion: {manifest.findtext("version")}\n' in metadata
    assert manifest.findtext('license') == 'Apache-2.0'
    assert 'Version 2.0, January 2004' in (REPOSITORY / 'LICENSE').read_text()


def test_extras(installed):
    # All versions of setuptools write the base requirements first, then a section for each extra.
    text = next(installed.glob('**/*.egg-info/requires.txt')).read_text()
    base, *sections = re.split(r'^\[(.+)\]$', text, flags=re.MULTILINE)
    extras = dict(zip(sections[::2], sections[1::2], strict=True))
    assert extras.pop(':python_version < "3.14"').split() == ['backports.zstd']
    assert extras.keys() == {'compare', 'ros', 'train', 'openvino', 'ray', 'rtx', 'tensorrt', 'test', 'video'}
    # Without this, colcon runs no test and reports success.
    assert 'pytest' in extras['test'] and 'hypothesis' in extras['test']
    assert 'numpy' in base
    assert 'torch' not in base


def test_commands_are_installed_for_ros2_run(installed):
    found = {entry.name: entry for entry in entry_points(installed)}
    assert set(found) == {'segmentation_node', 'segment_bag', 'play_bag', 'stdc_demo', 'stdc'}
    for name, entry in found.items():
        assert os.access(installed / 'lib' / 'stdc_ros' / name, os.X_OK)
        assert callable(getattr(importlib.import_module(entry.module), entry.attr))


def test_all_files_are_installed(installed):
    share = installed / 'share'
    assert (share / 'ament_index' / 'resource_index' / 'packages' / 'stdc_ros').is_file()
    assert (share / 'stdc_ros' / 'package.xml').is_file()
    for folder in ('launch', 'config'):
        source = [path for path in (REPOSITORY / folder).rglob('*.*') if path.suffix in SHARED]
        assert source
        for path in source:
            assert (share / 'stdc_ros' / path.relative_to(REPOSITORY)).is_file()
    packages = next(installed.glob('lib/python*/site-packages'))
    for library in ('stdc_core', 'stdc_ros'):
        for path in (REPOSITORY / library).rglob('*.py'):
            assert (packages / path.relative_to(REPOSITORY)).is_file()
    for path in (REPOSITORY / 'stdc_core' / 'weights').iterdir():
        assert (packages / path.relative_to(REPOSITORY)).is_file()


def test_installed_package_works_without_the_repository(installed):
    """Without the repository, installed commands find model, configuration and code."""
    packages = next(installed.glob('lib/python*/site-packages'))
    code = (
        'from stdc_core.inference import Segmenter; from stdc_ros.playback import node_process; '
        'print(Segmenter.load().info.name, node_process.__file__, node_process.fast_dds_profile())'
    )
    environment = {**os.environ, 'PYTHONPATH': str(packages), 'AMENT_PREFIX_PATH': str(installed)}
    result = subprocess.run(
        [sys.executable, '-c', code], cwd=installed, capture_output=True, text=True, env=environment
    )
    assert result.returncode == 0, result.stderr
    name, module, profile = result.stdout.split()
    assert name and module.startswith(str(installed)) and profile.startswith(str(installed / 'share'))


@pytest.mark.parametrize('name', ['demo', 'ros', 'test', 'tools'])
def test_requirements_pin_versions_and_hashes(name):
    for pin in pins(name):
        version, *hashes = pin.split(' --hash=')
        assert re.match(r'[\w.-]+(\[\w+\])?==[\w.]+( ?;.+)?$', version.strip()), version
        assert hashes and all(re.match(r'sha256:[0-9a-f]{64}$', found.strip()) for found in hashes), version


@pytest.mark.parametrize('name', ['demo', 'ros'])
def test_demo_needs_no_torch(name):
    assert not any('torch' in pin for pin in pins(name))


def pins(name: str) -> list[str]:
    """Return the pinned versions of a requirement file with their hashes, one line each."""
    text = (REPOSITORY / '.ci' / f'requirements-{name}.txt').read_text().replace('\\\n', '')
    return [line for line in text.splitlines() if line and not line.startswith('#')]


def test_bill_of_materials_is_up_to_date():
    # `make sbom` writes it.
    text = (REPOSITORY / 'docs' / 'sbom.cdx.json').read_text()
    bill = json.loads(text)
    assert bill['specVersion'] == '1.6'
    manifest = ElementTree.parse(REPOSITORY / 'package.xml').getroot()
    package = bill['metadata']['component']
    assert (package['name'], package['version']) == (manifest.findtext('name'), manifest.findtext('version'))
    models = {path.name: path for path in (REPOSITORY / 'stdc_core' / 'weights').glob('*.onnx')}
    listed, parts = bill['components'][: len(models)], bill['components'][len(models) :]
    assert {model['name'] for model in listed} == set(models)
    for model in listed:
        digest = hashlib.sha256(models[model['name']].read_bytes()).hexdigest()
        assert model['hashes'] == [{'alg': 'SHA-256', 'content': digest}]
    wanted = {re.split('[ ;]', re.sub(r'\[\w+\]', '', pin))[0] for name in ('demo', 'ros') for pin in pins(name)}
    assert {f'{part["name"]}=={part["version"]}' for part in parts} == wanted
    assert all(part['licenses'] for part in bill['components'])
    assert not re.search(r'file:|"/|\b(home|root|tmp)/', text)


def test_bill_of_materials_does_not_depend_on_the_order_of_its_input(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(REPOSITORY / '.ci'))
    sbom = importlib.import_module('sbom')
    committed = (REPOSITORY / 'docs' / 'sbom.cdx.json').read_bytes()
    bill = json.loads(committed)
    reordered = {
        **dict(reversed(bill.items())),
        'components': [
            {**dict(reversed(part.items())), 'licenses': part['licenses'][::-1]} for part in bill['components'][::-1]
        ],
        'dependencies': [{**link, 'dependsOn': link['dependsOn'][::-1]} for link in reversed(bill['dependencies'])],
    }
    sbom.write(reordered, tmp_path / 'sbom.json')
    assert (tmp_path / 'sbom.json').read_bytes() == committed
