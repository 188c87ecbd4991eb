# SPDX-License-Identifier: Apache-2.0
"""End a program in order on SIGINT and SIGTERM. Imports only modules that load at once.

A launch system sends the same signal again, or SIGTERM after SIGINT, while the program is still cleaning up. Python
would end with status -2 or -15 then: it puts the default handlers back before the interpreter is gone. Programs call
one of the functions first thing in ``main``, before their slow imports.
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

#: Seconds after the first signal from which another one ends the process. Launch sends SIGKILL 10 s after SIGINT.
PATIENCE = 10.0

#: Number of the first signal, and the time of it in seconds of ``monotonic``.
_received: list[tuple[int, float]] = []


def keep_signals() -> list[int]:
    """Collect SIGINT and SIGTERM from now on; the program looks at the list and ends by itself.

    Returns:
        List that grows by the number of each signal that arrives.
    """
    # A list, not an Event: a second signal would wait for the lock that the first one's handler holds.
    signals: list[int] = []
    for number in ENDING:
        signal.signal(number, lambda number, _: signals.append(number))
    atexit.register(ignore_signals)
    return signals


def interrupt_once() -> None:
    """Raise KeyboardInterrupt at the first SIGINT, SIGTERM or SIGHUP, and ignore those that follow.

    The clean-up after the exception is not interrupted, but for a signal that comes :data:`PATIENCE` later: it ends the
    process at once. SIGHUP stays ignored where ``nohup`` ignores it.
    """
    for number in ENDING:
        signal.signal(number, _interrupt)
    if signal.getsignal(signal.SIGHUP) is signal.SIG_DFL:
        signal.signal(signal.SIGHUP, _interrupt)
    atexit.register(ignore_signals)


def first_signal() -> signal.Signals | None:
    """Return the first signal since :func:`interrupt_once`; None if there was none."""
    return signal.Signals(_received[0][0]) if _received else None


@contextmanager
def sigterm_without_interrupt() -> Iterator[None]:
    """Only note SIGTERM inside the block, where a library has a handler of its own that calls the one before.

    Does nothing unless :func:`interrupt_once` was called.
    """
    ours = signal.getsignal(signal.SIGTERM) is _interrupt
    if ours:
        signal.signal(signal.SIGTERM, _note)
    try:
        yield
    finally:
        if ours:
            signal.signal(signal.SIGTERM, _interrupt)


@contextmanager
def killed_by_signals() -> Iterator[None]:
    """Let SIGINT and SIGTERM end the process at once inside the block, which a library keeps busy for minutes."""
    before = {number: signal.signal(number, signal.SIG_DFL) for number in ENDING}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def ignore_signals() -> None:
    """Ignore SIGINT and SIGTERM until the process has ended; the interpreter leaves this setting alone."""
    # Blocked first: Python complains of a signal that arrives between its handler and the change of the handler.
    if hasattr(signal, 'pthread_sigmask'):
        signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)
    for number in ENDING:
        signal.signal(number, signal.SIG_IGN)


def _interrupt(number: int, frame: FrameType | None) -> None:
    # Handlers stay as they are: child processes that start meanwhile would inherit SIG_IGN.
    if _note(number, frame):
        raise KeyboardInterrupt


def _note(number: int, frame: FrameType | None) -> bool:
    """Note a signal; return whether it is the first one."""
    now = time.monotonic()
    if not _received:
        _received.append((number, now))
        return True
    if now - _received[0][1] > PATIENCE:  # the exception was lost, or the clean-up hangs
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
    return False
