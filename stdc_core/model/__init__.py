# SPDX-License-Identifier: Apache-2.0
"""STDC network: backbone, decoder, deployed graph, weights and import of reference checkpoints.

May import ``inference``, ``io`` and ``classes``.
"""
