# SPDX-License-Identifier: Apache-2.0
"""Keeps a ROS 2 system apart from every other one. Imports no ROS: the environment must be set before rclpy is."""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path

#: Domains whose ports do not collide with those that Linux gives to programs.
DOMAINS = range(1, 102)

_claims: list[socket.socket] = []  # that this process holds until it ends


def profile_variable() -> str:
    """Which variable names the profile of Fast DDS. Version 3 (Kilted and later) has another one than version 2."""
    prefixes = [sys.prefix, *os.environ.get('AMENT_PREFIX_PATH', '').split(os.pathsep)]
    newer = any((Path(prefix) / 'share' / 'fastdds').is_dir() for prefix in prefixes if prefix)
    return 'FASTDDS_DEFAULT_PROFILES_FILE' if newer else 'FASTRTPS_DEFAULT_PROFILES_FILE'


def claim_domain() -> int:
    """Return a ROS domain id that no other isolated run of this machine uses, and keep it until this process ends.

    Raises:
        RuntimeError: All domains are in use.
    """
    first = os.getpid() % len(DOMAINS)
    for domain in [*DOMAINS[first:], *DOMAINS[:first]]:
        claim = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            # An abstract name: it leaves no file, and it is known wherever the domain's traffic on localhost is heard.
            claim.bind(f'\0stdc_ros/ros_domain/{domain}')
        except OSError:
            claim.close()
            continue
        _claims.append(claim)
        return domain
    raise RuntimeError(f'all ROS domains from {DOMAINS[0]} to {DOMAINS[-1]} are in use on this machine')


def isolated_environment() -> dict[str, str]:
    """Return variables for this process and its children: a ROS domain of their own, on this machine only.

    Where ROS 2 comes from PyPI, they also tell it where its package index is.
    """
    values = {'ROS_DOMAIN_ID': str(claim_domain()), 'ROS_AUTOMATIC_DISCOVERY_RANGE': 'LOCALHOST'}
    if os.environ.get('ROS_DISTRO') == 'humble':
        values['ROS_LOCALHOST_ONLY'] = '1'  # the same in Humble; deprecated in later ones
    if (Path(sys.prefix) / 'share' / 'ament_index').is_dir():
        known = [path for path in os.environ.get('AMENT_PREFIX_PATH', '').split(os.pathsep) if path]
        values['AMENT_PREFIX_PATH'] = os.pathsep.join(dict.fromkeys([*known, sys.prefix]))
    return values
