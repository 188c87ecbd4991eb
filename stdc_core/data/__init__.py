# SPDX-License-Identifier: Apache-2.0
"""Read, check and augment datasets, schedule their batches, and render drives.

May import ``inference``, ``io`` and ``classes``.
"""
