# SPDX-License-Identifier: Apache-2.0
"""The benchmark for NVIDIA GPUs, on a device that is the CPU."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import REPOSITORY
from host_device import Bench, needs_compiler

from stdc_core.data.synthetic import SyntheticDrive
from stdc_core.inference import DEFAULT_MODEL
from stdc_core.inference.model_file import read_model
from stdc_core.inference.onnx_graph.network_split import split
from stdc_core.inference.onnx_graph.quantized import is_quantized
from stdc_core.inference.tensorrt import cuda
from stdc_core.inference.tensorrt.cuda import missing_driver
from stdc_core.io.files import write_png

ORIGIN = {'date': '2026-11-27', 'command': 'gpu.py --runs 1', 'driver': '580.65', 'cuda': '13.0'}
MADE = {'data': None, 'images': 2, 'size': [64, 128], 'expected_by': 'ONNX Runtime 1'}


@pytest.fixture(scope='module')
def gpu():
    """The module, for small images."""
    spec = spec_from_file_location('gpu', REPOSITORY / 'benchmarks' / 'gpu.py')
    gpu = module_from_spec(spec)
    spec.loader.exec_module(gpu)
    gpu.SIZE, gpu.FRAMES, gpu.WARM_UP, gpu.BATCHES = (64, 128), 2, 0, (2,)
    gpu.MAX_LOSS = 100.0  # so small an image would lose more than 1 % of its labels with any layer quantised
    gpu.NETWORKS = {name: gpu.NETWORKS[name] for name in (gpu.SMALL, gpu.SEG50)}
    return gpu


@pytest.fixture(scope='module')
def work(gpu, tmp_path_factory):
    """The folder of models and frames."""
    pytest.importorskip('torch', reason='torch is not installed')
    work = tmp_path_factory.mktemp('work')
    gpu.make_ready(work, None)
    return work


@pytest.fixture
def make(tmp_path):
    """Makes backends as the benchmark does."""

    def make(path, precision, tactics=(), **settings):
        backend = Bench(read_model(path)[0], tmp_path / 'cache', precision, **settings).backend
        backend.reason = 'TensorRT'
        return backend

    return make


@pytest.fixture
def data(tmp_path):
    """A dataset of five images to check on and three to calibrate on."""
    for part, count in (('val', 5), ('train', 3)):
        for kind in ('images', 'labels'):
            (tmp_path / 'data' / part / kind).mkdir(parents=True)
        for index, frame in enumerate(SyntheticDrive(seed=len(part), height=40, width=56, frames=count)):
            write_png(tmp_path / 'data' / part / 'images' / f'{index}.png', frame.image)
            write_png(tmp_path / 'data' / part / 'labels' / f'{index}.png', frame.label)
    return tmp_path / 'data'


@pytest.fixture
def calibrated(monkeypatch):
    """Pictures that were calibrated on, without the quantisation."""
    pictures: list[Path] = []

    def quantize(model, out, images, **settings):
        pictures.extend(images)
        shutil.copy(model, out)

    monkeypatch.setattr('stdc_core.export.quantize.quantize', quantize)
    return pictures


def strict(text: str):
    """What JSON holds, in which no number is missing."""
    return json.loads(text, parse_constant=lambda name: pytest.fail(f'{name} in JSON'))


@needs_compiler
def test_the_benchmark_checks_and_times_what_it_says(gpu, work, make, capsys):
    numbers = {
        **ORIGIN,
        **MADE,
        **{kind: [] for kind in gpu.KINDS},
        'impossible': {},
        'failed': {'a step': 'no memory'},
    }
    for step in gpu.steps():
        if step.kind == 'cpu':
            numbers['cpu'].append(gpu.take(step, work, 1, ()))
        some = step.kind == 'check' or step.batch == 2 or step.way == 'fp32' or not step.kernels
        if step.kind in ('check', 'time') and some:
            # ONNX Runtime has to do for a GPU, and computes float32 with both.
            way = step.way.replace('fp16', 'fp32')
            numbers[step.kind].append(gpu.take(step._replace(way=way), work, 1, (), make))
    assert [row['model'] for row in numbers['check']] == ['shipped'] * 2 + ['int8'] + ['shipped'] * 2 + [*gpu.NETWORKS]
    assert [gpu.is_right(row) for row in numbers['check'] if row['way'] != 'int8'] == [True] * 6
    assert [row['miou'] is None for row in numbers['check']] == [False] * 5 + [True] * 2
    first, _, int8 = numbers['check'][:3]
    assert first['miou'] == pytest.approx(first['miou_expected'], abs=0.1)
    assert int8['miou_expected'] == first['miou_expected']
    assert is_quantized(read_model(work / 'int8.onnx')[0])
    assert 80 < int8['equal'] < 100
    assert int8['miou'] == pytest.approx(first['miou'], abs=3)
    numbers['pytorch'] = [
        {**gpu.Step('pytorch', gpu.SEG50, way)._asdict(), 'device': 'CPU', 'on': 'PyTorch', 'device_ms': time}
        for way, time in zip(gpu.WAYS, (9.0, 4.0, 3.0), strict=True)
    ]
    strict(json.dumps(numbers))
    capsys.readouterr()
    gpu.report(numbers)
    told = capsys.readouterr().out
    assert '2026-11-27: gpu.py --runs 1\nCPU; driver 580.65; CUDA 13.0; TensorRT, Python 3' in told
    assert 'checked on 2 images of 64 x 128, rendered, by ONNX Runtime 1' in told
    assert '| stdc1-seg50 | 3.99 ms | TensorRT fp32 | 1.000 | 1.000 | 1.000 |' in told
    assert re.search(r'TensorRT fp32 \| 1.000 \| 1.000 \| 1.000 \| \d+\.\d{3} \| 9.0 \| 3.0 \|', told)
    assert '| stdc1-seg50 | | PyTorch eager float16, channels last | 4.000 | | | | 2.2 | 0.8 |' in told
    assert re.search(r'\| stdc1-512x1024 \| 3.99 ms \| TensorRT fp32 \| 1.000 .* \|  \|  \|', told)
    assert re.search(r'an overlay, time stdc1-seg50: fp32: \d', told)
    assert re.search(r'an overlay, cpu stdc1-seg50: overlay: \d', told)
    assert re.search(r'check shipped: fp32, all in the engine: .* mIoU \d+\.\d\d % \(there \d', told)
    assert 'failed: a step: no memory' in told
    assert not re.search('check shipped: .*WRONG', told)


@needs_compiler
def test_the_small_network_sees_every_second_pixel(gpu, work, make):
    assert gpu.frames_of(gpu.SMALL, work).shape == (2, 32, 64, 3)
    assert gpu.frames_of(gpu.SEG50, work).shape == (2, 64, 128, 3)
    shapes = []

    def watched(*arguments, **settings):
        backend = make(*arguments, **settings)
        pipeline = backend.pipeline
        backend.pipeline = lambda shape, confidence: shapes.append(shape) or pipeline(shape, confidence)
        return backend

    gpu.take(gpu.Step('time', gpu.SMALL, 'fp32'), work, 1, (), watched)
    assert set(shapes) == {(1, 32, 64, 3)}
    assert read_model(work / f'{gpu.SMALL}.onnx')[1].input_scale == 1


@needs_compiler
def test_memory_is_that_of_engine_and_pipeline(gpu, work, make):
    def filling(*arguments, **settings):
        backend = make(*arguments, **settings)
        prepare, device, taken = backend.prepare, backend.device, []
        backend.prepare = lambda *arguments: (prepare(*arguments), taken.append(500_000_000))
        device.free_memory = lambda: (10**9 - sum(taken) - sum(map(len, device.allocated.values())), 10**9)
        return backend

    found = gpu.take(gpu.Step('time', gpu.SEG50, 'fp32'), work, 1, (), filling)
    assert 500 < found['memory_mb'] < 501


def test_a_check_is_right_by_its_labels_and_of_int8_by_its_miou(gpu):
    right = {'way': 'fp16', 'kernels': True, 'overlay_off': 0.5, 'equal': 99.9, 'confidence_off': 1.0}
    right |= {'miou': None, 'miou_expected': None}
    assert gpu.is_right(right)
    for wrong in ({'equal': 99.8}, {'confidence_off': 1.1}, {'overlay_off': 0.6}, {'kernels': False}):
        assert not gpu.is_right(right | wrong)
    assert gpu.is_right(right | {'kernels': False, 'overlay_off': None})
    int8 = right | {'way': 'int8', 'equal': 98.0, 'miou': 69.5, 'miou_expected': 70.0}
    assert gpu.is_right(int8)
    assert not gpu.is_right(int8 | {'miou': 69.4})
    assert not gpu.is_right(int8 | {'miou': None, 'miou_expected': None})


def test_the_miou_of_masks(gpu):
    masks, labels = np.array([[[0, 0], [1, 1]]], np.uint8), np.array([[[0, 1], [1, 255]]], np.uint8)
    assert gpu.miou(masks, labels) == 50
    assert gpu.miou(masks, None) is None
    assert gpu.miou(masks, np.full_like(labels, 255)) is None


@needs_compiler
def test_real_frames_are_checked_on_and_others_calibrated_on(gpu, data, calibrated, make, tmp_path):
    samples = gpu.make_shipped(tmp_path, gpu.real_images(data), [])
    assert [sample.name for sample in samples] == ['0', '1', '3', '4']  # pairs, evenly spread
    assert calibrated == [data / 'train' / 'images' / f'{index}.png' for index in range(3)]
    np.testing.assert_array_equal(gpu.frames_of('int8', tmp_path), [sample.image for sample in samples])
    (tmp_path / 'made.json').write_text(json.dumps({'data': str(data)}))
    assert gpu.make_ready(tmp_path, data) == gpu.make_ready(tmp_path, None) == {'data': str(data)}
    with pytest.raises(SystemExit, match=f'was made of {data}, not of {tmp_path}; remove it'):
        gpu.make_ready(tmp_path, tmp_path)
    found_there, labels = np.load(tmp_path / 'shipped.npz'), [sample.label for sample in samples]
    for batch in (1, 2):
        found = gpu.take(gpu.Step('check', 'shipped', 'fp32', batch=batch), tmp_path, 1, (), make)
        assert gpu.is_right(found)
        assert found['miou'] == pytest.approx(gpu.miou(found_there['masks'], labels), abs=0.2)
    own, timed = (read_model(tmp_path / name)[0] for name in ('int8.onnx', 'int8-seg50.onnx'))
    weights = [tensor for tensor in read_model(DEFAULT_MODEL)[0].graph.initializer if tensor.name.startswith('model.')]
    assert [tensor for tensor in own.graph.initializer if tensor.name.startswith('model.')] == weights
    assert split(own).scale.own == 1.5
    assert split(timed).scale.own == 0.5


def test_without_data_int8_is_calibrated_on_another_drive(gpu, calibrated, tmp_path, monkeypatch):
    rendered = []
    render = gpu.render
    monkeypatch.setattr(gpu, 'render', lambda seed: rendered.append(seed) or render(seed))
    gpu.make_shipped(tmp_path, None, render(0))
    assert rendered == [1]
    assert len(calibrated) == gpu.FRAMES


def test_data_that_cannot_be_used_is_an_error(gpu, data):
    write_png(data / 'val' / 'images' / '4.png', np.zeros((32, 32, 3), np.uint8))
    write_png(data / 'val' / 'labels' / '4.png', np.zeros((32, 32), np.uint8))
    with pytest.raises(SystemExit, match='^--data: .*/val: 5 images of 2 sizes, expected 2 or more of one size$'):
        gpu.real_images(data)
    for index in range(1, 5):
        for kind in ('images', 'labels'):
            (data / 'val' / kind / f'{index}.png').unlink()
    with pytest.raises(SystemExit, match='^--data: .*/val: 1 images of 0 sizes'):
        gpu.real_images(data)
    shutil.rmtree(data / 'val')
    with pytest.raises(SystemExit, match="^--data: .*no dataset with a split 'val'"):
        gpu.real_images(data)


@needs_compiler
def test_what_a_version_of_tensorrt_cannot_do_is_no_failure(gpu, work, make, monkeypatch):
    def typed(*arguments, **settings):
        return make(*arguments, typed=True, **settings)

    step = gpu.Step('time', gpu.SEG50, 'fp16', kernels=False)
    found = gpu.take(step, work, 1, (), typed)
    assert found['impossible'] == (
        'not possible with TensorRT: it computes in the types of the graph, which in one piece are float32'
    )

    def single(*arguments, max_batch, **settings):
        return make(*arguments, **settings)

    found = gpu.take(gpu.Step('time', gpu.SEG50, 'fp32', batch=2), work, 1, (), single)
    assert found['impossible'] == 'not possible with TensorRT: it takes batches of 1 at most'
    for kernels in (True, False):  # which any version can
        with pytest.raises(SystemExit, match='it would run as tensorrt fp16'):
            step = gpu.Step('time', gpu.SEG50, 'fp32', kernels)
            gpu.take(step, work, 1, (), lambda path, _, **how: make(path, 'fp16', **how))


def test_a_step_of_the_benchmark_that_fails_leaves_the_others_their_numbers(gpu, tmp_path, monkeypatch):
    options = SimpleNamespace(
        minutes=5, tensorrt_python='python', runs=1, tactics='', out=tmp_path / 'numbers.json', library='tensorrt_rtx'
    )
    ends = {1: (-11, ''), 2: (1, 'Traceback\n  somewhere\nEngineError: no memory\n'), 3: (-9, 'a warning\n')}

    def run(command, timeout, **_):
        index = int(command[command.index('--step') + 1])
        assert command[command.index('--library') + 1] == 'tensorrt_rtx'
        if index == 4:
            raise subprocess.TimeoutExpired(command, timeout)
        if index == 5:
            raise FileNotFoundError('no such interpreter')
        found = {'impossible': 'not possible with TensorRT 11'} if index == 6 else {'index': index}
        if index not in ends:
            (tmp_path / f'step{index}.json').write_text(json.dumps(found))
        return subprocess.CompletedProcess(command, *ends.get(index, (0, None))[:1], stderr=ends.get(index, (0, ''))[1])

    monkeypatch.setattr(gpu.subprocess, 'run', run)
    numbers = gpu.take_all(options, tmp_path, ORIGIN)
    labels = [step.label for step in gpu.steps()]
    reasons = ['SIGSEGV', 'exit status 1: EngineError: no memory', 'SIGKILL: a warning', 'no time was left']
    assert numbers['failed'] == dict(zip(labels[1:6], [*reasons, 'no such interpreter'], strict=True))
    assert numbers['impossible'] == {labels[6]: 'not possible with TensorRT 11'}
    found = [row['index'] for kind in gpu.KINDS for row in numbers[kind]]
    assert sorted(found) == [0, *range(7, len(labels))]
    assert strict(options.out.read_text()) == numbers
    assert numbers['driver'] == '580.65'


@pytest.mark.parametrize(
    ('failed', 'equal', 'status'), [({}, 100.0, 0), ({}, 99.0, 1), ({'a step': 'no memory'}, 100.0, 1)]
)
def test_the_exit_status_tells_whether_all_is_right(gpu, tmp_path, monkeypatch, capsys, failed, equal, status):
    (tmp_path / 'made.json').write_text(json.dumps(MADE))
    check = {**gpu.Step('check', 'shipped', 'fp32')._asdict(), 'overlay_off': 0.5, 'equal': equal, 'confidence_off': 0}
    check |= {'miou': None, 'miou_expected': None, 'engine_s': 1.0, 'on': 'TensorRT', 'device': 'CPU'}
    taken = {kind: [] for kind in gpu.KINDS} | {'check': [check], 'impossible': {'a step': 'not possible with it'}}
    monkeypatch.setattr(cuda, 'missing_driver', lambda: '')
    monkeypatch.setattr(gpu, 'take_all', lambda options, work, origin: {**origin, **taken, 'failed': failed})
    monkeypatch.setattr(sys, 'argv', ['gpu.py', '--work', str(tmp_path)])
    assert gpu.main() == status
    told = capsys.readouterr().out
    assert 'a step: not possible with it' in told
    assert f': gpu.py --work {tmp_path}\n' in told
    assert ('WRONG' in told) == (equal < 99.9)


def test_the_numbers_of_a_step_are_strict_json(gpu, tmp_path, monkeypatch):
    monkeypatch.setattr(cuda, 'missing_driver', lambda: '')
    monkeypatch.setattr(sys, 'argv', ['gpu.py', '--step', '3', '--work', str(tmp_path)])
    monkeypatch.setattr(gpu, 'take', lambda *_: {'device_ms': 1.0})
    assert gpu.main() == 0
    assert strict((tmp_path / 'step3.json').read_text()) == {'device_ms': 1.0}
    monkeypatch.setattr(gpu, 'take', lambda *_: {'device_ms': float('nan')})
    with pytest.raises(ValueError, match='not JSON compliant'):
        gpu.main()


def measured(gpu) -> dict:
    """Numbers of an H200 that meet every target but one."""

    def row(kind, model, way, kernels=True, **numbers):
        return {**gpu.Step(kind, model, way, kernels)._asdict(), 'device': 'NVIDIA H200', **numbers}

    numbers: dict = {kind: [] for kind in gpu.KINDS} | {'data': 'camvid'}
    for index, name in enumerate(gpu.NETWORKS):
        ours, pytorch = 0.2 + 0.1 * index, (4.0, 1.0, 0.55)
        numbers['time'].append(row('time', name, 'fp16', device_ms=ours, host_to_host_ms=0.9))
        numbers['time'].append(row('time', name, 'fp16', False, device_ms=2 * ours, host_to_host_ms=2))
        numbers['pytorch'] += [
            row('pytorch', name, way, device_ms=ms) for way, ms in zip(gpu.WAYS, pytorch, strict=True)
        ]
    numbers['check'].append(row('check', 'shipped', 'fp16', equal=99.95, miou=80.0, miou_expected=80.1))
    numbers['check'].append(row('check', 'int8', 'int8', equal=98.0, miou=79.8, miou_expected=80.1))
    return numbers


def values(gpu, numbers) -> list[float | None]:
    return [value if value is None else pytest.approx(value) for _, _, value in gpu.targets(numbers)]


def test_the_targets(gpu, capsys):
    numbers = measured(gpu)
    assert values(gpu, numbers) == [0.2, 0.9, 4 / 0.3, 0.55 / 0.3, 2, 99.95, 0.3, None]
    gpu.report_targets(numbers)
    rows = capsys.readouterr().out.strip().splitlines()
    assert rows[0] == '| target, for an H200 | measured, NVIDIA H200 | |'
    assert rows[2] == '| stdc1-512x1024, fp16, on the device, ms: at most: 0.35 | 0.200 | met |'
    assert [row.split('|')[3].strip() for row in rows[2:]] == ['met'] * 3 + ['not met'] + ['met'] * 3 + ['not measured']


def test_targets_that_were_missed(gpu, capsys):
    numbers = measured(gpu)
    for row in numbers['time']:
        row['device_ms'] *= 3 if row['kernels'] else 1
        row['host_to_host_ms'] *= 3
    for row in numbers['check']:
        row |= {'equal': 99.89, 'miou': 79.5}
    gpu.report_targets(numbers)
    rows = capsys.readouterr().out.strip().splitlines()[2:]
    assert [row.split('|')[3].strip() for row in rows] == ['not met'] * 7 + ['not measured']


def test_a_target_of_which_something_is_missing_is_not_measured(gpu):
    numbers = measured(gpu)
    assert values(gpu, {**numbers, 'data': None})[5:] == [None] * 3  # rendered frames are no real ones
    assert values(gpu, {**numbers, 'pytorch': numbers['pytorch'][:-1]})[2:4] == [pytest.approx(4 / 0.3), None]
    numbers['time'] = [row for row in numbers['time'] if row['model'] != gpu.SEG50]
    assert values(gpu, numbers)[:5] == [pytest.approx(0.2), None, None, None, None]
    assert values(gpu, {**numbers, **{kind: [] for kind in gpu.KINDS}}) == [None] * 8


def test_where_the_engine_does_all_in_float32_alone_kernels_are_compared_in_that(gpu):
    numbers = measured(gpu)
    numbers['time'] = [row for row in numbers['time'] if row['kernels']]
    assert values(gpu, numbers)[4] is None
    for kernels, time in ((True, 0.5), (False, 2.0)):
        numbers['time'].append({**gpu.Step('time', gpu.SEG50, 'fp32', kernels)._asdict(), 'device_ms': time})
    assert values(gpu, numbers)[4] == 4


def test_date_command_driver_and_cuda_are_told(gpu, monkeypatch):
    def version(number):
        number._obj.value = 12080

    monkeypatch.setattr(sys, 'argv', ['benchmarks/gpu.py', '--data', 'my data'])
    smi = SimpleNamespace(stdout='580.65.06\n580.65.06\n')
    monkeypatch.setattr(gpu.subprocess, 'run', lambda *_, **__: smi)
    monkeypatch.setattr(gpu.ctypes, 'CDLL', lambda _: SimpleNamespace(cuDriverGetVersion=version))
    found = gpu.surroundings()
    assert re.fullmatch(r'\d{4}-\d\d-\d\d', found.pop('date'))
    assert found == {'command': "benchmarks/gpu.py --data 'my data'", 'driver': '580.65.06', 'cuda': '12.8'}

    def missing(*_, **__):
        raise OSError('not there')

    monkeypatch.setattr(gpu.subprocess, 'run', missing)
    monkeypatch.setattr(gpu.ctypes, 'CDLL', missing)
    assert list(gpu.surroundings()) == ['date', 'command']


@pytest.mark.parametrize('way', [0, 1])
def test_pytorch_computes_the_same_network(gpu, work, way):
    import torch

    from stdc_core.model.deployed_graph import DeployedGraph
    from stdc_core.model.weights import load_weights

    step = gpu.Step('pytorch', gpu.SEG50, gpu.WAYS[way])
    images = torch.from_numpy(gpu.frames_of(gpu.SEG50, work))
    graph = DeployedGraph(load_weights(work / 'stdc1.safetensors')[0], 0.5).eval()
    with torch.inference_mode():
        expected, found = graph.logits(images), gpu.pytorch_logits(step, work, 'cpu')(images)
    assert found.dtype == (torch.float16 if way else torch.float32)
    assert (found - expected).abs().max() < (1e-2 if way else 1e-5) * expected.abs().max()
    assert (found.argmax(dim=1) == expected.argmax(dim=1)).float().mean() > 0.99


def test_numpy_and_onnx_are_enough_for_the_steps_of_tensorrt(work):
    """As in its interpreter, with a backend that knows the answer."""
    code = """
import sys
sys.modules.update(dict.fromkeys(['cv2', 'onnxruntime', 'torch', 'tqdm', 'yaml']))
import json, pathlib
import numpy as np
import gpu
work = pathlib.Path(sys.argv[1])
class Stub:
    name, reason, max_batch, kernels = 'tensorrt int8', 'TensorRT', 1, True
    def __init__(self, *_, **__): self.device, self.outputs, self.index = self, [], 0
    def free_memory(self): return 10**9, 10**9
    def prepare(self, size, progress): pass
    def pipeline(self, shape, confidence): return self
    def capture(self, work): return self
    def time(self, work, runs): return [1.0] * runs
    def launch(self): pass
    def close(self): pass
    def compute(self): pass
    def overlay(self, index, table): return None
    def __call__(self, images):
        expected = np.load(work / 'shipped.npz')
        self.index += 1
        return expected['masks'][self.index - 1:][:1], expected['confidences'][self.index - 1:][:1]
gpu.FRAMES = 1
print(json.dumps([gpu.take(gpu.Step(kind, 'int8', 'int8'), work, 1, (), Stub) for kind in ('check', 'time')]))
"""
    path = os.pathsep.join(map(str, (REPOSITORY, REPOSITORY / 'benchmarks')))
    command = [sys.executable, '-c', code, str(work)]
    done = subprocess.run(command, env={**os.environ, 'PYTHONPATH': path}, stdout=subprocess.PIPE, check=True)
    check, time = json.loads(done.stdout)
    assert check['equal'] == 100
    assert check['miou'] == check['miou_expected'] > 0
    assert time['device_ms'] == 1


@pytest.mark.skipif(not missing_driver(), reason='there is an NVIDIA driver')
def test_the_benchmark_says_that_there_is_no_gpu(gpu, monkeypatch, capsys):
    monkeypatch.setattr(sys, 'argv', ['gpu.py'])
    assert gpu.main() == 2
    assert capsys.readouterr().err == f'nothing to measure: {missing_driver()}\n'
