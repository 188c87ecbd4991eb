# SPDX-License-Identifier: Apache-2.0
"""Run the program ``segmentation_node``. It handles signals before it imports rclpy, which takes long."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from stdc_core.io.signals import keep_signals

DESCRIPTION = 'Segment the images of one or several cameras and publish masks, overlays and more.'
EPILOG = """\
Parameters and remappings follow --ros-args:
  segmentation_node --ros-args -r image:=/camera/image_raw -p input_scale:=0.5
  segmentation_node --lifecycle --ros-args -r image:=/camera/image_raw
"""


def main(args: Sequence[str] | None = None) -> int:
    """Run the node until SIGINT or SIGTERM.

    Args:
        args: Command line without the program's name; None for that of the process, whose signals are then handled.

    Returns:
        Exit status: 0, or 1 if the node could not start or continue.
    """
    signals: list[int] = []
    if args is None:
        signals = keep_signals()
        args = sys.argv[1:]
    given = _parser().parse_args(_without_ros_arguments(args))
    from stdc_ros.node.run_node import run

    return run(signals, list(args), given.lifecycle)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog='segmentation_node',
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        usage='%(prog)s [-h] [--lifecycle] [--ros-args ...]',
    )
    parser.add_argument(
        '--lifecycle',
        action='store_true',
        help='run as a managed node: `ros2 lifecycle` or a lifecycle manager configures and activates it',
    )
    return parser


def _without_ros_arguments(args: Sequence[str]) -> list[str]:
    """Return the arguments outside ``--ros-args ... [--]``."""
    ours, inside = [], False
    for argument in args:
        if argument == '--ros-args':
            inside = True
        elif inside and argument == '--':
            inside = False
        elif not inside:
            ours.append(argument)
    return ours


if __name__ == '__main__':
    sys.exit(main())
