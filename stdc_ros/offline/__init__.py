# SPDX-License-Identifier: Apache-2.0
"""Offline segmentation of bags: command line, discovery, tasks, process pool and Ray pool.

May import ``bags``, ``points``, ``ground``, ``messages``, ``stdc_core.inference``, ``stdc_core.pictures``,
``stdc_core.classes`` and ``stdc_core.io``; never rclpy.
"""
