# SPDX-License-Identifier: Apache-2.0
"""Write output to a terminal or a pipe."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable


def print_result(write: Callable[[], object]) -> None:
    """Write to stdout, and go on if a reader such as ``head`` has closed it.

    Args:
        write: Function that writes.
    """
    try:
        write()
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
