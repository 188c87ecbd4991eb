# SPDX-License-Identifier: Apache-2.0
"""Export weights to ``model.onnx``, and quantise it.

May import ``evaluation``, ``model``, ``data``, ``inference``, ``io`` and ``classes``.
"""
