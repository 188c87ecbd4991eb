# SPDX-License-Identifier: Apache-2.0
"""Bag files of every format: read, write and recover them.

May import ``messages``, ``stdc_core.io`` and ``stdc_core.classes``; never rclpy.
"""
