# SPDX-License-Identifier: Apache-2.0
"""Test the backend and the model file that are used on a CPU, by its features and the precision."""

from __future__ import annotations

import hashlib
import json
import logging
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import onnx
import pytest
from conftest import in_own_process
from onnx import TensorProto, helper

from stdc_core.classes import class_table
from stdc_core.inference import BackendError, ModelError, Segmenter, backend_choice, cpu_backend
from stdc_core.inference.backend import Backend
from stdc_core.inference.cpu_backend import ReplaceableBackend
from stdc_core.inference.cpu_choice import choose_cpu_backend
from stdc_core.inference.int8_file import fastest_precision, file_for, int8_path
from stdc_core.inference.model_file import ModelInfo

# The last features in /proc/cpuinfo of each CPU.
FLAGS = {
    'Zen 2': 'clflushopt clwb sha_ni xsaveopt xsavec xgetbv1 clzero xsaveerptr wbnoinvd arat umip rdpid',
    'Zen 4': 'avx512vl avx512_bf16 clzero avx512vbmi umip pku avx512_vbmi2 gfni vaes avx512_vnni avx512_bitalg',
    'Alder Lake': 'clflushopt clwb intel_pt sha_ni xsaveopt xsavec xgetbv1 xsaves avx_vnni dtherm ida arat',
    'Cascade Lake': 'avx512cd avx512bw avx512vl xsaveopt xsavec xgetbv1 arat umip pku ospke avx512_vnni',
    'Sapphire Rapids': 'avx_vnni avx512_bf16 wbnoinvd avx512_vnni amx_bf16 avx512_fp16 amx_tile amx_int8',
    'Arm': '',
}


@pytest.mark.parametrize(
    ('cpu', 'quantized', 'backend', 'reason'),
    [
        ('Zen 2', False, 'onnxruntime', 'the CPU lacks bfloat16'),
        ('Zen 2', True, 'onnxruntime', 'the CPU lacks bfloat16 and VNNI'),
        ('Zen 4', False, 'openvino', 'the CPU has bfloat16'),
        ('Zen 4', True, 'openvino', 'the CPU has bfloat16'),
        ('Alder Lake', False, 'onnxruntime', 'the CPU lacks bfloat16'),
        ('Alder Lake', True, 'openvino', 'the CPU has VNNI'),
        ('Cascade Lake', False, 'onnxruntime', 'the CPU lacks bfloat16'),
        ('Cascade Lake', True, 'openvino', 'the CPU has VNNI'),
        ('Sapphire Rapids', False, 'openvino', 'the CPU has bfloat16'),
        ('Arm', True, 'onnxruntime', 'the CPU lacks bfloat16 and VNNI'),
    ],
)
def test_fastest_library_of_a_cpu(cpu, quantized, backend, reason):
    flags = frozenset(FLAGS[cpu].split())
    assert choose_cpu_backend(flags, quantized, 'auto', installed=True) == (backend, reason)
    missing = choose_cpu_backend(flags, quantized, 'auto', installed=False)
    assert missing.backend == 'onnxruntime'
    assert missing.reason == (reason if backend == 'onnxruntime' else f'{reason}, but openvino is not installed')


def test_fp32_is_computed_by_onnx_runtime():
    flags = frozenset(FLAGS['Sapphire Rapids'].split())
    assert choose_cpu_backend(flags, False, 'fp32', installed=True) == ('onnxruntime', 'precision fp32')


def write_model(path: Path, quantized: bool, **recipe: object) -> Path:
    """Write a small model whose mask is 0 everywhere, with or without a quantised activation."""
    size = ['batch', 'height', 'width']
    image = helper.make_tensor_value_info('image', TensorProto.UINT8, [*size, 3])
    masks = [helper.make_tensor_value_info(name, TensorProto.UINT8, size) for name in ('mask', 'confidence')]
    nodes = [helper.make_node('Cast', ['image'], ['colours'], to=TensorProto.FLOAT)]
    if quantized:
        nodes.append(helper.make_node('QuantizeLinear', ['colours', 'scale', 'zero'], ['bytes']))
        nodes.append(helper.make_node('DequantizeLinear', ['bytes', 'scale', 'zero'], ['values']))
    nodes.append(
        helper.make_node('ReduceMax', ['values' if quantized else 'colours'], ['largest'], axes=[3], keepdims=0)
    )
    nodes.append(helper.make_node('Mul', ['largest', 'nothing'], ['product']))
    nodes += [helper.make_node('Cast', ['product'], [name], to=TensorProto.UINT8) for name in ('mask', 'confidence')]
    constants = [
        helper.make_tensor('scale', TensorProto.FLOAT, [], [2.0]),
        helper.make_tensor('zero', TensorProto.INT8, [], [0]),
        helper.make_tensor('nothing', TensorProto.FLOAT, [], [0.0]),
    ]
    graph = helper.make_graph(nodes, 'small', [image], masks, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid('', 17)], ir_version=8)
    provenance = {'quantized': json.dumps(recipe)} if recipe else {}
    helper.set_model_props(model, ModelInfo('stdc1', 1.0, class_table('camvid'), provenance).to_metadata())
    onnx.save(model, path)
    return path


@pytest.fixture
def model(tmp_path) -> Path:
    return write_model(tmp_path / 'mine.onnx', quantized=False)


@pytest.mark.parametrize('backend', ['auto', 'onnxruntime'])
def test_int8_takes_the_file_beside_the_model(model, backend, monkeypatch, caplog):
    monkeypatch.setattr(backend_choice, 'cpu_flags', frozenset)
    monkeypatch.delenv('STDC_BACKEND')
    beside = write_model(
        int8_path(model), True, **{'labels changed (%)': 0.284, 'mIoU before and after (%)': [71.6, 71.3]}
    )
    assert beside.name == 'mine.int8.onnx'
    caplog.set_level(logging.INFO)
    segmenter = Segmenter.load(model, backend=backend, precision='int8')
    lost = 'int8 changed 0.28 % of the labels when it was quantised, mIoU 71.60 % before and 71.30 % after'
    assert segmenter.reason.endswith(lost)
    assert f'precision int8: using {beside}' in caplog.messages
    # An int8 model says it as well, and the float model is used in every other precision.
    assert Segmenter.load(beside, backend=backend, precision='int8').reason.endswith(lost)
    assert lost not in Segmenter.load(model, backend=backend).reason
    assert file_for(model, 'fp32') == file_for(beside, 'int8').with_name('mine.onnx') == model


@pytest.fixture
def cpu(monkeypatch):
    """Return a function that gives this machine another CPU, and takes its GPU away."""
    monkeypatch.delenv('STDC_BACKEND')
    monkeypatch.setattr(backend_choice, 'missing_driver', lambda: 'no GPU')
    monkeypatch.setattr(backend_choice, 'find_spec', lambda name: object())
    return lambda name: monkeypatch.setattr(backend_choice, 'cpu_flags', lambda: frozenset(FLAGS[name].split()))


@pytest.mark.parametrize(
    ('name', 'precision'),
    [
        ('Zen 2', 'auto'),
        ('Zen 4', 'int8'),
        ('Alder Lake', 'int8'),
        ('Cascade Lake', 'int8'),
        ('Sapphire Rapids', 'int8'),
        ('Arm', 'auto'),
    ],
)
def test_int8_is_the_fastest_precision_on_a_cpu_with_vnni(model, cpu, name, precision, caplog):
    caplog.set_level(logging.INFO)
    cpu(name)
    assert fastest_precision(model, 'auto', 'auto') == 'auto'  # no int8 file
    write_model(int8_path(model), True)
    assert fastest_precision(model, 'auto', 'auto') == precision
    told = ['precision auto: int8 is the fastest on this CPU; fp32 would compute mine.onnx exactly']
    assert caplog.messages == (told if precision == 'int8' else [])


def test_int8_is_taken_only_where_everything_is_automatic(model, cpu, monkeypatch):
    cpu('Zen 4')
    write_model(int8_path(model), True)
    for precision in ('fp32', 'bf16', 'fp16', 'int8'):
        assert fastest_precision(model, 'auto', precision) == precision
    for backend in ('onnxruntime', 'openvino', 'tensorrt'):
        assert fastest_precision(model, backend, 'auto') == 'auto'
    assert fastest_precision(int8_path(model), 'auto', 'auto') == 'auto'
    with monkeypatch.context() as patch:
        patch.setenv('STDC_BACKEND', 'onnxruntime')
        assert fastest_precision(model, 'auto', 'auto') == 'auto'
        patch.setenv('STDC_BACKEND', 'auto')
        assert fastest_precision(model, 'auto', 'auto') == 'int8'
    with monkeypatch.context() as patch:
        patch.setattr(backend_choice, 'missing_driver', lambda: '')
        assert fastest_precision(model, 'auto', 'auto') == 'auto'
    with monkeypatch.context() as patch:
        patch.setattr(backend_choice, 'find_spec', lambda name: None)
        assert fastest_precision(model, 'auto', 'auto') == 'auto'
    assert fastest_precision(model, 'auto', 'auto') == 'int8'


def test_int8_file_of_another_model_is_left_out_with_a_warning(model, cpu, caplog):
    cpu('Zen 4')
    write_model(int8_path(model), True, **{'made from': '0' * 64})
    assert fastest_precision(model, 'auto', 'auto') == 'auto'
    assert [record.levelname for record in caplog.records] == ['WARNING']
    assert 'made from a model with SHA-256 000000000000, but mine.onnx has' in caplog.text
    assert caplog.messages[0].endswith('--overwrite; using mine.onnx')


@pytest.mark.parametrize('backend', ['auto', 'onnxruntime'])
def test_missing_int8_file_is_an_error_with_the_command(model, backend, monkeypatch):
    monkeypatch.delenv('STDC_BACKEND')
    with pytest.raises(BackendError) as error:
        Segmenter.load(model, backend=backend, precision='int8')
    assert str(error.value) == (
        f'{model}: precision int8 needs mine.int8.onnx beside it, which does not exist; '
        f'make it: stdc quantize {model} --images FOLDER'
    )


def test_int8_file_of_another_model_is_an_error(model):
    write_model(int8_path(model), False)
    with pytest.raises(ModelError, match=r'mine.int8.onnx: a model in float, expected one from stdc quantize'):
        Segmenter.load(model, precision='int8')
    digest = hashlib.sha256(model.read_bytes()).hexdigest()
    write_model(int8_path(model), True, **{'made from': digest})
    assert Segmenter.load(model, precision='int8').backend == 'onnxruntime'
    write_model(int8_path(model), True, **{'made from': '0' * 64})
    with pytest.raises(
        ModelError, match=rf'made from a model with SHA-256 0{{12}}, but mine.onnx has {digest[:12]}; make'
    ):
        Segmenter.load(model, precision='int8')
    model.unlink()
    with pytest.raises(FileNotFoundError, match=r'mine.onnx: no such model file'):
        Segmenter.load(model, precision='int8')


@pytest.mark.parametrize('damage', ['', '[]', '{"labels changed (%)": "many"}', '[' * 5000])
def test_damaged_recipe_is_ignored(model, damage, monkeypatch):
    proto = onnx.load(write_model(model, True, any=1))
    info = ModelInfo('stdc1', 1.0, class_table('camvid'), {'quantized': damage})
    helper.set_model_props(proto, info.to_metadata())
    onnx.save(proto, int8_path(model))
    assert Segmenter.load(model, backend='onnxruntime', precision='int8').reason == ''


@pytest.mark.parametrize(
    ('quantized', 'precision', 'said'),
    [
        (False, 'fp16', 'backend onnxruntime: precision fp16 is for GPUs, expected auto, fp32, bf16 or int8 on a CPU'),
        (False, 'bf16', 'backend onnxruntime: precision bf16 needs OpenVINO, expected auto or fp32'),
        (True, 'fp32', 'backend onnxruntime: precision fp32, but the model is quantised: expected int8 or auto'),
        (False, 'int4', "precision 'int4', expected one of auto, fp32, bf16, fp16, int8"),
    ],
)
def test_precision_that_onnx_runtime_lacks_is_an_error(tmp_path, quantized, precision, said):
    path = write_model(tmp_path / 'model.onnx', quantized)
    with pytest.raises(BackendError) as error:
        Segmenter.load(path, backend='onnxruntime', precision=precision)
    assert str(error.value) == said


class Constant(Backend):
    """Gives the same mask for every image, or fails."""

    def __init__(self, name: str, label: int | None):
        self.name, self._label = name, label

    def prepare(self, size, progress):
        self(np.zeros((1, *size, 3), np.uint8), False)

    def __call__(self, images, confidence):
        if self._label is None:
            raise RuntimeError(f'{self.name} cannot')
        return np.full(images.shape[:3], self._label, np.uint8), None


@pytest.mark.parametrize('prepare', [False, True])
def test_other_backend_takes_over_after_a_failure(prepare, caplog):
    made = []

    def make_other() -> Backend:
        made.append(1)
        return Constant('second', 7)

    backend = ReplaceableBackend(Constant('first', None), make_other)
    backend.reason = 'fast'
    image = np.zeros((1, 4, 6, 3), np.uint8)
    if prepare:
        backend.prepare((4, 6), print)
    assert [int(backend(image, False)[0].max()) for _ in range(2)] == [7, 7]
    assert (backend.name, made) == ('second', [1])
    assert backend.reason == 'fast; first failed (first cannot)'
    assert caplog.messages == ['first failed (first cannot); using second instead']


def test_first_backend_stays_where_the_images_are_at_fault(caplog):
    backend = ReplaceableBackend(Constant('first', None), lambda: Constant('second', None))
    with pytest.raises(RuntimeError, match='second cannot'):
        backend(np.zeros((1, 4, 6, 3), np.uint8), False)
    assert backend.name == 'first' and not caplog.messages


def load_on(flags: str, limit: float) -> tuple[str, str, list[str], np.ndarray]:
    """Return name, reason, log and mask of the backend that `auto` makes for the shipped model on a CPU with flags."""
    records: list[str] = []

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            records.append(f'{record.levelname} {record.getMessage()}')

    with pytest.MonkeyPatch.context() as patch:
        patch.delenv('STDC_BACKEND')
        patch.setattr(backend_choice, 'cpu_flags', lambda: frozenset(flags.split()))
        patch.setattr(backend_choice, 'missing_driver', lambda: 'no GPU')
        patch.setattr(cpu_backend, 'MAX_DIFFERENCE', limit)
        log = logging.getLogger('stdc_core')
        log.setLevel(logging.INFO)
        log.addHandler(Handler())
        segmenter = Segmenter.load()
    image = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)
    return segmenter.backend, segmenter.reason, records, segmenter(image).mask


@pytest.mark.skipif(find_spec('openvino') is None, reason='openvino is not installed')
def test_auto_takes_openvino_and_says_what_changes():
    # A limit that no masks keep stands for masks that are wrong.
    name, reason, log, mask = in_own_process(load_on, FLAGS['Zen 4'], 1.0)
    assert name.startswith('openvino')
    assert reason.startswith('no GPU; the CPU has bfloat16; 0.')
    assert reason.endswith(" % of the labels of a rendered street differ from float32's")
    assert log == [f'INFO using {name}: {reason}']
    other, refused, log, expected = in_own_process(load_on, FLAGS['Zen 4'], -1.0)
    assert other == 'onnxruntime'
    assert refused.endswith(', expected at most -100 %)')
    assert log[0].startswith('WARNING openvino failed (') and log[0].endswith('; using onnxruntime instead')
    assert log[1:] == [f'INFO using onnxruntime: {refused}']
    assert (mask == expected).mean() > 0.98
