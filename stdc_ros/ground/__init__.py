# SPDX-License-Identifier: Apache-2.0
"""Geometry of the road ahead: camera model and drivable grid.

May import ``messages``, ``stdc_core.classes`` and ``stdc_core.io``; never rclpy.
"""
