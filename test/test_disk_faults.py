# SPDX-License-Identifier: Apache-2.0
"""Test that outputs are complete or absent after kills and on full or read-only disks."""

from __future__ import annotations

import os
import random
import resource
import shutil
import subprocess
import sys
import time
from importlib.util import find_spec
from multiprocessing import get_context
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest
from bag_helpers import make_bag, picture
from conftest import REPOSITORY
from fuzz_seeds import reference_state

from stdc_core.commands.main import main as stdc
from stdc_core.inference import DEFAULT_MODEL
from stdc_core.io.files import appearing, write_png
from stdc_core.io.video import VideoReader, webm_writer
from stdc_ros.offline.segment_bag import main as segment_bag

PROGRAMS = {'stdc': stdc, 'segment_bag': segment_bag}

# Forked from a process that has imported everything, so that commands start at once.
processes = get_context('forkserver')
processes.set_forkserver_preload(
    [
        'pytest',
        'stdc_core.commands.predict_files',
        'stdc_ros.offline.segment_bag',
        'stdc_core.evaluation.report',
        'stdc_core.export.quantize',
        'stdc_core.training.pretrain',
        'stdc_core.training.train',
    ]
)

needs_torch = pytest.mark.skipif(find_spec('torch') is None, reason='PyTorch is not installed')


def _command(program: str, arguments: list[str], output: Path, limit: int) -> None:
    with output.open('w') as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    if limit:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    sys.exit(PROGRAMS[program](arguments))


def started(program: str, arguments: list, output: Path, limit: int = 0) -> BaseProcess:
    """Start a command in a new process.

    Args:
        program: Name in :data:`PROGRAMS`.
        arguments: Arguments of the command.
        output: File for its output.
        limit: Largest size of each file that it writes, bytes; 0: no limit.
    """
    process = processes.Process(target=_command, args=(program, [*map(str, arguments)], output, limit))
    process.start()
    return process


def finished(process: BaseProcess) -> int:
    process.join(120)
    assert process.exitcode is not None, 'the command hangs'
    return process.exitcode


def contents(folder: Path, hidden: bool = False) -> dict[str, bytes]:
    """Return the content of all files below a folder. For videos these are the frames: WebM files have random ids."""
    files = {str(path.relative_to(folder)): path for path in folder.rglob('*') if path.is_file()}
    return {
        name: b''.join(image.tobytes() for image in VideoReader(path)) if path.suffix == '.webm' else path.read_bytes()
        for name, path in files.items()
        if hidden or '/.' not in f'/{name}'
    }


def hidden_below(folder: Path) -> list[str]:
    """Return the names of unfinished files. Unlike rglob, walk ignores files that are removed meanwhile."""
    return [name for _, folders, files in os.walk(folder) for name in (*folders, *files) if name.startswith('.')]


@pytest.fixture(scope='module')
def inputs(tmp_path_factory) -> Path:
    """Return a folder with a bag, pictures, a video, a dataset, images by class, and a checkpoint to import."""
    # The first process waits for the imports of the fork server.
    process = processes.Process(target=os.getpid)
    process.start()
    process.join()
    folder = tmp_path_factory.mktemp('inputs')
    make_bag(folder, 'mcap', frames=20)
    for index in range(5):
        write_png(folder / 'pictures' / f'{index}.png', picture(index))
    with webm_writer(folder / 'drive.webm', (40, 64), 15) as write:
        for index in range(15):
            write(picture(index))
    assert stdc(['render', str(folder / 'dataset'), *RENDER]) == 0
    for part in ('train/car', 'train/tree', 'val/car', 'val/tree'):
        for index in range(2):
            write_png(folder / 'classes' / part / f'{index}.png', picture(index))
    if find_spec('torch'):
        import torch

        torch.save(reference_state(), folder / 'reference.pth')
    return folder


RENDER = ['--split', 'val', '--drives', '1', '--frames', '5', '--size', '64x96']

KILLED = {
    'bag': ('segment_bag', ['{inputs}/drive.mcap', '{out}/drive.mcap', '--overwrite']),
    'bag folder': ('segment_bag', ['{inputs}/drive.mcap', '{out}/drive', '--overwrite']),
    'predict': ('stdc', ['predict', '{inputs}/pictures', '{inputs}/drive.webm', '--out', '{out}', '--overwrite']),
    'render': ('stdc', ['render', '{out}', *RENDER]),
    'evaluate': ('stdc', ['evaluate', str(DEFAULT_MODEL), '--data', '{inputs}/dataset', '--out', '{out}/report']),
    'export': ('stdc', ['export', str(DEFAULT_MODEL), '{out}/model.onnx', '--overwrite']),
    'quantize': (
        'stdc',
        ['quantize', str(DEFAULT_MODEL), '{out}/model.onnx', '--images', '{inputs}/pictures', '--max-loss', '100'],
    ),
    'import': ('stdc', ['import', '{inputs}/reference.pth', '{out}/network.safetensors']),
}
NEED_TORCH = ('export', 'quantize', 'import')


@pytest.mark.parametrize(
    'name', [pytest.param(name, marks=needs_torch if name in NEED_TORCH else ()) for name in KILLED]
)
def test_killed_at_any_moment_outputs_are_complete_or_absent(name, inputs, tmp_path):
    program, template = KILLED[name]

    def arguments(out: str) -> list[str]:
        (tmp_path / out).mkdir(exist_ok=True)
        return [argument.format(inputs=inputs, out=tmp_path / out) for argument in template]

    begin = time.monotonic()
    assert finished(started(program, arguments('whole'), tmp_path / 'said')) == 0, (tmp_path / 'said').read_text()
    duration = time.monotonic() - begin
    expected, out = contents(tmp_path / 'whole'), tmp_path / 'out'
    moments = random.Random(name)  # differ for each command
    killed = 0
    for moment in ('writing', 'any', 'any'):
        process = started(program, arguments('out'), tmp_path / 'said')
        if moment == 'writing':
            while process.is_alive() and not hidden_below(out):
                time.sleep(0.001)
        else:
            time.sleep(moments.uniform(0, duration))
        process.kill()
        killed += finished(process) != 0
        found = contents(out)
        assert found.items() <= expected.items()
        if name in ('bag folder', 'evaluate'):
            assert found in ({}, expected)
        if found and '--overwrite' not in template:  # the command would refuse to replace them
            for path in [path for path in out.iterdir() if not path.name.startswith('.')]:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert killed
    assert finished(started(program, arguments('out'), tmp_path / 'said')) == 0, (tmp_path / 'said').read_text()
    assert contents(out, hidden=True) == expected


SIZE = 4 << 20


def _replace_for_ever(path: Path, folder: bool) -> None:
    for number in range(sys.maxsize):
        with appearing(path) as partial:
            if folder:
                partial.mkdir()
            for name in ('a', 'b') if folder else ('',):
                (partial / name).write_bytes(bytes([number % 256]) * SIZE)


@pytest.mark.parametrize('folder', [False, True], ids=['file', 'folder'])
def test_killed_while_replacing_an_output(folder, tmp_path):
    path, moments, seen = tmp_path / 'out.bin', random.Random(7), set()
    for _ in range(15):
        process = processes.Process(target=_replace_for_ever, args=(path, folder))
        process.start()
        deadline = time.monotonic() + 60
        while not list(tmp_path.glob(f'*-{process.pid}.*')) and time.monotonic() < deadline:
            time.sleep(0.001)
        time.sleep(moments.uniform(0, 0.1))
        process.kill()
        finished(process)
        # A folder that is being replaced is absent for a moment. The next process restores it first.
        found = contents(tmp_path)
        assert {len(data) for data in found.values()} <= {SIZE}
        assert len({data[:1] + data[-1:] for data in found.values()}) <= 1
        assert len(found) in ((0, 2) if folder else (0, 1))
        seen |= {data[:1] for data in found.values()}
        assert len(list(tmp_path.iterdir())) <= 4, 'leftovers pile up'
    assert len(seen) > 1


FULL = {
    'bag': ('segment_bag', ['{inputs}/drive.mcap', '{out}/drive.mcap', '--overwrite'], 20_000, 'drive.mcap'),
    'many bags': ('segment_bag', ['{inputs}/drive.mcap', '--out-dir', '{out}', '--overwrite'], 20_000, 'drive.mcap'),
    'image': ('stdc', ['predict', '{inputs}/pictures', '--out', '{out}', '--overwrite'], 1000, '0_overlay.png'),
    'video': (
        'stdc',
        ['predict', '{inputs}/drive.webm', '--out', '{out}', '--outputs', 'overlay', '--overwrite'],
        1000,
        'drive_overlay.webm',
    ),
    'masks of a video': (
        'stdc',
        ['predict', '{inputs}/drive.webm', '--out', '{out}', '--outputs', 'confidence', '--overwrite'],
        1000,
        'drive_confidence',
    ),
    'export': ('stdc', ['export', str(DEFAULT_MODEL), '{out}/model.onnx', '--overwrite'], 1 << 20, 'model.onnx'),
    'render': ('stdc', ['render', '{out}', '--drives', '1', '--size', '64x96'], 1000, 'drive01000_00000.png'),
}


@pytest.mark.parametrize('name', [pytest.param(name, marks=needs_torch if name == 'export' else ()) for name in FULL])
def test_full_disk_gives_one_line_and_keeps_existing_files(name, inputs, tmp_path):
    program, template, limit, target = FULL[name]
    arguments = [argument.format(inputs=inputs, out=tmp_path / 'out') for argument in template]
    (tmp_path / 'out').mkdir()
    before: dict[str, bytes] = {}
    if name in ('bag', 'image', 'export'):
        assert finished(started(program, arguments, tmp_path / 'said')) == 0
        before = contents(tmp_path / 'out', hidden=True)
    assert finished(started(program, arguments, tmp_path / 'said', limit)) in (1, 2)
    lines = [line for line in (tmp_path / 'said').read_text().splitlines() if line.startswith(program)]
    assert any(target in line and ('File too large' in line or 'is the disk full?' in line) for line in lines), lines
    assert 'Traceback' not in (tmp_path / 'said').read_text() and '.part' not in ''.join(lines)
    assert contents(tmp_path / 'out', hidden=True) == before


@needs_torch
def test_training_resumes_after_a_full_disk(tmp_path):
    said, run = tmp_path / 'said', tmp_path / 'run'
    render = ['render', tmp_path, '--size', '96x128', '--drives', '1']
    assert stdc([*map(str, render), '--frames', '3']) == 0
    assert stdc([*map(str, render), '--frames', '1', '--seed', '7', '--split', 'val']) == 0
    settings = {'crop_height': 64, 'crop_width': 64, 'batch_size': 2, 'steps': 2, 'warmup_steps': 1, 'workers': 0}
    settings |= {'checkpoint_every': 1, 'val_every': 2, 'accelerator': 'cpu', 'precision': '32-true'}
    options = [part for key, value in settings.items() for part in ('--set', f'{key}={value}')]
    arguments = ['train', '--data', tmp_path, '--out', run, *options]
    assert finished(started('stdc', arguments, said, limit=1 << 20)) == 2
    assert f'stdc train: {run / "last.ckpt"}: could not be written (File too large)' in said.read_text()
    assert 'Traceback' not in said.read_text()
    assert not list(run.glob('*.ckpt')) and not list(run.glob('.*'))
    # There is room again.
    assert finished(started('stdc', ['train', '--resume', '--out', run], said)) == 0
    assert (run / 'weights.safetensors').exists() and not list(run.glob('.*'))


@needs_torch
def test_killed_pretraining_is_resumed(inputs, tmp_path):
    from stdc_core.model.weights import load_classifier

    said, run = tmp_path / 'said', tmp_path / 'run'
    settings = {'image_size': 32, 'batch_size': 2, 'epochs': 1, 'warmup_epochs': 0, 'checkpoint_every': 1, 'workers': 0}
    settings |= {'accelerator': 'cpu', 'precision': '32-true'}
    options = [part for key, value in settings.items() for part in ('--set', f'{key}={value}')]
    process = started('stdc', ['pretrain', '--data', inputs / 'classes', '--out', run, *options], said)
    while process.is_alive() and not any(name.startswith('.last.') for name in hidden_below(run)):
        time.sleep(0.001)
    process.kill()
    assert finished(process) != 0, said.read_text()
    assert not (run / 'classifier.safetensors').exists()
    assert finished(started('stdc', ['pretrain', '--resume', '--out', run], said)) == 0, said.read_text()
    load_classifier(run / 'classifier.safetensors')
    assert not hidden_below(run)


@pytest.mark.skipif(os.geteuid() != 0, reason='only root can mount')
@pytest.mark.parametrize(
    ('mount', 'reason'),
    [('-o size=16k', 'No space left on device'), ('-o size=16k,ro', 'Read-only file system')],
    ids=['full', 'read-only'],
)
def test_full_or_read_only_disk(mount, reason, inputs, tmp_path):
    script = f'mount -t tmpfs {mount} none "$1" || exit 77; shift; "$@"; status=$?; ls -A {tmp_path}; exit $status'
    environment = {**os.environ, 'PYTHONPATH': str(REPOSITORY)}
    for module, arguments, target in (
        ('stdc_ros.offline.segment_bag', [inputs / 'drive.mcap', tmp_path / 'drive.mcap'], 'drive.mcap'),
        ('stdc_core.commands.main', ['predict', inputs / 'pictures', '--out', tmp_path], '_overlay.png'),
        (
            'stdc_core.commands.main',
            ['evaluate', DEFAULT_MODEL, '--data', inputs / 'dataset', '--out', tmp_path],
            'report.json',
        ),
    ):
        command = [sys.executable, '-m', module, *arguments]
        run = subprocess.run(
            ['unshare', '-m', 'sh', '-c', script, 'sh', tmp_path, *command],
            env=environment,
            capture_output=True,
            text=True,
        )
        if run.returncode in (1, 77) and 'ermi' in run.stderr and 'mount' in run.stderr:
            pytest.skip('this container may not mount')
        assert run.returncode in (1, 2) and 'Traceback' not in run.stderr
        error = [line for line in run.stderr.splitlines() if reason in line]
        assert len(error) == 1 and (target in error[0] or reason.startswith('Read')), run.stderr
        assert '.part' not in run.stdout and 'drive.mcap' not in run.stdout
