# SPDX-License-Identifier: Apache-2.0
"""Recognise quantised model files."""

from __future__ import annotations

import onnx


def is_quantized(model: onnx.ModelProto) -> bool:
    """Return whether a deployed graph has quantised activations."""
    return any(node.op_type == 'QuantizeLinear' for node in model.graph.node)
