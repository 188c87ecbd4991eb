# SPDX-License-Identifier: Apache-2.0
"""Choose the library and the precision that run a model on a CPU, from the features of the CPU.

OpenVINO is faster than ONNX Runtime where the CPU multiplies in bfloat16, and with int8 models where it has VNNI. In
float32 it is slower. docs/benchmarks.md has the measurements.
"""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from typing import NamedTuple

from stdc_core.inference.backend import BackendError

#: Features of x86 CPUs as /proc/cpuinfo names them: products of bfloat16, and sums of products of bytes.
BFLOAT16 = frozenset({'avx512_bf16', 'amx_bf16'})
VNNI = frozenset({'avx512_vnni', 'avx_vnni'})


class NotQuantizedError(BackendError):
    """Precision int8 with a float model."""


class CpuChoice(NamedTuple):
    """Library for a model on a CPU.

    Attributes:
        backend: Name ``onnxruntime`` or ``openvino``.
        reason: Reason for the log.
    """

    backend: str
    reason: str


def choose_cpu_backend(flags: AbstractSet[str], quantized: bool, precision: str, installed: bool) -> CpuChoice:
    """Return the library that is fastest for a model on a CPU.

    Args:
        flags: Features of the CPU, such as ``avx512_vnni``; empty for a CPU that is not x86.
        quantized: Whether the model comes from ``stdc quantize``.
        precision: One of ``PRECISIONS``.
        installed: Whether OpenVINO can be imported.
    """
    if precision == 'fp32':
        return CpuChoice('onnxruntime', 'precision fp32')
    found = 'bfloat16' if flags & BFLOAT16 else 'VNNI' if quantized and flags & VNNI else ''
    if not found:
        return CpuChoice('onnxruntime', f'the CPU lacks {"bfloat16 and VNNI" if quantized else "bfloat16"}')
    if not installed:
        return CpuChoice('onnxruntime', f'the CPU has {found}, but openvino is not installed')
    return CpuChoice('openvino', f'the CPU has {found}')


def check_cpu_precision(precision: str, quantized: bool, lenient: bool) -> str:
    """Check that a model can be run in a precision on a CPU.

    Args:
        precision: One of ``PRECISIONS``.
        quantized: Whether the model comes from ``stdc quantize``.
        lenient: Whether ``auto`` chose the backend, which replaces fp16, a precision of GPUs.

    Returns:
        Precision to use: ``fp16`` becomes ``auto``.

    Raises:
        NotQuantizedError: The precision is int8, and the model is in float.
        BackendError: The model does not have the precision.
    """
    if precision == 'int8' and not quantized:
        raise NotQuantizedError('precision int8 needs a quantised model: stdc quantize makes one')
    if precision == 'fp16':
        if not lenient:
            raise BackendError('precision fp16 is for GPUs, expected auto, fp32, bf16 or int8 on a CPU')
        return 'auto'
    if quantized and precision in ('fp32', 'bf16'):
        raise BackendError(f'precision {precision}, but the model is quantised: expected int8 or auto')
    return precision
