# SPDX-License-Identifier: Apache-2.0
"""Test killed and resumed runs, and runs with several processes."""

import csv
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager, suppress

import numpy as np
import pytest
import torch
import yaml

from stdc_core.classes import CAMVID
from stdc_core.commands.main import main
from stdc_core.data.folder import SegmentationFolder
from stdc_core.evaluation.metrics import ConfusionMatrix
from stdc_core.model.segmentation import normalize, upsample
from stdc_core.model.weights import load_weights
from stdc_core.training.task import SegmentationTask

SETTINGS = {
    'crop_height': 64,
    'crop_width': 64,
    'batch_size': 2,
    'steps': 12,
    'warmup_steps': 2,
    'checkpoint_every': 2,
    'val_every': 4,
    'workers': 0,
    'ema_decay': 0.8,
    'precision': '32-true',
    'accelerator': 'cpu',
}


def arguments(dataset, out, **changes):
    settings = [f'{name}={value}' for name, value in (SETTINGS | changes).items()]
    return ['train', '--data', str(dataset), '--out', str(out), *(a for s in settings for a in ('--set', s))]


@pytest.fixture(scope='module')
def dataset(tmp_path_factory):
    out = tmp_path_factory.mktemp('drives')
    size = ['--size', '96x128', '--every', '40', '--drives', '1']
    assert main(['render', str(out), '--frames', '5', *size]) == 0
    assert main(['render', str(out), '--frames', '3', '--seed', '7', '--split', 'val', *size]) == 0
    return out


@contextmanager
def started(command):
    """Start a process that ends with the block."""
    environment = {**os.environ, 'OMP_NUM_THREADS': str(torch.get_num_threads())}
    process = subprocess.Popen(
        [sys.executable, '-m', 'stdc_core.commands.main', *command],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def wait_for_checkpoint(process, run):
    deadline = time.monotonic() + 120
    while not (run / 'last.ckpt').exists():
        assert process.poll() is None, process.stdout.read().decode()
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.fixture(scope='module')
def whole(dataset, tmp_path_factory):
    """Return the folder of an uninterrupted run.

    A copy ``during_STEP`` beside it is what a kill during each validation would have left.
    """
    out = tmp_path_factory.mktemp('runs') / 'whole'
    begin = SegmentationTask.on_validation_epoch_start

    def copy_and_begin(task):
        shutil.copytree(out, out.with_name(f'during_{task.global_step}'))
        begin(task)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SegmentationTask, 'on_validation_epoch_start', copy_and_begin)
        assert main(arguments(dataset, out)) == 0
    return out


def compare_results(expected, found):
    """Compare the networks in the folders of two runs, and the scores of those networks."""
    for name in ('weights.safetensors', 'best.safetensors'):
        (first, _, wanted), (second, _, provenance) = (load_weights(run / name) for run in (expected, found))
        state = second.state_dict()
        for key, value in first.state_dict().items():
            torch.testing.assert_close(state[key], value, rtol=1e-3, atol=1e-4, msg=f'{name}: {key}')
        scores = [float(each['miou'].split()[0]) for each in (provenance, wanted)]
        assert scores[0] == pytest.approx(scores[1], abs=2e-3), name


def validated_steps(log):
    """Return the steps, counted from 0, after which a run was validated."""
    with open(log) as file:
        return [int(row['step']) for row in csv.DictReader(file) if row['miou']]


@pytest.mark.parametrize('checkpoint_every', [2, 12], ids=['between validations', 'after a validation'])
def test_killed_run_gives_the_same_result(checkpoint_every, dataset, whole, tmp_path):
    killed = tmp_path / 'killed'
    with started(arguments(dataset, killed, checkpoint_every=checkpoint_every)) as process:
        wait_for_checkpoint(process, killed)
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert not (killed / 'weights.safetensors').exists()
    reached = torch.load(killed / 'last.ckpt', weights_only=True)['global_step']
    assert min(checkpoint_every, SETTINGS['val_every']) <= reached < 12

    assert main(['train', '--resume', '--out', str(killed)]) == 0
    compare_results(whole, killed)
    # The resumed run logs to a new file, so that the log before the kill is kept.
    with open(killed / f'from_step_{reached}' / 'metrics.csv') as file:
        steps = [int(row['step']) for row in csv.DictReader(file)]
    assert min(steps) >= reached


@pytest.mark.parametrize(('step', 'reached'), [(4, 2), (12, 12)], ids=['in the run', 'at its end'])
def test_run_killed_during_a_validation_gives_the_same_result(step, reached, whole, tmp_path):
    killed = tmp_path / 'killed'
    shutil.copytree(whole.with_name(f'during_{step}'), killed)
    assert torch.load(killed / 'last.ckpt', weights_only=True)['global_step'] == reached
    assert main(['train', '--resume', '--out', str(killed)]) == 0
    compare_results(whole, killed)
    if reached < SETTINGS['steps']:
        assert validated_steps(killed / f'from_step_{reached}' / 'metrics.csv') == [3, 7, 11]


def test_run_without_validation_writes_its_checkpoints(dataset, tmp_path):
    assert main(arguments(dataset, tmp_path / 'run', val_split='', val_every=1, steps=2, checkpoint_every=1)) == 0
    assert torch.load(tmp_path / 'run' / 'last.ckpt', weights_only=True)['global_step'] == 2


@pytest.mark.parametrize(('sent', 'name', 'status'), [('SIGTERM', 'SIGTERM', 143), ('SIGINT', 'Ctrl-C', 130)])
def test_stopped_run_fails_and_says_how_to_continue(sent, name, status, dataset, tmp_path):
    out = tmp_path / 'stopped'
    with started(arguments(dataset, out, steps=6)) as process:
        wait_for_checkpoint(process, out)
        process.send_signal(getattr(signal, sent))
        time.sleep(0.05)
        while process.poll() is None:  # a launch system sends more of them
            process.send_signal(signal.SIGTERM)
            time.sleep(0.02)
        said = process.communicate(timeout=120)[0].decode()
    assert process.returncode == status, said
    assert f'stopped by {name}; --resume --out {out} continues the run' in said.splitlines()
    assert 'Traceback' not in said
    assert main(['train', '--resume', '--out', str(out)]) == 0
    assert (out / 'weights.safetensors').is_file()


def test_run_is_resumed_with_its_classes_from_any_folder(dataset, tmp_path, monkeypatch, capsys):
    names = [f'thing {number}' for number in range(len(CAMVID))]
    table = tmp_path / 'mine.yaml'
    table.write_text('classes:\n' + ''.join(f'  - {{name: {name}, color: [1, 2, 3]}}\n' for name in names))
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'data').symlink_to(dataset)
    assert main(arguments('data', 'run', steps=1, val_every=1, classes='mine.yaml')) == 0
    assert 'the learning rate rises for 2 steps, but the run has only 1;' in capsys.readouterr().err
    (tmp_path / 'elsewhere').mkdir()
    monkeypatch.chdir(tmp_path / 'elsewhere')
    weights, record = tmp_path / 'run' / 'weights.safetensors', tmp_path / 'run' / 'run.yaml'
    table.write_text('classes: [{name: other, color: [1, 2, 3]}]')
    weights.unlink()
    assert main(['train', '--resume', '--out', str(tmp_path / 'run')]) == 0
    assert load_weights(weights)[1].names == tuple(names)

    # The record of an older version has no class table.
    content = yaml.safe_load(record.read_text())
    kept = content.pop('class_table')
    content['config']['classes'] = 'camvid'
    record.write_text(yaml.safe_dump(content))
    weights.unlink()
    assert main(['train', '--resume', '--out', str(tmp_path / 'run')]) == 0
    assert load_weights(weights)[1].names == CAMVID.names
    record.write_text(yaml.safe_dump(content | {'class_table': kept[:-5]}))
    weights.unlink()
    capsys.readouterr()
    assert main(['train', '--resume', '--out', str(tmp_path / 'run')]) == 2
    assert 'run.yaml: damaged (class_table: not a class table' in capsys.readouterr().err


def test_reason_why_a_run_cannot_be_resumed(dataset, tmp_path, capsys):
    assert main(['train', '--resume', '--out', str(tmp_path)]) == 2
    assert f'{tmp_path / "run.yaml"}: no such file' in capsys.readouterr().err
    out = tmp_path / 'run'
    assert main(arguments(dataset, out, steps=1, val_every=1)) == 0
    capsys.readouterr()
    assert main(['train', '--resume', '--out', str(out)]) == 2
    assert 'the run is complete' in capsys.readouterr().err
    (out / 'weights.safetensors').unlink()
    assert main(['train', '--resume', '--out', str(out), '--set', 'learning_rate=1']) == 2
    assert 'learning_rate: cannot change when a run is resumed' in capsys.readouterr().err
    assert main(arguments(dataset, out)) == 2
    assert f'{out} is not empty; --resume continues the run in it' in capsys.readouterr().err
    (out / 'run.yaml').write_text('config: [')
    assert main(['train', '--resume', '--out', str(out)]) == 2
    assert 'run.yaml: damaged' in capsys.readouterr().err


def test_two_processes_train_and_validate_together(dataset, tmp_path):
    out = tmp_path / 'run'
    with started(arguments(dataset, out, devices=2, batch_size=4, steps=3)) as process:
        said = process.communicate(timeout=300)[0].decode()
    assert process.returncode == 0, said
    model, _, provenance = load_weights(out / 'weights.safetensors')
    confusion = ConfusionMatrix(len(CAMVID))
    with torch.inference_mode():
        for sample in SegmentationFolder(dataset, 'val', CAMVID):
            image = normalize(torch.from_numpy(sample.image[None]).permute(0, 3, 1, 2))
            mask = upsample(model(image), sample.label.shape).argmax(1)[0].numpy()
            confusion.update(mask.astype(np.uint8), sample.label)
    # Three images on two processes: none is left out or counted twice. The value is written with four digits.
    assert float(provenance['miou'].split()[0]) == pytest.approx(confusion.miou(), abs=6e-5)
