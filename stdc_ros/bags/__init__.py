# SPDX-License-Identifier: Apache-2.0
"""Bag files of every format: read, write and recover them.

May import ``messages`` and ``stdc_core.io``; never rclpy.
"""
