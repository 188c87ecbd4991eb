# SPDX-License-Identifier: Apache-2.0
"""ROS 2 half of the package: the live node, bags, offline segmentation and playback.

Rooms, from high to low; a room imports only rooms below it, and never torch:
``node`` and ``playback`` (use rclpy), ``offline``, ``bags``, ``points``, ``ground``, ``messages`` (use no rclpy).
"""
