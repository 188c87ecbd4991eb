# SPDX-License-Identifier: Apache-2.0
"""Run the program ``stdc_demo``: replay a drive to the segmentation node and keep what the node publishes.

It handles signals before its slow imports.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from stdc_core.io.signals import interrupt_after_block, interrupt_once, interrupted_status


def main(args: Sequence[str] | None = None) -> int:
    """Run the program.

    Args:
        args: Command line without the program's name; None for that of the process, whose signals are then handled.

    Returns:
        Exit status: 0, 1 if it failed, 2 after a wrong command line, 130 after Ctrl-C, or 143 after SIGTERM.
    """
    if args is None:
        interrupt_once()
        args = sys.argv[1:]
    try:
        with interrupt_after_block():
            from stdc_ros.playback.run_demo import run
        return run(args)
    except KeyboardInterrupt:
        print('demo: interrupted', file=sys.stderr)
        return interrupted_status()


if __name__ == '__main__':
    sys.exit(main())
