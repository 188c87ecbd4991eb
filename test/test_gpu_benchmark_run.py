# SPDX-License-Identifier: Apache-2.0
"""The GPU benchmark: libraries that are missing or fail, turns, time limits and exit status."""

from __future__ import annotations

import json
import sys
import time
from types import SimpleNamespace

import gpu as program
import pytest
from gpu_comparison import first_mask, measuring
from gpu_comparison.measuring import TURNS, Comparison
from gpu_comparison.plan import (
    ONNXRUNTIME,
    PYTORCH,
    RTX,
    SEG50,
    SHIPPED,
    SMALL,
    TENSORRT,
    Contender,
    Group,
    all_libraries,
)
from gpu_comparison.process import WorkerError, WorkerProcess, environment


class Stub:
    """A worker that answers, notes what it is asked, and fails as told.

    Args:
        calls: List to note calls in.
        library: Library.
        failing: Errors by request, or by request and precision.
    """

    def __init__(self, calls, library, failing):
        self.calls, self.library, self.failing, self.closed = calls, library, failing, False

    def ask(self, do, seconds, contender=None, runs=1):
        assert not self.closed
        self.calls.append((do, self.library, contender and contender.precision))
        error = self.failing.get(do) or self.failing.get((do, contender and contender.precision))
        if error:
            raise error
        answers = {
            'probe': {'device': 'NVIDIA H200', 'on': self.library.upper()},
            'prepare': {'engine_s': 2.0},
            'time': {'device_ms': [1.0] * runs, 'host_ms': [3.0] * runs},
            'masks': {'equal': 99.95, 'miou': 70.0, 'miou_expected': 70.1},
            'details': {'overlay_ms': 0.5},
            'release': {},
        }
        return answers[do]

    def close(self):
        self.closed = True


@pytest.fixture
def compare(tmp_path):
    """Make a comparison of stubs; ``failing`` has errors by library."""

    def compare(seconds: float = 60, **failing) -> Comparison:
        calls: list[tuple] = []
        kept = tmp_path / 'numbers.json'
        comparison = Comparison(
            lambda library: Stub(calls, library, failing.get(library, {})),
            {},
            time.monotonic() + seconds,
            2 * TURNS,
            lambda numbers: kept.write_text(json.dumps(numbers, allow_nan=False)),
        )
        comparison.calls, comparison.kept = calls, kept
        return comparison

    return compare


def test_libraries_take_turns_and_every_number_is_kept(compare):
    comparison = compare()
    comparison.probe()
    comparison.measure(all_libraries(SMALL))
    ways = [(each.library, each.precision) for each in all_libraries(SMALL).contenders]
    times = [call[1:] for call in comparison.calls if call[0] == 'time']
    assert times[: 2 * len(ways)] == ways + ways[::-1]
    assert len(times) == TURNS * len(ways)
    rows = comparison.numbers['rows']
    assert [(row['library'], row['precision']) for row in rows] == ways
    assert {(row['group'], row['device_ms'], row['host_ms'], row['engine_s']) for row in rows} == {(SMALL, 1, 3, 2)}
    assert json.loads(comparison.kept.read_text()) == json.loads(json.dumps(comparison.numbers))


def test_masks_and_details_are_asked_for_where_the_group_wants_them(compare):
    comparison = compare()
    comparison.probe()
    contender = Contender(RTX, 'fp16', SHIPPED)
    comparison.measure(Group('a', (contender,), masks=True))
    comparison.measure(Group('b', (contender,), details=True))
    first, second = comparison.numbers['rows']
    assert (first['equal'], second['overlay_ms']) == (99.95, 0.5)
    assert 'overlay_ms' not in first and 'equal' not in second


def test_a_library_that_does_not_run_is_one_line_and_the_others_go_on(compare, capsys):
    comparison = compare(tensorrt_rtx={'probe': WorkerError('SIGSEGV: no kernel for compute capability 9.0')})
    comparison.probe()
    told = capsys.readouterr().out
    assert 'tensorrt_rtx: does not run here: SIGSEGV: no kernel for compute capability 9.0\n' in told
    assert 'tensorrt: runs on NVIDIA H200, TENSORRT\n' in told
    comparison.measure(all_libraries(SMALL))
    assert {row['library'] for row in comparison.numbers['rows']} == {TENSORRT, ONNXRUNTIME, PYTORCH}
    assert comparison.numbers['failed'] == {}


def test_a_library_that_takes_long_is_named_within_a_minute(compare, capsys, monkeypatch):
    assert measuring.NAMED_AFTER < 60
    monkeypatch.setattr(measuring, 'NAMED_AFTER', 0.2)
    comparison = compare()
    ask = Stub.ask

    def slow(self, do, *arguments, **more):
        if self.library == TENSORRT:
            time.sleep(0.6)
        return ask(self, do, *arguments, **more)

    monkeypatch.setattr(Stub, 'ask', slow)
    comparison.probe()
    told = capsys.readouterr().out
    assert 's, waiting: tensorrt\n' in told
    assert told.index('pytorch: runs') < told.index('waiting: tensorrt') < told.index('tensorrt: runs')


def test_a_contender_that_fails_costs_the_others_nothing(compare):
    failing = {
        ('prepare', 'int8'): WorkerError('no int8 here', impossible=True),
        ('prepare', 'fp32'): WorkerError('EngineError: no memory'),
        ('time', 'fp16'): WorkerError('SIGKILL', ended=True),
    }
    comparison = compare(tensorrt=failing)
    comparison.probe()
    contenders = [Contender(TENSORRT, precision, SEG50) for precision in ('int8', 'fp32', 'fp16')]
    comparison.measure(Group('a', (*contenders, Contender(RTX, 'fp16', SEG50))))
    assert [row['library'] for row in comparison.numbers['rows']] == [RTX]
    assert comparison.numbers['impossible'] == {contenders[0].label: 'no int8 here'}
    assert comparison.numbers['failed'] == {
        contenders[1].label: 'EngineError: no memory',
        contenders[2].label: 'SIGKILL',
    }
    comparison.measure(Group('b', (Contender(TENSORRT, 'auto', SEG50),)))  # by a new worker
    assert comparison.numbers['rows'][-1]['group'] == 'b'


def test_what_no_time_is_left_for_is_named(compare):
    comparison = compare()
    comparison.probe()
    comparison._until = time.monotonic()
    comparison.measure(all_libraries(SMALL))
    assert comparison.numbers['rows'] == []
    assert set(comparison.numbers['failed'].values()) == {'no time was left'}
    assert set(comparison.numbers['failed']) == {each.label for each in all_libraries(SMALL).contenders}


@pytest.fixture
def process(tmp_path):
    """Start a process that runs a line of Python as a worker."""
    started = []

    def process(code: str) -> WorkerProcess:
        started.append(WorkerProcess([sys.executable, '-c', code], tmp_path / 'log', environment()))
        return started[-1]

    yield process
    for each in started:
        each.close()


@pytest.mark.parametrize(
    ('code', 'reason', 'ended'),
    [
        ("import os; print('driver lost', file=__import__('sys').stderr); os.kill(os.getpid(), 11)", 'SIGSEGV', True),
        ("raise ValueError('no such thing')", 'exit status 1: ValueError: no such thing', True),
        ('input(); print(\'{"error": "no memory"}\', flush=True); input()', 'no memory', False),
        ('import time; time.sleep(60)', 'no answer within 0 s', True),
    ],
)
def test_why_a_worker_did_not_answer(process, code, reason, ended):
    with pytest.raises(WorkerError, match=reason) as error:
        process(code).ask('probe', 0.5 if 'sleep' in code else 30)
    assert error.value.ended == ended


def test_what_a_process_prints_does_not_come_between_the_answers(process):
    code = 'import gpu_comparison.worker as w, io, sys; print("noise", file=sys.stderr)\n'
    code += 'sys.argv = ["w", "pytorch", "--work", "."]; w.make_runner = lambda *_: print("more noise"); w.main()'
    with pytest.raises(WorkerError, match="'NoneType' object has no attribute 'probe'"):
        process(code).ask('probe', 30)


def test_the_first_mask_is_timed_from_the_start_of_a_process(tmp_path, monkeypatch):
    def done(status: int, said: str, error: str):
        return lambda *_, **__: SimpleNamespace(returncode=status, stdout=said, stderr=error)

    monkeypatch.setattr(first_mask.subprocess, 'run', done(0, f'building\n{time.monotonic() + 5}\n', ''))
    seconds = first_mask.time_first_mask(RTX, tmp_path, tmp_path, 'python', 60)
    assert seconds == pytest.approx(5, abs=1)
    monkeypatch.setattr(first_mask.subprocess, 'run', done(1, '', 'Traceback\nBackendError: no driver\n'))
    with pytest.raises(WorkerError, match='^exit status 1: BackendError: no driver$'):
        first_mask.time_first_mask(RTX, tmp_path, tmp_path, 'python', 60)
    monkeypatch.undo()
    with pytest.raises(WorkerError, match='No such file'):
        first_mask.time_first_mask(RTX, tmp_path, tmp_path, str(tmp_path / 'python'), 60)


def test_without_any_library_the_exit_status_is_2(compare, tmp_path, monkeypatch, capsys):
    nothing = compare()
    monkeypatch.setattr(program, 'make_ready', lambda *_: {})
    monkeypatch.setattr(program, 'compare', lambda *_: nothing)
    assert program.main([]) == 2
    assert capsys.readouterr().err == 'nothing to measure: no library runs here\n'


@pytest.mark.parametrize(('failed', 'status'), [({}, 0), ({'a contender': 'no memory'}, 1)])
def test_the_exit_status_tells_whether_something_failed(compare, monkeypatch, capsys, failed, status):
    found = compare()
    found.numbers |= {'libraries': {RTX: {}}, 'failed': failed}
    monkeypatch.setattr(program, 'make_ready', lambda *_: {})
    monkeypatch.setattr(program, 'report', lambda numbers: print(numbers['failed']))
    monkeypatch.setattr(program, 'compare', lambda *_: found)
    assert program.main([]) == status
    assert capsys.readouterr().out == f'{failed}\n'


def test_first_masks_are_timed_for_the_libraries_that_run(compare, tmp_path, monkeypatch):
    comparison = compare(pytorch={'probe': WorkerError('missing')}, onnxruntime_cuda={'probe': WorkerError('missing')})
    comparison.probe()
    asked = []

    def take(library, work, cache, python, seconds):
        asked.append((library, python))
        if library == TENSORRT:
            raise WorkerError('no memory')
        return 7.0

    monkeypatch.setattr(program, 'time_first_mask', take)
    options = program.parse(['--tensorrt-python', '/opt/python3.10'])
    assert program.first_masks(options, tmp_path, tmp_path, comparison) == {RTX: {'empty': 7, 'full': 7}}
    assert asked == [(RTX, sys.executable)] * 2 + [(TENSORRT, '/opt/python3.10')]
    assert comparison.numbers['failed']['first mask of tensorrt, empty cache'] == 'no memory'


def test_no_runs_are_an_error(capsys):
    with pytest.raises(SystemExit):
        program.parse(['--runs', '0'])
    assert '--runs: expected 1 or more, found 0' in capsys.readouterr().err


def test_date_command_driver_and_cuda_are_told(monkeypatch):
    def version(number):
        number._obj.value = 12080

    monkeypatch.setattr(sys, 'argv', ['benchmarks/gpu.py', '--data', 'my data'])
    smi = SimpleNamespace(stdout='580.65.06\n580.65.06\n')
    monkeypatch.setattr(program.subprocess, 'run', lambda *_, **__: smi)
    monkeypatch.setattr(program.ctypes, 'CDLL', lambda _: SimpleNamespace(cuDriverGetVersion=version))
    found = program.surroundings()
    assert found == {
        'date': found['date'],
        'command': "benchmarks/gpu.py --data 'my data'",
        'driver': '580.65.06',
        'cuda': '12.8',
    }

    def missing(*_, **__):
        raise OSError('not there')

    monkeypatch.setattr(program.subprocess, 'run', missing)
    monkeypatch.setattr(program.ctypes, 'CDLL', missing)
    assert list(program.surroundings()) == ['date', 'command']
