# SPDX-License-Identifier: Apache-2.0
"""Test that the newest frame wins and that cameras take turns."""

from __future__ import annotations

import threading

import pytest

from stdc_ros.node import latest_frame_worker as worker
from stdc_ros.node.latest_frame_worker import LatestFrameWorker

TIMEOUT = 30.0


class Gate:
    """Worker whose processing stops at every frame until the test lets it continue."""

    def __init__(self, batch: int = 1):
        self.started, self.go = threading.Semaphore(0), threading.Semaphore(0)
        self.done: list[int] = []
        self.batches: list[int] = []
        self.failed: list[tuple[list[int], str]] = []
        self.worker = LatestFrameWorker(
            self._process, lambda frames, error: self.failed.append((frames, str(error))), batch
        )

    def _process(self, frames: list[int]) -> None:
        self.started.release()
        assert self.go.acquire(timeout=TIMEOUT)
        if min(frames) < 0:
            raise ValueError('a negative frame')
        self.done += frames
        self.batches.append(len(frames))

    def wait_for_start(self) -> None:
        assert self.started.acquire(timeout=TIMEOUT)

    def put_and_start(self, frame: int, source: str = 'front') -> None:
        self.worker.put(source, frame)
        self.wait_for_start()

    def finish_and_start_next(self) -> None:
        self.go.release()
        self.wait_for_start()

    def finish_and_close(self) -> None:
        self.go.release()
        assert self.worker.close(TIMEOUT)


def test_newer_frame_replaces_the_waiting_one():
    gate = Gate()
    gate.put_and_start(1)
    for frame in (2, 3, 4):
        gate.worker.put('front', frame)
    assert gate.worker.dropped['front'] == 2
    gate.finish_and_start_next()
    gate.go.release()
    gate.put_and_start(5)
    gate.finish_and_close()
    assert gate.done == [1, 4, 5]
    assert gate.worker.dropped['front'] == 2


def test_failed_frame_is_reported():
    gate = Gate()
    for frame in (-1, 2):
        gate.put_and_start(frame)
        gate.go.release()
    assert gate.worker.close(TIMEOUT)
    assert gate.failed == [([-1], 'a negative frame')]
    assert gate.done == [2]


def test_waiting_frames_form_a_batch():
    gate = Gate(batch=2)
    gate.put_and_start(1)
    for frame, source in enumerate(('left', 'front', 'right', 'left'), 2):
        gate.worker.put(source, frame)
    for _ in range(2):
        gate.finish_and_start_next()
    gate.worker.put('front', 6)
    gate.go.release()
    gate.finish_and_start_next()
    assert gate.worker.close(TIMEOUT)
    assert gate.done == [1, 5, 3, 4, 6]
    assert gate.batches == [1, 2, 1, 1]


def test_close_finishes_the_current_frame_only():
    gate = Gate()
    gate.put_and_start(1)
    gate.worker.put('front', 2)
    assert not gate.worker.close(0.01)  # processing has not finished
    gate.worker.put('front', 3)
    for _ in range(3):
        gate.go.release()
    assert gate.worker.close(TIMEOUT)
    assert gate.done == [1]


def test_sources_take_turns():
    gate = Gate()
    gate.put_and_start(1, 'left')
    for frame in range(10, 15):
        gate.worker.put('front', frame)
    gate.worker.put('rear', 20)
    gate.finish_and_start_next()  # the frame of front is being processed
    gate.worker.put('front', 15)
    for _ in range(2):
        gate.finish_and_start_next()
    gate.finish_and_close()
    assert gate.done == [1, 14, 20, 15]
    assert gate.worker.dropped == {'left': 0, 'front': 4, 'rear': 0}


class Camera:
    """Camera with a frame every 1000 s of a simulated clock, so that real waits would exceed the time limits here."""

    def __init__(self, gate: Gate, monkeypatch: pytest.MonkeyPatch, interval: float = 1000.0):
        self.gate, self.interval, self.now, self.frame = gate, interval, 0.0, 0
        monkeypatch.setattr(worker, 'monotonic', lambda: self.now)

    def send(self) -> None:
        self.frame += 1
        self.now = self.frame * self.interval
        self.gate.worker.put('front', self.frame)

    def keep_up(self) -> None:
        """Send eight frames, each of which is started at once; the last one is being processed at the end."""
        for _ in range(7):
            self.send()
            self.gate.wait_for_start()
            self.gate.go.release()
        self.send()
        self.gate.wait_for_start()

    def overload(self) -> None:
        """Send six frames while the first one is being processed."""
        self.send()
        self.gate.wait_for_start()
        for _ in range(6):
            self.send()


def test_stale_frame_is_skipped_for_the_next_one(monkeypatch):
    gate = Gate()
    camera = Camera(gate, monkeypatch)
    camera.overload()
    camera.now += 0.4 * camera.interval
    gate.go.release()
    assert not gate.started.acquire(timeout=0.2)
    camera.send()
    gate.wait_for_start()
    gate.finish_and_close()
    assert gate.done == [1, 8]
    assert gate.worker.dropped['front'] == 6


def test_stale_frame_is_processed_if_the_next_one_is_far(monkeypatch):
    gate = Gate()
    camera = Camera(gate, monkeypatch)
    camera.keep_up()
    camera.send()
    camera.now += 0.4 * camera.interval  # processing took 1.4 intervals, and the next frame is due in 0.6
    gate.finish_and_start_next()
    gate.finish_and_close()
    assert gate.done[-1] == 9


def test_fresh_frame_is_processed_at_once(monkeypatch):
    gate = Gate()
    camera = Camera(gate, monkeypatch)
    camera.overload()
    camera.now += 0.3 * camera.interval
    gate.finish_and_start_next()
    gate.finish_and_close()
    assert gate.done == [1, 7]


def test_stale_frame_is_processed_if_no_other_comes(monkeypatch):
    gate = Gate()
    camera = Camera(gate, monkeypatch, interval=0.1)
    camera.overload()
    camera.now += 0.4 * camera.interval
    gate.finish_and_start_next()
    gate.finish_and_close()
    assert gate.done == [1, 7]


def test_no_waiting_with_several_cameras(monkeypatch):
    gate = Gate()
    camera = Camera(gate, monkeypatch)
    gate.put_and_start(-5, 'rear')
    gate.go.release()
    camera.overload()
    camera.now += 0.4 * camera.interval
    gate.finish_and_start_next()
    gate.finish_and_close()
    assert gate.done == [1, 7]


def test_silent_camera_is_forgotten(monkeypatch):
    gate = Gate()
    camera = Camera(gate, monkeypatch)
    gate.put_and_start(5, 'rear')
    gate.go.release()
    camera.send()
    gate.wait_for_start()
    for _ in range(worker.FORGOTTEN):
        camera.send()
    camera.now += 0.4 * camera.interval
    gate.go.release()
    assert not gate.started.acquire(timeout=0.2)  # it waits for the next frame of the only camera left
    camera.send()
    gate.wait_for_start()
    gate.finish_and_close()
    assert gate.done == [5, 1, worker.FORGOTTEN + 2]


def test_frame_of_another_camera_ends_the_wait(monkeypatch):
    gate = Gate()
    camera = Camera(gate, monkeypatch)
    camera.overload()
    camera.now += 0.4 * camera.interval
    gate.go.release()
    assert not gate.started.acquire(timeout=0.2)
    gate.worker.put('rear', 20)
    for _ in range(2):
        gate.wait_for_start()
        gate.go.release()
    assert gate.worker.close(TIMEOUT)
    assert gate.done == [1, 7, 20]


def test_no_waiting_if_processing_keeps_up(monkeypatch):
    gate = Gate()
    camera = Camera(gate, monkeypatch)
    camera.keep_up()
    camera.now += 0.1 * camera.interval
    gate.worker.put('front', 9)
    camera.now += 0.5 * camera.interval
    gate.finish_and_start_next()
    gate.finish_and_close()
    assert gate.done[-1] == 9


def test_close_does_not_wait_for_a_newer_frame(monkeypatch):
    gate = Gate()
    camera = Camera(gate, monkeypatch)
    camera.overload()
    camera.now += 0.4 * camera.interval
    gate.go.release()
    assert not gate.started.acquire(timeout=0.2)
    assert gate.worker.close(TIMEOUT)
    assert gate.done == [1]


class Recorder:
    """Worker whose processing notes the thread in which it runs, and takes a given time of a simulated clock."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, batch: int = 1, inline: bool = True):
        self.takes, self.now = worker.QUICK / 2, 0.0
        self.here: list[bool] = []
        self.done = threading.Semaphore(0)
        monkeypatch.setattr(worker, 'monotonic', lambda: self.now)
        self.caller = threading.get_ident()
        self.inside: threading.Event | None = None
        self.go: threading.Event | None = None
        self.worker = LatestFrameWorker(self._process, lambda frames, error: None, batch, inline)

    def _process(self, frames: list[int]) -> None:
        self.here.append(threading.get_ident() == self.caller)
        self.now += self.takes
        if self.inside and self.go:
            self.inside.set()
            assert self.go.wait(TIMEOUT)
        self.done.release()
        if min(frames) < 0:
            raise ValueError('a negative frame')

    def put(self, frame: int = 1, source: str = 'front') -> bool:
        """Return whether the caller has processed the frame."""
        self.worker.put(source, frame)
        assert self.done.acquire(timeout=TIMEOUT)
        return self.here[-1]

    def put_until_here(self) -> int:
        """Return the number of frames that went through the thread before the caller processed one."""
        return next(number for number in range(1000) if self.put())


def test_quick_frames_are_processed_by_the_caller(monkeypatch):
    recorder = Recorder(monkeypatch)
    assert recorder.put_until_here() >= worker.QUICK_IN_A_ROW
    assert recorder.put(-1) and recorder.put()
    recorder.takes = 2 * worker.QUICK
    assert recorder.put()
    recorder.takes = worker.QUICK / 2
    assert recorder.put_until_here() >= worker.QUICK_IN_A_ROW
    assert recorder.worker.close(TIMEOUT)
    recorder.worker.put('front', 1)
    assert not recorder.done.acquire(blocking=False)


def test_frame_that_the_caller_processes_is_finished_before_the_end(monkeypatch):
    recorder = Recorder(monkeypatch)
    recorder.put_until_here()
    recorder.inside, recorder.go = threading.Event(), threading.Event()
    caller = threading.Thread(target=recorder.put)
    caller.start()
    assert recorder.inside.wait(TIMEOUT)
    assert not recorder.worker.close(0.01)
    recorder.go.set()
    caller.join()
    assert recorder.worker.close(TIMEOUT)


def test_frames_that_could_form_a_batch_go_through_the_thread(monkeypatch):
    recorder = Recorder(monkeypatch, batch=2)
    recorder.put_until_here()
    assert not any(recorder.put(source=source) for source in ('rear', 'front') * worker.QUICK_IN_A_ROW)
    assert recorder.worker.close(TIMEOUT)


def test_quick_frames_go_through_the_thread_if_the_caller_must_not_process_them(monkeypatch):
    recorder = Recorder(monkeypatch, inline=False)
    assert not any(recorder.put() for _ in range(2 * worker.QUICK_IN_A_ROW))
    assert recorder.worker.close(TIMEOUT)
