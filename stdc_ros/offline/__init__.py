# SPDX-License-Identifier: Apache-2.0
"""Offline segmentation of bags: command line, discovery, tasks, process pool and Ray pool.

May import ``bags``, ``messages`` and ``stdc_core.inference``; never rclpy.
"""
