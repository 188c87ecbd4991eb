# SPDX-License-Identifier: Apache-2.0
"""Record SIGINT and SIGTERM instead of ending the process. Imports nothing that takes time."""

from __future__ import annotations

import signal


def keep_signals() -> list[int]:
    """Return the list that collects SIGINT and SIGTERM from now on, instead of ending the process.

    rclpy's own handlers shut the context down while the worker still publishes, and a second Ctrl-C interrupts the
    clean-up.
    """
    # A list, not an Event: a second signal would wait for the lock that the first one's handler holds.
    signals: list[int] = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, _: signals.append(number))
    return signals
