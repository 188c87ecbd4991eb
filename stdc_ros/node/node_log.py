# SPDX-License-Identifier: Apache-2.0
"""Forward Python ``logging`` to the log of a ROS node, and limit how often a line is repeated."""

from __future__ import annotations

import logging
import time
from collections.abc import Hashable
from typing import Any

#: Loggers whose records are forwarded.
LOGGERS = ('stdc_core', 'stdc_ros')

#: Least number of seconds between two log lines about the same trouble of the same camera.
LOG_PERIOD = 5.0


class RosLogHandler(logging.Handler):
    """Forwards records of :data:`LOGGERS` to a ROS logger, from level INFO on.

    Args:
        logger: Logger of rclpy, ``node.get_logger()``.
    """

    def __init__(self, logger: Any):
        super().__init__(logging.INFO)
        self._logger = logger

    def attach(self) -> None:
        """Start to forward records."""
        for name in LOGGERS:
            logging.getLogger(name).setLevel(logging.INFO)
            logging.getLogger(name).addHandler(self)

    def detach(self) -> None:
        """Stop forwarding records."""
        for name in LOGGERS:
            logging.getLogger(name).removeHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        """Log the record with its severity in rclpy."""
        # rclpy allows one severity for each line of code that logs.
        if record.levelno >= logging.ERROR:
            self._logger.error(record.getMessage())
        elif record.levelno >= logging.WARNING:
            self._logger.warning(record.getMessage())
        else:
            self._logger.info(record.getMessage())


class LogThrottle:
    """Allows a log line at most once every ``period`` seconds for each key.

    The throttle of rclpy does not distinguish cameras. Keys are kept, so give the name of a camera and not the object.
    """

    def __init__(self, period: float = LOG_PERIOD):
        self._period = period
        self._silent_until: dict[tuple[Hashable, ...], float] = {}

    def __call__(self, *key: Hashable) -> bool:
        """Return whether the line may be logged now."""
        now = time.monotonic()
        if now < self._silent_until.get(key, now):
            return False
        self._silent_until[key] = now + self._period
        return True
