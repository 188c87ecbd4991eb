"""What a ``model.onnx`` says of itself: the metadata that ``stdc export`` writes and the segmenter reads."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError

from stdc_core.classes import ClassTable

# Raised when a reader of an older version could misread the file.
FORMAT = '1'


class ModelError(ValueError):
    """A model file that cannot be used; the message names the file, what was found and what was expected."""


@dataclass(frozen=True)
class ModelInfo:
    """The description inside a model file.

    Args:
        backbone: ``'stdc1'`` or ``'stdc2'``.
        input_scale: the network sees the image at this scale: 1, or 0.5 and 0.75 for the paper's Seg50 and Seg75.
        classes: what the ids in the mask mean.
        provenance: training data, recipe and accuracy, as text by key.
    """

    backbone: str
    input_scale: float
    classes: ClassTable
    provenance: dict[str, str]

    @property
    def name(self) -> str:
        """Such as ``stdc1-seg50``, as the paper's Table 6 names networks."""
        return f'{self.backbone}-seg' + (f'{self.input_scale * 100:g}' if self.input_scale != 1 else '')

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
    """Read a model file and its description.

    Raises:
        FileNotFoundError: there is no such file.
        ModelError: it is no ONNX model, or not one that ``stdc export`` wrote.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f'{path}: no such model file')
    try:
        model = onnx.load(path)
    except DecodeError as error:
        raise ModelError(f'{path}: not an ONNX model, or cut off ({error})') from error
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    if 'stdc.format' not in metadata:
        raise ModelError(f'{path}: an ONNX file without a description of its classes; expected one from `stdc export`')
    if metadata['stdc.format'] != FORMAT:
        raise ModelError(f'{path}: of format {metadata["stdc.format"]!r}; this version reads format {FORMAT!r}')
    try:
        info = ModelInfo(
            backbone=metadata['stdc.backbone'],
            input_scale=float(metadata['stdc.input_scale']),
            classes=ClassTable.from_json(metadata['stdc.classes']),
            provenance=json.loads(metadata['stdc.provenance']),
        )
    except (KeyError, ValueError) as error:
        raise ModelError(f'{path}: its description is damaged ({error})') from error
    return model, info
