# SPDX-License-Identifier: Apache-2.0
"""Bag playback through rclpy: ``play_bag``, the recorder and the demo.

May import ``bags``, ``messages``, ``stdc_core.evaluation``, ``stdc_core.data``, ``stdc_core.inference``,
``stdc_core.pictures``, ``stdc_core.io``, ``stdc_core.classes`` and rclpy; never a module that needs torch.
"""
