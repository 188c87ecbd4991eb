# SPDX-License-Identifier: Apache-2.0
"""Test that a training which runs out of a resource ends with one line that names it and a remedy."""

import errno
import multiprocessing
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from stdc_core.classes import ClassTable
from stdc_core.commands.main import command_module, main
from stdc_core.data.folder import SegmentationFolder
from stdc_core.evaluation.evaluate import Evaluation
from stdc_core.evaluation.metrics import ConfusionMatrix
from stdc_core.training import loaders
from stdc_core.training.exhaustion import what_ran_out

REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.fixture
def data(tmp_path):
    """Return a dataset of two images with two classes."""
    label = np.zeros((64, 128), np.uint8)
    label[32:] = 1
    for kind in ('images', 'labels'):
        (tmp_path / 'data/train' / kind).mkdir(parents=True)
    for number in range(2):
        image = np.random.default_rng(number).integers(0, 256, (64, 128, 3), np.uint8)
        cv2.imwrite(str(tmp_path / f'data/train/images/{number}.png'), image)
        cv2.imwrite(str(tmp_path / f'data/train/labels/{number}.png'), label)
    (tmp_path / 'two.yaml').write_text('classes: [{name: a, color: [0, 0, 0]}, {name: b, color: [9, 9, 9]}]')
    return tmp_path


def command(data, *settings):
    small = ['classes=two.yaml', 'val_split=', 'crop_height=64', 'crop_width=64', 'batch_size=2', 'warmup_steps=0']
    more = [f'--set={text}' for text in (*small, *settings)]
    return [sys.executable, '-m', 'stdc_core.commands.main', 'train', '--data', 'data', '--out', 'run', *more]


def start(data, arguments, **options):
    environment = {**os.environ, 'PYTHONPATH': str(REPOSITORY)}
    return subprocess.Popen(arguments, cwd=data, env=environment, stderr=subprocess.PIPE, text=True, **options)


def last_line(process):
    """Return the last line on stderr of a failed command, which must not print a traceback."""
    said = process.communicate(timeout=240)[1]
    assert process.returncode == 2, said
    assert 'Traceback' not in said and 'File "' not in said
    return said.replace('\r', '\n').strip().splitlines()[-1]


def test_killed_data_loader(data):
    process = start(data, command(data, 'steps=100000', 'checkpoint_every=1', 'workers=1'))
    deadline = time.monotonic() + 200
    while not (data / 'run/last.ckpt').is_file() and time.monotonic() < deadline:
        time.sleep(0.1)
    children = Path(f'/proc/{process.pid}/task/{process.pid}/children').read_text().split()
    readers = [pid for pid in children if 'stdc_core.commands.main' in Path(f'/proc/{pid}/cmdline').read_text()]
    os.kill(int(readers[-1]), signal.SIGKILL)
    line = last_line(process)
    assert line.startswith('stdc train: a worker process ended')  # not behind the progress bar
    assert '`--set workers=0`' in line and '`--resume --out run` continues the run' in line


def test_too_little_shared_memory(data):
    inside = 'mount -t tmpfs -o size=64k tmpfs /dev/shm && exec "$@"'
    unshared = ['unshare', '--mount', 'sh', '-c', inside, 'sh']
    if not shutil.which('unshare') or subprocess.run([*unshared, 'true'], capture_output=True).returncode:
        pytest.skip('a mount namespace of its own needs root')
    process = start(data, [*unshared, *command(data, 'steps=3', 'workers=1', 'crop_height=512', 'crop_width=512')])
    line = last_line(process)
    assert line.startswith('stdc train: shared memory ran out (/dev/shm')
    assert '--shm-size' in line and '--set workers=0' in line


def test_out_of_memory(data):
    def limit():
        resource.setrlimit(resource.RLIMIT_AS, (8 << 30, 8 << 30))

    settings = ['steps=3', 'workers=0', 'batch_size=8', 'crop_height=8192', 'crop_width=8192']
    line = last_line(start(data, command(data, *settings), preexec_fn=limit))
    assert line.startswith('stdc train: memory ran out')
    assert 'smaller batch_size' in line


@pytest.mark.parametrize(
    ('error', 'expected'),
    [
        (
            torch.OutOfMemoryError('CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of ...'),
            'the memory of the GPU ran out (2.00 GiB more were needed)',
        ),
        (OSError(errno.ENOMEM, 'Cannot allocate memory'), 'memory ran out'),
        (RuntimeError('DataLoader worker (pid(s) 12, 13) exited unexpectedly'), 'a worker process ended'),
        (ConnectionResetError(errno.ECONNRESET, 'Connection reset by peer'), 'a worker process ended (the connection'),
        (EOFError(), 'a worker process ended (the connection'),
        (OSError(errno.EMFILE, 'Too many open files'), 'too many files are open'),
        (RuntimeError("can't start new thread"), 'no process or thread can be started'),
        (BlockingIOError(errno.EAGAIN, 'Resource temporarily unavailable'), 'no process or thread can be started'),
        (RuntimeError('received 0 items of ancdata'), 'too many files are open'),
        (
            RuntimeError(
                'unable to open shared memory object </torch_1_2> in read-write mode: Too many open files (24)'
            ),
            'too many files are open',
        ),
        (
            RuntimeError('unable to mmap 8 bytes from file </torch_1_2>: Cannot allocate memory (12)'),
            'memory ran out',
        ),
        (RuntimeError('unable to write to file </torch_1_2>: No space left on device (28)'), 'shared memory ran out'),
        (
            RuntimeError('DataLoader worker (pid 7) is killed by signal: Segmentation fault. '),
            'a worker process ended (killed by signal: Segmentation fault);',
        ),
        (RuntimeError('CUDA error: out of memory\nCUDA kernel errors might be'), 'the memory of the GPU ran out'),
        (RuntimeError('cuDNN error: CUDNN_STATUS_ALLOC_FAILED'), 'the memory of the GPU ran out'),
        (RuntimeError('CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling'), 'the memory of the GPU ran out'),
        (cv2.error('(-4:Insufficient memory) Failed to allocate 9 bytes'), 'memory ran out'),
        (RuntimeError('Caught _ArrayMemoryError in DataLoader worker process 0.'), 'memory ran out'),
    ],
)
def test_exhausted_resource_is_named_with_a_remedy(error, expected):
    assert what_ran_out(error).startswith(expected)


def test_other_errors_are_unchanged():
    assert what_ran_out(RuntimeError('shapes do not match')) is None
    assert what_ran_out(OSError(errno.ENOSPC, 'No space left on device')) is None
    assert what_ran_out(EOFError('No data left in file')) is None


def test_unreadable_image_is_named(data, monkeypatch, capfd):
    monkeypatch.chdir(data)
    monkeypatch.setattr(loaders, 'fits', lambda *_: False)  # otherwise, images are read only once
    read = SegmentationFolder.image
    number = multiprocessing.Value('i', 0)

    def fail_later(folder, index):
        with number.get_lock():
            number.value += 1
        path = folder.files(index)[0]
        if number.value > 6:  # network storage goes away during the training
            path.unlink(missing_ok=True)
            path.symlink_to('/proc/self/mem')  # reading it is an input/output error
        return read(folder, index)

    monkeypatch.setattr(SegmentationFolder, 'image', fail_later)
    assert main(command(data, 'steps=9', 'checkpoint_every=1', 'workers=1')[3:]) == 2
    line = capfd.readouterr().err.replace('\r', '\n').strip().splitlines()[-1]
    assert line.startswith("stdc train: [Errno 5] Input/output error: 'data/train/images/")
    assert line.endswith('; `--resume --out run` continues the run')


def test_memory_error_of_any_command_is_one_line(monkeypatch, capsys):
    def run(options):
        raise MemoryError('Unable to allocate 3.00 GiB for an array')

    monkeypatch.setattr(command_module('classes'), 'run', run)
    assert main(['classes', 'model.onnx']) == 2
    assert capsys.readouterr().err.splitlines() == [
        'stdc classes: memory ran out; use smaller images or fewer processes, or end other programs'
    ]


@pytest.mark.parametrize('settings', [[], ['val_split=train']], ids=['train', 'train and val'])
def test_masks_with_objects_of_255_are_refused(settings, data, monkeypatch, capsys):
    monkeypatch.chdir(data)
    for path in (data / 'data/train/labels').iterdir():
        cv2.imwrite(str(path), cv2.imread(str(path), 0) * 255)
    assert main(command(data, 'steps=1', 'workers=0', *settings)[3:]) == 2
    said = capsys.readouterr().err
    assert said.startswith(
        'stdc train: data/train: 50.0 % of the pixels are 255, which stands for no class, and no pixel is b.'
    )
    assert '(1 for b)' in said and '--set absent_classes=allow' in said
    assert not (data / 'run').exists()
    # With absent_classes=allow there is only a note.
    assert main(command(data, 'steps=1', 'workers=0', 'absent_classes=allow', *settings)[3:]) == 0
    assert 'no pixel is b; 50.0 % of the pixels are 255, which stands for no class' in capsys.readouterr().err


def test_val_with_objects_of_255_is_refused(data, monkeypatch, capsys):
    monkeypatch.chdir(data)
    shutil.copytree(data / 'data/train', data / 'data/val')
    for path in (data / 'data/val/labels').iterdir():
        cv2.imwrite(str(path), cv2.imread(str(path), 0) * 255)
    assert main(command(data, 'steps=1', 'workers=0', 'val_split=val')[3:]) == 2
    assert capsys.readouterr().err.startswith('stdc train: data/val: 50.0 % of the pixels are 255')


def test_evaluation_says_what_255_leaves_out():
    confusion = ConfusionMatrix.of(np.array([[3, 1, 0], [0, 0, 0]]))
    classes = ClassTable(('background', 'road'), ((0, 0, 0), (9, 9, 9)))
    assert Evaluation(classes, confusion, [], ignored=12).warning() == (
        'no pixel is road; 75.0 % of the pixels are 255, which stands for no class'
    )
    assert Evaluation(classes, confusion, []).warning() == ''


def test_class_may_be_in_the_extra_data(data, monkeypatch):
    monkeypatch.chdir(data)
    shutil.copytree(data / 'data', data / 'more')
    for path in (data / 'data/train/labels').iterdir():
        cv2.imwrite(str(path), cv2.imread(str(path), 0) * 255)
    assert main([*command(data, 'steps=1', 'workers=0')[3:], '--extra', 'more=0.5']) == 0
