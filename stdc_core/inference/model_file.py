# SPDX-License-Identifier: Apache-2.0
"""Read and write the description inside a ``model.onnx``: classes, input scale, normalisation, provenance."""

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
from stdc_core.inference.input_scale import SCALE_KEY, InputScale, check_input_scale
from stdc_core.inference.network_description import METADATA_KEY, NetworkDescription
from stdc_core.io.text import one_line

#: Formats that are read. Format 2 adds the description of the network, which GPU backends need. `stdc export` writes
#: format 2. A description without one for the network is written as format 1.
FORMATS = ('1', '2')

CLASSES_KEY = 'stdc.classes'

#: Networks of this package by name. A network with a backbone from timm is called ``timm/`` and timm's name.
NETWORKS = ('stdc1', 'stdc2', 'bisenetv1', 'bisenetv2')
_TIMM = re.compile(r'timm/[a-z0-9][a-z0-9_.]{0,79}')
#: The names for error messages.
NETWORK_NAMES = f'one of {", ".join(NETWORKS)} or timm/NAME'
# Element type and number of dimensions of inputs and outputs.
_INPUTS = {'image': (TensorProto.UINT8, 4)}
_OUTPUTS = {'mask': (TensorProto.UINT8, 3), 'confidence': (TensorProto.UINT8, 3)}
# Weights of the last layer, one row for each class. `stdc quantize` appends to the name.
_LAST_LAYER = 'model.head.1.weight'


def is_network(name: str) -> bool:
    """Return whether this is the name of a network: one of :data:`NETWORKS`, or ``timm/NAME``.

    A network ``timm/NAME`` is the STDC decoder on a backbone from timm. Whether timm has that backbone is not checked,
    because a model file runs without timm.
    """
    return name in NETWORKS or _TIMM.fullmatch(name) is not None


class ModelError(ValueError):
    """A model file that cannot be used. The message names the file, what was found and what was expected."""


@dataclass(frozen=True)
class ModelInfo:
    """Description inside a model file.

    Args:
        backbone: Name of the network; see :func:`is_network`.
        input_scale: Scale at which the network sees the image: 1, or 0.5 and 0.75 for the paper's Seg50 and Seg75.
        classes: Table of the class ids in the mask.
        provenance: Training data, recipe and accuracy, text by key. One key is used at inference: ``largest_image``,
            height and width of the largest training image, such as ``360x480``.
        network: Description of the network inside the graph; None in a file of format 1.
    """

    backbone: str
    input_scale: float
    classes: ClassTable
    provenance: dict[str, str]
    network: NetworkDescription | None = None

    @property
    def name(self) -> str:
        """Return the name of the network as in Table 6 of the paper, such as ``stdc1-seg50``."""
        return f'{self.backbone}-seg' + (f'{self.input_scale * 100:.4g}' if self.input_scale != 1 else '')

    @property
    def summary(self) -> str:
        """Return name and training data in one line, such as ``stdc1-seg50, trained on camvid/train``."""
        data = one_line(self.provenance.get('data', ''))
        return f'{self.name}, trained on {data}' if data else self.name

    @property
    def scale(self) -> InputScale:
        """Return the input scale for images of any size. The network sees at most as many pixels as in its training.

        Raises:
            ValueError: ``largest_image`` is damaged.
        """
        return InputScale(self.input_scale, _trained_pixels(self.provenance))

    def at(self, scale: float) -> ModelInfo:
        """Return the description with another input scale, which holds for images of every size."""
        provenance = {key: text for key, text in self.provenance.items() if key != 'largest_image'}
        return dataclasses.replace(self, input_scale=scale, provenance=provenance)

    def to_metadata(self) -> dict[str, str]:
        """Return the description as ONNX metadata, text by key."""
        metadata = {
            'stdc.format': FORMATS[0] if self.network is None else FORMATS[1],
            'stdc.backbone': self.backbone,
            SCALE_KEY: repr(self.input_scale),
            CLASSES_KEY: self.classes.to_json(),
            'stdc.provenance': json.dumps(self.provenance),
        }
        if self.network is not None:
            metadata[METADATA_KEY] = self.network.to_json()
        return metadata


def read_model(path: str | Path) -> tuple[onnx.ModelProto, ModelInfo]:
    """Read a model file and its description. No other file is read, even if the model refers to one.

    Args:
        path: Path of the ``model.onnx``.

    Returns:
        The ONNX model and its description.

    Raises:
        FileNotFoundError: The file does not exist.
        ModelError: The file is not an ONNX model, or ``stdc export`` did not write it.

    Example:
        >>> model, info = read_model('model.onnx')
        >>> info.classes.names[:2]
        ('sky', 'building')
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
    if metadata['stdc.format'] not in FORMATS:
        found = one_line(metadata['stdc.format'], 20)
        raise ModelError(
            f'{path}: found format {found!r}, expected {" or ".join(FORMATS)}; a newer version of stdc_ros may read it'
        )
    try:
        info = _info(metadata)
    except (KeyError, ValueError, TypeError) as error:
        raise ModelError(f'{path}: its description is damaged ({one_line(error)})') from error
    try:
        _check_graph(model, info, Path(path).stat().st_size)
    except (ValueError, TypeError) as error:  # text that is not UTF-8 comes as bytes
        raise ModelError(f'{path}: not a graph of `stdc export` ({one_line(error)})') from error
    return model, info


def _info(metadata: dict[str, str]) -> ModelInfo:
    """Return the description in the metadata of a model file of a known format.

    Raises:
        KeyError: A key is missing.
        ValueError: A value is damaged.
        TypeError: A value is damaged.
    """
    info = ModelInfo(
        backbone=metadata['stdc.backbone'],
        input_scale=float(metadata[SCALE_KEY]),
        classes=ClassTable.from_json(metadata[CLASSES_KEY]),
        provenance=read_provenance(metadata['stdc.provenance']),
        network=None if metadata['stdc.format'] == FORMATS[0] else NetworkDescription.from_json(metadata[METADATA_KEY]),
    )
    check_input_scale(info.input_scale)
    if not is_network(info.backbone):
        raise ValueError(f'backbone: expected {NETWORK_NAMES}, found {one_line(info.backbone, 20)!r}')
    if info.network is not None and info.network.classes != len(info.classes):
        raise ValueError(f'network: classes: expected {len(info.classes)}, found {info.network.classes}')
    return info


def read_provenance(text: str) -> dict[str, str]:
    """Return the provenance from the metadata of a file.

    Args:
        text: JSON text.

    Raises:
        ValueError: The text is not a JSON object of texts, or ``largest_image`` in it is damaged.
    """
    try:
        provenance = json.loads(text)
    except RecursionError as error:
        raise ValueError('provenance: nested too deeply') from error
    if not isinstance(provenance, dict) or not all(isinstance(value, str) for value in provenance.values()):
        raise ValueError('provenance: expected an object of strings')
    _trained_pixels(provenance)
    return provenance


def _trained_pixels(provenance: dict[str, str]) -> int | None:
    """Return the number of pixels of the largest training image, or None if the provenance does not name it.

    Raises:
        ValueError: ``largest_image`` is damaged.
    """
    text = provenance.get('largest_image')
    if text is None:
        return None
    sides = re.fullmatch(r'([1-9]\d{0,4})x([1-9]\d{0,4})', text)
    if sides is None:
        raise ValueError(f'largest_image in its provenance: expected HEIGHTxWIDTH, found {one_line(text, 20)!r}')
    return int(sides[1]) * int(sides[2])


def _check_graph(model: onnx.ModelProto, info: ModelInfo, size: int) -> None:
    """Check that the model is one plain graph, complete in its file, from an image to a mask and a confidence.

    ONNX Runtime finds the faults that only show when the graph is run.

    Args:
        model: Model as read.
        info: Description of the model.
        size: Size of the file in bytes.

    Raises:
        ValueError: The graph is another one. The message says what was found.
    """
    graph, classes = model.graph, len(info.classes)
    for found, expected in ((graph.input, _INPUTS), (graph.output, _OUTPUTS)):
        types = {value.name: value.type.tensor_type for value in found}
        shown = {name: (kind.elem_type, len(kind.shape.dim)) for name, kind in types.items()}
        if shown != expected:
            raise ValueError(f'expected {", ".join(expected)} of uint8, found {", ".join(types) or "nothing"}')
    # Control flow and functions could run forever. Operators of other domains can do anything.
    attributes = [attribute for node in graph.node for attribute in node.attribute]
    if model.functions or any(attribute.HasField('g') or attribute.graphs for attribute in attributes):
        raise ValueError('it has control flow or functions')
    if domains := sorted({node.domain for node in graph.node} - {'', 'ai.onnx'}):
        raise ValueError(f'it has operators of {", ".join(domains)}')
    constants = [tensor for attribute in attributes for tensor in (attribute.t, *attribute.tensors)]
    for tensor in (*graph.initializer, *constants):
        # ONNX Runtime would read the tensor from any file that its location names.
        if tensor.data_location == TensorProto.EXTERNAL or tensor.external_data:
            raise ValueError(f'the tensor {tensor.name} is in another file; expected one file')
        # Every number takes at least one byte.
        if min(tensor.dims, default=0) < 0 or math.prod(tensor.dims) > size:
            raise ValueError(
                f'the tensor {tensor.name} of shape {list(tensor.dims)} is larger than the file ({size} bytes)'
            )
        if tensor.name.startswith(_LAST_LAYER) and tensor.dims[:1] not in ([classes], []):
            raise ValueError(f'{classes} classes, but {tensor.name} has {tensor.dims[0]}')
    if graph.sparse_initializer:
        raise ValueError('it has sparse tensors')
    if info.network is not None:
        tensors = {name for node in graph.node for name in node.output}
        for name in (info.network.planes, info.network.logits):
            if name not in tensors:
                raise ValueError(f'its description names the tensor {one_line(name, 40)!r}, which the graph lacks')
