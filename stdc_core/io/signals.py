# SPDX-License-Identifier: Apache-2.0
"""End a program in order on SIGINT and SIGTERM. This module imports only modules that load fast.

A launch system sends the same signal again, or SIGTERM after SIGINT, while a program is still cleaning up. Python would
then end with status -2 or -15, because it restores the default handlers before the interpreter ends. Programs call one
of these functions at the beginning of ``main``, before their slow imports.
"""

from __future__ import annotations

import atexit
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

#: Signals that ask a program to end.
ENDING = (signal.SIGINT, signal.SIGTERM)

#: Time after the first signal from which another one ends the process, seconds. Launch sends SIGKILL 10 s after SIGINT.
PATIENCE = 10.0

#: Number to add to that of a signal for the exit status after this signal, as in shells: 130 after Ctrl-C.
SIGNALLED = 128

#: Number and time (seconds of ``monotonic``) of the first signal; empty before it.
_received: list[tuple[int, float]] = []


def keep_signals() -> list[int]:
    """Collect SIGINT and SIGTERM from now on. The program looks at the list and ends by itself.

    Returns:
        List to which the number of each signal is added.
    """
    # Not an Event: the handler of a second signal would wait for the lock that the first handler holds.
    signals: list[int] = []
    for number in ENDING:
        signal.signal(number, lambda number, _: signals.append(number))
    atexit.register(ignore_signals)
    return signals


def interrupt_once() -> None:
    """Raise KeyboardInterrupt at the first SIGINT, SIGTERM or SIGHUP, and ignore those that follow.

    The clean-up after the exception is not interrupted. A signal more than :data:`PATIENCE` seconds later ends the
    process at once. SIGHUP stays ignored where ``nohup`` ignores it.
    """
    for number in ENDING:
        signal.signal(number, _interrupt)
    if signal.getsignal(signal.SIGHUP) is signal.SIG_DFL:
        signal.signal(signal.SIGHUP, _interrupt)
    atexit.register(ignore_signals)


def first_signal() -> signal.Signals | None:
    """Return the first signal since :func:`interrupt_once`, or None."""
    return signal.Signals(_received[0][0]) if _received else None


def interrupted_status() -> int:
    """Return the exit status after the KeyboardInterrupt: 130 after Ctrl-C, 143 after SIGTERM."""
    return SIGNALLED + (first_signal() or signal.SIGINT)


@contextmanager
def interrupt_after_block() -> Iterator[None]:
    """Raise the KeyboardInterrupt of :func:`interrupt_once` at the end of the block instead of inside, for imports.

    C extensions that import modules swallow an exception inside, or turn it into an ImportError: numpy, and torch while
    it loads numpy.
    """
    with _noted(*ENDING, signal.SIGHUP) as ours:
        yield
    if ours and _received:
        raise KeyboardInterrupt


@contextmanager
def sigterm_without_interrupt() -> Iterator[None]:
    """Note SIGTERM in the block without an exception, for a library whose own handler calls the earlier one.

    Without :func:`interrupt_once` before, this does nothing.
    """
    with _noted(signal.SIGTERM):
        yield


@contextmanager
def killed_by_signals() -> Iterator[None]:
    """Let SIGINT and SIGTERM end the process at once in the block, for library calls that take minutes."""
    before = {number: signal.signal(number, signal.SIG_DFL) for number in ENDING}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def ignore_signals() -> None:
    """Ignore SIGINT and SIGTERM until the process has ended. The interpreter does not change this setting."""
    # Blocked first, because Python reports a signal that arrives while its handler is being changed.
    if hasattr(signal, 'pthread_sigmask'):
        signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)
    for number in ENDING:
        signal.signal(number, signal.SIG_IGN)


@contextmanager
def _noted(*numbers: signal.Signals) -> Iterator[list[signal.Signals]]:
    """Note these signals in the block without an exception, as far as :func:`interrupt_once` handles them.

    Yields:
        Signals that it handles.
    """
    ours = [number for number in numbers if signal.getsignal(number) is _interrupt]
    for number in ours:
        signal.signal(number, _note)
    try:
        yield ours
    finally:
        for number in ours:
            signal.signal(number, _interrupt)


def _interrupt(number: int, frame: FrameType | None) -> None:
    """Raise KeyboardInterrupt at the first signal."""
    # The handlers stay, since child processes that start meanwhile would inherit SIG_IGN.
    if _note(number, frame):
        raise KeyboardInterrupt


def _note(number: int, frame: FrameType | None) -> bool:
    """Note a signal, and return whether it is the first one. A late second one ends the process."""
    now = time.monotonic()
    if not _received:
        _received.append((number, now))
        return True
    if now - _received[0][1] > PATIENCE:  # the exception was lost, or the clean-up hangs
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
    return False
