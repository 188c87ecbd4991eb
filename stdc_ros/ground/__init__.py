# SPDX-License-Identifier: Apache-2.0
"""Geometry of the road ahead: camera model and drivable grid.

May import ``messages`` and ``stdc_core.classes``; never rclpy.
"""
