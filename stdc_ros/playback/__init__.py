# SPDX-License-Identifier: Apache-2.0
"""Bag playback through rclpy: ``play_bag``, the recorder and the demo.

May import ``bags``, ``messages``, ``stdc_core`` without torch, and rclpy.
"""
