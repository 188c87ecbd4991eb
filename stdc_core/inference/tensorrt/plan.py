# SPDX-License-Identifier: Apache-2.0
"""Plan engines: which network, in which precision and size, is built for images of a size."""

from __future__ import annotations

import onnx

from stdc_core.inference.input_scale import InputScale
from stdc_core.inference.onnx_graph.network_split import Parts, split, to_half, whole, widen
from stdc_core.inference.onnx_graph.quantized import is_quantized
from stdc_core.inference.tensorrt.engine_builder import EngineOptions
from stdc_core.inference.tensorrt.rtx import ANY_TARGET


class EnginePlan:
    """The engines for a model. Needs no GPU.

    Args:
        model: Deployed graph.
        half: Whether the engine computes in float16.
        int8: Whether the engine computes in int8.
        typed: Whether the network itself has to be of float16 for the library to compute in it.
        in_one: Whether the engine does everything from image to mask; else it goes from planes to logits.
        max_batch: Largest number of images in one call.
        scale: Scale at which the network sees images; None takes the scale of the model.
        tactics: See ``EngineOptions``.
        target: See ``EngineOptions``.

    Attributes:
        parts: Network and what surrounds it.
        half: As given.
        in_one: As given.

    Raises:
        ValueError: The graph is not as ``stdc export`` writes it.
    """

    def __init__(
        self,
        model: onnx.ModelProto,
        *,
        half: bool,
        int8: bool = False,
        typed: bool = False,
        in_one: bool = False,
        max_batch: int = 1,
        scale: InputScale | None = None,
        tactics: tuple[str, ...] = (),
        target: str = ANY_TARGET,
    ):
        self.parts: Parts = split(model, scale)
        self.half, self.in_one = half, in_one
        self._int8, self._typed, self._max_batch = int8, typed, max_batch
        self._tactics, self._target = tactics, target
        # The graph in one piece holds the input scale, so it is made again for each scale.
        self._model = model if in_one else None
        self._network = self._serialized(whole(model, scale and scale.own) if in_one else self.parts.network)

    def options(self, size: tuple[int, int]) -> EngineOptions:
        """Return the properties of the engine for images of (height, width)."""
        inner = self.parts.network_size(size)
        shape = (self._max_batch, *size, 3) if self.in_one else (self._max_batch, 3, *inner)
        return EngineOptions(self.half, self._int8, self.in_one, shape, self._tactics, self._target)

    def network(self, size: tuple[int, int]) -> bytes:
        """Return the ONNX file of the engine for images of (height, width)."""
        seen = self.parts.scale.of(size)
        if self._model is None or seen == self.parts.scale.own:
            return self._network
        return self._serialized(whole(self._model, seen))

    def _serialized(self, network: onnx.ModelProto) -> bytes:
        """Return the ONNX file of a graph in the precision of the engine. Changes the graph."""
        if is_quantized(network):
            network = widen(network)
        if self._typed and self.half:
            network = to_half(network)
        return network.SerializeToString()
