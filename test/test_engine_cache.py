# SPDX-License-Identifier: Apache-2.0
"""Test the engine cache: engines are complete or absent, and built once."""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from threading import Thread

import pytest
from conftest import REPOSITORY

from stdc_core.inference.tensorrt.engine_builder import EngineOptions
from stdc_core.inference.tensorrt.engine_cache import DamagedError, EngineCache, cache_folder, key_of
from stdc_core.inference.tensorrt.engine_store import EngineStore
from stdc_core.inference.tensorrt.library import EngineError

OPTIONS = EngineOptions(half=True, int8=False, in_one=False, shape=(1, 3, 8, 8))


@pytest.fixture
def cache(tmp_path) -> EngineCache:
    return EngineCache(tmp_path / 'engines')


class Builder:
    """Builds engines that consist of text, and records the requests."""

    def __init__(self) -> None:
        self.timings: list[bytes] = []
        self.version = b'1'

    def build(self, network, options, timings, progress):
        progress(50)
        self.timings.append(timings)
        return self.version + b' engine of ' + network, b'timings'

    def load(self, data: bytes) -> str:
        if not data.startswith(self.version):
            raise EngineError('of another version')
        return data.decode()

    def store(self, cache: EngineCache, **conditions) -> EngineStore:
        return EngineStore(cache, self.build, self.load, conditions or {'gpu': 'a'})


def get(store: EngineStore) -> str:
    return store.get(b'net', OPTIONS, lambda percent: None)


def test_keys_differ_with_everything_an_engine_depends_on():
    keys = {
        key_of(network, gpu=gpu, version=version, **options.conditions())
        for network in (b'a', b'b')
        for gpu in ('H200', 'Orin')
        for version in ('8.6.0', '10.3.0')
        for options in (
            OPTIONS,
            EngineOptions(False, False, False, (1, 3, 8, 8)),
            EngineOptions(True, True, False, (1, 3, 8, 8)),
            EngineOptions(True, False, True, (1, 3, 8, 8)),
            EngineOptions(True, False, False, (2, 3, 8, 8)),
            EngineOptions(True, False, False, (1, 3, 8, 8), tactics=('CUDNN',)),
        )
    }
    assert len(keys) == 48
    assert key_of(b'a', x=1, y=2) == key_of(b'a', y=2, x=1)


def test_engine_is_built_once_and_then_read(cache):
    builder = Builder()
    assert get(builder.store(cache)) == '1 engine of net'
    assert get(builder.store(cache)) == '1 engine of net'
    assert builder.timings == [b'']
    assert get(builder.store(cache, gpu='b')) == '1 engine of net'
    assert len(builder.timings) == 2


def test_next_engine_starts_with_the_timings_of_the_first(cache):
    builder = Builder()
    store = builder.store(cache)
    get(store)
    store.get(b'another', OPTIONS, lambda percent: None)
    assert builder.timings == [b'', b'timings']


@pytest.mark.parametrize('damage', ['cut', 'flipped', 'empty', 'foreign'])
def test_damaged_engine_is_rebuilt_once(cache, caplog, damage):
    builder = Builder()
    store = builder.store(cache)
    get(store)
    path = cache.path(store.file(b'net', OPTIONS))
    data = path.read_bytes()
    flipped = data[:-1] + bytes([data[-1] ^ 1])
    path.write_bytes({'cut': data[:-5], 'flipped': flipped, 'empty': b'', 'foreign': b'1 engine'}[damage])
    assert get(store) == '1 engine of net'
    assert len(builder.timings) == 2
    assert path.name in caplog.text
    caplog.clear()
    assert get(store) == '1 engine of net'
    assert len(builder.timings) == 2
    assert not caplog.text


def test_engine_that_does_not_load_is_rebuilt(cache, caplog):
    builder = Builder()
    get(builder.store(cache))
    builder.version = b'2'
    assert get(builder.store(cache)) == '2 engine of net'
    assert 'of another version' in caplog.text


def test_engine_that_never_loads_is_an_error(cache):
    builder = Builder()
    store = EngineStore(cache, builder.build, lambda data: (_ for _ in ()).throw(EngineError('no')), {})
    with pytest.raises(EngineError, match='^no$'):
        get(store)
    assert len(builder.timings) == 1


def test_engines_are_not_cached_if_the_folder_is_a_file(tmp_path, caplog):
    (tmp_path / 'engines').write_text('in the way')
    builder = Builder()
    assert get(builder.store(EngineCache(tmp_path / 'engines'))) == '1 engine of net'
    assert 'cannot be kept' in caplog.text
    assert (tmp_path / 'engines').read_text() == 'in the way'


def test_folder_of_the_cache(monkeypatch, tmp_path):
    monkeypatch.delenv('STDC_CACHE_DIR', raising=False)
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
    assert cache_folder() == tmp_path / 'cache' / 'stdc_ros'
    monkeypatch.setenv('STDC_CACHE_DIR', str(tmp_path / 'own'))
    assert cache_folder() == tmp_path / 'own'
    EngineCache().write('a.engine', b'x')
    assert (tmp_path / 'own').stat().st_mode & 0o077 == 0


def test_replaced_engine_is_always_present(cache):
    cache.write('a', b'first')
    cache.write('a', b'second')
    assert cache.read('a') == b'second'
    assert [path.name for path in cache.folder.iterdir()] == ['a']
    assert cache.read('b') is None
    cache.path('a').write_bytes(b'STDCENG1' + b'0' * 40)
    with pytest.raises(DamagedError, match='a: of 48 bytes'):
        cache.read('a')


def test_user_without_a_home_has_a_temporary_folder(monkeypatch, tmp_path):
    def no_home():
        raise RuntimeError('Could not determine home directory.')

    for name in ('STDC_CACHE_DIR', 'XDG_CACHE_HOME'):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(Path, 'home', no_home)
    monkeypatch.setattr(tempfile, 'tempdir', str(tmp_path))
    folder = tmp_path / f'stdc_ros-{os.getuid()}'
    assert cache_folder() == folder
    EngineCache().write('a.engine', b'x')
    assert EngineCache().read('a.engine') == b'x'
    assert folder.stat().st_mode & 0o777 == 0o700
    # Engines that another user may have written there are not loaded.
    folder.chmod(0o777)
    for refused in (lambda: EngineCache().read('a.engine'), lambda: EngineCache().write('a.engine', b'y')):
        with pytest.raises(PermissionError, match='expected a folder that only this user may use'):
            refused()
    folder.chmod(0o700)
    another = os.getuid() + 1
    monkeypatch.setattr(os, 'getuid', lambda: another)
    folder = folder.rename(tmp_path / f'stdc_ros-{another}')
    assert get(Builder().store(EngineCache())) == '1 engine of net'
    assert [path.name for path in folder.iterdir()] == ['a.engine']


def test_lock_files_are_removed(cache):
    inside, most = [], []

    def build(network, options, timings, progress):
        inside.append(network)
        most.append(len(inside))
        time.sleep(0.05)
        inside.pop()
        return network, b''

    store = EngineStore(cache, build, bytes, {})
    threads = [Thread(target=store.get, args=(b'%d' % index, OPTIONS, print)) for index in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1] * 8
    assert {path.suffix for path in cache.folder.iterdir()} == {'.engine'}


def test_engines_are_built_without_locks(cache, monkeypatch):
    def no_locks(file, operation):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, 'flock', no_locks)
    with cache.building('key') as locked:
        assert not locked
    builder = Builder()
    assert get(builder.store(cache)) == get(builder.store(cache)) == '1 engine of net'
    assert len(builder.timings) == 1


def test_concurrent_builds_keep_all_timings(cache):
    def build(network, options, timings, progress):
        time.sleep(0.3)
        return network, timings + network

    store = EngineStore(cache, build, bytes, {})
    threads = [Thread(target=store.get, args=(network, OPTIONS, print)) for network in (b'a', b'b')]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    timing = next(cache.folder.glob('*.timing'))
    assert sorted(cache.read(timing.name)) == sorted(b'ab')


#: Process whose build takes some time and is recorded in a file.
SCRIPT = """
import sys, time
from pathlib import Path
from stdc_core.inference.tensorrt.engine_builder import EngineOptions
from stdc_core.inference.tensorrt.engine_cache import EngineCache
from stdc_core.inference.tensorrt.engine_store import EngineStore

folder, seconds = Path(sys.argv[1]), float(sys.argv[2])

def build(network, options, timings, progress):
    with open(folder / 'built', 'a') as file:
        print('build', file=file, flush=True)
    time.sleep(seconds)
    return b'engine', b''

store = EngineStore(EngineCache(folder / 'engines'), build, bytes, {})
assert store.get(b'net', EngineOptions(True, False, False, (1, 3, 8, 8)), print) == b'engine'
"""


def start(folder: Path, seconds: float) -> subprocess.Popen:
    environment = {**os.environ, 'PYTHONPATH': str(REPOSITORY)}
    return subprocess.Popen([sys.executable, '-c', SCRIPT, str(folder), str(seconds)], env=environment)


def test_two_processes_build_once(tmp_path):
    processes = [start(tmp_path, 0.5) for _ in range(2)]
    assert [process.wait(60) for process in processes] == [0, 0]
    assert (tmp_path / 'built').read_text() == 'build\n'


def test_next_process_builds_the_engine_of_a_killed_one(tmp_path):
    process = start(tmp_path, 600)
    deadline = time.monotonic() + 60
    while not (tmp_path / 'built').exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert start(tmp_path, 0).wait(60) == 0
    assert (tmp_path / 'built').read_text() == 'build\nbuild\n'


@pytest.fixture(autouse=True)
def at_warning(caplog):
    caplog.set_level(logging.WARNING)
