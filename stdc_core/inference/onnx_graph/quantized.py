# SPDX-License-Identifier: Apache-2.0
"""Recognise quantised model files, and tell what they lost."""

from __future__ import annotations

import json
from contextlib import suppress

import onnx


def is_quantized(model: onnx.ModelProto) -> bool:
    """Return whether a deployed graph has quantised activations."""
    return any(node.op_type == 'QuantizeLinear' for node in model.graph.node)


def quantization_loss(model: onnx.ModelProto) -> str:
    """Return what ``stdc quantize`` measured, for the log; empty if the model does not say it.

    Args:
        model: Deployed graph with its metadata.

    Returns:
        Text such as ``int8 changed 0.28 % of the labels when it was quantised``.
    """
    # Any file may be read, so each step may fail.
    with suppress(ValueError, TypeError, KeyError, RecursionError, StopIteration):
        provenance = next(entry.value for entry in model.metadata_props if entry.key == 'stdc.provenance')
        recipe = json.loads(json.loads(provenance)['quantized'])
        text = f'int8 changed {float(recipe["labels changed (%)"]):.2f} % of the labels when it was quantised'
        if 'mIoU before and after (%)' in recipe:
            before, after = recipe['mIoU before and after (%)']
            text += f', mIoU {float(before):.2f} % before and {float(after):.2f} % after'
        return text
    return ''
