# SPDX-License-Identifier: Apache-2.0
"""Tell apart the two libraries that build and run engines: TensorRT and TensorRT for RTX."""

from __future__ import annotations

import functools
from types import ModuleType
from typing import Any

from stdc_core.inference.backend import BackendError

#: Names of the backends, which are those of the Python modules.
TENSORRT, TENSORRT_RTX = 'tensorrt', 'tensorrt_rtx'

#: Name of each library in messages, and the packages that bring it.
TITLES = {TENSORRT: 'TensorRT', TENSORRT_RTX: 'TensorRT for RTX'}
PACKAGES = {
    TENSORRT: 'tensorrt cuda-bindings[all]',
    TENSORRT_RTX: 'tensorrt-rtx-cu13 cuda-bindings[all]',
}


class EngineError(RuntimeError):
    """The library could not build, read or run an engine. The message holds what the library said."""


def is_rtx(trt: ModuleType) -> bool:
    """Return whether the module is TensorRT for RTX."""
    return trt.__name__ == TENSORRT_RTX


def title_of(trt: ModuleType) -> str:
    """Return the name and version of the library, such as ``TensorRT 10.16.1``."""
    return f'{TITLES[trt.__name__]} {trt.__version__}'


def load_library(name: str) -> ModuleType:
    """Import a library.

    Args:
        name: ``'tensorrt'`` or ``'tensorrt_rtx'``.

    Raises:
        BackendError: The library is not installed, or its shared libraries cannot be loaded.
    """
    try:
        # A literal import each: tools that look for dependencies see both.
        if name == TENSORRT_RTX:
            import tensorrt_rtx as trt
        else:
            import tensorrt as trt
    except (ImportError, OSError) as error:
        raise BackendError(f'backend {name}: {error}; pip install {PACKAGES[name]}') from error
    return trt


def is_weakly_typed(trt: ModuleType) -> bool:
    """Return whether a builder flag allows float16.

    From TensorRT 11 on, and in TensorRT for RTX, the graph itself says in which type each layer computes.
    """
    return hasattr(trt.BuilderFlag, 'FP16')


def takes_batches(trt: ModuleType) -> bool:
    """Return whether several contexts can run one engine for batches of any size: TensorRT 8.5 cannot."""
    return profile_sharing(trt) is not None or not is_weakly_typed(trt)


def profile_sharing(trt: ModuleType) -> Any:
    """Return the preview feature that lets contexts share an engine's profile, or None.

    TensorRT 8.6 has to be asked for it. Versions without the feature share the profile anyway or cannot share it.
    """
    return getattr(getattr(trt, 'PreviewFeature', None), 'PROFILE_SHARING_0806', None)


@functools.cache
def logger_of(trt: Any) -> Any:
    """Return the logger for the library, which keeps errors. TensorRT goes on using the first logger that it is given.

    The method ``said()`` of the logger returns the errors since the last call, and forgets them.
    """

    class Logger(trt.ILogger):  # the library is loaded at run time
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self._errors: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            if severity in (trt.ILogger.Severity.INTERNAL_ERROR, trt.ILogger.Severity.ERROR):
                self._errors = [*self._errors[-4:], message.strip()]

        def said(self) -> str:
            errors, self._errors = self._errors, []
            return '; '.join(errors) or 'it does not say why'

    return Logger()


def start(trt: ModuleType, kind: str) -> Any:
    """Create a ``Builder`` or a ``Runtime``.

    Args:
        trt: Library.
        kind: Name of the class.

    Raises:
        EngineError: The library does not start.
    """
    logger_of(trt).said()  # forget errors of earlier work, which succeeded all the same
    try:
        return getattr(trt, kind)(logger_of(trt))
    except TypeError as error:  # pybind11 raises it for a null pointer
        said = logger_of(trt).said()
        reason = f'the driver is too old for it, or the GPU has no memory left: {said}'
        raise EngineError(f'{title_of(trt)} does not start, {reason}') from error
