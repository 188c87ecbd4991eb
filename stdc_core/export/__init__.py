# SPDX-License-Identifier: Apache-2.0
"""Export: from weights to ``model.onnx``, and its quantisation.

May import ``evaluation``, ``model``, ``data``, ``inference``, ``io`` and ``classes``.
"""
