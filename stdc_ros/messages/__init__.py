# SPDX-License-Identifier: Apache-2.0
"""ROS messages as plain data: images, compressed images and CDR bytes.

May import ``stdc_core.io``; never rclpy. Message types come from ``rosbags``.
"""
