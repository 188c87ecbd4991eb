# SPDX-License-Identifier: Apache-2.0
"""Isolate a ROS 2 system from all others. Imports no ROS: the environment must be set before rclpy is imported."""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path

#: ROS domain ids to choose from. Higher ones use ports that Linux hands out to other programs.
DOMAINS = range(1, 102)

#: Sockets that claim a domain until this process ends.
_claims: list[socket.socket] = []


def profile_variable() -> str:
    """Return the environment variable for the XML profile of the installed Fast DDS.

    Version 3 (Kilted and later) reads another variable than version 2.
    """
    prefixes = [sys.prefix, *os.environ.get('AMENT_PREFIX_PATH', '').split(os.pathsep)]
    newer = any((Path(prefix) / 'share' / 'fastdds').is_dir() for prefix in prefixes if prefix)
    return 'FASTDDS_DEFAULT_PROFILES_FILE' if newer else 'FASTRTPS_DEFAULT_PROFILES_FILE'


def claim_domain() -> int:
    """Return a ROS domain id that no other isolated run on this machine uses, and keep it until this process ends.

    Raises:
        RuntimeError: All domains are in use.
    """
    first = os.getpid() % len(DOMAINS)
    for domain in [*DOMAINS[first:], *DOMAINS[:first]]:
        claim = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            # An abstract socket leaves no file, and is visible to all processes that share localhost, as ROS traffic
            # is.
            claim.bind(f'\0stdc_ros/ros_domain/{domain}')
        except OSError:
            claim.close()
            continue
        _claims.append(claim)
        return domain
    raise RuntimeError(f'all ROS domains from {DOMAINS[0]} to {DOMAINS[-1]} are in use on this machine')


def isolated_environment() -> dict[str, str]:
    """Return environment variables for a ROS domain that only this process and its children use, on this machine.

    Where ROS 2 comes from PyPI, the variables also point to its package index.

    Raises:
        RuntimeError: All domains are in use.
    """
    values = {'ROS_DOMAIN_ID': str(claim_domain()), 'ROS_AUTOMATIC_DISCOVERY_RANGE': 'LOCALHOST'}
    if os.environ.get('ROS_DISTRO') == 'humble':
        values['ROS_LOCALHOST_ONLY'] = '1'  # the older name of the discovery range; later distributions deprecate it
    if (Path(sys.prefix) / 'share' / 'ament_index').is_dir():
        known = [path for path in os.environ.get('AMENT_PREFIX_PATH', '').split(os.pathsep) if path]
        values['AMENT_PREFIX_PATH'] = os.pathsep.join(dict.fromkeys([*known, sys.prefix]))
    return values
