# SPDX-License-Identifier: Apache-2.0
"""Datasets: readers, checks, augmentation, batch schedule and rendered drives.

May import ``inference``, ``io`` and ``classes``.
"""
