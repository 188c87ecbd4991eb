# SPDX-License-Identifier: Apache-2.0
"""The GPU benchmark: a dry run on the CPU in its own processes, and engines on a device that is the CPU."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import REPOSITORY
from gpu_comparison import engine_runner, timing, workload
from gpu_comparison.engine_runner import EngineRunner, run_trial
from gpu_comparison.plan import (
    EAGER_16,
    EAGER_32,
    INT8_SEG50,
    NETWORKS,
    PYTORCH,
    RTX,
    SEG50,
    SHIPPED,
    SMALL,
    TENSORRT,
    TF32,
    Contender,
    groups,
)
from gpu_comparison.timing import check_trial, trial_network
from gpu_comparison.worker import Worker, serve
from host_device import Bench, HostExecution, needs_compiler

from stdc_core.inference.model_file import read_model
from stdc_core.inference.onnx_graph.quantized import is_quantized
from stdc_core.inference.tensorrt.cuda import missing_driver

ENVIRONMENT = {**os.environ, 'PYTHONPATH': str(REPOSITORY), 'CUDA_VISIBLE_DEVICES': ''}


@pytest.fixture(scope='module')
def work(tmp_path_factory) -> Path:
    """The folder of models and frames, for small images."""
    pytest.importorskip('torch', reason='torch is not installed')
    work = tmp_path_factory.mktemp('work')
    workload.make_ready(work, None, (64, 128), 2, max_loss=100.0)
    return work


@pytest.fixture(autouse=True)
def no_warm_up(monkeypatch):
    """Leave out the runs that are not timed: on the CPU they take long."""
    for module in (engine_runner, timing):
        monkeypatch.setattr(module, 'WARM_UP', 0)


@pytest.fixture
def make(tmp_path):
    """Make backends as the benchmark does, on a device that is the CPU."""

    def make(model, library, precision, tactics=(), **settings):
        backend = Bench(model, tmp_path / 'cache', precision, library=library, **settings).backend
        backend.reason = 'some library'
        return backend

    return make


def program(*arguments: str) -> subprocess.CompletedProcess:
    command = [sys.executable, str(REPOSITORY / 'benchmarks' / 'gpu.py'), *arguments]
    return subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=300)


@pytest.mark.skipif(not missing_driver(), reason='there is an NVIDIA driver')
def test_a_dry_run_goes_from_the_trial_of_the_libraries_to_the_tables(work, tmp_path):
    out = tmp_path / 'numbers.json'
    done = program('--dry-run', '--runs', '1', '--work', str(work), '--out', str(out))
    assert done.returncode == 0, done.stderr
    numbers = json.loads(out.read_text(), parse_constant=lambda name: pytest.fail(f'{name} in JSON'))
    assert set(numbers['libraries']) == {'onnxruntime_cuda', 'pytorch'}
    assert set(numbers['missing']) == {TENSORRT, RTX}
    assert numbers['failed'] == numbers['impossible'] == {}
    found = {(row['group'], row['library'], row['precision']): row for row in numbers['rows']}
    assert set(found) == {
        (group, library, way)
        for group in (SMALL, 'masks of the shipped model')
        for library, way in (('onnxruntime_cuda', TF32), (PYTORCH, EAGER_32), (PYTORCH, EAGER_16))
    }
    assert all(row['device_ms'] > 0 and row['host_ms'] > 0 for row in found.values())
    for way, least in ((TF32, 100.0), (EAGER_32, 99.9), (EAGER_16, 99.0)):
        row = next(row for key, row in found.items() if key[0] != SMALL and key[2] == way)
        assert row['equal'] >= least
        assert row['miou'] == pytest.approx(row['miou_expected'], abs=1)
    told = done.stdout
    assert told.index('does not run here') < told.index(f'{SMALL}: preparing')  # said before anything is measured
    assert 'DRY RUN on the CPU with small images: these numbers say nothing about a GPU' in told
    assert re.search(r'^tensorrt_rtx: does not run here: .*(driver|No module|not installed)', told, re.MULTILINE)
    assert 'onnxruntime_cuda: runs on CPU, ONNX Runtime' in told
    assert re.search(r'^\| pytorch eager float32 with TF32 \| \d', told, re.MULTILINE)
    assert f'| {SMALL}, fp16, image and mask on the device, ms | at most 0.2 (0.35) | not measured | not measur' in told


def test_models_and_frames_are_made_once_and_not_of_other_data(work, tmp_path):
    before = {path: path.stat().st_mtime_ns for path in work.iterdir()}
    made = workload.make_ready(work, None)
    assert made['images'] == 2 and made['size'] == [64, 128]
    assert {path: path.stat().st_mtime_ns for path in work.iterdir()} == before
    with pytest.raises(SystemExit, match=f'made of rendered frames, expected {tmp_path}; remove the folder'):
        workload.make_ready(work, tmp_path)


def test_every_model_of_the_plan_is_there_at_its_scale(work):
    for group in groups():
        for contender in group.contenders:
            model = workload.read_workload_model(work, contender.model)
            assert is_quantized(model) == contender.model.startswith('int8')
    for name, network in NETWORKS.items():
        assert workload.scale_of(work, name) == network.scale
    assert workload.read_frames(work, SMALL).shape == (2, 32, 64, 3)
    assert workload.read_frames(work, SEG50).shape == workload.read_frames(work, INT8_SEG50).shape == (2, 64, 128, 3)


def worker_of(work, make, library=RTX) -> Worker:
    return Worker(lambda: EngineRunner(library, work, make=make), work)


@needs_compiler
@pytest.mark.parametrize('library', [TENSORRT, RTX])
def test_engines_are_timed_and_compared_as_on_a_gpu(work, make, library):
    worker = worker_of(work, make, library)
    # ONNX Runtime has to do for the engine, and computes float32.
    for contender in (Contender(library, 'fp32', SHIPPED), Contender(library, 'fp32', SHIPPED, kernels=False)):
        about = worker.answer({'do': 'prepare', 'contender': contender})['found']
        assert about['engine_s'] > 0 and about['graph']
        times = worker.answer({'do': 'time', 'contender': contender, 'runs': 3})['found']
        assert [len(times[name]) for name in ('device_ms', 'host_ms')] == [3, 3]
        assert worker.answer({'do': 'masks', 'contender': contender})['found']['equal'] > 99.9
        details = worker.answer({'do': 'details', 'contender': contender, 'runs': 1})['found']
        assert ('overlay_ms' in details) == contender.kernels
        assert {'no_graph_ms', 'confidence_ms'} <= set(details)
    assert worker.answer({'do': 'release'}) == {'found': {}}


@needs_compiler
def test_everything_on_the_device_is_given_back(work, make, monkeypatch):
    devices = []

    def watched(*arguments, **settings):
        backend = make(*arguments, **settings)
        devices.append(backend.device)
        return backend

    worker = worker_of(work, watched)
    contender = Contender(RTX, 'fp32', SEG50, batch=2)
    worker.answer({'do': 'prepare', 'contender': contender})
    worker.answer({'do': 'time', 'contender': contender, 'runs': 1})
    worker.answer({'do': 'details', 'contender': contender, 'runs': 1})
    assert devices[0].allocated
    worker.answer({'do': 'release'})
    assert not devices[0].allocated
    assert devices[0].graphs == 0


@needs_compiler
def test_an_engine_that_cannot_be_captured_is_timed_without_a_graph(work, make, monkeypatch):
    monkeypatch.setattr(HostExecution, 'capturable', False)
    worker, contender = worker_of(work, make), Contender(RTX, 'fp32', SEG50)
    assert worker.answer({'do': 'prepare', 'contender': contender})['found']['graph'] is False
    assert worker.answer({'do': 'time', 'contender': contender})['found']['device_ms'] == [1.0]


@needs_compiler
def test_what_a_version_cannot_do_is_no_failure_but_another_precision_is(work, make):
    def typed(*arguments, **settings):
        return make(*arguments, typed=True, **settings)

    contender = Contender(RTX, 'fp16', SEG50, kernels=False)
    assert worker_of(work, typed).answer({'do': 'prepare', 'contender': contender}) == {
        'impossible': 'not possible with some library: it computes in the types of the graph, which in one piece are '
        'float32'
    }

    def single(model, library, precision, max_batch, **settings):
        return make(model, library, precision, **settings)

    answer = worker_of(work, single).answer({'do': 'prepare', 'contender': Contender(RTX, 'fp32', SEG50, batch=2)})
    assert answer == {'impossible': 'not possible with some library: batches of 1 at most'}
    other = worker_of(work, lambda model, library, precision, **settings: make(model, library, 'fp16', **settings))
    answer = other.answer({'do': 'prepare', 'contender': Contender(RTX, 'fp32', SEG50)})
    assert answer == {'error': 'RuntimeError: would run as tensorrt_rtx fp16'}


def test_the_trial_runs_one_convolution(tmp_path):
    from host_device import HostDevice, HostEngine

    device = HostDevice()
    run_trial(device, HostEngine(device, trial_network()))
    assert not device.allocated
    with pytest.raises(RuntimeError, match=r'a convolution of ones gave 0.0 to 0.0, expected 27.0'):
        check_trial(np.zeros((1, 8, 16, 32)))


def test_a_worker_answers_line_by_line_and_an_error_is_one_line():
    def refuse():
        raise ImportError('no module\nnamed torch')

    answers = io.StringIO()
    serve(Worker(refuse, Path()), ['{"do": "probe"}\n', '{"do": "release"}\n'], answers)
    assert [json.loads(line) for line in answers.getvalue().splitlines()] == [
        {'error': 'ImportError: no module named torch'},
        {'found': {}},
    ]


def test_what_was_prepared_by_a_process_that_ended_is_an_error():
    answer = Worker(lambda: None, Path()).answer({'do': 'time', 'contender': Contender(RTX, 'fp16', SEG50)})
    assert answer == {'error': 'RuntimeError: its process ended and was started again'}


def test_numpy_and_onnx_are_enough_for_engines(work):
    """As in the interpreter of TensorRT, with a backend that knows the answer."""
    code = """
import sys
sys.modules.update(dict.fromkeys(['cv2', 'onnxruntime', 'torch', 'tqdm', 'yaml']))
import json, pathlib
import numpy as np
from gpu_comparison.engine_runner import EngineRunner
from gpu_comparison.worker import Worker
work = pathlib.Path(sys.argv[1])
class Stub:
    name, reason, max_batch, kernels, captured = 'tensorrt int8', 'TensorRT', 1, True, True
    def __init__(self, *_, **__): self.device, self.index = self, -1
    def free_memory(self): return 10**9, 10**9
    def prepare(self, size, progress): pass
    def pipeline(self, shape, confidence): return self
    def capture(self, work): return self
    def time(self, work, runs): return [1.0] * runs
    def launch(self): pass
    def compute(self): pass
    def __call__(self, images):
        self.index += 1
        return np.load(work / 'expected.npz')['masks'][self.index % 2][None], None
worker = Worker(lambda: EngineRunner('tensorrt', work, make=Stub), work)
contender = ['tensorrt', 'int8', 'int8', True, 1]
print(json.dumps([worker.answer({'do': do, 'contender': contender}) for do in ('prepare', 'masks', 'time')]))
"""
    path = os.pathsep.join(map(str, (REPOSITORY, REPOSITORY / 'benchmarks')))
    command = [sys.executable, '-c', code, str(work)]
    done = subprocess.run(command, env={**os.environ, 'PYTHONPATH': path}, stdout=subprocess.PIPE, check=True)
    _, masks, times = json.loads(done.stdout)
    assert masks['found']['equal'] == 100
    assert times['found']['device_ms'] == [1]


@pytest.mark.parametrize('way', [EAGER_32, EAGER_16])
def test_pytorch_computes_the_same_network(work, way):
    torch = pytest.importorskip('torch', reason='torch is not installed')
    from gpu_comparison.pytorch_runner import network_logits

    from stdc_core.model.deployed_graph import DeployedGraph
    from stdc_core.model.weights import load_weights

    images = torch.from_numpy(workload.read_frames(work, SEG50))
    graph = DeployedGraph(load_weights(work / 'stdc1.onnx')[0], 0.5).eval()
    half = way == EAGER_16
    with torch.inference_mode():
        expected, found = graph.logits(images), network_logits(work, SEG50, half, 'cpu')(images)
    assert found.dtype == (torch.float16 if half else torch.float32)
    assert (found - expected).abs().max() < (1e-2 if half else 1e-5) * expected.abs().max()
    assert (found.argmax(dim=1) == expected.argmax(dim=1)).float().mean() > 0.99
    assert read_model(work / 'stdc1.onnx')[1].classes
