# SPDX-License-Identifier: Apache-2.0
"""What a ``model.onnx`` says of itself: the metadata that ``stdc export`` writes and the segmenter reads."""

from __future__ import annotations

import dataclasses
import json
import math
import re
from dataclasses import dataclass
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError
from onnx import TensorProto

from stdc_core.classes import ClassTable
from stdc_core.inference.input_scale import InputScale, check_input_scale
from stdc_core.io.text import one_line

# Raised when a reader of an older version could misread the file.
FORMAT = '1'

_BACKBONES = ('stdc1', 'stdc2')
# Element type and number of dimensions of what goes in and comes out.
_INPUTS = {'image': (TensorProto.UINT8, 4)}
_OUTPUTS = {'mask': (TensorProto.UINT8, 3), 'confidence': (TensorProto.UINT8, 3)}
# The weights of the last layer: one row per class. `stdc quantize` adds to the name.
_LAST_LAYER = 'model.head.1.weight'


class ModelError(ValueError):
    """A model file that cannot be used; the message names the file, what was found and what was expected."""


@dataclass(frozen=True)
class ModelInfo:
    """The description inside a model file.

    Args:
        backbone: ``'stdc1'`` or ``'stdc2'``.
        input_scale: the network sees the image at this scale: 1, or 0.5 and 0.75 for the paper's Seg50 and Seg75.
        classes: what the ids in the mask mean.
        provenance: training data, recipe and accuracy, as text by key; of it, ``largest_image`` is used: height and
            width of the largest image of the data that the network was trained on, such as ``360x480``.
    """

    backbone: str
    input_scale: float
    classes: ClassTable
    provenance: dict[str, str]

    @property
    def name(self) -> str:
        """Such as ``stdc1-seg50``, as the paper's Table 6 names networks."""
        return f'{self.backbone}-seg' + (f'{self.input_scale * 100:.4g}' if self.input_scale != 1 else '')

    @property
    def scale(self) -> InputScale:
        """At which the network sees images of any size: of larger ones than in its training, as many pixels as there.

        Raises:
            ValueError: ``largest_image`` is damaged.
        """
        return InputScale(self.input_scale, _trained_pixels(self.provenance))

    def at(self, scale: float) -> ModelInfo:
        """The same with an input scale that somebody has given: it holds for images of every size."""
        provenance = {key: text for key, text in self.provenance.items() if key != 'largest_image'}
        return dataclasses.replace(self, input_scale=scale, provenance=provenance)

    def to_metadata(self) -> dict[str, str]:
        """As ONNX metadata, text by key."""
        return {
            'stdc.format': FORMAT,
            'stdc.backbone': self.backbone,
            'stdc.input_scale': repr(self.input_scale),
            'stdc.classes': self.classes.to_json(),
            'stdc.provenance': json.dumps(self.provenance),
        }


def read_model(path: str | Path) -> tuple[onnx.ModelProto, ModelInfo]:
    """Read a model file and its description. No other file is read, whatever the model says.

    Raises:
        FileNotFoundError: there is no such file.
        ModelError: it is no ONNX model, or not one that ``stdc export`` wrote.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f'{path}: no such model file')
    try:
        model = onnx.load(path, load_external_data=False)
    except DecodeError as error:
        raise ModelError(f'{path}: not an ONNX model, or cut off ({one_line(error)})') from error
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    if 'stdc.format' not in metadata:
        raise ModelError(f'{path}: an ONNX file without a description of its classes; expected one from `stdc export`')
    if metadata['stdc.format'] != FORMAT:
        found = one_line(metadata['stdc.format'], 20)
        raise ModelError(f'{path}: of format {found!r}; this version reads format {FORMAT!r}')
    try:
        info = ModelInfo(
            backbone=metadata['stdc.backbone'],
            input_scale=float(metadata['stdc.input_scale']),
            classes=ClassTable.from_json(metadata['stdc.classes']),
            provenance=read_provenance(metadata['stdc.provenance']),
        )
        check_input_scale(info.input_scale)
        if info.backbone not in _BACKBONES:
            raise ValueError(f'backbone: expected {" or ".join(_BACKBONES)}, found {one_line(info.backbone, 20)!r}')
    except (KeyError, ValueError, TypeError) as error:
        raise ModelError(f'{path}: its description is damaged ({one_line(error)})') from error
    try:
        _check_graph(model, len(info.classes), Path(path).stat().st_size)
    except (ValueError, TypeError) as error:  # text that is no UTF-8 is bytes
        raise ModelError(f'{path}: not a graph of `stdc export` ({one_line(error)})') from error
    return model, info


def read_provenance(text: str) -> dict[str, str]:
    """The provenance out of a file's metadata.

    Raises:
        ValueError: it is no dictionary of texts in JSON, or ``largest_image`` in it is damaged.
    """
    try:
        provenance = json.loads(text)
    except RecursionError as error:
        raise ValueError('provenance: nested too deep') from error
    if not isinstance(provenance, dict) or not all(isinstance(value, str) for value in provenance.values()):
        raise ValueError('provenance: expected texts by key')
    _trained_pixels(provenance)
    return provenance


def _trained_pixels(provenance: dict[str, str]) -> int | None:
    """Pixels of the largest image that a network was trained on, if its provenance tells.

    Raises:
        ValueError: ``largest_image`` in it is damaged.
    """
    text = provenance.get('largest_image')
    if text is None:
        return None
    sides = re.fullmatch(r'([1-9]\d{0,4})x([1-9]\d{0,4})', text)
    if sides is None:
        raise ValueError(f'largest_image in its provenance: expected HEIGHTxWIDTH, found {one_line(text, 20)!r}')
    return int(sides[1]) * int(sides[2])


def _check_graph(model: onnx.ModelProto, classes: int, size: int) -> None:
    """Is it one plain graph, complete in this file, from an image to a mask and a confidence?

    This is what can be told without running it; ONNX Runtime finds out the rest.

    Args:
        size: of the file, bytes.

    Raises:
        ValueError: it is not, and why.
    """
    graph = model.graph
    for found, expected in ((graph.input, _INPUTS), (graph.output, _OUTPUTS)):
        types = {value.name: value.type.tensor_type for value in found}
        shown = {name: (kind.elem_type, len(kind.shape.dim)) for name, kind in types.items()}
        if shown != expected:
            raise ValueError(f'expected {", ".join(expected)} of uint8, found {", ".join(types) or "nothing"}')
    # Control flow and functions could run for ever, operators of other domains are anybody's.
    attributes = [attribute for node in graph.node for attribute in node.attribute]
    if model.functions or any(attribute.HasField('g') or attribute.graphs for attribute in attributes):
        raise ValueError('it has control flow or functions')
    if domains := sorted({node.domain for node in graph.node} - {'', 'ai.onnx'}):
        raise ValueError(f'it has operators of {", ".join(domains)}')
    constants = [tensor for attribute in attributes for tensor in (attribute.t, *attribute.tensors)]
    for tensor in (*graph.initializer, *constants):
        # Which would be read from wherever its location says.
        if tensor.data_location == TensorProto.EXTERNAL or tensor.external_data:
            raise ValueError(f'the tensor {tensor.name} is in another file; expected one file')
        # Every number takes a byte or more.
        if min(tensor.dims, default=0) < 0 or math.prod(tensor.dims) > size:
            raise ValueError(
                f'the tensor {tensor.name} of {list(tensor.dims)} is more than the {size} bytes of the file'
            )
        if tensor.name.startswith(_LAST_LAYER) and tensor.dims[:1] not in ([classes], []):
            raise ValueError(f'{classes} classes, but {tensor.name} is for {tensor.dims[0]}')
    if graph.sparse_initializer:
        raise ValueError('it has sparse tensors')
