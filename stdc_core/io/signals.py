# SPDX-License-Identifier: Apache-2.0
"""End a program in order on SIGINT and SIGTERM. Imports only modules that load at once.

A launch system sends the same signal again, or SIGTERM after SIGINT, while the program is still cleaning up. Python
would end with status -2 or -15 then: it puts the default handlers back before the interpreter is gone. Programs call
one of the functions first thing in ``main``, before their slow imports.
"""

from __future__ import annotations

import atexit
import signal
from types import FrameType

#: Signals that ask a program to end.
ENDING = (signal.SIGINT, signal.SIGTERM)


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
    """Raise KeyboardInterrupt at the first SIGINT, SIGTERM or SIGHUP, and ignore all later ones.

    The clean-up that follows the exception is not interrupted. SIGHUP stays ignored where ``nohup`` ignores it.
    """
    for number in ENDING:
        signal.signal(number, _interrupt)
    if signal.getsignal(signal.SIGHUP) is signal.SIG_DFL:
        signal.signal(signal.SIGHUP, _interrupt)
    atexit.register(ignore_signals)


def ignore_signals() -> None:
    """Ignore SIGINT and SIGTERM until the process has ended; the interpreter leaves this setting alone."""
    # Blocked first: Python complains of a signal that arrives between its handler and the change of the handler.
    if hasattr(signal, 'pthread_sigmask'):
        signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)
    for number in ENDING:
        signal.signal(number, signal.SIG_IGN)


def _interrupt(number: int, frame: FrameType | None) -> None:
    for ending in ENDING:
        signal.signal(ending, _pass)
    raise KeyboardInterrupt


def _pass(number: int, frame: FrameType | None) -> None:
    """Do nothing. Child processes that start meanwhile would inherit SIG_IGN, but not a handler."""
