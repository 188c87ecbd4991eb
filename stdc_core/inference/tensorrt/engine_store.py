# SPDX-License-Identifier: Apache-2.0
"""Engines by what they are for: from memory of the disk, or built."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from stdc_core.inference.tensorrt.engine_builder import EngineError, EngineOptions, Progress
from stdc_core.inference.tensorrt.engine_cache import DamagedError, EngineCache, key_of

_log = logging.getLogger(__name__)


class EngineStore:
    """Gives engines, each of which is built once for all processes that share the cache.

    Args:
        cache: where they are kept.
        build: from the ONNX file, options and timings to engine and timings; see ``engine_builder.build``.
        load: from a built engine to one that runs; raises EngineError.
        conditions: what all engines here depend on: version, GPU.
    """

    def __init__(
        self,
        cache: EngineCache,
        build: Callable[[bytes, EngineOptions, bytes, Progress], tuple[bytes, bytes]],
        load: Callable[[bytes], Any],
        conditions: dict[str, Any],
    ):
        self._cache = cache
        self._build = build
        self._load = load
        self._conditions = conditions

    def file(self, network: bytes, options: EngineOptions) -> str:
        """Name of an engine's file in the cache."""
        return f'{key_of(network, **self._conditions, **options.conditions())}.engine'

    def get(self, network: bytes, options: EngineOptions, progress: Progress) -> Any:
        """An engine that runs. Kept ones that cannot be used are built again, once, and the log says why.

        Raises:
            EngineError: it cannot be built.
        """
        name = self.file(network, options)
        engine = self._kept(name)
        if engine is not None:
            return engine
        with self._cache.building(name):
            engine = self._kept(name)  # another process may have built it meanwhile
            if engine is not None:
                return engine
            timing = f'{key_of(b"", **self._conditions)}.timing'
            # One at a time: the next begins with what this one learns, and the GPU is timed undisturbed.
            with self._cache.building(timing):
                data, timings = self._build(network, options, self._read(timing) or b'', progress)
                if timings:
                    self._keep(timing, timings)
            engine = self._load(data)
            self._keep(name, data)
            return engine

    def _kept(self, name: str) -> Any:
        data = self._read(name)
        if data is None:
            return None
        try:
            return self._load(data)
        except EngineError as error:
            _log.warning('%s: built again: %s', self._cache.path(name), error)
            self._remove(name)
            return None

    def _read(self, name: str) -> bytes | None:
        try:
            return self._cache.read(name)
        except DamagedError as error:
            _log.warning('made again: %s', error)
            self._remove(name)
        except OSError as error:
            _log.warning('%s cannot be read: %s', self._cache.path(name), error.strerror)
        return None

    def _remove(self, name: str) -> None:
        try:
            self._cache.remove(name)
        except OSError as error:
            _log.warning('%s cannot be removed: %s', self._cache.path(name), error.strerror)

    def _keep(self, name: str, data: bytes) -> None:
        try:
            self._cache.write(name, data)
        except OSError as error:
            _log.warning('%s cannot be kept, so it is made again next time: %s', self._cache.path(name), error.strerror)
