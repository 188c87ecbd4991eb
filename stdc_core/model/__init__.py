# SPDX-License-Identifier: Apache-2.0
"""Define the STDC network: backbone, decoder, deployed graph, weights and import of reference checkpoints.

May import ``inference``, ``io`` and ``classes``.
"""
