# SPDX-License-Identifier: Apache-2.0
"""Paint point clouds of LiDARs and depth cameras with the classes of masks.

May import ``ground``, ``messages``, ``stdc_core.classes`` and ``stdc_core.io``; never rclpy.
"""
