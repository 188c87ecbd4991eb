# SPDX-License-Identifier: Apache-2.0
"""Test the command ``stdc`` itself: help, fast start, and modules that are missing."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from test_architecture import imports, modules

from stdc_core.commands import predict, predict_files
from stdc_core.commands.main import COMMANDS, command_module, main
from stdc_core.io.missing_module import EXTRAS, PACKAGES, how_to_install


@pytest.mark.parametrize('name', COMMANDS)
def test_help_of_each_command_needs_no_torch(name):
    code = 'import sys; sys.modules["torch"] = None; from stdc_core.commands.main import main; main()'
    result = subprocess.run([sys.executable, '-c', code, name, '--help'], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert f'usage: stdc {name}' in result.stdout
    assert COMMANDS[name][1] in ' '.join(result.stdout.split())


def test_help_loads_no_slow_module():
    code = (
        'import sys; from stdc_core.commands.main import main\ntry: main(["--help"])\nexcept SystemExit: pass\n'
        'print(*sys.modules, file=sys.stderr)'
    )
    result = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
    assert all(re.search(rf'^    {name}\s', result.stdout, re.MULTILINE) for name in COMMANDS)
    assert not {'numpy', 'cv2', 'torch', 'onnx', 'onnxruntime', 'yaml', 'tqdm'} & set(result.stderr.split())


@pytest.mark.parametrize(
    ('arguments', 'expected'),
    [
        (
            ['predict', '--outputs', 'mask', 'color', 'street.jpg', '--out', 'out'],
            {'outputs': ['mask', 'color'], 'inputs': [Path('street.jpg')]},
        ),
        (
            ['quantize', '--images', 'a.jpg', 'pictures', 'model.onnx', 'int8.onnx'],
            {'images': [Path('a.jpg'), Path('pictures')], 'model': Path('model.onnx'), 'out': Path('int8.onnx')},
        ),
    ],
)
def test_lists_leave_the_other_arguments_alone(monkeypatch, arguments, expected):
    given = []
    monkeypatch.setattr(command_module(arguments[0]), 'run', given.append)
    assert main(arguments) == 0
    assert {name: getattr(given[0], name) for name in expected} == expected


def test_outputs_of_predict_are_those_that_it_writes():
    assert tuple(predict_files.OUTPUTS) == predict.OUTPUTS


@pytest.mark.parametrize(
    ('missing', 'command', 'advice'),
    [
        ('cv2', ['predict', 'image.png', '--out', 'out'], "pip install 'opencv-python-headless<5'"),
        ('torch', ['import', 'a.pth', 'b.safetensors'], "pip install '.[train]' in the repository"),
        ('onnx', ['predict', 'image.png', '--out', 'out'], 'pip install onnx'),
    ],
)
def test_a_missing_module_is_named_with_its_package(missing, command, advice):
    code = f'import sys; sys.modules[{missing!r}] = None; from stdc_core.commands.main import main; sys.exit(main())'
    result = subprocess.run([sys.executable, '-c', code, *command], capture_output=True, text=True)
    assert result.returncode == 2
    assert result.stderr == f'stdc {command[0]}: the Python module {missing} is missing; install it with: {advice}\n'


def test_a_submodule_is_named_with_its_package():
    error = ModuleNotFoundError("No module named 'torch.utils'", name='torch.utils')
    assert how_to_install(error).endswith("install it with: pip install '.[train]' in the repository")


def test_every_module_that_is_imported_has_a_package():
    used = {entry.target.split('.')[0] for name in modules() if name.startswith('stdc_core') for entry in imports(name)}
    outside = used - sys.stdlib_module_names - {'stdc_core'}
    assert outside <= {*EXTRAS, *PACKAGES, 'tensorrt_rtx', 'compression'}, outside


def test_a_subcommand_that_does_not_exist_is_an_error(capsys):
    with pytest.raises(SystemExit, match='2'):
        main(['fly'])
    assert "invalid choice: 'fly'" in capsys.readouterr().err
