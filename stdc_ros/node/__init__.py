# SPDX-License-Identifier: Apache-2.0
"""Live node: entry point, parameters, cameras, topics, outputs and diagnostics.

May import ``points``, ``ground``, ``messages``, ``stdc_core.inference``, ``stdc_core.pictures``, ``stdc_core.io``,
``stdc_core.classes`` and rclpy.
"""
