# SPDX-License-Identifier: Apache-2.0
"""Bring what Python's ``logging`` collects to the log of a ROS node, without repeating it for every frame."""

from __future__ import annotations

import logging
import time
from collections.abc import Hashable
from typing import Any

#: Loggers whose records appear in the node's log.
LOGGERS = ('stdc_core', 'stdc_ros')

#: Seconds between two log lines about the same trouble of the same camera.
LOG_PERIOD = 5.0


class RosLogHandler(logging.Handler):
    """Pass records of :data:`LOGGERS` on to a ROS logger, from level INFO on.

    Args:
        logger: Logger of rclpy, ``node.get_logger()``.
    """

    def __init__(self, logger: Any):
        super().__init__(logging.INFO)
        self._logger = logger

    def attach(self) -> None:
        """Begin to pass records on."""
        for name in LOGGERS:
            logging.getLogger(name).setLevel(logging.INFO)
            logging.getLogger(name).addHandler(self)

    def detach(self) -> None:
        """Stop passing records on."""
        for name in LOGGERS:
            logging.getLogger(name).removeHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        """Log the record with the severity of rclpy."""
        # rclpy wants one severity for each line of code.
        if record.levelno >= logging.ERROR:
            self._logger.error(record.getMessage())
        elif record.levelno >= logging.WARNING:
            self._logger.warning(record.getMessage())
        else:
            self._logger.info(record.getMessage())


class LogThrottle:
    """Let a log line through at most once every ``period`` seconds for each key.

    The throttle of rclpy counts all cameras as one.
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
