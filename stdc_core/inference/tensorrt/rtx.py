# SPDX-License-Identifier: Apache-2.0
"""Name the GPUs that TensorRT for RTX supports, and the targets that it builds engines for.

Source: NVIDIA's support matrix of TensorRT for RTX, https://docs.nvidia.com/deeplearning/tensorrt-rtx/
"""

from __future__ import annotations

import re

#: Target of an engine that runs on every supported GPU but Turing.
ANY_TARGET = 'any'

# Compute capabilities in NVIDIA's table, and the first of those of which all later ones are in it.
_SUPPORTED, _ALL_FROM = ((7, 5), (8, 0), (8, 6), (8, 9)), (12, 0)
# Turing runs only engines that were built for it alone.
_TURING = (7, 5)

#: Oldest compute capability of the GPUs, all of which compute in float16 and int8.
OLDEST = _TURING


def is_supported(capability: tuple[int, int]) -> bool:
    """Return whether NVIDIA names a compute capability for TensorRT for RTX."""
    return capability in _SUPPORTED or capability >= _ALL_FROM


def target_of(capability: tuple[int, int] | None) -> str:
    """Return the target that an engine is built for.

    Args:
        capability: Compute capability of the GPU, such as ``(8, 6)``; None where the GPU is not known.

    Returns:
        ``'any'`` or a name of ``tensorrt_rtx.ComputeCapability``.
    """
    return 'SM75' if capability == _TURING else ANY_TARGET


def parse_target(text: str) -> str:
    """Return the target for a compute capability that a user typed, such as ``8.6``; ``any`` stays.

    Raises:
        ValueError: The text is not a compute capability.
    """
    if text == ANY_TARGET:
        return text
    found = re.fullmatch(r'(\d{1,2})\.(\d)', text)
    if found is None:
        raise ValueError(f'target: expected {ANY_TARGET} or a compute capability such as 8.6, found {text!r}')
    return f'SM{found[1]}{found[2]}'
