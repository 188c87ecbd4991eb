# SPDX-License-Identifier: Apache-2.0
"""Run the program ``play_bag``: publish the images of a bag, on machines without ``ros2 bag``.

It handles signals before its slow imports. rclpy's own handlers would shut ROS 2 down while a message is being
published.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from stdc_core.io.signals import SIGNALLED, keep_signals


def main(args: Sequence[str] | None = None) -> int:
    """Run the program.

    Args:
        args: Command line without the program's name; None for that of the process, whose signals are then handled.

    Returns:
        Exit status: 0, 1 if nothing could be played, 2 after a wrong command line, 130 after Ctrl-C, or 143 after
        SIGTERM.
    """
    signals: list[int] = []
    if args is None:
        signals = keep_signals()
        args = sys.argv[1:]
    from stdc_ros.playback.run_play_bag import run

    # Otherwise a signal during the imports would let ROS 2 start.
    status = 0 if signals else run(signals, args)
    return SIGNALLED + signals[0] if signals and not status else status


if __name__ == '__main__':
    sys.exit(main())
