# SPDX-License-Identifier: Apache-2.0
"""TensorRT for RTX without a package index: parts that are cut, joined and installed."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest
import rtx_wheels


@pytest.fixture
def wheels(tmp_path) -> Path:
    """A folder with the wheel of a package of one module, and some bytes."""
    folder = tmp_path / 'wheels'
    folder.mkdir()
    with zipfile.ZipFile(folder / 'carried-1.0-py3-none-any.whl', 'w') as wheel:
        wheel.writestr('carried.py', 'found = True\n')
        wheel.writestr('carried-1.0.dist-info/METADATA', 'Metadata-Version: 2.1\nName: carried\nVersion: 1.0\n')
        wheel.writestr('carried-1.0.dist-info/WHEEL', 'Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n')
        wheel.writestr('carried-1.0.dist-info/RECORD', '')
    (folder / 'more').write_bytes(bytes(range(256)) * 40)
    return folder


@pytest.fixture
def parts(wheels, tmp_path, monkeypatch) -> Path:
    monkeypatch.setattr(rtx_wheels, 'PART', 4096)
    found = rtx_wheels.cut(wheels, tmp_path / 'parts')
    assert len(found) > 2
    assert {path.stat().st_size for path in found[:-1]} == {4096}
    return tmp_path / 'parts'


def test_a_part_is_at_most_60_mib():
    assert rtx_wheels.PART <= 60 << 20


def test_joined_parts_are_the_wheels(wheels, parts, tmp_path):
    rtx_wheels.join(parts, tmp_path / 'there')
    found = {path.name: path.read_bytes() for path in (tmp_path / 'there' / 'wheels').iterdir()}
    assert found == {path.name: path.read_bytes() for path in wheels.iterdir()}


def test_a_joined_wheel_is_installed_without_a_package_index(parts, tmp_path, capsys):
    assert rtx_wheels.main(['install', str(parts), '--target', str(tmp_path / 'site')]) == 0
    assert (tmp_path / 'site' / 'carried.py').read_text() == 'found = True\n'
    assert capsys.readouterr().out == 'installed carried\n'


@pytest.mark.parametrize(
    ('name', 'data', 'said'),
    [
        ('part-01', None, 'part-01: not found; copy every part'),
        ('part-01', b'short', 'part-01: 5 bytes, not those of its SHA-256; copy it again'),
        ('sha256', None, 'sha256: not found; expected the folder that `pack` wrote'),
    ],
)
def test_a_part_that_is_missing_or_damaged_is_named(parts, tmp_path, capsys, name, data, said):
    (parts / name).unlink()
    if data:
        (parts / name).write_bytes(data)
    assert rtx_wheels.main(['install', str(parts), '--target', str(tmp_path / 'site')]) == 1
    assert capsys.readouterr().err == f'rtx_wheels.py: {parts}/{said}\n'
    assert not (tmp_path / 'site').exists()


def test_a_folder_with_files_is_left_alone(wheels, tmp_path):
    (tmp_path / 'mine').mkdir()
    (tmp_path / 'mine' / 'part-00').write_text('mine')
    with pytest.raises(rtx_wheels.PartsError, match='/mine: expected an empty folder$'):
        rtx_wheels.cut(wheels, tmp_path / 'mine')


def test_what_pip_says_is_the_error(tmp_path, capsys):
    with pytest.raises(rtx_wheels.PartsError, match='^pip install failed: ERROR: .*carried'):
        rtx_wheels.pip('install', '--no-index', '--find-links', str(tmp_path), 'carried')


def test_the_packages_are_those_of_cuda_and_of_python_there(tmp_path, monkeypatch):
    asked = []

    def pip(*arguments):
        asked.append(arguments)
        (tmp_path / 'tensorrt_rtx_cu12-1.7.1-py3-none-any.whl').touch()

    monkeypatch.setattr(rtx_wheels, 'pip', pip)
    rtx_wheels.download(tmp_path, '12', '3.12', 'aarch64', ['onnx'])
    assert asked[0][-1] == 'tensorrt-rtx-cu12'
    download = asked[1]
    assert download[download.index('--python-version') + 1] == '3.12'
    assert 'manylinux_2_28_aarch64' in download
    assert download[-5:-2] == (
        'tensorrt-rtx-cu12-bindings==1.7.1',
        'tensorrt-rtx-cu12-libs==1.7.1',
        'cuda-bindings==12.*',
    )
    assert download[-2:] == ('nvidia-cuda-nvrtc-cu12==12.*', 'onnx')
