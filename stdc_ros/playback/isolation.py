# SPDX-License-Identifier: Apache-2.0
"""Keeps a ROS 2 system apart from every other one. Imports no ROS: the environment must be set before rclpy is."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def profile_variable() -> str:
    """Which variable names the profile of Fast DDS. Version 3 (Kilted and later) has another one than version 2."""
    prefixes = [sys.prefix, *os.environ.get('AMENT_PREFIX_PATH', '').split(os.pathsep)]
    newer = any((Path(prefix) / 'share' / 'fastdds').is_dir() for prefix in prefixes if prefix)
    return 'FASTDDS_DEFAULT_PROFILES_FILE' if newer else 'FASTRTPS_DEFAULT_PROFILES_FILE'


def isolated_environment() -> dict[str, str]:
    """Variables for this process and those that it starts: a ROS domain of their own, on this machine only.

    Where ROS 2 comes from PyPI, they also tell it where its index of packages is.
    """
    # Ports of domains above 101 collide with those that Linux hands out.
    values = {'ROS_DOMAIN_ID': str(1 + os.getpid() % 101), 'ROS_AUTOMATIC_DISCOVERY_RANGE': 'LOCALHOST'}
    if os.environ.get('ROS_DISTRO') == 'humble':
        values['ROS_LOCALHOST_ONLY'] = '1'  # the same in Humble; deprecated in later ones
    if (Path(sys.prefix) / 'share' / 'ament_index').is_dir():
        known = [path for path in os.environ.get('AMENT_PREFIX_PATH', '').split(os.pathsep) if path]
        values['AMENT_PREFIX_PATH'] = os.pathsep.join(dict.fromkeys([*known, sys.prefix]))
    return values
