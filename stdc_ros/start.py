"""The program ``segmentation_node``: minds signals first, then imports the node, which takes most of a second."""

from __future__ import annotations

import signal
import sys


def keep_signals() -> list[int]:
    """The list to which SIGINT and SIGTERM are added from now on instead of ending the process.

    rclpy's own handlers shut the context down under the worker's feet, and a second Ctrl-C interrupts the clean-up.
    """
    # A list, not an Event: that one has a lock, on which a second signal would wait for the first one's handler.
    signals: list[int] = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, _: signals.append(number))
    return signals


def main(args: list[str] | None = None) -> int:
    """Run the node until SIGINT or SIGTERM. Returns the exit status: 0, or 1 if it could not start or go on."""
    signals = keep_signals()
    from stdc_ros.segmentation_node import run

    return run(signals, args)


if __name__ == '__main__':
    sys.exit(main())
