# SPDX-License-Identifier: Apache-2.0
"""Test segment_bag --out-dir: bags in parallel, the same bytes as one by one, none done twice or incompletely."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import pytest
from bag_helpers import make_bag

from stdc_core.inference import Segmenter
from stdc_ros.bags.decompression import zstd
from stdc_ros.bags.reader import Bag
from stdc_ros.messages.cdr import IMAGE
from stdc_ros.offline.discovery import find_bags
from stdc_ros.offline.process_pool import visible_gpus
from stdc_ros.offline.segment_bag import main


@pytest.fixture
def drives(tmp_path) -> Path:
    """Return a folder with bags of three formats: north/drive.bag, south/drive, drive.mcap."""
    folder = tmp_path / 'drives'
    for name, kind in (('north', 'rosbag1'), ('south', 'sqlite3'), ('', 'mcap')):
        (folder / name).mkdir(parents=True, exist_ok=True)
        make_bag(folder / name, kind)
    shutil.rmtree(folder / 'made')  # left over by make_bag
    return folder


IMPORTS = os.pathsep.join([str(Path(__file__).parent.parent), os.environ.get('PYTHONPATH', '')])
NAMES = ['drive.mcap', 'north/drive.mcap', 'south/drive.mcap']


def contents(folder: Path) -> dict[str, bytes]:
    """Return the content of all files below a folder, including hidden ones."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob('*') if path.is_file()}


def times(folder: Path) -> dict[str, int]:
    return {name: (folder / name).stat().st_mtime_ns for name in NAMES if (folder / name).exists()}


def run(inputs: list[Path], out: Path, *options: str) -> int:
    return main([*map(str, inputs), '--out-dir', str(out), *options])


def test_workers_write_the_same_bytes(tmp_path, drives, capsys):
    assert run([drives], tmp_path / 'one', '--workers', '1', '--threads', '2') == 0
    assert run([drives], tmp_path / 'two', '--workers', '2', '--threads', '1') == 0
    assert '3 of 3 bags are done' in capsys.readouterr().out
    found = contents(tmp_path / 'one')
    assert sorted(found) == sorted([*NAMES, *(f'{name}.json' for name in NAMES)])
    assert contents(tmp_path / 'two') == found
    for name, source in zip(NAMES, ('drive.mcap', 'north/drive.bag', 'south/drive'), strict=True):
        assert main([str(drives / source), str(tmp_path / 'alone.mcap'), '--overwrite']) == 0
        assert (tmp_path / 'alone.mcap').read_bytes() == found[name]


def test_only_missing_bags_are_segmented(tmp_path, drives, capsys):
    out = tmp_path / 'out'
    assert run([drives], out) == 0
    before, made = contents(out), times(out)
    (out / NAMES[1]).unlink()
    assert run([drives], out) == 0
    assert '2 of 3 bags are done already' in capsys.readouterr().err
    assert contents(out) == before
    again = times(out)
    assert [name for name in NAMES if again[name] != made[name]] == [NAMES[1]]
    assert run([drives], out) == 0 and times(out) == again


def test_outputs_of_other_options_are_refused(tmp_path, drives, capsys):
    out = tmp_path / 'out'
    assert run([drives], out) == 0
    before = contents(out)

    def refused(*options: str) -> str:
        capsys.readouterr()
        assert run([drives], out, *options) == 1 and contents(out) == before
        return capsys.readouterr().err

    error = refused('--outputs', 'mask')
    assert f"{NAMES[0]}: was made with outputs ['mask', 'overlay'], expected ['mask']" in error
    assert '--overwrite replaces; nothing is done yet' in error
    assert 'with input_scale None, expected 1.0' in refused('--input-scale', '1')
    assert 'with backend auto, expected onnxruntime' in refused('--backend', 'onnxruntime')
    assert 'with precision None, expected fp32' in refused('--precision', 'fp32')
    os.utime(drives / 'north' / 'drive.bag', (0, 0))
    error = refused()
    assert 'drive.bag has changed since it was made' in error and error.count('was made') == 1
    # With the same options, outputs of an earlier run with --overwrite are kept.
    assert run([drives], out, '--outputs', 'mask', '--overwrite') == 0
    made = times(out)
    assert contents(out).keys() == before.keys() and contents(out)[NAMES[0]] != before[NAMES[0]]
    assert run([drives], out, '--outputs', 'mask', '--overwrite') == 0 and times(out) == made


def test_bag_of_the_user_is_not_replaced(tmp_path, drives, capsys):
    out = tmp_path / 'out'
    out.mkdir()
    (out / 'drive.mcap').write_bytes(b'precious')
    assert run([drives], out) == 1
    assert 'drive.mcap: exists already, without a record drive.mcap.json' in capsys.readouterr().err
    assert contents(out) == {'drive.mcap': b'precious'}


def test_failed_bag_does_not_stop_the_others(tmp_path, drives, capsys):
    out = tmp_path / 'out'
    (drives / 'text.mcap').write_bytes(b'hello')
    shutil.copytree(make_bag(tmp_path, 'mcap folder', {'/left': IMAGE, '/right': IMAGE}), drives / 'two')
    (drives / 'cut.mcap').write_bytes((drives / 'drive.mcap').read_bytes()[:30_000])
    (drives / 'gone.mcap').symlink_to('/nowhere')
    assert run([drives], out, '--workers', '1') == 1
    captured = capsys.readouterr()
    assert f'{drives / "text.mcap"}: cannot be read as a bag' in captured.err
    assert f'{drives / "two"}: several image topics, name one with --topic' in captured.err
    assert 'cut.mcap is cut off' in captured.err and 'Traceback' not in captured.err
    assert f'{drives / "gone.mcap"}: ' in captured.err
    assert '4 of 7 bags are done, 3 failed' in captured.out
    assert sorted(name for name in contents(out) if name.endswith('.mcap')) == sorted(['cut.mcap', *NAMES])
    record = json.loads((out / 'cut.mcap.json').read_text())
    assert record['images'] < 6 and 'is cut off' in record['warnings'][0]
    assert record['computed_by'] == Segmenter.load().backend


def test_links_to_folders_are_followed_once(tmp_path, drives):
    (tmp_path / 'links').mkdir()
    (tmp_path / 'links' / 'day1').symlink_to(drives)
    (drives / 'round').symlink_to(tmp_path / 'links')
    tasks = find_bags([tmp_path / 'links'], tmp_path / 'out')
    assert [str(task.target.relative_to(tmp_path)) for task in tasks] == [f'out/day1/{name}' for name in NAMES]


def test_closed_stdout_does_not_end_the_run(tmp_path, drives):
    command = f'{sys.executable} -m stdc_ros.offline.segment_bag {drives} --out-dir out --outputs mask 2>errors | true'
    environment = {**os.environ, 'PYTHONPATH': IMPORTS}
    subprocess.run(['bash', '-c', f'set -o pipefail; {command}'], cwd=tmp_path, check=True, env=environment)
    assert len(list((tmp_path / 'out').rglob('*.mcap'))) == len(NAMES)
    assert 'Broken pipe' not in (tmp_path / 'errors').read_text()


@pytest.mark.parametrize('named', [False, True])
@pytest.mark.parametrize(('kind', 'suffix'), [('sqlite3', '.db3'), ('mcap folder', '.mcap')])
def test_compressed_files_of_a_killed_recorder_are_one_bag(tmp_path, kind, suffix, named):
    made = make_bag(tmp_path, kind)
    killed = tmp_path / 'drives' / 'killed'
    killed.mkdir(parents=True)
    plain = (made / f'drive{suffix}').read_bytes()
    (killed / f'drive_0{suffix}.zstd').write_bytes(zstd.compress(plain))
    (killed / f'drive_1{suffix}').write_bytes(plain)
    assert run([killed if named else killed.parent], tmp_path / 'out') == 0
    with Bag(tmp_path / 'out' / 'killed.mcap') as bag:
        assert bag.topics['/camera/segmentation/mask'].message_count == 12
    assert sorted(contents(tmp_path / 'out')) == ['killed.mcap', 'killed.mcap.json']


@contextmanager
def started(inputs: Path, out: Path, *options: str):
    """Start the command as a process, and return when it has begun to write a bag."""
    command = [sys.executable, '-m', 'stdc_ros.offline.segment_bag', str(inputs), '--out-dir', str(out), *options]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env={**os.environ, 'PYTHONPATH': IMPORTS})
    try:
        deadline = time.monotonic() + 60
        while not list(out.glob('.segment_bag/.*.part.mcap')):
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.02)
        yield process
    finally:
        process.kill()
        process.communicate()


def children(process: subprocess.Popen) -> list[int]:
    """Return the ids of the worker processes."""
    listed = Path(f'/proc/{process.pid}/task/{process.pid}/children').read_text().split()
    return [int(pid) for pid in listed if b'spawn_main' in Path(f'/proc/{pid}/cmdline').read_bytes()]


def gone(pids: list[int]) -> bool:
    """Return whether all processes end soon."""
    deadline = time.monotonic() + 30
    while any(_runs(pid) for pid in pids):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def _runs(pid: int) -> bool:
    try:
        return Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()[0] != 'Z'
    except FileNotFoundError:
        return False


@pytest.fixture
def long(tmp_path) -> Path:
    """Return a folder with a short and a long bag, of which one worker opens one at a time."""
    folder = tmp_path / 'drives'
    (folder / 'long').mkdir(parents=True)
    make_bag(folder / 'long', 'rosbag1', frames=1000)
    make_bag(folder, 'rosbag1')
    return folder


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_interrupted_run_leaves_nothing_unfinished(tmp_path, long, number):
    out = tmp_path / 'out'
    with started(long, out, '--workers', '1') as process:
        workers = children(process)
        process.send_signal(number)
        _, error = process.communicate(timeout=60)
    assert process.returncode == 128 + number, error
    assert 'interrupted: 0 of 2 bags are done; the same command continues' in error and 'Traceback' not in error
    assert contents(out) == {}
    assert len(workers) == 1 and gone(workers)


def test_killed_run_is_continued(tmp_path, long):
    out = tmp_path / 'out'
    with started(long, out, '--workers', '2') as process:
        workers = children(process)
        deadline = time.monotonic() + 60
        while not (out / 'drive.mcap').exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        process.kill()
        process.wait()
    # The workers notice that their parent has died.
    assert len(workers) == 2 and gone(workers)
    assert not (out / 'long' / 'drive.mcap').exists()
    made = (out / 'drive.mcap').stat().st_mtime_ns
    (out / '.segment_bag').mkdir(exist_ok=True)
    (out / '.segment_bag' / 'stale.mcap').write_bytes(b'half')
    (long / 'long' / 'drive.bag').unlink()
    make_bag(long / 'long', 'rosbag1')
    assert run([long], out) == 0
    assert sorted(contents(out)) == sorted(
        f'{name}{of}' for name in ('drive.mcap', 'long/drive.mcap') for of in ('', '.json')
    )
    assert (out / 'drive.mcap').stat().st_mtime_ns == made
    assert (out / 'drive.mcap').read_bytes() == (out / 'long' / 'drive.mcap').read_bytes()


def test_killed_worker_fails_one_bag(tmp_path, long):
    out = tmp_path / 'out'
    with started(long, out, '--workers', '1') as process:
        os.kill(children(process)[0], signal.SIGKILL)
        _, error = process.communicate(timeout=60)
    assert process.returncode == 1
    assert f'{long / "long" / "drive.bag"}: its worker was killed by SIGKILL' in error and 'Traceback' not in error
    assert sorted(contents(out)) == ['drive.mcap', 'drive.mcap.json']


def test_one_run_at_a_time(tmp_path, drives, capsys):
    out = tmp_path / 'out'
    out.mkdir()
    with (out / '.segment_bag.lock').open('w') as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert run([drives], out) == 1
    assert 'another segment_bag is writing to this folder' in capsys.readouterr().err
    assert run([drives / 'drive.mcap'], out) == 0


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['a.mcap'], 'expected IN and OUT, or --out-dir for many bags, found a.mcap'),
        (['a.mcap', 'b.mcap', '--workers', '2'], '--workers: works on many bags'),
        (['a.mcap', 'b.mcap', '--threads', '-1'], '--threads: expected 0 to 256, found -1'),
        (['a.mcap', 'b.mcap', '--threads', '257'], '--threads: expected 0 to 256, found 257'),
        (['a.mcap', '--out-dir', 'out', '--threads', '100000'], '--threads: expected 0 to 256, found 100000'),
        (['a.mcap', '--out-dir', 'out', '--workers', '0'], '--workers: expected 1 or more, found 0'),
        (['--out-dir', 'out', '--ray', 'drives'], 'expected HOST:PORT, auto or local'),
        (['drives', '--out-dir', 'out', '--workers', '2', '--ray'], '--workers: counts processes of this machine'),
    ],
)
def test_contradicting_options(arguments, message, capsys):
    with pytest.raises(SystemExit) as error:
        main(arguments)
    assert error.value.code == 2 and message in capsys.readouterr().err


def test_unusable_model(tmp_path, drives, capsys):
    out = tmp_path / 'out'
    assert run([drives], out, '--model', str(drives / 'drive.mcap')) == 1
    assert run([drives], out, '--model', str(drives / 'no.onnx')) == 1
    assert not out.exists()
    # Only a worker detects this.
    assert run([drives], out, '--input-scale', '9') == 1
    error = capsys.readouterr().err
    assert 'not an ONNX model' in error and 'no.onnx' in error and 'input scale' in error and 'Traceback' not in error
    assert contents(out) == {}


def test_workers_use_the_visible_gpus(monkeypatch):
    monkeypatch.setenv('CUDA_VISIBLE_DEVICES', '2,GPU-5b')
    assert visible_gpus() == ['2', 'GPU-5b']
    monkeypatch.setenv('CUDA_VISIBLE_DEVICES', '')
    assert visible_gpus() == []


needs_ray = pytest.mark.skipif(find_spec('ray') is None, reason='Ray is not installed')


@needs_ray
def test_ray_cluster_writes_the_same_bytes(tmp_path, drives, capsys):
    assert run([drives], tmp_path / 'processes') == 0
    (drives / 'text.mcap').write_bytes(b'hello')
    assert run([drives], tmp_path / 'ray', '--ray', 'local') == 1
    captured = capsys.readouterr()
    assert '3 of 4 bags are done, 1 failed' in captured.out and 'text.mcap: cannot be read as a bag' in captured.err
    assert contents(tmp_path / 'ray') == contents(tmp_path / 'processes')
    # Nothing is left to do, so no cluster is needed.
    (drives / 'text.mcap').unlink()
    assert run([drives], tmp_path / 'ray', '--ray', 'localhost:1') == 0


@needs_ray
def test_interrupted_run_on_ray(tmp_path, long):
    out = tmp_path / 'out'
    with started(long, out, '--ray', 'local') as process:
        process.send_signal(signal.SIGTERM)
        _, error = process.communicate(timeout=60)
    assert process.returncode == 143, error
    assert 'the same command continues' in error and 'Traceback' not in error
    assert not any('long' in name or '.part.' in name for name in contents(out))


def test_without_ray(tmp_path, drives, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, 'ray', None)  # as if it were not installed
    assert run([drives], tmp_path / 'out', '--ray') == 1
    assert "pip install '.[ray]'" in capsys.readouterr().err
