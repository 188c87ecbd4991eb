# SPDX-License-Identifier: Apache-2.0
"""Program ``segmentation_node``: records signals first, then imports the node, which takes most of a second."""

from __future__ import annotations

import sys

from stdc_core.io.signals import keep_signals


def main(args: list[str] | None = None) -> int:
    """Run the node until SIGINT or SIGTERM. Returns the exit status: 0, or 1 if it could not start or go on."""
    signals = keep_signals()
    from stdc_ros.node.segmentation_node import run

    return run(signals, args)


if __name__ == '__main__':
    sys.exit(main())
