# SPDX-License-Identifier: Apache-2.0
"""Choose the precision that TensorRT computes in."""

from __future__ import annotations

from stdc_core.inference.backend import PRECISIONS, BackendError

#: First compute capability with float16.
FIRST_HALF = (5, 3)
# GPUs whose float16 is slower than their float32: compute capability 6.1 is GTX 10.
_SLOW_HALF = ((6, 1),)
# First compute capability that multiplies bytes, and a later one that does not: Jetson TX2.
_FIRST_INT8, _NO_INT8 = (6, 1), ((6, 2),)


def check_precision(precision: str) -> None:
    """Raise BackendError unless the precision is one of ``PRECISIONS``."""
    if precision not in PRECISIONS:
        raise BackendError(f'precision {precision!r}, expected one of {", ".join(PRECISIONS)}')


def choose_precision(precision: str, quantized: bool, capability: tuple[int, int]) -> str:
    """Return the precision to compute in: ``'fp32'``, ``'fp16'`` or ``'int8'``.

    Args:
        precision: One of ``PRECISIONS``.
        quantized: Whether the model comes from ``stdc quantize``.
        capability: Compute capability of the GPU.

    Raises:
        BackendError: The model or the GPU does not have the precision.
    """
    check_precision(precision)
    if precision == 'bf16':
        raise BackendError('precision bf16 is for CPUs, expected auto, fp32, fp16 or int8 on a GPU')
    if precision == 'int8' and not quantized:
        raise BackendError('precision int8 needs a quantised model: stdc quantize makes one')
    if quantized and precision in ('fp32', 'fp16'):
        raise BackendError(f'precision {precision}, but the model is quantised: expected int8 or auto')
    if precision == 'fp16' and capability < FIRST_HALF:
        raise BackendError(f'precision fp16: a GPU of compute capability {dotted(capability)} has none, expected fp32')
    if quantized and (capability < _FIRST_INT8 or capability in _NO_INT8):
        raise BackendError(f'precision int8: a GPU of compute capability {dotted(capability)} has none')
    if precision == 'auto' and not quantized:
        return 'fp16' if capability >= FIRST_HALF and capability not in _SLOW_HALF else 'fp32'
    return 'int8' if quantized else precision


def best_precision(precision: str, quantized: bool, capability: tuple[int, int], lenient: bool) -> tuple[str, str]:
    """Return the precision to compute in, and a note for the log if it is not the one that was asked for.

    Args:
        precision: One of ``PRECISIONS``.
        quantized: Whether the model comes from ``stdc quantize``.
        capability: Compute capability of the GPU.
        lenient: Whether ``auto`` replaces a precision that the model or the GPU does not have.

    Raises:
        BackendError: The model or the GPU does not have the precision.
    """
    try:
        return choose_precision(precision, quantized, capability), ''
    except BackendError as error:
        if not lenient:
            raise
        chosen = choose_precision('auto', quantized, capability)
        return chosen, f', in {chosen}, not as asked: {error}'


def dotted(capability: tuple[int, int]) -> str:
    """Return a compute capability as text, such as ``8.6``."""
    return '.'.join(map(str, capability))
