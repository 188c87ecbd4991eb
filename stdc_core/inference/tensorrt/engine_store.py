# SPDX-License-Identifier: Apache-2.0
"""Find engines in the cache, or build them."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from stdc_core.inference.tensorrt.engine_builder import EngineOptions
from stdc_core.inference.tensorrt.engine_cache import DamagedError, EngineCache, key_of
from stdc_core.inference.tensorrt.library import EngineError
from stdc_core.inference.tensorrt.progress import Progress

_log = logging.getLogger(__name__)


class KeptFile:
    """A file in the cache. What is wrong with it is logged, and then it counts as absent.

    Args:
        cache: Cache that it is in.
        name: Name of the file.
    """

    def __init__(self, cache: EngineCache, name: str):
        self._cache, self._name = cache, name

    def read(self) -> bytes | None:
        """Return the data, or None if there is none or it cannot be read."""
        try:
            return self._cache.read(self._name)
        except DamagedError as error:
            _log.warning('made again: %s', error)
            self.remove()
        except OSError as error:
            _log.warning('%s cannot be read: %s', self._cache.path(self._name), error.strerror)
        return None

    def write(self, data: bytes) -> None:
        """Keep data, if the folder can be written to."""
        path = self._cache.path(self._name)
        try:
            self._cache.write(self._name, data)
        except OSError as error:
            _log.warning('%s cannot be kept, so it is made again next time: %s', path, error.strerror)

    def remove(self) -> None:
        """Remove the file, if it can be removed."""
        try:
            self._cache.remove(self._name)
        except OSError as error:
            _log.warning('%s cannot be removed: %s', self._cache.path(self._name), error.strerror)


class EngineStore:
    """Gives engines, each of which is built once for all processes that share the cache.

    Args:
        cache: Cache that the engines are kept in.
        build: Function from ONNX file, options, timings and progress to engine and timings; see
            ``engine_builder.build``.
        load: Function from an engine's bytes to an engine that runs. It raises EngineError.
        conditions: What all engines here depend on, such as the version of the library. TensorRT's depend on the GPU,
            those of TensorRT for RTX do not.
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
        """Return the name of an engine's file in the cache."""
        return f'{key_of(network, **self._conditions, **options.conditions())}.engine'

    def get(self, network: bytes, options: EngineOptions, progress: Progress) -> Any:
        """Return an engine that runs. A kept one that cannot be used is built again, once, and the log says why.

        Args:
            network: ONNX file.
            options: Properties of the engine.
            progress: Function that is told the percentage.

        Raises:
            EngineError: The engine cannot be built.
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
            timing_file = KeptFile(self._cache, timing)
            # One build at a time: the next one starts with the timings of this one, and nothing disturbs the timing.
            with self._cache.building(timing):
                data, timings = self._build(network, options, timing_file.read() or b'', progress)
                if timings:
                    timing_file.write(timings)
            engine = self._load(data)
            KeptFile(self._cache, name).write(data)
            return engine

    def _kept(self, name: str) -> Any:
        file = KeptFile(self._cache, name)
        data = file.read()
        if data is None:
            return None
        try:
            return self._load(data)
        except EngineError as error:
            _log.warning('%s: built again: %s', self._cache.path(name), error)
            file.remove()
            return None
