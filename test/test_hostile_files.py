# SPDX-License-Identifier: Apache-2.0
"""Test damaged and malicious files: each is refused in one line that names it, and nothing is run or written.

`test/fuzz/fuzz_files.py` generates such files at random; the cases here were written by hand.
"""

from __future__ import annotations

import subprocess
import sys
import zipfile
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import onnx
import pytest
import ros_helpers  # noqa: F401  (isolates this run; before rclpy)
from bag_helpers import make_bag
from fuzz_changes import BOMB
from fuzz_seeds import tiny_model
from onnx import TensorProto

from stdc_core.classes import CAMVID, ClassTable
from stdc_core.commands.main import main as stdc
from stdc_core.inference import ModelError, Segmenter
from stdc_core.inference.model_file import read_model
from stdc_core.io.yaml_file import read_yaml
from stdc_core.training.config import ConfigError
from stdc_core.training.train_config import load_config
from stdc_ros.messages.cdr import IMAGE
from stdc_ros.offline.segment_bag import main as segment_bag

ROOT = Path(__file__).resolve().parent.parent
needs_torch = pytest.mark.skipif(not find_spec('torch'), reason='torch is not installed')


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob('*') if path.is_file()}


@pytest.mark.parametrize('location', ['../secret', '/etc/passwd', 'beside.bin'])
def test_model_in_several_files_is_refused(location, tmp_path):
    (tmp_path / 'secret').write_bytes(bytes(4096))
    (tmp_path / 'models').mkdir()
    (tmp_path / 'models' / 'beside.bin').write_bytes(bytes(4096))
    path = tiny_model(tmp_path / 'models' / 'model.onnx')
    model = onnx.load(path)
    tensor = model.graph.initializer[0]
    tensor.ClearField('raw_data')
    tensor.data_location = TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = 'location', location
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ModelError, match=r'model\.onnx: .*in another file; expected one file'):
        Segmenter.load(path)


def _with_loop(model):
    node = onnx.helper.make_node('If', ['x'], ['y'], then_branch=onnx.GraphProto(), else_branch=onnx.GraphProto())
    model.graph.node.append(node)


def _of_other_domain(model):
    model.graph.node[0].domain = 'some.where'


def _of_other_classes(model):
    model.graph.initializer[0].dims[:] = [33, 1, 1, 1]


def _with_other_output(model):
    model.graph.output[0].type.tensor_type.elem_type = TensorProto.FLOAT


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (_with_loop, 'control flow'),
        (_of_other_domain, 'operators of some.where'),
        (_of_other_classes, '11 classes, but model.head.1.weight has 33'),
        (_with_other_output, 'expected mask, confidence of uint8'),
    ],
)
def test_graph_of_another_exporter_is_refused(change, message, tmp_path):
    path = tiny_model(tmp_path / 'model.onnx')
    read_model(path)
    model = onnx.load(path)
    change(model)
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ModelError, match=rf'model\.onnx: .*{message}'):
        read_model(path)


def test_graph_with_another_mask_shape_is_refused(tmp_path):
    path = tiny_model(tmp_path / 'model.onnx')
    model = onnx.load(path)
    next(node for node in model.graph.node if node.op_type == 'Transpose').attribute[0].ints[:] = [0, 3, 2, 1]
    path.write_bytes(model.SerializeToString())
    segmenter = Segmenter.load(path)  # for a square image, the transposed mask has the same shape
    with pytest.raises(ModelError, match=r'a mask of shape \[1, 9, 5\]'):
        segmenter(np.zeros((5, 9, 3), np.uint8))


@pytest.mark.parametrize('scale', ['nan', 'inf', '1e30', '0'])
def test_invalid_input_scale_is_refused(scale, tmp_path):
    path = tiny_model(tmp_path / 'model.onnx')
    model = onnx.load(path)
    next(entry for entry in model.metadata_props if entry.key == 'stdc.input_scale').value = scale
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ModelError, match='input scale: expected above 0 and at most 4'):
        read_model(path)


@pytest.mark.parametrize('name', ['a\nb', '\x1b[2J', '\ud800', ' ', 'x' * 101, 7])
def test_class_names_can_be_shown(name):
    with pytest.raises(ValueError, match='printable characters') as error:
        ClassTable((name,), ((0, 0, 0),))
    assert str(error.value).isprintable()


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        (BOMB + 'steps: *j', 'aliases are not supported'),
        ('steps: !!python/object/apply:os.system ["true"]', 'could not determine a constructor'),
        ('steps: ' + '[' * 500, 'nested deeper than 20'),
        ('steps: 1\nsteps: 2', "'steps' occurs twice"),
        ('steps: 2020-99-99', 'not YAML'),
        ('steps: "\0"', 'not YAML'),
    ],
)
def test_expanding_yaml_is_refused(text, message, tmp_path):
    (tmp_path / 'mine.yaml').write_text(text)
    with pytest.raises(ConfigError, match=rf'mine\.yaml: .*{message}') as error:
        load_config(tmp_path / 'mine.yaml')
    assert str(error.value).isprintable() and len(str(error.value)) < 500


@pytest.mark.parametrize('value', ['.nan', '.inf', '9' * 400, '1e999'])
def test_invalid_number_is_refused(value, tmp_path):
    (tmp_path / 'mine.yaml').write_text(f'learning_rate: {value}')
    with pytest.raises(ConfigError, match=r'mine\.yaml: learning_rate: expected (a number|float)'):
        load_config(tmp_path / 'mine.yaml')


def test_huge_yaml_file_is_not_read(tmp_path):
    (tmp_path / 'mine.yaml').write_text('# ' + 'x' * 1_000_000)
    with pytest.raises(ValueError, match=r'mine\.yaml: has 1000002 bytes, expected at most'):
        read_yaml(tmp_path / 'mine.yaml')


@needs_torch
def test_checkpoints_that_expand_in_memory_are_refused(tmp_path):
    import torch

    from stdc_core.model.reference import import_reference
    from stdc_core.model.weights import WeightsError

    wide = {'cp.backbone.features.0.conv.weight': torch.zeros(1).expand(10**9, 1024)}
    torch.save(wide, tmp_path / 'wide.pth')
    with pytest.raises(WeightsError, match=r'wide\.pth: expected a dictionary of tensors'):
        import_reference(tmp_path / 'wide.pth', CAMVID)
    with zipfile.ZipFile(tmp_path / 'packed.pth', 'w', zipfile.ZIP_DEFLATED) as packed:
        packed.writestr('archive/data.pkl', bytes(10_000_000))
    with pytest.raises(WeightsError, match=r'packed\.pth: .*compressed'):
        import_reference(tmp_path / 'packed.pth', CAMVID)


HOSTILE = {
    'text.onnx': b'not a model',
    'text.safetensors': b'\xff' * 200,
    'text.pth': b'cos\nsystem\n(S"touch executed"\ntR.',
    'bomb.yaml': BOMB.encode() + b'steps: *j',
    'text.mcap': b'\x89MCAP0\r\n' + b'\xff' * 200,
    'text.bag': b'#ROSBAG V2.0\n' + b'\xff' * 200,
    'text.db3': b'SQLite format 3\0' + b'\xff' * 4096,
}


@pytest.mark.parametrize(
    ('command', 'name'),
    [
        ('stdc predict {in} --model {file} --out {out} --overwrite', 'text.onnx'),
        ('stdc evaluate {file} --data {in} --out {out}/new', 'text.onnx'),
        ('stdc quantize {file} {out}/done.onnx --images {in} --overwrite', 'text.onnx'),
        pytest.param('stdc evaluate {file} --data {in} --out {out}/new', 'text.safetensors', marks=needs_torch),
        pytest.param('stdc export {file} {out}/done.onnx --overwrite', 'text.safetensors', marks=needs_torch),
        pytest.param('stdc export {file} {out}/done.onnx --overwrite', 'text.onnx', marks=needs_torch),
        pytest.param('stdc import {file} {out}/new.safetensors', 'text.pth', marks=needs_torch),
        pytest.param('stdc train {file} --data {in} --out {out}/new', 'bomb.yaml', marks=needs_torch),
        pytest.param('stdc train --set classes={file} --data {in} --out {out}/new', 'bomb.yaml', marks=needs_torch),
        pytest.param('stdc pretrain {file} --data {in} --out {out}/new', 'bomb.yaml', marks=needs_torch),
        ('segment_bag {file} {out}/done.mcap --overwrite', 'text.mcap'),
        ('segment_bag {file} {out}/done.mcap --overwrite', 'text.bag'),
        ('segment_bag {file} {out}/done.mcap --overwrite', 'text.db3'),
        ('segment_bag {bag} {out}/done.mcap --overwrite --model {file}', 'text.onnx'),
        ('segment_bag {bag} --out-dir {out} --overwrite --model {file}', 'text.onnx'),
    ],
)
def test_commands_refuse_bad_files_and_keep_outputs(command, name, tmp_path, capsys, monkeypatch):
    for folder in ('in', 'out'):
        (tmp_path / folder).mkdir()
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).write_bytes(HOSTILE[name])
    for done in ('done.onnx', 'done.mcap'):
        (tmp_path / 'out' / done).write_text('mine')
    places = {'file': tmp_path / name, 'bag': make_bag(tmp_path, 'mcap')}
    places |= {folder: tmp_path / folder for folder in ('in', 'out')}
    before = contents(tmp_path)
    program, *arguments = command.format(**places).split()
    code, expected = (stdc(arguments), 2) if program == 'stdc' else (segment_bag(arguments), 1)
    said = capsys.readouterr()
    assert code == expected
    assert name in said.err and 'Traceback' not in said.err
    assert len(set(said.err.splitlines())) == 1
    assert contents(tmp_path) == before


@pytest.mark.parametrize('name', ['text.mcap', '/1odd'])
def test_play_bag_refuses_bad_files_in_one_line(name, tmp_path):
    if name.startswith('/'):
        path = make_bag(tmp_path, 'mcap', {name: IMAGE})
    else:
        path = tmp_path / name
        path.write_bytes(HOSTILE[name])
    command = [sys.executable, '-m', 'stdc_ros.playback.play_bag', str(path), '--wait', '0']
    found = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=ROOT)
    assert found.returncode == 1
    assert len(found.stderr.splitlines()) == 1 and path.name in found.stderr, found.stderr
