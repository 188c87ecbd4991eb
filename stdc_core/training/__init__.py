# SPDX-License-Identifier: Apache-2.0
"""Train networks: configuration, losses, detail guidance, Lightning task and fitting.

May import ``evaluation``, ``model``, ``data``, ``inference``, ``pictures``, ``io`` and ``classes``.
"""
